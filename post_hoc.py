"""The post-hoc loss: how fast a lower layer would have lowered the loss, had its classifier been there.

Journé et al. (2023), appendix B.3 B. The network is trained as usual: the lower blocks, then the classifier. Then the
lower blocks go back to their initial weights and learn once more, on labelled images, while the finished
classifier, frozen, measures the cross-entropy of every batch. For BP networks the first training is end to end,
and the second moves the lower blocks by the gradient through the frozen classifier.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import engine
import model
import train
from hebb import plan
from hebb.config import RunConfig
from hebb.data import images


def run(config: RunConfig, report: train.Report, *, place: train.Place) -> np.ndarray:
    """Train the network in its run folder, then measure.

    Returns:
        One row per batch of the second training: examples seen, mean cross-entropy, accuracy in percent; also
        written to ``post_hoc.csv`` in the run folder.
    """
    phase = plan.post_hoc(config)
    trained = train.run(config, report, place=place)
    config = trained.config
    network = model.build(config)
    model.load_blocks(network, place.layers)
    last = len(network) - 1
    network[last].load_state_dict({name: t.cpu() for name, t in trained.network[last].state_dict().items()})
    device = next(iter(trained.network.state_dict().values())).device
    network.to(device)
    split = images.load(config.dataset_sup, place.datasets, config.split_seed, device, place.cache).train
    optimiser = train.optimiser_of(config, phase, network)
    index = len(plan.phases(config))
    report.phase(index, phase, 0, len(split))
    losses, rights = [], []
    for epoch in range(phase.epochs):
        at = engine.Epoch(seed=config.seed, phase=phase, phase_index=index, epoch=epoch)
        loss, right = engine.post_hoc(network, split, at, optimiser, report.progress)
        losses.append(loss)
        rights.append(right)
    curve = _curve(torch.cat(losses), torch.cat(rights), len(split), phase.batch_size)
    if place.folder is not None:
        write(curve, place.folder)
    return curve


def _curve(losses: torch.Tensor, rights: torch.Tensor, images_per_epoch: int, batch_size: int) -> np.ndarray:
    """Lay the batches out over the number of examples seen; the last batch of an epoch may be smaller."""
    batches = -(-images_per_epoch // batch_size)
    number = np.arange(1, len(losses) + 1)
    epoch, inside = (number - 1) // batches, (number - 1) % batches + 1
    seen = epoch * images_per_epoch + np.minimum(inside * batch_size, images_per_epoch)
    return np.stack([seen, losses.double().numpy(), 100 * rights.double().numpy()], axis=1)


def write(curve: np.ndarray, folder: Path) -> None:
    """Write ``post_hoc.csv`` and the figure of its moving average, as PNG and SVG."""
    np.savetxt(
        folder / "post_hoc.csv",
        curve,
        delimiter=",",
        header="examples,loss,accuracy",
        comments="",
        fmt=("%d", "%.6g", "%.6g"),
    )
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    smooth = moving_average(curve)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for axes, column, label in ((left, 1, "cross-entropy"), (right, 2, "accuracy (%)")):
        axes.plot(curve[:, 0], curve[:, column], color="0.85", linewidth=0.8, label="batch")
        axes.plot(smooth[:, 0], smooth[:, column], color="C0", label="moving average")
        axes.set_xlabel("examples seen")
        axes.set_ylabel(f"post-hoc {label}")
        axes.legend(frameon=False)
    left.set_yscale("log")
    for kind in ("png", "svg"):
        figure.savefig(folder / f"post_hoc.{kind}", dpi=150)
    pyplot.close(figure)


def moving_average(curve: np.ndarray) -> np.ndarray:
    """Average loss and accuracy over windows of max(50, n/30) batches, at most all of them."""
    window = min(len(curve), max(50, len(curve) // 30))
    kernel = np.full(window, 1 / window)
    columns = [np.convolve(curve[:, i], kernel, mode="valid") for i in (1, 2)]
    return np.stack([curve[window - 1 :, 0], *columns], axis=1)
