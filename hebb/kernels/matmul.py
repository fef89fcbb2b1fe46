"""Products of two matrices on the CPU.

torch multiplies float32 matrices by MKL and convolves by oneDNN. On AMD processors oneDNN also multiplies faster: twice
as fast for products with a small result, such as the weight gradient of a wide convolution or a classifier on a map of
features, and a tenth to a third faster for others. On Intel's it is up to a third faster for few rows or outputs, up to
a tenth slower for many of both (46.5 ms against 43.3 on one thread for 640 patches of the third layer of
4SoftHebbCnnCIFAR), and slower for two transposed matrices, as in weight gradients: MKL reads these as they lie, oneDNN
takes copies (26 ms against 21 for the same layer). Code that learns therefore calls ``linear`` instead of ``@``.

Shapes: B batch, C outputs, N inputs; in general (M, K) x (N, K) -> (M, N).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hebb.core import machine
from hebb.kernels import private_torch
from hebb.kernels.precision import rounded

WORTH = 4_000_000
"""Multiplications from which a product goes to oneDNN, whose call costs ten microseconds more than MKL's."""

_MANY = 128
"""Rows and outputs from which MKL is faster on Intel's processors, if there are as many of both."""

_INTEL = machine.is_intel()  # a constant, because torch's compiler cannot trace the question

_LIBRARY = torch.library.Library("hebb", "FRAGMENT")
_LIBRARY.define("linear(Tensor x, Tensor weight) -> Tensor")


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return x weight^T, (M, K), (N, K) -> (M, N); there is no gradient where oneDNN multiplies."""
    if not _pays(x, weight):
        return x @ weight.T
    product: Tensor = torch.ops.hebb.linear(x, weight)
    return product


def linears(x: Tensor, weight: Tensor) -> Tensor:
    """Return x weight^T of each of P pairs, (P, M, K), (P, N, K) -> (P, M, N); there is no gradient, as above."""
    if not _pays(x[0], weight[0]):
        return torch.bmm(x, weight.mT)
    products = x.new_empty(len(x), x.shape[1], weight.shape[1])
    for product, *pair in zip(products, x, weight, strict=True):
        product.copy_(linear(*pair))
    return products


def _pays(x: Tensor, weight: Tensor) -> bool:
    """Return whether oneDNN can take this product and is worth its call."""
    plain = x.device.type != "cpu" or x.dtype != torch.float32 or weight.dtype != torch.float32
    if plain or not private_torch.HAS_ONEDNN or x.numel() * len(weight) < WORTH:
        return False
    many = min(len(x), len(weight)) >= _MANY
    return not (_INTEL and (many or (x.stride(0) == 1 and weight.stride(0) == 1)))


@torch.library.impl(_LIBRARY, "linear", "CPU")
def _by_onednn(x: Tensor, weight: Tensor) -> Tensor:
    return private_torch.onednn_linear(x, weight)


@torch.library.register_fake("hebb::linear", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _shape(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(len(x), len(weight))


@torch.library.register_vmap("hebb::linear", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _pack_linear(info: object, batched: tuple[int | None, int | None], x: Tensor, weight: Tensor) -> tuple[Tensor, int]:
    """Multiply the matrices of all members of a pack at once."""
    of_x, of_weight = batched
    x = x if of_x is None else x.movedim(of_x, 0)
    weight = weight if of_weight is None else weight.movedim(of_weight, 0)
    return torch.matmul(x, weight.mT), 0


class Linear(nn.Linear):
    """``nn.Linear``, y = x W^T + b, with products and gradients in float32 by ``linear``.

    Attributes:
        product_dtype: number type of its products; None leaves that of the input. Its output has the input's type.
    """

    product_dtype: torch.dtype | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, N) -> (B, C)."""
        if self.product_dtype is not None:
            return F.linear(*rounded(self.product_dtype, x, self.weight, self.bias)).to(x.dtype)
        if x.dim() != 2 or not _pays(x, self.weight):  # its own code costs less than these steps in Python
            return super().forward(x)
        product: Tensor = _Product.apply(x, self.weight)  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias


class _Product(torch.autograd.Function):
    """x W^T."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        """(B, N), (C, N) -> (B, C)."""
        return linear(x, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keep what the gradients need."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x and W."""
        x, weight = ctx.saved_tensors
        (grad,) = grads
        of_x = linear(grad, weight.T) if ctx.needs_input_grad[0] else None
        return of_x, linear(grad.T, x.T) if ctx.needs_input_grad[1] else None
