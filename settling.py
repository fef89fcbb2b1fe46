"""One epoch of a network that settles. Nothing waits for the device between two looks at the network."""

from __future__ import annotations

import torch
from torch import Tensor

from engine import Epoch, Progress, Scores
from hebb import seeding
from hebb.data.images import Split
from hebb.energy import measures, phases
from hebb.energy.network import EnergyNetwork
from hebb.errors import DivergenceError
from model import Network

LOOK_EVERY = 500
"""Updates between two looks at angles, activity, and whether the network still works."""

PROBE = 100
"""Training images whose free state is looked at: always the first ones as stored."""


def settle(
    network: Network, split: Split, at: Epoch, optimiser: torch.optim.Optimizer | None, progress: Progress
) -> Scores:
    """One epoch in which the whole network learns; it is looked at after updates 1, 501, 1001, ... of the epoch.

    Raises:
        DivergenceError: when weights or states are not finite, or the output no longer depends on the image.
    """
    energy = network.energy
    assert energy is not None
    count = -(-len(split) // at.phase.batch_size)
    signs = [1] * count
    if hasattr(energy.settings, "sign"):
        signs = phases.signs(energy.settings, count, seeding.generator(at.seed, "nudge", at.phase_index, 0, at.epoch))
    factor = phases.factor(energy.settings, at.epoch)
    probe = next(split.batches(PROBE))[0].flatten(1)
    looks: list[measures.Look] = []
    network.eval()
    with torch.inference_mode():
        batches = split.batches(at.phase.batch_size, at.order(), at.augmentation(split.labels.device))
        for index, (images, labels) in enumerate(batches):
            x = images.flatten(1)
            energy.learn(x, energy.one_hot(labels, x), signs[index], factor, optimiser)
            if index % LOOK_EVERY == 0:
                _check(energy, probe, index + 1, at)
                looks.append(measures.Look(index + 1, measures.layer_numbers(energy, probe)))
            progress(len(labels))
        _check(energy, probe, count, at)
    rate = factor * sum(layer.spec.lr for layer in energy.layers) / len(energy.layers)
    return Scores(rate=rate, looks=tuple(looks))


def _check(energy: EnergyNetwork, probe: Tensor, update: int, at: Epoch) -> None:
    """Raise when the network is of no use any more; looks at the device."""
    where = f"update {update} of epoch {at.epoch + 1}"
    advice = "smaller rates (bN.layer.lr) or a smaller step (settle.step) may help"
    for i, layer in enumerate(energy.layers):
        for name, tensor in layer.named_buffers():
            if not bool(tensor.isfinite().all()):
                raise DivergenceError(f"the {name} weights of b{i} are not finite at {where}; {advice}")
    activity = energy.predict(probe)
    for i, rates in enumerate(activity):
        if not bool(rates.isfinite().all()):
            raise DivergenceError(f"the states of b{i} are not finite at {where}; {advice}")
    output = activity[-1]
    if len(output) > 1 and bool((output == output[:1]).all()):
        raise DivergenceError(
            f"the output is dead: at {where} it is the same for {len(output)} different images; {advice}"
        )
