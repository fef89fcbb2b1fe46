"""BCM: a neuron learns above a threshold that follows its own activity, and unlearns below it.

Shapes: B samples, C competing neurons, H height and W width of a map; u and y are maps (B, C, H, W) or (B, C).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hebb.config.fields import LayerFields
from hebb.config.registry import RULES, Field
from hebb.config.rule import State, Tensors
from hebb.core.errors import ConfigError
from hebb.rules import synapses
from hebb.rules.hard import wins
from hebb.rules.plain import no_decay

if TYPE_CHECKING:
    from torch import Tensor


def bcm(u: Tensor, layer: LayerFields, labels: Tensor | None, state: Tensors) -> Tensor:
    """y = v (v - theta), with v = u for the winner and 0 for the others.

    Bienenstock, Cooper & Munro (1982). Nothing holds the weights; behind a cosine only their direction matters, and a
    step of a given size turns long weights less.
    """
    v = wins(u)
    theta = state["theta"].view(1, -1, *[1] * (u.dim() - 2))
    return v * (v - theta)


def slide(u: Tensor, layer: LayerFields, state: Tensors) -> Tensors:
    """theta <- (1 - f) theta + f mean(v^2), over samples and pixels, those that the neuron lost included.

    v is u for the winner and 0 for the others, and f is ``theta_rate``. The signal sees the new theta.
    """
    activity = wins(u).square().transpose(0, 1).flatten(1).mean(dim=1)  # (C,)
    return {"theta": state["theta"].lerp(activity, layer.theta_rate)}


def one(shape: tuple[int, ...], layer: LayerFields) -> Tensor:
    """Return theta at the start, 1."""
    import torch

    return torch.ones(shape)


def check(values: Mapping[str, Any], where: str) -> None:
    """Raise for a share above 1, and for what no rule of the family may have."""
    if values["theta_rate"] > 1:
        raise ConfigError(where, f"theta_rate must be a share >= 0 and <= 1, got {values['theta_rate']:g}")
    synapses.check(values, where)


RULES.register(
    synapses.family(
        name="BCM",
        summary="BCM with hard competition on the cosine: the winner learns above a sliding threshold",
        source=f"{synapses.SOURCE}, BCM; Bienenstock, Cooper & Munro 1982",
        own_fields=(
            *synapses.OWN_FIELDS,
            Field(
                name="theta_rate",
                token=None,
                kind=float,
                minimum=0,
                default=0.35,
                meaning="share f of this batch in the threshold theta, at most 1",
            ),
        ),
        check=check,
        signal=bcm,
        decay=no_decay,
        state=(State(name="theta", start=one),),
        advance=slide,
    )
)
