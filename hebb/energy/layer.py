"""The tensors that a layer of a settling network stores. The network has the dynamics.

Shapes: N images, n_l neurons of layer l, from n_0 pixels to n_L classes; rates and z are (N, n_1 + ... + n_L).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hebb.config import shapes
from hebb.config.rule import SettlingRule
from hebb.config.specs import LayerSpec
from hebb.core import initial


class SettlingLayer(nn.Module):
    """The tensors of one layer.

    Attributes:
        weight: (n_l, n_{l-1}), from the layer below.
        bias: (n_l,), or None.
        feedback: (n_{l-1}, n_l), from this layer to the one below, or None.
        lateral: (n_l, n_l), symmetric, or None.

    Args:
        spec: the layer.
        fan_in, width: n_{l-1} and n_l.
        first, last: whether it is the lowest or the output layer.
    """

    weight: Tensor
    bias: Tensor | None
    feedback: Tensor | None
    lateral: Tensor | None

    def __init__(self, spec: LayerSpec, fan_in: int, width: int, *, first: bool, last: bool) -> None:
        super().__init__()
        self.spec = spec
        if not isinstance(spec.rule, SettlingRule):
            raise TypeError(f"a layer of {spec.method} cannot be part of a settling network")
        self.stored = shapes.stored_tensors(spec.rule, fan_in, width, first=first, last=last)
        for name in shapes.STORED:
            self.register_buffer(name, torch.zeros(self.stored[name][0]) if name in self.stored else None)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw every tensor uniformly from +-bound. Lateral weights are X X^T of such an X: symmetric, near 1."""
        for name, (shape, bound) in self.stored.items():
            drawn = torch.zeros(shape)
            if bound:
                initial.draw_uniform(drawn, bound, generator)
            getattr(self, name).copy_(drawn @ drawn.T if name == "lateral" else drawn)

    def forward(self, x: Tensor) -> Tensor:
        """W x + b, (N, n_{l-1}) -> (N, n_l)."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Describe the layer in ``print(model)``."""
        return f"{self.spec.method}, {tuple(self.weight.shape)}"
