"""What a network costs, from its configuration alone. Never imports torch."""

from __future__ import annotations

from math import prod

from hebb.config import plan, shapes
from hebb.config.phase import Phase, PhaseKind
from hebb.config.shapes import BlockShapes
from hebb.config.specs import RunConfig


def static(config: RunConfig) -> dict[str, int]:
    """Return the costs that a configuration decides, by the names of ``objectives.STATIC``.

    ``parameters`` counts the numbers that all layers store. ``multiply_accumulates`` are those of one pass of an image
    through all layers, sum_l N_l K_l P_l with N neurons, K inputs of each and P output pixels. ``synaptic_operations``
    are those of the updates, for one training image: every synapse of a layer that learns multiplies its input with the
    gate or error of its neuron once for each output pixel, which are N_l K_l P_l for the layers that learn in some
    phase. A settling network has one product for each number of its stored matrices. ``images_seen`` counts the
    training images of every pass in which something learns, once each, or once for each view that a rule compares; a
    phase that ends early has seen fewer.
    """
    traced = shapes.of_run(config)
    return {
        "parameters": sum(block.parameters for block in traced),
        "multiply_accumulates": sum(block.multiply_accumulates for block in traced),
        "synaptic_operations": sum(_synapses(config, i, traced[i]) for i in _plastic(config)),
        "images_seen": sum(phase.epochs * phase.views * _images(config, phase) for phase in _learning(config)),
    }


def _learning(config: RunConfig) -> list[Phase]:
    return [phase for phase in plan.phases(config) if phase.kind != PhaseKind.CALIBRATE]


def _plastic(config: RunConfig) -> list[int]:
    """Return the blocks that learn in some phase."""
    return sorted({block for phase in _learning(config) for block in phase.blocks})


def _images(config: RunConfig, phase: Phase) -> int:
    """Return the images of a pass."""
    return config.datasets[phase.data].train_samples()


def _synapses(config: RunConfig, index: int, sizes: BlockShapes) -> int:
    """Return the products of an update of a block, for one image."""
    network = config.network
    if not network.blocks[index].settles:
        return sizes.multiply_accumulates
    width, fan_in = sizes.weights
    ends = {"first": index == 0, "last": index == len(network.blocks) - 1}
    stored = shapes.stored_tensors(network.settling_rule, fan_in, width, **ends)
    return sum(prod(shape) for shape, _ in stored.values() if len(shape) > 1)
