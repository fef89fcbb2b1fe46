"""Layers that answer a pair of inputs through the same weights, standardised together.

With s(a) = (a - mean)/(1e-10 + sd) of one image, over channels and pixels, and the pair (a, c) = s(x), s(x') after
padding,

    u = W * (a - m)/(1e-10 + d) + W * (c - m)/(1e-10 + d) + 2 b      m, d: mean and sd of a and c together

where each sd is the unbiased one. W is linear, so one product with a + c - 2 m does.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hebb.core import initial
from hebb.kernels.channels_last import Conv2d
from hebb.kernels.matmul import Linear
from hebb.kernels.precision import rounded

FLOOR = 1e-10
"""Added to a standard deviation."""


def standardised(x: Tensor) -> Tensor:
    """Return (B, ...) with mean 0 and unbiased standard deviation 1 for each image."""
    rows = x.flatten(1)
    rows = (rows - rows.mean(dim=1, keepdim=True)) / (FLOOR + rows.std(dim=1, keepdim=True))
    return rows.view_as(x)


def joined(a: Tensor, c: Tensor) -> Tensor:
    """Return a + c (B, ...), both standardised by the mean and the deviation that they have together."""
    size = (len(a), *[1] * (a.dim() - 1))
    mean = ((a.flatten(1).mean(dim=1) + c.flatten(1).mean(dim=1)) / 2).view(size)
    squares = [(part - mean).square().flatten(1).sum(dim=1) for part in (a, c)]
    deviation = ((squares[0] + squares[1]) / (2 * a[0].numel() - 1)).sqrt().view(size)
    return (a + c - 2 * mean) / (FLOOR + deviation)


def glorot(layer: nn.Linear | nn.Conv2d, generator: torch.Generator) -> None:
    """Draw weights by Glorot's uniform law, and biases by torch's."""
    weight = layer.weight
    taps = weight[0, 0].numel()
    bound = initial.glorot_bound(taps * weight.shape[1], taps * weight.shape[0])
    initial.draw_uniform(weight, bound, generator)
    if layer.bias is not None:
        initial.draw_uniform(layer.bias, initial.torch_bound(weight[0].numel()), generator)


class PairedConv2d(Conv2d):
    """A convolution of pairs; an image alone is the pair of it and itself."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H', W')."""
        return self.pair(x, x)

    def pair(self, x: Tensor, other: Tensor) -> Tensor:
        """Two maps (B, C_in, H, W) -> (B, C_out, H', W')."""
        a = self._padded(standardised(x))
        both = joined(a, a if other is x else self._padded(standardised(other)))
        if self.channels_last and both.device.type == "cpu":
            both = both.contiguous(memory_format=torch.channels_last)
        bias = None if self.bias is None else 2 * self.bias
        factors = rounded(self.product_dtype, both, self.weight, bias)
        return F.conv2d(*factors, self.stride, 0, self.dilation, self.groups).to(x.dtype)

    def _padded(self, x: Tensor) -> Tensor:
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        return F.pad(x, self._reversed_padding_repeated_twice, mode)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights."""
        glorot(self, generator)


class PairedLinear(Linear):
    """A linear map of pairs; a vector alone is the pair of it and itself."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, N) -> (B, C)."""
        return self.pair(x, x)

    def pair(self, x: Tensor, other: Tensor) -> Tensor:
        """Two vectors (B, N) -> (B, C)."""
        a = standardised(x)
        u = super().forward(joined(a, a if other is x else standardised(other)))
        return u if self.bias is None else u + self.bias

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights."""
        glorot(self, generator)
