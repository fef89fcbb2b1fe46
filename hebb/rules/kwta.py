"""k winners take all.

Shapes: M samples times output pixels, C competing neurons, N inputs of a neuron; u and y are (M, C), weights (C, N).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hebb.config.fields import HEBBIAN, LayerFields
from hebb.config.registry import RULES, Field, HebbianRule

if TYPE_CHECKING:
    from torch import Tensor


def kwta(u: Tensor, layer: LayerFields, labels: Tensor | None) -> Tensor:
    """y = 1 for the n neurons with the largest pre-activation, 0 for the others; n = 1 is ``Hard``."""
    import torch

    winners = u.topk(layer.winners, dim=1).indices  # (B, n, ...)
    return torch.zeros_like(u).scatter(1, winners, 1.0)


def pull(y: Tensor, u: Tensor, weight: Tensor, layer: LayerFields) -> Tensor:
    """Return (sum_b y u) w, or (sum_b y) w with ``pull=instar``.

    Fixed points: oja: |w|_p = 1, along the mean of the inputs a neuron wins (Oja 1982); instar: that mean itself
    (Grossberg 1976), so that with n = 1 the neurons are the centres of k-means. The norm-dependent rate (v1) is
    for oja alone: it waits for a radius of 1.
    """
    mass = y if layer.pull == "instar" else y * u
    return mass.sum(dim=0)[:, None] * weight


RULES.register(
    HebbianRule(
        name="KWTA",
        summary="k winners take all: the n neurons with the largest pre-activation learn",
        source="Majani, Erlanson & Abu-Mostafa 1989 (NIPS); in deep networks: Amato et al. 2019",
        fields=HEBBIAN,
        own_fields=(
            Field(name="winners", token="n", kind=int, minimum=1, default=5, meaning="number n of neurons that win"),
            Field(
                name="pull",
                token=None,
                kind=str,
                choices=("oja", "instar"),
                default="oja",
                meaning="what holds the weights: (sum y u) w, to radius 1; or (sum y) w, to the mean input",
            ),
        ),
        defaults={"MLP": {"adaptive": False}, "CNN": {"adaptive": False}},
        signal=kwta,
        decay=pull,
    )
)
