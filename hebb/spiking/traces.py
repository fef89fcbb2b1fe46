"""Exponential traces over stretches of time: one matrix product instead of a loop over the steps.

Shapes: T steps of a stretch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Trace:
    """y_t = a y_(t-1) + gain x_t with a = exp(-dt/tau), for a stretch of steps at once.

    With gain 1 it jumps by 1 at a spike; with gain 1 - a it is a low-pass whose response to a constant is that
    constant. Over a stretch y = M x + d y_before, where M is lower triangular, M_ts = gain a^(t-s), and d_t =
    a^(t+1).

    Args:
        tau: time constant in seconds.
        dt: step in seconds.
        steps: length of a stretch.
        gain: what an input adds; None for 1 - a.
        dtype: number type.
    """

    def __init__(self, tau: float, dt: float, steps: int, *, gain: float | None = None, dtype: torch.dtype) -> None:
        lag = torch.arange(steps, dtype=torch.float64)
        lag = lag[:, None] - lag  # (T, T)
        gain = -math.expm1(-dt / tau) if gain is None else gain
        matrix = torch.where(lag >= 0, torch.exp(-lag.clamp(min=0) * dt / tau) * gain, 0.0)
        fading = torch.exp(-torch.arange(1, steps + 1, dtype=torch.float64) * dt / tau)
        self.matrix, self.fading = matrix.to(dtype), fading.to(dtype)  # (T, T), (T,)

    def __call__(self, x: Tensor, before: Tensor) -> Tensor:
        """Return the trace (T, ...) of x (T, ...), given its value (...) before the stretch."""
        response = (self.matrix @ x.flatten(1)).view_as(x)
        return torch.addcmul(response, self.fading.view(-1, *[1] * before.dim()), before)
