"""Hard winner-take-all rules.

Shapes: M samples times output pixels, C competing neurons, N inputs of a neuron; u and y are (M, C), weights (C, N).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hebb.config.fields import HEBBIAN, LayerFields
from hebb.config.registry import RULES, HebbianRule

if TYPE_CHECKING:
    from torch import Tensor


def hard(u: Tensor, layer: LayerFields, labels: Tensor | None) -> Tensor:
    """y = one-hot(argmax_i u_i): only the winner learns.

    Fixed point: the winner's weights move to the mean direction of the inputs it wins, with |w| = 1.
    """
    return winner(u)


def winner(u: Tensor) -> Tensor:
    """Return 1 for the largest of dimension 1, else 0, in the shape of u."""
    import torch

    return torch.zeros_like(u).scatter(1, u.argmax(dim=1, keepdim=True), 1.0)


def wins(u: Tensor) -> Tensor:
    """Return u for the largest of dimension 1, else 0."""
    return u * winner(u)


def hard_krotov(u: Tensor, layer: LayerFields, labels: Tensor | None) -> Tensor:
    """y = +1 for the winner, -delta for the neuron of rank k, 0 for the others.

    Krotov & Hopfield (2019), eq. 9: ``layer.delta`` is Delta and ``layer.ranking_param`` is k.
    """
    from hebb.rules.ranking import first_and_kth

    return first_and_kth(u, layer.ranking_param, layer.delta)


RULES.register(
    HebbianRule(
        name="Hard",
        summary="hard winner-take-all: the neuron with the largest pre-activation learns",
        source="Journe et al. 2023 (ICLR), Hard-WTA arm; Grossberg's instar with Oja's decay",
        fields=HEBBIAN,
        signal=hard,
    )
)
RULES.register(
    HebbianRule(
        name="HardKrotov",
        summary="hard winner-take-all with an anti-Hebbian neuron of rank k",
        source="Krotov & Hopfield 2019 (PNAS 116:7723), eq. 9",
        fields=(*HEBBIAN, "delta", "ranking_param"),
        signal=hard_krotov,
    )
)
