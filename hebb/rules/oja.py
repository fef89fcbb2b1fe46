"""Hebbian principal components: Oja's neuron, and Sanger's neurons in order (HPCA).

Shapes: M samples times output pixels, C competing neurons, N inputs of a neuron; u and y are (M, C), weights (C, N).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hebb.config.fields import HEBBIAN, LayerFields, Value
from hebb.config.registry import RULES, Field, HebbianRule

if TYPE_CHECKING:
    from torch import Tensor


def oja(u: Tensor, layer: LayerFields, labels: Tensor | None) -> Tensor:
    """y = u, so that dw = sum_b u (x - u w).

    Oja (1982), eq. 3. With C = mean_b x x^T the fixed points for p = 2 are the unit eigenvectors of C, and only
    the first is stable: every neuron of the layer ends there, up to its sign.
    """
    return u


def sanger(u: Tensor, layer: LayerFields, labels: Tensor | None) -> Tensor:
    """y = u, or tanh u for the nonlinear form."""
    return u.tanh() if layer.form == "tanh" else u


def sanger_decay(y: Tensor, u: Tensor, weight: Tensor, layer: LayerFields) -> Tensor:
    """Return sum_b y_i sum_{j<=i} y_j w_j for every neuron i: it sees what the neurons before it leave of x.

    Sanger (1989), eq. 2, the generalised Hebbian algorithm. For y = u and p = 2 the stable fixed points are the
    leading unit eigenvectors of C in order, up to their signs.
    """
    return (y.T @ y).tril() @ weight  # (neurons, neurons) @ (neurons, fan-in)


_DEFAULTS: dict[str, Value] = {"lr": 0.01, "adaptive": False, "radius": 1, "normaliser": "mean"}

RULES.register(
    HebbianRule(
        name="Oja",
        summary="Oja's neuron: every neuron finds the first principal component",
        source="Oja 1982 (J. Math. Biol. 15:267), eq. 3",
        fields=(*HEBBIAN, "normaliser"),
        defaults={"MLP": _DEFAULTS, "CNN": _DEFAULTS},
        signal=oja,
    )
)
RULES.register(
    HebbianRule(
        name="Sanger",
        summary="generalised Hebbian algorithm (HPCA): the neurons find the leading principal components in order",
        source="Sanger 1989 (Neural Networks 2:459), eq. 2; in deep networks: Lagani et al. 2021, HPCA",
        fields=(*HEBBIAN, "normaliser"),
        own_fields=(
            Field(
                name="form",
                token=None,
                kind=str,
                choices=("linear", "tanh"),
                default="linear",
                meaning="y = u, or tanh u (nonlinear HPCA)",
            ),
        ),
        defaults={"MLP": _DEFAULTS, "CNN": _DEFAULTS},
        signal=sanger,
        decay=sanger_decay,
    )
)
