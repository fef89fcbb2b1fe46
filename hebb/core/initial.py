"""Uniform laws of initial weights, +-bound, that several kinds of layers share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor


def torch_bound(fan_in: int) -> float:
    """Return 1/sqrt(fan-in), the law of torch's own layers for weights and biases."""
    return 1 / math.sqrt(fan_in)


def glorot_bound(fan_in: int, fan_out: int) -> float:
    """Return sqrt(6/(fan-in + fan-out)) (Glorot & Bengio 2010)."""
    return math.sqrt(6 / (fan_in + fan_out))


def he_bound(fan_in: int) -> float:
    """Return sqrt(6/fan-in) (He et al. 2015)."""
    return math.sqrt(6 / fan_in)


def draw_uniform(tensor: Tensor, bound: float, generator: Generator) -> None:
    """Fill ``tensor`` in +-bound; numbers are drawn on the CPU, so they do not depend on where it lies."""
    import torch

    with torch.no_grad():
        tensor.copy_(torch.empty(tensor.shape).uniform_(-bound, bound, generator=generator))
