"""Readouts of a split, computed batch by batch: predictions, features, labels of neurons.

Shapes: B images in a batch, N images in a split, n images read, D pooled features.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

import torch
from torch import Tensor

from hebb.config import probed
from hebb.config.specs import RunConfig
from hebb.core import seeds
from hebb.data.images import Images, Split
from hebb.energy.diagnostics import alignment
from hebb.kernels.precision import doubles
from hebb.nn.hebb_layer import HebbLayer
from hebb.nn.model import Network
from hebb.probing import geometry, probes

BATCH = 250
"""Images in an evaluation batch: for images of 96 pixels, the output of 96 channels takes 0.9 GB."""

_SCATTERED = 0.25
"""Least number of runs of one label, per image, at which images are not stored class by class."""

Pool = Callable[[Tensor], Tensor]
Request = tuple[int | None, Pool]
"""A block, None for the input of the network, and how its output is pooled."""
POOLS: dict[str, Pool] = {
    "linear": probes.pooled,
    "knn": probes.pooled,
    "short": probes.averaged,
    "geometry": probes.averaged,
}
"""How each probe pools the output of a block."""


@torch.no_grad()
def predict(network: Network, split: Split, *, keep_inputs: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return logits (N, classes), labels (N,) and, with ``keep_inputs``, the inputs of the last block, on the CPU."""
    network.eval()
    last = len(network) - 1
    logits, labels, inputs = [], [], []
    for x, y in split.batches(BATCH):
        if keep_inputs:
            inputs.append(network(x, stop=last).cpu())
        logits.append((network(x).flatten(1) * network.logit_scale).cpu())
        labels.append(y.cpu())
    return torch.cat(logits), torch.cat(labels), torch.cat(inputs) if keep_inputs else None


@torch.no_grad()
def features(
    network: Network,
    split: Split,
    requests: Collection[Request],
    most: int | None = None,
    order: torch.Generator | None = None,
) -> tuple[dict[Request, Tensor], Tensor]:
    """Return pooled outputs (n, D) and the labels (n,) of the first ``most`` images, on the CPU.

    The outputs of a settling network are its activities after the free phase.

    Args:
        network: runs once, up to the highest block in ``requests``.
        split: images, read without augmentation.
        requests: blocks, each with the function that pools its output.
        most: number of images; None reads all.
        order: draws the order of the images; None takes them as they are stored.
    """
    network.eval()
    outputs: dict[Request, list[Tensor]] = {key: [] for key in requests}
    top = max((block for block, _ in requests if block is not None), default=-1)
    labels, count = [], 0
    for x, y in split.batches(BATCH, order):
        for i, output in zip((None, *range(top + 1)), _outputs(network, x, top), strict=True):
            for block, pool in requests:
                if block == i:
                    outputs[block, pool].append(pool(output).cpu())
        labels.append(y.cpu())
        count += len(y)
        if most is not None and count >= most:
            break
    return {key: torch.cat(pieces)[:most] for key, pieces in outputs.items()}, torch.cat(labels)[:most]


def _outputs(network: Network, x: Tensor, top: int) -> Iterator[Tensor]:
    """Yield images and the outputs of the blocks up to ``top``."""
    yield x
    if network.energy is not None and top >= 0:
        yield from network.energy.activity(network[0].before(x))[: top + 1]
        return
    for i in range(top + 1):
        x = network[i](x)
        yield x


def angles(network: Network, blocks: Iterable[int]) -> list[tuple[int, float]]:
    """Return (block, angle between forward and feedback weights) for the blocks trained by feedback alignment.

    Block 0 is left out: no error passes through its feedback weights.
    """
    angles_by_block = [(i, alignment(network[i].layer)) for i in blocks if i]
    return [(i, degrees) for i, degrees in angles_by_block if degrees is not None]


@torch.no_grad()
def neuron_label_accuracies(
    network: Network, block: int, train: Split, others: list[Split | None], start: int = 0
) -> list[float | None]:
    """Return the accuracy in percent, on ``train`` and the other splits, of answering with the winner's label.

    The splits hold the inputs of block ``start``.

    The label of a neuron is the class for which it wins most often on ``train``. A neuron that never wins takes the
    class with the largest summed share of the competition (Moraitis et al. 2022, section 3.1). In a fully connected
    block the winner is the neuron with the largest pre-activation. In a convolutional block every pixel has a winner,
    and a few channels win most pixels of every image; the winner of an image is therefore the channel whose share of
    the pixels is furthest above its mean over ``train``, in units of its standard deviation there.
    Images without a label (-1) are left out; without any labelled image the accuracy is None.
    """
    network.eval()
    layer = network[block].hebb
    assert layer is not None
    share, labels = _shares(network, block, layer, train, start)
    if not len(labels):
        return [None] * (1 + len(others))
    mean, std = share.mean(dim=0), share.std(dim=0).clamp(min=1e-12)
    convolutional = layer.weight.dim() == 4

    def winners(share: Tensor) -> Tensor:
        return ((share - mean) / std if convolutional else share).argmax(dim=1)

    won = winners(share)
    label = _classes(share, won, labels)
    accuracies: list[float | None] = [_percent(label[won] == labels)]
    for split in others:
        if split is None:
            accuracies.append(None)
            continue
        shares, truth = _shares(network, block, layer, split, start)
        accuracies.append(_percent(label[winners(shares)] == truth))
    return accuracies


