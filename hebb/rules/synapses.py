"""What Nimmo & Mondragon's rules share: a response by cosine, surround, and laws of the weights.

Shapes: C neurons, N inputs of a neuron, k side of a filter; weights are (C, N) or (C, C_in, k, k).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from hebb.config.fields import CNN, SCHEDULED, Field, LayerFields, Value
from hebb.config.rule import HebbianRule
from hebb.config.vocabulary import RateDecay, Response
from hebb.core import initial
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Generator, Tensor

SOURCE = "Nimmo & Mondragon 2025 (Neural Networks 190:107628)"
_SMALL = 1e-6  # keeps 1/|w| finite

_FIELDS = (*SCHEDULED, "response", "surround", "sigma_excite", "sigma_inhibit")


class Presynaptic(StrEnum):
    """What divides the strengths of the taps of a filter on one input channel."""

    NONE = "none"
    NORM = "norm"
    LINEAR = "linear"
    SOFTMAX = "softmax"


OWN_FIELDS = (
    Field(name="dale", token=None, kind=bool, default=False, meaning="Dale's law: every weight is at least 0"),
    Field(
        name="presynaptic",
        token=None,
        kind=str,
        choices=tuple(Presynaptic),
        archs=CNN,
        default=Presynaptic.NONE,
        meaning="the taps of a filter on one input channel compete; what divides their strengths: norm, sum or softmax",
    ),
)
_DEFAULTS: dict[str, Value] = {"lr": 0.1, "lr_decay": RateDecay.CONSTANT, "response": Response.COSINE}


def effective(weight: Tensor, layer: LayerFields) -> Tensor:
    """Return |w| with ``dale``, and with ``presynaptic`` the share of each tap in its competition; else w.

    The k x k taps of a filter on one input channel compete by a = 1/(|w| + 1e-6): a/|a|_2 (``norm``),
    a/(sum a + 1e-6) (``linear``) or e^a/sum e^a (``softmax``). The smallest weight becomes the largest, and all are
    above 0.
    """
    from torch.nn import functional as F

    if layer.dale:
        return weight.abs()
    if weight.dim() == 2 or layer.presynaptic == Presynaptic.NONE:
        return weight
    strength = (weight.abs() + _SMALL).reciprocal()
    if layer.presynaptic == Presynaptic.NORM:
        return F.normalize(strength.flatten(-2), dim=-1).view_as(weight)
    if layer.presynaptic == Presynaptic.LINEAR:
        return strength / (strength.sum(dim=(-2, -1), keepdim=True) + _SMALL)
    return strength.flatten(-2).softmax(dim=-1).view_as(weight)


def project(weight: Tensor, layer: LayerFields) -> Tensor:
    """Return |w| with ``dale``, so that no synapse changes its sign; else w."""
    return weight.abs() if layer.dale else weight


def start(shape: tuple[int, ...], layer: LayerFields, generator: Generator) -> Tensor:
    """Draw every weight uniformly in +-1/sqrt(fan-in), the law of torch's own layers; with ``dale`` its size."""
    import torch

    weight = torch.empty(shape)
    initial.draw_uniform(weight, initial.torch_bound(weight[0].numel()), generator)
    return weight.abs() if layer.dale else weight


def check(values: Mapping[str, Any], where: str) -> None:
    """Raise for a surround without a centre or a ring, and for two laws of the weights."""
    side = values.get("surround", 0)
    if side and side % 2 == 0:
        raise ConfigError(where, f"surround must be an odd number of pixels, or 0 for none, got {side}")
    if side and not values["sigma_excite"] < values["sigma_inhibit"]:
        excite, inhibit = values["sigma_excite"], values["sigma_inhibit"]
        raise ConfigError(where, f"sigma_excite must be less than sigma_inhibit, got {excite:g} and {inhibit:g}")
    if values["dale"] and values.get("presynaptic", Presynaptic.NONE) != Presynaptic.NONE:
        raise ConfigError(
            where,
            "dale cannot be combined with presynaptic, which makes every effective weight positive",
            hint="leave out one of them",
        )


family = functools.partial(
    HebbianRule,
    fields=_FIELDS,
    own_fields=OWN_FIELDS,
    defaults={"MLP": _DEFAULTS, "CNN": _DEFAULTS},
    mode="consecutive",
    check=check,
    effective=effective,
    project=project,
    initialise=start,
)
"""Returns a rule of the family: a ``HebbianRule`` with what all of them share."""
