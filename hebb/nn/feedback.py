"""Feedback alignment: back-prop whose errors travel down through fixed random weights.

Shapes: B batch, N inputs of the layer, C outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hebb.core import initial
from hebb.kernels.precision import rounded


class _Aligned(torch.autograd.Function):
    """y = x W^T + b, with the gradient of x taken through the feedback weights."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, feedback: Tensor) -> Tensor:
        """Return y."""
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, Tensor], output: Tensor) -> None:
        """Keep what the gradients need."""
        x, _, _, feedback = inputs
        ctx.save_for_backward(x, feedback)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, W, b."""
        x, feedback = ctx.saved_tensors
        (grad,) = grads
        down = grad @ feedback.T if ctx.needs_input_grad[0] else None
        return down, grad.T @ x, grad.sum(dim=0) if ctx.needs_input_grad[2] else None, None


class FeedbackLinear(nn.Module):
    """Fully connected layer of feedback alignment (Lillicrap et al., Nat. Commun. 7:13276, 2016).

    With g the gradient of the output: dW = g^T x, db = sum g, and dx = g B^T with fixed random B^T in place of g W.
    W and B start independently, uniform in +-sqrt(6/(N + C)), and b at 1, as in the package behind the published
    runs. B of a network's lowest layer is never read, because no error passes below it.

    Attributes:
        weight, bias: W (C, N) and b (C,).
        feedback: B (N, C), from this layer to the one below.
        product_dtype: number type of its products; None leaves that of the input. Its output has the input's type.
    """

    feedback: Tensor
    product_dtype: torch.dtype | None = None
    bias: nn.Parameter | None

    def __init__(self, fan_in: int, width: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, fan_in))
        self.register_parameter("bias", nn.Parameter(torch.empty(width)) if bias else None)
        self.register_buffer("feedback", torch.empty(fan_in, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N) -> (B, C)."""
        factors = rounded(self.product_dtype, x, self.weight, self.bias)
        feedback = self.feedback.to(factors[0].dtype)
        y: Tensor = _Aligned.apply(*factors, feedback)  # type: ignore[no-untyped-call]
        return y.to(x.dtype)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw W and B, and set b to 1."""
        for tensor in (self.weight, self.feedback):
            initial.draw_uniform(tensor, initial.glorot_bound(*self.weight.shape), generator)
        if self.bias is not None:
            self.bias.fill_(1)
