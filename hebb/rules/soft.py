"""SoftHebb: soft winner-take-all rules, with and without anti-Hebbian losers.

Shapes: M samples times output pixels, C competing neurons, N inputs of a neuron; u and y are (M, C), weights (C, N).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hebb.config.fields import HEBBIAN, LayerFields, Value
from hebb.config.registry import RULES, HebbianRule
from hebb.config.rule import Softmax
from hebb.config.vocabulary import Competition
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

REPU_POWER = 15
"""Power of the ``repu`` competition (published SoftHebb code)."""
_TINY = 1.2e-38  # about the smallest normal float32


def competition(u: Tensor, layer: LayerFields) -> Tensor:
    """Return f(u_i) / sum_j f(u_j) over dimension 1; for f = exp this is softmax(beta u).

    Moraitis et al. (2022), eq. 4, with beta = ``layer.t_invert``. A sample in which every f(u_j) is 0
    (relu, repu) has no winner: its y is 0.
    """
    from hebb.kernels import loops

    kind = layer.soft_activation_fn
    if kind == Competition.EXP:
        if loops.pays_between(u):
            return loops.softmax(u, layer.t_invert)
        return (u if layer.t_invert == 1 else u * layer.t_invert).softmax(dim=1)
    if kind == Competition.RELU:
        f = u.relu()
    elif kind == Competition.REPU:
        f = u.relu()
        # the shares are those of f over its largest value, no power of which leaves float32
        f = (f / f.amax(dim=1, keepdim=True).clamp(min=_TINY)).pow(REPU_POWER)
    elif kind == Competition.SIGMOID:
        f = u.sigmoid()
    else:
        f = u.tanh()
    total = f.sum(dim=1, keepdim=True)
    return f / total.where(total != 0, 1.0)


def soft(u: Tensor, layer: LayerFields, labels: Tensor | None) -> Tensor:
    """y = f(u_i) / sum_j f(u_j): every neuron learns in proportion to its share of the competition."""
    return competition(u, layer)


def soft_krotov(u: Tensor, layer: LayerFields, labels: Tensor | None) -> Tensor:
    """y = +s for the winner and -s for every loser, s the soft competition.

    Journe et al. (2023), section 3.3: the losers' weights are pushed away from the input.
    """
    from hebb.kernels import loops

    if layer.soft_activation_fn == Competition.EXP and not layer.add_bias:
        if loops.pays_between(u):
            return loops.softmax(u, layer.t_invert, signed=True)
        # Half the time of looking for an index, in as few arrays as possible. Where several win, their pre-activations
        # are equal, as those of a blank input are, which teaches the weights nothing; only the bias would see it.
        gap = u - u.amax(dim=1, keepdim=True)  # 0 for the winner, else below
        gap = gap if layer.t_invert == 1 else gap.mul_(layer.t_invert)
        return gap.softmax(dim=1).copysign_(gap)
    import torch

    s = competition(u, layer)
    # by u: sigmoid and tanh of large u are 1 for many neurons, and shares of a negative sum are in reverse order;
    # no scatter of a tensor: torch.vmap would run it member by member
    won = torch.zeros_like(s, dtype=torch.bool).scatter(1, u.argmax(dim=1, keepdim=True), True)
    return torch.where(won, s, s.neg())


def as_softmax(layer: LayerFields, *, signed: bool) -> Softmax | None:
    """Return the softmax that ``soft``, or ``soft_krotov`` if signed, is for a layer; None where f is not exp.

    A layer with a bias, or a temperature near the ends of float32, has none either.
    """
    if layer.soft_activation_fn != Competition.EXP or layer.add_bias or not 1e-30 < layer.t_invert < 1e30:
        return None
    return Softmax(layer.t_invert, signed)


def supervised(u: Tensor, layer: LayerFields, labels: Tensor | None) -> Tensor:
    """y = one-hot(label): the label names the winner, there is no competition.

    A class's weights move to the mean direction of its samples; softmax(beta u) is its posterior.
    """
    import torch

    if labels is None:
        raise ValueError("SupervisedSoftKrotov learns from labels, and the batch carries none")
    return torch.zeros_like(u).scatter(1, labels[:, None], 1.0)


def bias_step(y: Tensor, bias: Tensor, layer: LayerFields) -> Tensor:
    """Step of the bias, before it is divided by its largest entry.

    Moraitis et al. (2022), eq. 14: exp: (sum y - M e^(beta b)) / e^(beta b); relu: sum y - M b - B.
    The sums and M run over samples and output pixels, B counts samples; y (B, C, ...), bias (C,).
    """
    total = y.transpose(0, 1).flatten(1).sum(dim=1)  # (C,)
    count = y[:, 0].numel()  # M
    if layer.soft_activation_fn == Competition.EXP:
        prior = (bias * layer.t_invert).exp()
        return total / prior - count
    return total - count * bias - len(y)


def _check_bias(values: Mapping[str, Value], where: str) -> None:
    if values["add_bias"] and values["soft_activation_fn"] not in (Competition.EXP, Competition.RELU):
        raise ConfigError(
            where,
            f"no bias rule is known for soft_activation_fn={values['soft_activation_fn']}",
            hint="the bias is derived for exp and relu: leave out b1 or change soft_activation_fn",
        )


_SOFT = (*HEBBIAN, "t_invert", "add_bias", "soft_activation_fn")

RULES.register(
    HebbianRule(
        name="Soft",
        summary="SoftHebb: every neuron learns by its share of a soft competition",
        source="Moraitis et al. 2022 (Neuromorph. Comput. Eng. 2:044017), eq. 8",
        fields=_SOFT,
        signal=soft,
        softmax=functools.partial(as_softmax, signed=False),
        bias_step=bias_step,
        check=_check_bias,
    )
)
RULES.register(
    HebbianRule(
        name="SoftKrotov",
        summary="SoftHebb with anti-Hebbian losers, the rule of the deep networks",
        source="Journe et al. 2023 (ICLR), section 3.3",
        fields=_SOFT,
        signal=soft_krotov,
        softmax=functools.partial(as_softmax, signed=True),
        bias_step=bias_step,
        check=_check_bias,
    )
)
RULES.register(
    HebbianRule(
        name="SupervisedSoftKrotov",
        summary="Hebbian classifier: the label names the winner",
        source="published SoftHebb code, 4SoftHebbCnnCIFAR_HebbClassifier",
        fields=(*HEBBIAN, "t_invert"),
        archs=("MLP",),
        labels=True,
        signal=supervised,
    )
)