@torch.no_grad()
def neuron_classes(network: Network, block: int, train: Split) -> Tensor:
    """Return the label (neurons,) of every neuron of a dense Hebbian block; see ``neuron_label_accuracies``."""
    layer = network.eval()[block].hebb
    assert layer is not None
    share, labels = _shares(network, block, layer, train, 0)
    return _classes(share, share.argmax(dim=1), labels)


def _classes(share: Tensor, won: Tensor, labels: Tensor) -> Tensor:
    """Return each neuron's label, given the shares (N, neurons), winners (N,) and labels (N,)."""
    classes, neurons = int(labels.max()) + 1, share.shape[1]
    wins = torch.bincount(won * classes + labels, minlength=neurons * classes).view(neurons, classes)
    strength = torch.zeros(classes, neurons).index_add_(0, labels, share).T
    return torch.where(wins.sum(1) > 0, wins.argmax(1), strength.argmax(1))


def _shares(network: Network, block: int, layer: HebbLayer, split: Split, start: int) -> tuple[Tensor, Tensor]:
    """Return each labelled image's shares (N, neurons) and its label (N,), on the CPU.

    The share is softmax(beta u) in a fully connected block, and the fraction of pixels won in a convolutional one.
    """
    beta = layer.spec.t_invert
    shares, labels = [], []
    for x, y in split.batches(BATCH):
        labelled = y >= 0
        u = network[block].pre_activation(network(x[labelled], start=start, stop=block))
        if u.dim() == 4:
            won = u.argmax(dim=1).flatten(1)  # (B, pixels)
            share = torch.zeros_like(u[:, :, 0, 0]).scatter_add_(1, won, torch.ones_like(won, dtype=u.dtype))
            share /= won.shape[1]
        else:
            share = (u * beta).log_softmax(dim=1).exp()
        shares.append(share.cpu())
        labels.append(y[labelled].cpu())
    return torch.cat(shares), torch.cat(labels)


def probe_order(split: Split, split_seed: int) -> torch.Generator | None:
    """Return what draws the order in which probes read a split; None for images that are stored in a random one.

    Folders and lists of images are stored class by class, so their first images, and the batches of the ``short``
    probe, would be of one class or a few.
    """
    pieces = len(split.labels.unique_consecutive())
    if split.frames is not None or pieces > _SCATTERED * len(split):
        return None
    return seeds.generator(split_seed, "probe images")


def check(config: RunConfig, dataset: str, data: Images) -> None:
    """Raise for a probe that cannot be fitted on the labels that were read."""
    if not config.probes:
        return
    labels, order = data.train.labels.cpu(), probe_order(data.train, config.split_seed)
    if order is not None:
        labels = labels[torch.randperm(len(labels), generator=order)]
    probed.check(config, images_of_probes(dataset, labels, config.probe_samples))


def images_of_probes(dataset: str, labels: Tensor, most: int) -> probed.ProbedImages:
    """Return what the labels (N,) of the training images say of the first ``most`` images."""
    read = labels[:most].cpu()
    present = read.unique()
    return probed.ProbedImages(
        dataset=dataset,
        images=len(read),
        classes=len(present),
        unlabelled=int((read < 0).sum()),
        labels=int(present[-1]) + 1,
    )


def probe(config: RunConfig, network: Network, data: Images) -> tuple[list[probes.Probe], list[geometry.Geometry]]:
    """Fit the probes in the config. They may use the test set, since this is the end of a run."""
    blocks = range(max(1, len(network) - 1)) if config.probe_blocks is None else config.probe_blocks
    most = config.probe_samples
    fitted, measured = [], []
    pooled: set[Request] = {(block, POOLS[kind]) for block in blocks for kind in config.probes if kind in POOLS}
    splits: dict[str, tuple[dict[Request, Tensor], Tensor]] = {}
    if pooled:
        parts = {"train": data.train, "val": data.val, "test": data.scored}
        for name, split in parts.items():
            if split is not None:
                order = probe_order(split, config.split_seed)
                splits[name] = features(network, split, pooled, most if name == "train" else None, order)

    def read(name: str, block: int, kind: str) -> tuple[Tensor, Tensor] | None:
        return None if name not in splits else (splits[name][0][block, POOLS[kind]], splits[name][1])

    for block in blocks:
        for kind in config.probes:
            if kind == "neuron":
                fitted += _neuron_probe(network, block, data)
                continue
            train, test = read("train", block, kind), read("test", block, kind)
            assert train is not None
            others = {"val": read("val", block, kind), "test": test}
            if kind == "geometry":
                x, labels = train if test is None else test
                measured.append(geometry.measure(block, x[:most], labels[:most]))
            elif kind == "short":
                generator = seeds.generator(config.seed, "short probe", block=block)
                fitted.append(probes.fit_short(block, train, others, config.classes, generator))
            else:
                fitted.append(probes.fit(kind, block, train, others))
    return fitted, measured


def _neuron_probe(network: Network, block: int, data: Images) -> list[probes.Probe]:
    """Return the accuracy of the winning neurons' labels; no probe for a block without a Hebbian rule."""
    if network[block].hebb is None:
        return []
    train, val, test = neuron_label_accuracies(network, block, data.train, [data.val, data.scored])
    assert train is not None
    return [probes.Probe(block=block, kind="neuron", train_acc=train, val_acc=val, test_acc=test)]


def _percent(hits: Tensor) -> float:
    return 100 * doubles(hits).mean().item()
