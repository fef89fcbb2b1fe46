"""Back-prop layers on maps (B, C, H, W) that keep the channels last in memory on the CPU.

torch's average pool then takes a sixth of the time, and a quarter with its gradient, provided that the gradient has
the same memory layout. The gradient of a plain ``nn.Flatten`` does not.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hebb.kernels import winograd
from hebb.kernels.precision import rounded


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` whose input and output have the channels last in memory.

    Attributes:
        channels_last: off inside ``torch.vmap``, which knows only one order of the dimensions.
        product_dtype: number type of its products; None leaves that of the input. Its output has the input's type.
    """

    channels_last = True
    product_dtype: torch.dtype | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H', W')."""
        if self.channels_last and x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)
        return super().forward(x)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        kind, padding = x.dtype, self.padding[0]
        x, weight, bias = rounded(self.product_dtype, x, weight, bias)
        if not self._minimal or isinstance(padding, str) or not winograd.pays_with_gradient(x, weight, padding):
            plain: Tensor = super()._conv_forward(x, weight, bias)
            return plain.to(kind)
        if self.padding_mode != "zeros" and padding:
            x, padding = F.pad(x, (padding,) * 4, mode=self.padding_mode), 0
        u = winograd.convolve(x, weight, padding)
        return u if bias is None else u + bias[:, None, None]

    @functools.cached_property
    def _minimal(self) -> bool:
        """Whether ``hebb.kernels.winograd`` has such convolutions."""
        sides = self.kernel_size == (winograd.SIDE,) * 2 and len({*self.padding}) == 1
        return sides and self.stride == self.dilation == (1, 1) and self.groups == 1


def geometry(layer: Any) -> dict[str, Any]:
    """Return the arguments of torch's convolutions that the fields of a layer give."""
    names = ("kernel_size", "stride", "padding", "dilation", "groups")
    fields = {name: getattr(layer, name) for name in names}
    return {**fields, "bias": layer.add_bias, "padding_mode": layer.padding_mode.value}


class Flatten(nn.Flatten):
    """``nn.Flatten`` whose gradient has the memory layout of the map.

    Attributes:
        channels_last: as in ``Conv2d``.
    """

    channels_last = True

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C H W)."""
        strided = self.channels_last and x.requires_grad and x.dim() == 4 and not x.is_contiguous()
        if strided and x.is_contiguous(memory_format=torch.channels_last):
            flat: Tensor = _Flatten.apply(x)  # type: ignore[no-untyped-call]
            return flat
        return super().forward(x)


class _Flatten(torch.autograd.Function):
    """A map copied to rows; the gradient goes back to channels last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C H W)."""
        ctx.shape = x.shape
        return x.flatten(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """(B, C H W) -> (B, C, H, W)."""
        b, c, h, w = ctx.shape
        by_pixel = grads[0].reshape(b, c, h * w).transpose(1, 2).contiguous()  # half the time of ``channels_last``
        return by_pixel.view(b, h, w, c).permute(0, 3, 1, 2)
