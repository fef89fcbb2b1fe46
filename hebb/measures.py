"""Numbers of a Hebbian block that a person or a search looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hebb.layers import HebbLayer


@dataclass(frozen=True, kw_only=True)
class BlockInfo:
    """Numbers of one Hebbian block at a report.

    Attributes:
        scalars: mean and spread of bias, weight, radius and rate; convergence (mean distance of the radii from
            1) and R1 (neurons within the threshold of 1).
        lr, radius, wins: per neuron; wins is the share of the positive gate mass of this epoch in percent.
        neurons_shown: how many neurons the table of ``-v`` lists.
    """

    scalars: dict[str, float]
    lr: list[float]
    radius: list[float]
    wins: list[float]
    neurons_shown: int

    @classmethod
    def of_numbers(cls, numbers: dict[str, float]) -> BlockInfo:
        """Make the report of a block that has no neurons to list."""
        return cls(scalars=numbers, lr=[], radius=[], wins=[], neurons_shown=0)


def measure(layer: HebbLayer, scheduled: float) -> BlockInfo:
    """Read a layer's numbers; here they cross to the host.

    Args:
        layer: the layer.
        scheduled: its rate by the schedule, which counts when the rate is not norm-dependent.
    """
    weight, radius = layer.weight, layer.radius()
    lr = layer.rate(scheduled)
    rate = lr if isinstance(lr, torch.Tensor) else torch.full_like(radius, lr)
    deviation = (radius - radius.mean()).abs()
    bias = torch.zeros(1) if layer.bias is None else layer.bias
    numbers = {
        "bias_mean": bias.mean(),
        "bias_std": bias.std(correction=0),
        "weight_mean": weight.mean(),
        "weight_std": weight.std(correction=0),
        "radius_mean": radius.mean(),
        "radius_std": radius.std(correction=0),
        "radius_deviation": deviation.mean(),
        "radius_max_deviation": deviation.max(),
        "lr_mean": rate.mean(),
        "convergence": layer.convergence(),
        "R1": layer.converged(),
    }
    mass = layer.gate_mass
    return BlockInfo(
        scalars={name: float(value) for name, value in numbers.items()},
        lr=rate.tolist(),
        radius=radius.tolist(),
        wins=(100 * mass / mass.sum().clamp(min=1e-30)).tolist(),
        neurons_shown=30 if weight.dim() == 4 else 20,
    )
