"""One epoch of a settling network. Nothing waits for the device between two measurements of the network.

Shapes: B images in a batch, M inputs of an image, N neurons of a layer, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hebb.core import seeds
from hebb.core.errors import DivergenceError
from hebb.data.images import Split
from hebb.energy import diagnostics, phases
from hebb.energy.network import EnergyNetwork
from hebb.nn.model import Network
from hebb.training.epoch import Epoch, Progress, Scores
from hebb.training.graphs import Graphs, Learn

LOOK_EVERY = 500
"""Updates between two measurements of angles and activity, each with a check that the network still works."""

PROBE = 100
"""Number of training images whose free state is measured: always the first ones as stored."""

LEARNT = 500
"""Updates after which a network that still gives one answer to images of several classes has failed."""


def settle(
    network: Network,
    split: Split,
    at: Epoch,
    optimiser: torch.optim.Optimizer | None,
    progress: Progress,
    graphs: Graphs | None = None,
) -> Scores:
    """Train the whole network for one epoch; measure it after updates 1, 501, 1001, ... of the epoch.

    ``graphs`` replays the updates if there are any.

    Raises:
        DivergenceError: when weights or states are not finite, or the output no longer depends on the image.
    """
    energy = network.energy
    assert energy is not None
    count = at.phase.updates_per_epoch(len(split))
    signs = [1] * count
    if energy.settings.sign is not None:
        signs = phases.signs(energy.settings, count, seeds.generator(at.seed, "nudge", at.phase_index, 0, at.epoch))
    factor = phases.factor(energy.settings, at.epoch)
    probe, classes = next(split.batches(PROBE))
    probe, several = probe.flatten(1), bool((classes != classes[:1]).any())
    before = at.epoch * count
    looks: list[diagnostics.Look] = []
    done = 0

    def learn(images: Tensor, labels: Tensor, sign: int) -> None:
        x = images.flatten(1)
        energy.learn(x, energy.one_hot(labels, x), sign, factor, optimiser)

    network.eval()
    with torch.inference_mode():
        for updates, size in _updates(split, at, learn, signs, factor, graphs):
            done += updates
            if done % LOOK_EVERY == 1:
                _check(energy, probe, several, before + done, at)
                looks.append(diagnostics.Look(done, diagnostics.layer_numbers(energy, probe)))
            progress(updates * size)
        _check(energy, probe, several, before + count, at)
    rate = factor * sum(layer.spec.lr for layer in energy.layers) / len(energy.layers)
    return Scores(rate=rate, looks=tuple(looks))


def _updates(
    split: Split, at: Epoch, learn: Learn, signs: Sequence[int], factor: float, graphs: Graphs | None
) -> Iterator[tuple[int, int]]:
    """Make the updates of an epoch; yield how many were made and the images of each, as soon as they are made."""
    if graphs is not None:
        yield from graphs.epoch(at, learn, signs, range(1, len(signs), LOOK_EVERY), holds_for=factor)
        return
    batches = split.batches(at.phase.batch_size, at.order(), at.augmentation(split.labels.device))
    for sign, (images, labels) in zip(signs, batches, strict=True):
        learn(images, labels, sign)
        yield 1, len(labels)


def _check(energy: EnergyNetwork, probe: Tensor, several: bool, updates: int, at: Epoch) -> None:
    """Raise when the network has diverged or its output is dead; waits for the device.

    Args:
        energy: the network.
        probe: images (B, M).
        several: whether the images have more than one class.
        updates: updates made in the phase so far.
        at: the epoch.
    """
    where = f"after update {updates} of the run, in epoch {at.epoch + 1}"
    advice = "smaller rates (bN.layer.lr) or a smaller step (settle.step) may help"
    for i, layer in enumerate(energy.layers):
        for name, tensor in layer.named_buffers():
            if not bool(tensor.isfinite().all()):
                raise DivergenceError(f"the {name} of b{i} is not finite {where}; {advice}")
    activity = energy.activity(probe)
    for i, states in enumerate(activity):
        if not bool(states.isfinite().all()):
            raise DivergenceError(f"the states of b{i} are not finite {where}; {advice}")
    output = activity[-1]
    if several and updates > 1 and bool((output == output[:1]).all()):
        raise DivergenceError(f"the output is dead: the same for {len(output)} different images {where}; {advice}")
    answers = output.argmax(dim=1)
    if several and updates >= LEARNT and bool((answers == answers[:1]).all()):
        raise DivergenceError(f"the output is dead: one answer to {len(output)} different images {where}; {advice}")
