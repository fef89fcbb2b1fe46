"""A fully connected layer with many more inputs than outputs, as a classifier on a map of features has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

PIECES = 8
"""Parts of the fan-in whose products are made beside each other."""

WIDE = 4096
"""Fan-in from which that pays."""


class WideLinear(nn.Linear):
    """y = x W^T + b, as ``nn.Linear``; the same parameters under the same names.

    On the CPU the product of (B, 24576) and (24576, 10) leaves cores idle, because its result is small. Cut along the
    fan-in into pieces that are summed it takes two thirds of the time, and so does the gradient of W.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, N) -> (B, C)."""
        wide = self.in_features >= max(WIDE, 64 * self.out_features) and self.in_features % PIECES == 0
        if not wide or x.dim() != 2 or x.device.type != "cpu" or x.dtype != self.weight.dtype:
            return super().forward(x)
        product: Tensor = _Product.apply(x, self.weight)
        return product if self.bias is None else product + self.bias


class _Product(torch.autograd.Function):
    """x W^T in pieces."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        """(B, N), (C, N) -> (B, C)."""
        inputs = x.unflatten(1, (PIECES, -1)).permute(1, 2, 0)  # (pieces, N', B)
        return torch.bmm(_cut(weight), inputs).sum(dim=0).T

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the gradients need."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x and W."""
        x, weight = ctx.saved_tensors
        (grad,) = grads
        errors = grad.T.expand(PIECES, -1, -1)  # (pieces, C, B)
        pieces = torch.bmm(errors, _cut(x))  # (pieces, C, N')
        return grad @ weight if ctx.needs_input_grad[0] else None, pieces.transpose(0, 1).flatten(1)


def _cut(rows: Tensor) -> Tensor:
    """(M, N) -> (pieces, M, N'), without a copy."""
    return rows.unflatten(1, (PIECES, -1)).transpose(0, 1)
