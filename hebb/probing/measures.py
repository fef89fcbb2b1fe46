"""Measurements of a block with a local learning rule, for reports and searches.

Shapes: C neurons; weights are (C, ...), bias, radius, rate and gate mass (C,).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from hebb.nn.hebb_layer import HebbLayer


@dataclass(frozen=True, kw_only=True)
class BlockInfo:
    """Measurements of one Hebbian block in a report.

    Attributes:
        scalars: mean and spread of weight, radius, rate and, where there is one, bias; convergence (mean distance of
            the radii from 1), R1 (neurons within the threshold of 1), norm_error_max (the largest ||w|_p^p - 1|) and
            dead (neurons that won nothing in this epoch). For a local loss: the means over the epoch of the loss and
            its terms.
        lr, radius, wins: per neuron; wins is the share of the positive gate mass of this epoch in percent.
        neurons_shown: how many neurons the table of ``-v`` lists.
    """

    scalars: dict[str, float]
    lr: list[float] = field(default_factory=list)
    radius: list[float] = field(default_factory=list)
    wins: list[float] = field(default_factory=list)
    neurons_shown: int = 0


def measure(layer: HebbLayer, scheduled: float) -> BlockInfo:
    """Measure a layer, and copy the numbers to the host.

    Args:
        layer: the layer.
        scheduled: rate of the schedule, used unless the rate depends on the norm.
    """
    weight, radius = layer.weight, layer.radius()
    lr = layer.rate(scheduled)
    rate = lr if isinstance(lr, torch.Tensor) else torch.full_like(radius, lr)
    deviation = (radius - radius.mean()).abs()
    biases = {} if layer.bias is None else {"bias_mean": layer.bias.mean(), "bias_std": layer.bias.std(correction=0)}
    numbers = {
        **biases,
        "weight_mean": weight.mean(),
        "weight_std": weight.std(correction=0),
        "radius_mean": radius.mean(),
        "radius_std": radius.std(correction=0),
        "radius_deviation": deviation.mean(),
        "radius_max_deviation": deviation.max(),
        "lr_mean": rate.mean(),
        "convergence": layer.convergence(),
        "norm_error_max": layer.norm_error(),
        "dead": (layer.gate_mass == 0).sum(),
        "R1": layer.converged(),
    }
    mass = layer.gate_mass
    values = torch.stack([value.to(weight.dtype) for value in numbers.values()]).tolist()  # one wait for the device
    return BlockInfo(
        scalars=dict(zip(numbers, values, strict=True)),
        lr=rate.tolist(),
        radius=radius.tolist(),
        wins=(100 * mass / mass.sum().clamp(min=1e-30)).tolist(),
        neurons_shown=30 if weight.dim() == 4 else 20,
    )


def summary(blocks: Mapping[str, BlockInfo], lr: float | None) -> dict[str, float | None]:
    """Return the columns of an epoch's row that sum up its blocks: mean convergence, total R1, and the rate.

    Args:
        blocks: measurements of the blocks that learnt; blocks without R1 are ignored.
        lr: rate of the optimiser; None takes the mean rate of the Hebbian blocks.
    """
    hebbian = [info.scalars for info in blocks.values() if "R1" in info.scalars]
    if not hebbian:
        return {"lr": lr}
    return {
        "lr": sum(s["lr_mean"] for s in hebbian) / len(hebbian) if lr is None else lr,
        "convergence": sum(s["convergence"] for s in hebbian) / len(hebbian),
        "R1": int(sum(s["R1"] for s in hebbian)),
    }
