"""Krotov & Hopfield's competing hidden units, as one update of one batch.

Shapes: M samples times output pixels, C competing neurons, N inputs of a neuron; u and y are (M, C), weights (C, N).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hebb.config.fields import LayerFields, Value
from hebb.config.registry import RULES, Field, HebbianRule
from hebb.config.vocabulary import Normaliser, RateDecay

if TYPE_CHECKING:
    from torch import Generator, Tensor


def krotov(u: Tensor, layer: LayerFields, labels: Tensor | None) -> Tensor:
    """y = +1 for the neuron of rank 1, -delta for that of rank k, 0 for the others.

    Krotov & Hopfield (2019), eq. 3 and 9: ``layer.delta`` is Delta, ``layer.ranking_param`` is k, and u is the
    current through sign(w)|w|^(p-1). With ``punish_positive`` a neuron of rank k is left alone where its u is
    not above 0.

    Fixed point: d/dt |w|_p^p is proportional to (sum_b y u)(1 - |w|_p^p), so neurons that win more current than
    they are punished for end on the unit p-sphere; others leave it.
    """
    from hebb.rules.ranking import first_and_kth

    y = first_and_kth(u, layer.ranking_param, layer.delta)
    return y.masked_fill_((y < 0) & (u <= 0), 0.0) if layer.punish_positive else y


def start(shape: tuple[int, ...], layer: LayerFields, generator: Generator) -> Tensor:
    """Draw every weight from N(0, 1) or U(0, 1), whatever the fan-in."""
    import torch

    weights = torch.empty(shape)
    if layer.start == "normal":
        return weights.normal_(generator=generator)
    return weights.uniform_(generator=generator)


_OWN = (
    Field(
        name="punish_positive",
        token=None,
        kind=bool,
        default=False,
        meaning="punish the neuron of rank k only where its current is above 0",
    ),
    Field(
        name="start",
        token=None,
        kind=str,
        choices=("normal", "uniform"),
        default="normal",
        meaning="initial weights: N(0, 1) or U(0, 1), whatever the fan-in",
    ),
    Field(
        name="lr_decay",
        token=None,
        kind=str,
        choices=(RateDecay.FLOOR, RateDecay.LINEAR, RateDecay.CONSTANT),
        meaning="schedule of the rate when v0; floor: e + (eta - e) e^(-f epochs passed)",
    ),
    Field(name="lr_floor", token=None, kind=float, minimum=0, meaning="e, where the schedule floor ends"),
    Field(name="lr_fall", token=None, kind=float, minimum=0, meaning="f of the schedule floor, per epoch"),
)
_SHARED: dict[str, Value] = {
    "lebesgue_p": 3,
    "ranking_param": 2,
    "delta": 0.05,
    "adaptive": False,
    "lr_decay": RateDecay.FLOOR,
}

RULES.register(
    HebbianRule(
        name="Krotov",
        summary="competing hidden units: the winner learns, the neuron of rank k unlearns, on the p-sphere",
        source="Krotov & Hopfield 2019 (PNAS 116:7723), eq. 3, 9, 10; as a convolution: published BioPyTorch code",
        fields=(
            "lr",
            "power_lr",
            "lebesgue_p",
            "delta",
            "adaptive",
            "pre_triangle",
            "ranking_param",
            "normaliser",
        ),
        own_fields=_OWN,
        defaults={
            "CNN": {**_SHARED, "lr": 0.007, "lr_floor": 0.0001, "lr_fall": 0.8, "normaliser": Normaliser.FILTER},
            "MLP": {**_SHARED, "lr": 0.1, "lr_floor": 0.005, "lr_fall": 0.1, "normaliser": Normaliser.LAYER},
        },
        signal=krotov,
        initialise=start,
        floor=1e-5,
        answers_updated=True,
    )
)
