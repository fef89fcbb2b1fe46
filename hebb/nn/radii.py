"""Radii of the neurons of a Hebbian layer: what is measured of them, and the rate that follows from them.

Shapes: C neurons.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hebb.config.specs import LayerSpec
from hebb.rules import rates

R1_CONV, R1_LINEAR = 0.01, 0.005
"""A neuron counts as converged when its radius is this close to 1."""


class Radii(nn.Module):
    """The part of a Hebbian layer that measures its weights."""

    weight: Tensor
    spec: LayerSpec
    r1_threshold = R1_LINEAR

    @property
    def fan_in(self) -> tuple[int, ...]:
        """Dimensions of the weights that belong to one neuron."""
        return tuple(range(1, self.weight.dim()))

    def rate(self, scheduled: Tensor | float | None = None, radius: Tensor | None = None) -> Tensor | float:
        """Return the rate of the next update: (C,) when adaptive, else the scheduled number.

        ``radius`` is ``radius()``, where it is known.
        """
        if self.spec.adaptive:
            return rates.norm_dependent(self.spec, self.radius() if radius is None else radius)
        return self.spec.lr if scheduled is None else scheduled

    def radius(self) -> Tensor:
        """r_i = (sum_j |w_ij|^p)^(1/p), shape (C,)."""
        radius: Tensor = torch.linalg.vector_norm(self.weight, ord=self.spec.lebesgue_p, dim=self.fan_in)
        return radius

    def convergence(self, radius: Tensor | None = None) -> Tensor:
        """Return the mean distance of the radii from 1; ``radius`` is ``radius()``, where it is known."""
        return ((self.radius() if radius is None else radius) - 1).abs().mean()

    def converged(self, radius: Tensor | None = None) -> Tensor:
        """Return R1, the number of neurons whose radius is within the threshold of 1."""
        return (((self.radius() if radius is None else radius) - 1).abs() < self.r1_threshold).sum()

    def norm_error(self) -> Tensor:
        """Return max_i |sum_j |w_ij|^p - 1|, the convergence number of Krotov & Hopfield: the worst neuron's."""
        return (self.weight.abs().pow(self.spec.lebesgue_p).sum(dim=self.fan_in) - 1).abs().amax()
