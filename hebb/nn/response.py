"""How a Hebbian layer answers: what its weights make of a patch, and what neighbouring units make of each other.

Shapes: B batch, C channels or neurons, H height, W width, k side of the filter.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from hebb.config.vocabulary import Response

Currents = Callable[[Tensor], Tensor]
"""Return x * w for weights w, (B, C, ...)."""


def respond(kind: Response, weight: Tensor, currents: Currents, squares: Callable[[], Tensor]) -> Tensor:
    """Return how an input x answers to weights, in the shape of x * w.

    dot: x * w.
    cosine: x * w' / sqrt(sum x^2 + 1e-8) over what a neuron sees, with w' of norm 1 over the input channels of each
    tap, so that |u| is at most the side of the filter (1 in a fully connected layer).
    projection: x * w / (|w| + 1e-10).

    Args:
        kind: one of the three.
        weight: (C, ...), one row for each neuron.
        currents: x * w of the input.
        squares: returns sum x^2 of what each neuron sees, in a shape that broadcasts with x * w.
    """
    if kind == Response.COSINE:
        u = currents(F.normalize(weight, dim=1))
        return u / (squares() + 1e-8).sqrt()
    u = currents(weight)
    if kind == Response.PROJECTION:
        norm: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1)  # (C,)
        u = u / (norm + 1e-10).view(1, -1, *[1] * (u.dim() - 2))
    return u


def surround_kernel(side: int, sigma_excite: float, sigma_inhibit: float) -> Tensor:
    """Return D (k, k), a difference of Gaussians over the distance r from the centre in pixels, where D is 1.

    D(r) = q(r)/q(0), q(r) = G_e(r) - G_i(r), G_s(r) = exp(-r^2/(2 s^2))/(2 pi s^2) (Nimmo & Mondragon 2025). Its sum
    is not 0, so it also amplifies, and a small one with wide Gaussians has no negative entry.
    """
    place = torch.arange(side, dtype=torch.float64) - side // 2
    squares = place[:, None] ** 2 + place**2  # (k, k)
    excite, inhibit = sigma_excite**2, sigma_inhibit**2
    difference = torch.exp(-squares / (2 * excite)) / excite - torch.exp(-squares / (2 * inhibit)) / inhibit
    return (difference / difference[side // 2, side // 2]).float()


def surrounded(maps: Tensor, kernel: Tensor) -> Tensor:
    """Return every map of (B, C, H, W) under the same filter (k, k), with zeros around it.

    Neighbouring units of a channel support each other and suppress the ring around.
    """
    channels, side = maps.shape[1], kernel.shape[-1]
    weight = kernel.to(maps.dtype).expand(channels, 1, side, side)
    return F.conv2d(maps, weight, padding=side // 2, groups=channels)
