"""Hyper-parameters of a layer: what a field is, and the table of those that more than one method reads.

One table feeds the parser, ``--list methods``, the README and the error texts. A method adds fields of its
own in its file under ``hebb/rules``; a token keeps its meaning in every method.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from hebb.config.vocabulary import (
    Arch,
    Competition,
    LossSource,
    Normaliser,
    PaddingMode,
    RateDecay,
    Response,
    WeightInit,
)
from hebb.core.errors import ConfigError, nearest
from hebb.core.values import read_number, read_switch

Value = bool | int | float | str
AnyValue = TypeVar("AnyValue", Value, Value | None)
ARCHS = tuple(Arch)
_LARGEST = 1e30  # greater numbers only overflow


@dataclass(frozen=True, kw_only=True)
class Field:
    """One hyper-parameter of a layer.

    Attributes:
        name: full name, as in ``--set b0.layer.NAME=...``.
        token: its letters in a preset string (``lr`` in ``Soft-c96-lr0.08``); None when it is only set by name.
        kind: type of the value; ``bool`` is written 0 or 1 in a token.
        meaning: one line with the unit, shown by ``--list methods``.
        minimum: least legal value of a number.
        above: whether the minimum itself is excluded.
        choices: legal words of a ``str``, plain or members of a ``StrEnum``; a value is the one it equals.
        archs: the architectures that have it.
        default: used where ``preset.json`` gives no layer default.
        absent: of a setting of a network that came later: what its absence in a ``config.json`` means.
    """

    name: str
    token: str | None
    kind: type
    meaning: str
    minimum: float | None = None
    above: bool = False
    choices: tuple[str, ...] = ()
    archs: tuple[str, ...] = ARCHS
    default: Value | None = None
    absent: Value | None = None

    def read(self, text: object, where: str) -> Value:
        """Turn text (or a JSON value) into a checked value of this field."""
        value = self._convert(text)
        if value is None:
            close = nearest(str(text), self.choices)
            advice = f" (did you mean '{close}'?)" if close else ""
            raise ConfigError(where, f"{self.name} must be {self.legal}, got '{text}'{advice}")
        if self.minimum is not None and not isinstance(value, str):
            low = value <= self.minimum if self.above else value < self.minimum
            if low or value > _LARGEST:
                most = "" if low else f" and <= {_LARGEST:g}"
                raise ConfigError(where, f"{self.name} must be {self.legal}{most}, got {text}")
        return value

    @property
    def legal(self) -> str:
        """The legal values in words, as they follow "must be"."""
        if self.kind is bool:
            return "0 or 1"
        if self.kind is str:
            return alternatives(self.choices)
        noun = "a whole number" if self.kind is int else "a number"
        return noun if self.minimum is None else f"{noun} {'>' if self.above else '>='} {self.minimum:g}"

    def _convert(self, text: object) -> Value | None:
        if self.kind is bool:
            return read_switch(text)
        if self.kind is str:
            return next((choice for choice in self.choices if choice == text), None)
        return None if isinstance(text, bool) else read_number(str(text), self.kind)


def alternatives(words: Sequence[str]) -> str:
    """Return words as an English list: ``linear, exp or constant``."""
    return " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def plain_values(values: Iterable[tuple[str, AnyValue]]) -> dict[str, AnyValue]:
    """Return the values by name, members of an enumeration as their words."""
    return {name: value.value if isinstance(value, StrEnum) else value for name, value in values}


class LayerFields:
    """The fields of a layer by name, as ``LayerSpec`` holds them.

    A field with a value here stands for what its absence means. Fields that only one method has may be left out.
    """

    out_channels: int
    kernel_size: int
    padding: int
    stride: int
    dilation: int
    groups: int = 1
    padding_mode: PaddingMode
    add_bias: bool = False

    lr: float
    power_lr: float
    lebesgue_p: float = 2
    radius: float
    adaptive: bool = False
    pre_triangle: bool = False
    response: Response = Response.DOT
    surround: int = 0
    sigma_excite: float
    sigma_inhibit: float
    lr_decay: RateDecay
    speed: float
    lr_div: float
    weight_init: WeightInit
    normaliser: Normaliser = Normaliser.LAYER
    t_invert: float = 1.0
    soft_activation_fn: Competition
    delta: float
    ranking_param: int = 1
    winners: int = 1
    deviations: float = 0.0

    lr_sup: float
    pull: Any  # a coefficient, or a word of KWTA
    push: float
    loss: LossSource
    projector: bool = False
    projector_hidden: int
    projector_out: int
    warmup: int
    start_lr: float
    final_lr: float
    weight_decay: float
    pooling: bool = True
    head_map: int = 1
    shuffle: bool = False
    stale: bool = False

    lr_feedback: float = 0.0
    lr_lateral: float = 0.0

    def __getattr__(self, name: str) -> Any:
        """Fail for a field that the method does not have; own fields of a method have no type."""
        raise AttributeError(f"a {self.__dict__.get('method')} layer has no '{name}'")


CNN = (Arch.CNN,)

_TABLE = (
    Field(
        name="out_channels",
        token="c",
        kind=int,
        minimum=1,
        meaning="neurons (MLP) or filters (CNN); left out in the last block: one per class",
    ),
    Field(name="kernel_size", token="k", kind=int, minimum=1, archs=CNN, meaning="side of the filter, pixels"),
    Field(name="padding", token="p", kind=int, minimum=0, archs=CNN, meaning="padding on each side, pixels"),
    Field(name="stride", token="s", kind=int, minimum=1, archs=CNN, meaning="step of the filter, pixels"),
    Field(name="dilation", token="d", kind=int, minimum=1, archs=CNN, meaning="spacing of the filter's taps, pixels"),
    Field(
        name="groups",
        token="g",
        kind=int,
        minimum=1,
        archs=CNN,
        meaning="groups of channels; competition stays inside a group",
    ),
    Field(
        name="padding_mode",
        token=None,
        kind=str,
        choices=tuple(PaddingMode),
        archs=CNN,
        meaning="what the padding is filled with",
    ),
    Field(name="add_bias", token="b", kind=bool, meaning="learn a bias"),
    Field(
        name="lr",
        token="lr",
        kind=float,
        minimum=0,
        meaning="Hebbian rate eta: the largest step of a weight; where the network settles, the factor of its change",
    ),
    Field(name="power_lr", token="lp", kind=float, minimum=0, meaning="power q of the norm-dependent rate"),
    Field(
        name="lr_sup",
        token="ls",
        kind=float,
        minimum=0,
        above=True,
        meaning="rate of the back-prop optimiser",
    ),
    Field(
        name="lebesgue_p",
        token="lb",
        kind=float,
        minimum=1,
        meaning="p of the radius |w|_p and of the effective weight sign(w)|w|^(p-1)",
    ),
    Field(
        name="t_invert",
        token="t",
        kind=float,
        minimum=0,
        above=True,
        meaning="inverse temperature beta of the soft competition",
    ),
    Field(name="delta", token="a", kind=float, minimum=0, meaning="anti-Hebbian strength of the k-th ranked neuron"),
    Field(name="radius", token="r", kind=float, minimum=0, above=True, meaning="mean radius |w|_p at the start"),
    Field(
        name="adaptive",
        token="v",
        kind=bool,
        meaning="norm-dependent rate eta |r-1|^q (1) or a schedule over the updates (0)",
    ),
    Field(
        name="mask_thsd",
        token="m",
        kind=float,
        minimum=0,
        archs=CNN,
        meaning="accepted for the published presets, without effect; no method reads it",
    ),
    Field(
        name="pre_triangle",
        token="e",
        kind=bool,
        archs=CNN,
        meaning="pass relu(u - channel mean) on instead of u, before competition and output",
    ),
    Field(
        name="response",
        token=None,
        kind=str,
        choices=tuple(Response),
        default=Response.DOT,
        meaning="u of a patch: dot product; cosine: of its direction and weights that have norm 1 at each tap; "
        "projection: dot product over the norm of the filter",
    ),
    Field(
        name="surround",
        token=None,
        kind=int,
        minimum=0,
        archs=CNN,
        default=0,
        meaning="side of the surround filter on each map of u, an odd number of pixels; 0: none",
    ),
    Field(
        name="sigma_excite",
        token=None,
        kind=float,
        minimum=0,
        above=True,
        archs=CNN,
        default=1.2,
        meaning="width of the excitation of the surround filter, pixels",
    ),
    Field(
        name="sigma_inhibit",
        token=None,
        kind=float,
        minimum=0,
        above=True,
        archs=CNN,
        default=1.4,
        meaning="width of the inhibition of the surround filter, pixels; more than that of the excitation",
    ),
    Field(
        name="ranking_param",
        token="rank",
        kind=int,
        minimum=2,
        meaning="rank k of the neuron that learns with the opposite sign",
    ),
    Field(
        name="soft_activation_fn",
        token=None,
        kind=str,
        choices=tuple(Competition),
        meaning="f of the soft competition f(u)/sum f(u); exp takes beta u",
    ),
    Field(
        name="lr_decay",
        token=None,
        kind=str,
        choices=(RateDecay.LINEAR, RateDecay.EXP, RateDecay.CONSTANT),
        meaning="schedule of the rate over the updates when v0",
    ),
    Field(name="speed", token=None, kind=float, minimum=0, above=True, meaning="s of the exponential schedule"),
    Field(name="lr_div", token=None, kind=float, minimum=0, above=True, meaning="exponential schedule ends at eta/div"),
    Field(
        name="normaliser",
        token=None,
        kind=str,
        choices=tuple(Normaliser),
        meaning="what divides a change: largest entry of the layer (group), or of the neuron's own; or the number of "
        "samples",
    ),
    Field(
        name="weight_init",
        token=None,
        kind=str,
        choices=tuple(WeightInit),
        default=WeightInit.AUTO,
        meaning="normal, or uniform above zero; auto: normal behind a batch norm",
    ),
    Field(
        name="pull",
        token="pull",
        kind=float,
        minimum=0,
        default=1.0,
        meaning="coefficient of the pull of the two views of an image",
    ),
    Field(
        name="push",
        token="push",
        kind=float,
        minimum=0,
        default=1.0,
        meaning="coefficient of the push: -ln of the variance, or the squared cosine of other images",
    ),
    Field(
        name="loss",
        token=None,
        kind=str,
        choices=tuple(LossSource),
        default=LossSource.OWN,
        meaning="whose loss the layer descends: its own, or that of the next block up which has one (end to end)",
    ),
    Field(
        name="projector",
        token=None,
        kind=bool,
        default=False,
        meaning="the loss reads an MLP on the output, not the output",
    ),
    Field(
        name="projector_hidden",
        token=None,
        kind=int,
        minimum=1,
        default=2048,
        meaning="hidden neurons of the projector",
    ),
    Field(name="projector_out", token=None, kind=int, minimum=1, default=256, meaning="outputs of the projector"),
    Field(
        name="warmup",
        token=None,
        kind=int,
        minimum=0,
        default=10,
        meaning="epochs in which the rate ls rises from start_lr; then it falls to final_lr by a cosine",
    ),
    Field(
        name="start_lr",
        token=None,
        kind=float,
        minimum=0,
        default=0.0,
        meaning="rate of the first epoch where there is a warm-up",
    ),
    Field(name="final_lr", token=None, kind=float, minimum=0, default=1e-6, meaning="rate to which the cosine falls"),
    Field(
        name="weight_decay",
        token=None,
        kind=float,
        minimum=0,
        default=1.5e-6,
        meaning="L2 penalty in the gradient of the weights; biases have none",
    ),
)

FIELDS = {entry.name: entry for entry in _TABLE}

GEOMETRY = (
    "out_channels",
    "kernel_size",
    "padding",
    "stride",
    "dilation",
    "groups",
    "padding_mode",
)

HEBBIAN = (
    "lr",
    "power_lr",
    "lebesgue_p",
    "radius",
    "adaptive",
    "pre_triangle",
    "lr_decay",
    "speed",
    "lr_div",
    "weight_init",
)
"""Fields of every rule of the form dw = sum y x - (sum y u) w."""

SCHEDULED = ("lr", "lr_decay", "speed", "lr_div")
"""Fields of a rate that follows a schedule, whatever the radius: of rules that pull no weight to radius 1."""

PROJECTOR = ("projector", "projector_hidden", "projector_out")
"""Fields of a projector that a loss reads in place of the output."""

LOCAL = ("lr_sup", "add_bias", "loss", *PROJECTOR, "warmup", "start_lr", "final_lr", "weight_decay")
"""Fields of every rule with a loss of its own on the output."""


def token_table() -> dict[str, Field]:
    """Return every field that has a token, by token."""
    return {entry.token: entry for entry in _TABLE if entry.token is not None}
