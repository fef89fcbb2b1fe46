"""Schedules that the methods share: steps of a phase, signs of the nudge, rates of the weights."""

from __future__ import annotations

import torch

from hebb.config.settle import SettleSpec
from hebb.config.vocabulary import NudgeSign, StepRule


def steps(settle: SettleSpec, count: int, first: float) -> list[float]:
    """Return the steps eta_t, t = 0..count-1, of one phase; every phase starts again at eta_0 = ``first``.

    constant: eta_0; slow: max(eta_0/(1 + slope t), floor); loop: max(eta_0/(t + 1), floor).
    """
    if settle.step_rule == StepRule.CONSTANT:
        return [first] * count
    slope = settle.step_slope if settle.step_rule == StepRule.SLOW else 1.0
    return [max(first / (1 + slope * t), settle.step_floor) for t in range(count)]


def signs(settle: SettleSpec, count: int, generator: torch.Generator) -> list[int]:
    """Return the sign of the nudge of every batch of an epoch: +1, -1, or fair draws."""
    if settle.sign != NudgeSign.RANDOM:
        return [1 if settle.sign == NudgeSign.POSITIVE else -1] * count
    return (2 * torch.randint(2, (count,), generator=generator) - 1).tolist()


def factor(settle: SettleSpec, epoch: int) -> float:
    """Return the factor of the weights' rates in ``epoch`` (from 0): m^floor(epoch/decay_every).

    m is ``decay`` at first, ``late_decay`` from epoch ``late_from`` and ``last_decay`` from epoch ``last_from``. The
    exponent always counts from epoch 0, so the factor jumps where m changes.
    """
    m = settle.decay
    if settle.late_from and epoch >= settle.late_from:
        m = settle.late_decay
    if settle.last_from and epoch >= settle.last_from:
        m = settle.last_decay
    return float(m ** (epoch // settle.decay_every))
