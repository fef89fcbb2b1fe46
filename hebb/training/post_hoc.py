"""The post-hoc loss: how fast a lower layer would have lowered the loss, had its classifier been there.

Journé et al. (2023), appendix B.3 B. The network is trained as usual: first the lower blocks, then the classifier.
The lower blocks are then reset to the weights that the run began with and learn again on labelled images, while the
trained, frozen classifier measures the cross-entropy of every batch. A BP network is first trained end to end; then
its lower blocks learn by the gradient through the frozen classifier.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hebb.config import plan
from hebb.config.phase import Phase
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import Role
from hebb.core import files
from hebb.data import images
from hebb.nn import numerics
from hebb.nn.model import Network
from hebb.probing import stored
from hebb.storage import folders, records
from hebb.storage.folders import FolderState
from hebb.training import engine, start, train
from hebb.training.epoch import Epoch


def run(config: RunConfig, report: train.Report, *, place: train.Place) -> np.ndarray:
    """Train the network in its run folder, then measure.

    Returns:
        One row per batch of the second training: examples seen, mean cross-entropy, accuracy in percent; also
        written to ``post_hoc.csv`` in the run folder.
    """
    with folders.all_held([place.folder]), numerics.subnormals_flushed():
        return _run(config, report, place)


def _run(config: RunConfig, report: train.Report, place: train.Place) -> np.ndarray:
    phase = plan.post_hoc(config)
    config, trained = _trained(config, report, place)
    network = start.initial_network(config, place)
    last = len(network) - 1
    network[last].load_state_dict({name: t.cpu() for name, t in trained[last].state_dict().items()})
    device = trained.device
    network.to(device)
    data = images.load(config.dataset_sup, place.datasets, config.split_seed, device, place.cache)
    if place.folder is not None:
        files = {} if data.contents is None else {Role.SUP: data.contents}
        records.check_data(place.folder / folders.ENVIRONMENT, {Role.SUP: data.sha256}, files)
    split = data.train
    optimiser = train.optimiser_of(config, phase, network)
    index = len(plan.phases(config))
    report.phase(index, phase, 0, len(split))
    losses, rights = [], []
    for epoch in range(phase.epochs):
        at = Epoch(seed=config.seed, phase=phase, phase_index=index, epoch=epoch)
        loss, right = engine.post_hoc(network, split, at, optimiser, report.progress)
        losses.append(loss)
        rights.append(right)
    curve = _curve(torch.cat(losses), torch.cat(rights), len(split), phase)
    if place.folder is not None:
        write(curve, place.folder)
    return curve


def _trained(config: RunConfig, report: train.Report, place: train.Place) -> tuple[RunConfig, Network]:
    """Train the network, or read it where an earlier command has trained it."""
    folder = place.folder
    if folder is None or not place.carry_on or folders.state(folder) != FolderState.FINISHED:
        result = train.run(config, report, place=place)
        return result.config, result.network
    return config, stored.restore(config, folder / folders.CHECKPOINT, place.device_index)


def _curve(losses: torch.Tensor, rights: torch.Tensor, images_per_epoch: int, phase: Phase) -> np.ndarray:
    """Return a row per batch with the examples seen so far; the last batch of an epoch may be smaller."""
    batches = phase.updates_per_epoch(images_per_epoch)
    number = np.arange(1, len(losses) + 1)
    epoch, inside = (number - 1) // batches, (number - 1) % batches + 1
    seen = epoch * images_per_epoch + np.minimum(inside * phase.batch_size, images_per_epoch)
    return np.stack([seen, losses.double().numpy(), 100 * rights.double().numpy()], axis=1)


def write(curve: np.ndarray, folder: Path) -> None:
    """Write the curve into a run folder."""
    header = "examples,loss,accuracy"
    with files.replaced(folder / folders.POST_HOC) as (temporary,):
        np.savetxt(temporary, curve, delimiter=",", header=header, comments="", fmt=("%d", "%.6g", "%.6g"))
