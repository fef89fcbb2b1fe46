"""Instars: the weights of a winner move to the mean of what it wins, weighted by its response.

The response is a cosine by default, so the length of an input does not decide who wins.

Shapes: M samples times output pixels, B samples, C competing neurons, N inputs of a neuron, H height and W width of a
map; u and y are (M, C), or maps (B, C, H, W) where the rule has a state; weights are (C, N).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hebb.config.fields import LayerFields
from hebb.config.registry import RULES, Field
from hebb.config.rule import State, Tensors
from hebb.config.vocabulary import Response
from hebb.rules import synapses
from hebb.rules.hard import winner, wins
from hebb.rules.ranking import lower_median

if TYPE_CHECKING:
    from torch import Tensor


def hard_instar(u: Tensor, layer: LayerFields, labels: Tensor | None) -> Tensor:
    """y = u for the winner; for the others 0 (``losers=idle``), u (``learn``) or -u (``unlearn``)."""
    if layer.losers == "learn":
        return u
    won = wins(u)
    return won if layer.losers == "idle" else won.mul_(2).sub_(u)


def instar(y: Tensor, u: Tensor, weight: Tensor, layer: LayerFields) -> Tensor:
    """Return (sum_b y) w with the effective weights w.

    Grossberg (1976). Fixed point: w is the mean of the inputs, weighted by y.
    """
    return y.sum(dim=0)[:, None] * weight


def hard_instar_decay(y: Tensor, u: Tensor, weight: Tensor, layer: LayerFields) -> Tensor:
    """Return (sum_b y) w, or (sum_b y u) w with ``losers=unlearn``, of the effective weights w."""
    mass = y * u if layer.losers == "unlearn" else y
    return mass.sum(dim=0)[:, None] * weight


def first_of(a: Tensor) -> Tensor:
    """Return a^2 for the largest a of dimension 1, else 0."""
    return a.square() * winner(a)


def temporal(u: Tensor, layer: LayerFields, labels: Tensor | None, state: Tensors) -> Tensor:
    """y = a^2 for the largest a, else 0, with a = u where u > threshold, else 0.

    The threshold is one number for each pixel: the mean over neurons of the median over the last ``window`` images,
    those of this batch included.
    """
    usual = lower_median(state["maps"]).mean(dim=0)  # (H, W)
    return first_of(u.where(u > usual, 0.0))


def remember(u: Tensor, layer: LayerFields, state: Tensors) -> Tensors:
    """Keep the maps of the last ``window`` images."""
    import torch

    return {"maps": torch.cat([state["maps"], u])[-layer.window :]}


def no_maps(shape: tuple[int, ...], layer: LayerFields) -> Tensor:
    """Return as many maps as are kept, of NaN, which stands for an image that was not seen."""
    import torch

    return torch.full((layer.window, *shape), torch.nan)


def threshold(u: Tensor, layer: LayerFields, labels: Tensor | None) -> Tensor:
    """y = a^2 for the largest a, else 0, with a = u where u > mean + k sd over the neurons, else 0.

    Here u is the projection x * w/|w|, without surround, whatever response is passed on; k is ``deviations`` and sd
    has n - 1 in its divisor. No u of n neurons lies more than (n - 1)/sqrt(n) deviations above their mean.
    """
    usual = u.mean(dim=1, keepdim=True) + layer.deviations * u.std(dim=1, keepdim=True)
    return first_of(u.where(u > usual, 0.0))


RULES.register(
    synapses.family(
        name="HardInstar",
        summary="hard competition on the cosine: the winner moves to the mean of its inputs",
        source=f"{synapses.SOURCE}, hard WTA with the instar; Grossberg 1976",
        own_fields=(
            *synapses.OWN_FIELDS,
            Field(
                name="losers",
                token=None,
                kind=str,
                choices=("idle", "learn", "unlearn"),
                default="idle",
                meaning="what neurons that lose do: nothing; learn as the winner does; or learn with the other sign",
            ),
        ),
        signal=hard_instar,
        decay=hard_instar_decay,
    )
)
RULES.register(
    synapses.family(
        name="TemporalInstar",
        summary="temporal competition: the winner learns where it answers more than is usual at its pixel",
        source=f"{synapses.SOURCE}, temporal competition",
        own_fields=(
            *synapses.OWN_FIELDS,
            Field(name="window", token=None, kind=int, minimum=1, default=500, meaning="images whose maps are kept"),
        ),
        signal=temporal,
        decay=instar,
        state=(State(name="maps", start=no_maps, maps=True),),
        advance=remember,
    )
)
RULES.register(
    synapses.family(
        name="ThresholdInstar",
        summary="adaptive threshold: the winner learns where it stands out from the other neurons",
        source=f"{synapses.SOURCE}, adaptive threshold",
        own_fields=(
            *synapses.OWN_FIELDS,
            Field(
                name="deviations",
                token="dev",
                kind=float,
                minimum=0,
                default=2.0,
                meaning="standard deviations k by which a winner lies above the mean of the neurons",
            ),
        ),
        signal=threshold,
        decay=instar,
        rivals=Response.PROJECTION,
    )
)
