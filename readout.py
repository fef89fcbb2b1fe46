"""What a network's blocks tell about a split, batch by batch: predictions, features, labels of neurons."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from engine import BATCH
from hebb import probes
from hebb.config import RunConfig
from hebb.data.images import Images, Split
from hebb.energy.measures import alignment
from hebb.layers import HebbLayer
from model import Network


@torch.no_grad()
def predict(network: Network, split: Split, *, keep_inputs: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return logits (N, classes), labels (N,) and, when kept, what the last block receives, on the CPU."""
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
def features(network: Network, block: int, split: Split, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Return pooled features (n, D) of a block and the labels (n,) of the first ``most`` images, on the CPU."""
    network.eval()
    found, labels, count = [], [], 0
    for x, y in split.batches(BATCH):
        found.append(probes.pooled(network(x, stop=block + 1)).cpu())
        labels.append(y.cpu())
        count += len(y)
        if most is not None and count >= most:
            break
    return torch.cat(found)[:most], torch.cat(labels)[:most]


def angles(network: Network, blocks: Iterable[int]) -> list[tuple[int, float]]:
    """Return index and angle between forward and feedback weights of the blocks that feedback alignment trains.

    That of block 0 says nothing: no error passes through its feedback weights.
    """
    found = [(i, alignment(network[i].layer)) for i in blocks if i]
    return [(i, degrees) for i, degrees in found if degrees is not None]


@torch.no_grad()
def neuron_labels(
    network: Network, block: int, train: Split, others: list[Split | None], start: int = 0
) -> list[float | None]:
    """Accuracy in percent when the winning neuron's label is the answer, for ``train`` and the other splits.

    The splits hold what block ``start`` receives.

    The label of a neuron is the class it wins most often on ``train``; of one that never wins, the class with
    the largest summed share of the competition (Moraitis et al. 2022, section 3.1). In a fully connected
    block the winner is the neuron with the largest pre-activation. In a convolutional one every pixel has a
    winner, and a few channels win most pixels of every image: the image's winner is the channel whose share of
    the pixels lies furthest above its mean over ``train``, in units of its standard deviation there.
    Images without a label (-1) are left out; where none has one there is no accuracy.
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

    classes, neurons = int(labels.max()) + 1, share.shape[1]
    won = winners(share)
    wins = torch.bincount(won * classes + labels, minlength=neurons * classes).view(neurons, classes)
    strength = torch.zeros(classes, neurons).index_add_(0, labels, share).T
    label = torch.where(wins.sum(1) > 0, wins.argmax(1), strength.argmax(1))
    accuracies: list[float | None] = [_percent(label[won] == labels)]
    for split in others:
        if split is None:
            accuracies.append(None)
            continue
        found, truth = _shares(network, block, layer, split, start)
        accuracies.append(_percent(label[winners(found)] == truth))
    return accuracies


def _shares(network: Network, block: int, layer: HebbLayer, split: Split, start: int) -> tuple[Tensor, Tensor]:
    """Return each labelled image's shares (N, neurons) and its label (N,), on the CPU.

    The share is softmax(beta u) of a fully connected block, and the part of the pixels won of a convolutional one.
    """
    beta = float(getattr(layer.spec, "t_invert", 1.0))
    shares, labels = [], []
    for x, y in split.batches(BATCH):
        known = y >= 0
        u = network[block].pre_activation(network(x[known], start=start, stop=block))
        if u.dim() == 4:
            won = u.argmax(dim=1).flatten(1)  # (B, pixels)
            share = torch.zeros_like(u[:, :, 0, 0]).scatter_add_(1, won, torch.ones_like(won, dtype=u.dtype))
            share /= won.shape[1]
        else:
            share = (u * beta).log_softmax(dim=1).exp()
        shares.append(share.cpu())
        labels.append(y[known].cpu())
    return torch.cat(shares), torch.cat(labels)


def probe(config: RunConfig, network: Network, data: Images) -> list[probes.Probe]:
    """Read out the blocks that the config asks for. The test set is open: this is the end of a run."""
    blocks = range(max(1, len(network) - 1)) if config.probe_blocks is None else config.probe_blocks
    others = {"val": data.val, "test": data.test}
    found = []
    for block in blocks if config.probes else ():
        fitted = [kind for kind in config.probes if kind != "neuron"]
        if fitted:
            train = features(network, block, data.train, config.probe_samples)
            scored = {
                name: None if split is None else features(network, block, split) for name, split in others.items()
            }
            found += [probes.fit(kind, block, train, scored) for kind in fitted]
        if "neuron" in config.probes and network[block].hebb is not None:
            on_train, on_val, on_test = neuron_labels(network, block, data.train, list(others.values()))
            assert on_train is not None
            found.append(probes.Probe(block=block, kind="neuron", train_acc=on_train, val_acc=on_val, test_acc=on_test))
    return found


def _percent(hits: Tensor) -> float:
    return 100 * hits.double().mean().item()
