"""Laws of initial weights."""

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


def normal_deviation(radius: float, fan_in: int, p: float) -> float:
    """Return the deviation of normal weights whose p-norm over the fan-in is ``radius`` on average.

    R / (N E|z|^p)^(1/p), E|z|^p = 2^(p/2) Gamma((p+1)/2) / sqrt(pi).
    """
    log_moment = p / 2 * math.log(2) + math.lgamma((p + 1) / 2) - math.log(math.pi) / 2
    return radius / math.exp((math.log(fan_in) + log_moment) / p)


def positive_bound(radius: float, fan_in: int, p: float) -> float:
    """Return b for weights uniform on [0, b) whose p-norm over the fan-in is ``radius``: R ((p+1)/N)^(1/p)."""
    bound: float = radius * ((p + 1) / fan_in) ** (1 / p)
    return bound


def draw_uniform(tensor: Tensor, bound: float, generator: Generator) -> None:
    """Fill ``tensor`` in +-bound; numbers are drawn on the CPU, so they do not depend on where it lies."""
    import torch

    with torch.no_grad():
        tensor.copy_(torch.empty(tensor.shape).uniform_(-bound, bound, generator=generator))
