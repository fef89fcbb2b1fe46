"""The token table: every hyper-parameter that more than one method reads.

One table feeds the parser, ``--list methods``, the README and the error texts. A method adds fields of its
own in its file under ``hebb/rules``; a token keeps its meaning in every method.
"""

from __future__ import annotations

from hebb.config.registry import ARCHS, Field, Rule

CNN = ("CNN",)

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
        choices=("reflect", "zeros", "replicate", "circular"),
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
        meaning="known to the published presets, without effect there; no method reads it",
    ),
    Field(
        name="pre_triangle",
        token="e",
        kind=bool,
        archs=CNN,
        meaning="pass relu(u - channel mean) on instead of u, before competition and output",
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
        choices=("exp", "relu", "repu", "sigmoid", "tanh"),
        meaning="f of the soft competition f(u)/sum f(u); exp takes beta u",
    ),
    Field(
        name="lr_decay",
        token=None,
        kind=str,
        choices=("linear", "exp", "constant"),
        meaning="schedule of the rate over the updates when v0",
    ),
    Field(name="speed", token=None, kind=float, minimum=0, above=True, meaning="s of the exponential schedule"),
    Field(name="lr_div", token=None, kind=float, minimum=0, above=True, meaning="exponential schedule ends at eta/div"),
    Field(
        name="normaliser",
        token=None,
        kind=str,
        choices=("layer", "filter", "mean"),
        meaning="what divides a change: largest entry of the layer (group), or of the neuron's own; or the number of "
        "samples",
    ),
    Field(
        name="weight_init",
        token=None,
        kind=str,
        choices=("auto", "normal", "positive"),
        default="auto",
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
        choices=("own", "above"),
        default="own",
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

LOCAL = (
    "lr_sup",
    "add_bias",
    "loss",
    "projector",
    "projector_hidden",
    "projector_out",
    "warmup",
    "start_lr",
    "final_lr",
    "weight_decay",
)
"""Fields of every rule with a loss of its own."""


def fields_of(rule: Rule, arch: str) -> dict[str, Field]:
    """Return the fields that ``rule`` reads on ``arch``, by name, in the order of the table."""
    wanted = {*GEOMETRY, *rule.fields}
    shared = {name: entry for name, entry in FIELDS.items() if name in wanted}
    own = {entry.name: entry for entry in rule.own_fields}
    return {name: entry for name, entry in (shared | own).items() if arch in entry.archs}


def token_table() -> dict[str, Field]:
    """Return every field that has a token, by token."""
    return {entry.token: entry for entry in _TABLE if entry.token is not None}


__all__ = ["ARCHS", "FIELDS", "GEOMETRY", "HEBBIAN", "LOCAL", "fields_of", "token_table"]
