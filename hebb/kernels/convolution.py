"""Convolutions of Hebbian layers, on the CPU by whichever of four ways takes the least time.

Filters of 3 x 3 over many channels give four outputs at once (``hebb.kernels.winograd``). Both directions of the third
layer of 4SoftHebbCnnCIFAR then take 28 ms on two threads, torch's convolutions 52. torch's are made for many patches
with a few inputs each. Where these are few, and each neuron has more inputs than half their number, a product with the
matrix of all patches is faster: 32 ms against 77 for ten maps of 4 x 4 with 1,536 channels and 1,024 neurons. Where the
filters are few, and their neurons compete by a softmax, both directions and what lies between are one pass over blocks
of patches (``hebb.kernels.competition``).

Shapes: B batch, C_in input channels, C_out neurons, H, W input and H', W' output sizes, k side of a filter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from hebb.kernels import competition, matmul, winograd
from hebb.kernels.competition import Competed
from hebb.kernels.private_torch import convolution_weight_gradient


class Convolution:
    """x * w without padding, and its weight gradient.

    Args:
        side: k.
        stride: of the convolution.
        dilation: of the convolution.
        groups: of the convolution.
    """

    def __init__(self, side: int, stride: int, dilation: int, groups: int) -> None:
        self.side, self.stride, self.dilation, self.groups = side, stride, dilation, groups
        self._kept: list[tuple[Tensor, Tensor]] | None = None

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return x * w, (B, C_out, H', W'), in the number type of the weights (C_out, C_in/groups, k, k)."""
        if self._shares_products(x, weight) and not torch.is_grad_enabled():
            return winograd.forward(x, weight)
        plain = x.dtype == weight.dtype == torch.float32 and not torch.is_grad_enabled()
        if plain and self._multiplies(x, weight) and self._pixels(x) * weight.numel() >= matmul.WORTH:
            u = matmul.linear(self._patches(x), weight.permute(0, 2, 3, 1).flatten(1))
            return u.view(len(x), *self._map(x), len(weight)).permute(0, 3, 1, 2)
        u = F.conv2d(x, weight.to(x.dtype), None, self.stride, 0, self.dilation, self.groups)
        return u.to(weight.dtype)

    def weight_gradient(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Return the sum over all patches of y x, in the shape of the weights and the number type of y.

        Args:
            x: input (B, C_in, H, W).
            y: gradient of the output (B, C_out, H', W').
            weight: (C_out, C_in/groups, k, k); its numbers do not matter.
        """
        full, y = y.dtype, y.to(x.dtype)
        if self._shares_products(x, weight, y):
            return winograd.weight_gradient(x, y).to(full)
        if self._multiplies(x, weight):
            rows = y.permute(0, 2, 3, 1).reshape(-1, y.shape[1])
            product = matmul.linear(rows.T, self._patches(x).T).to(full)
            return product.view(len(weight), *weight.shape[2:], -1).permute(0, 3, 1, 2)
        sizes = {"stride": self.stride, "dilation": self.dilation, "groups": self.groups}
        return convolution_weight_gradient(x, y, weight.to(x.dtype), **sizes).to(full)

    def compete(self, x: Tensor, weight: Tensor, beta: float, *, signed: bool, unread: bool) -> Competed | None:
        """Return what the competition of the neurons for each pixel leaves; None where its parts take less time.

        Args:
            x: input (B, C_in, H, W).
            weight: (C_out, C_in/groups, k, k).
            beta: the inverse temperature, positive.
            signed: y has the other sign where u is below the largest of its pixel.
            unread: nobody reads u.
        """
        if self.dilation > 1 or self.groups > 1 or self._shares_products(x, weight):
            return None
        if not competition.pays(x, weight, self.stride):
            return None
        return competition.compete(x, weight, self.stride, beta, signed=signed, unread=unread)

    @contextmanager
    def one_batch(self) -> Iterator[None]:
        """Let both directions share the patches of a batch inside the block, in which it must not change."""
        before, self._kept = self._kept, []
        try:
            yield
        finally:
            self._kept = before

    def _shares_products(self, x: Tensor, weight: Tensor, y: Tensor | None = None) -> bool:
        """Whether ``hebb.kernels.winograd`` computes four outputs at once."""
        plain = self.stride == self.dilation == self.groups == 1
        return plain and self.side == winograd.SIDE and winograd.pays(x, weight, y)

    def _multiplies(self, x: Tensor, weight: Tensor) -> bool:
        if x.device.type != "cpu" or self.dilation > 1 or self.groups > 1:
            return False
        return 2 * weight[0].numel() > self._pixels(x)

    def _patches(self, x: Tensor) -> Tensor:
        """Return the patch that each output pixel sees, (B H' W', k k C_in), in the memory order of the weights."""
        kept = self._kept
        for batch, patches in kept or ():
            if batch is x:
                return patches
        windows = x.permute(0, 2, 3, 1).unfold(1, self.side, self.stride).unfold(2, self.side, self.stride)
        patches = windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, self.side**2 * x.shape[1])
        if kept is not None:
            kept.append((x, patches))
        return patches

    def _pixels(self, x: Tensor) -> int:
        """Return the number of patches in the batch, B H' W'."""
        return len(x) * math.prod(self._map(x))

    def _map(self, x: Tensor) -> tuple[int, int]:
        """Return H' and W'."""
        return competition.output_size(x, self.side, self.stride, self.dilation)
