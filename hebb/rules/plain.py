"""Plain Hebbian learning: what fires together wires together, and nothing holds it back.

Shapes: M samples times output pixels, C competing neurons, N inputs of a neuron; u and y are (M, C), weights (C, N).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hebb.config.fields import HEBBIAN, LayerFields, Value
from hebb.config.registry import RULES, HebbianRule

if TYPE_CHECKING:
    from torch import Tensor


def hebb(u: Tensor, layer: LayerFields, labels: Tensor | None) -> Tensor:
    """y = u: every neuron learns in proportion to its response.

    Hebb (1949); Dayan & Abbott (2001), eq. 8.3. With C = mean_b x x^T and no decay dw = M C w for p = 2: w grows
    without bound along the first eigenvector of C, and its direction is the only thing that converges.
    """
    return u


def no_decay(y: Tensor, u: Tensor, weight: Tensor, layer: LayerFields) -> Tensor:
    """Return 0."""
    import torch

    return torch.zeros_like(weight)


_DEFAULTS: dict[str, Value] = {"lr": 0.01, "adaptive": False, "radius": 1, "normaliser": "layer"}

RULES.register(
    HebbianRule(
        name="Hebb",
        summary="plain Hebb: dw = sum u x, which grows without bound along the first principal component",
        source="Hebb 1949; Dayan & Abbott 2001, eq. 8.3",
        fields=(*HEBBIAN, "normaliser"),
        defaults={"MLP": _DEFAULTS, "CNN": _DEFAULTS},
        signal=hebb,
        decay=no_decay,
    )
)
