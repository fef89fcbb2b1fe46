"""Learning rates of the Hebbian rules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hebb.config.classifier import ClassifierSpec
from hebb.config.vocabulary import RateDecay, Schedule

if TYPE_CHECKING:
    from torch import Tensor

    from hebb.config.fields import LayerFields

_FLOOR = 1e-10  # keeps |r - 1|^q differentiable in q and alive for q = 0 at r = 1


def norm_dependent(layer: LayerFields, radius: Tensor) -> Tensor:
    """eta_i = eta (|r_i - 1| + 1e-10)^q: a neuron slows down as its radius nears 1.

    Journe et al. (2023), section 3.4, with eta = ``layer.lr``, q = ``layer.power_lr``; shape of ``radius``.
    """
    return (radius - 1).abs_().add_(_FLOOR).pow_(layer.power_lr).mul_(layer.lr)


def scheduled(layer: LayerFields, update: int, updates: float, epochs: int = 1) -> float:
    """Return the rate of update k of T by the schedule ``layer.lr_decay``, the same for every neuron.

    linear: max(0, eta - k eta/T).
    exp: m + (eta - m) e^(-s k/T) with m = (eta/div - eta e^-s)/(1 - e^-s), which ends at eta/div.
    floor: e + (eta - e) e^(-f k/B), which depends on the epochs passed and not on those to come.
    constant: eta.

    Args:
        layer: the layer's spec: ``lr`` (eta), ``speed`` (s), ``lr_div`` (div), ``lr_floor`` (e), ``lr_fall`` (f).
        update: k, the updates already made in this phase; the first one takes eta.
        updates: T = epochs * samples / batch, not rounded.
        epochs: T/B, where B is the number of updates of one epoch.
    """
    eta = layer.lr
    if layer.lr_decay == RateDecay.CONSTANT or updates <= 0:
        return eta
    if layer.lr_decay == RateDecay.LINEAR:
        return max(0.0, eta - update * eta / updates)
    floor, fall = _exponential(layer, epochs)
    return floor + (eta - floor) * math.exp(-fall * update / updates)


def _exponential(layer: LayerFields, epochs: int) -> tuple[float, float]:
    """Return m and s of the schedule m + (eta - m) e^(-s k/T)."""
    if layer.lr_decay == RateDecay.FLOOR:
        return layer.lr_floor, layer.lr_fall * epochs
    end = math.exp(-layer.speed)
    return (layer.lr / layer.lr_div - layer.lr * end) / (1 - end), layer.speed


def travel(layer: LayerFields, updates_made: int, updates: float, epochs: int = 1) -> float:
    """Return the sum of the first ``updates_made`` rates of ``scheduled``.

    No weight moves farther than that when its change is divided by the largest entry.

    Args:
        layer: the layer's spec.
        updates_made: number of updates.
        updates: T, as of ``scheduled``.
        epochs: T/B.
    """
    eta = layer.lr
    if layer.lr_decay == RateDecay.CONSTANT or updates <= 0:
        return eta * updates_made
    if layer.lr_decay == RateDecay.LINEAR:
        steps = min(updates_made, math.floor(updates) + 1)
        return eta * (steps - steps * (steps - 1) / 2 / updates)
    floor, fall = _exponential(layer, epochs)
    if fall == 0:
        return eta * updates_made
    return floor * updates_made + (eta - floor) * math.expm1(-fall * updates_made / updates) / math.expm1(
        -fall / updates
    )


def classifier_factor(classifier: ClassifierSpec, epoch: int, epochs: int) -> float:
    """Return the factor of the back-prop rate in ``epoch`` (from 0) of ``epochs``, by ``classifier.schedule``."""
    if classifier.schedule == Schedule.STEP:
        return step_decay(epoch, epochs)
    if classifier.schedule == Schedule.COSINE:
        return cosine(epoch, classifier.restart or epochs, classifier.restart_growth)
    if classifier.schedule == Schedule.DECAY:
        return classifier.decay ** (max(0, epoch - classifier.decay_after) // classifier.decay_every)
    return 1.0


def cosine(epoch: int, first: int, growth: int) -> float:
    """(1 + cos(pi t/T))/2 for epoch t of a cycle of T epochs; cycles last first, first growth, first growth^2, ...

    Loshchilov & Hutter (2017), eq. 5, with a least rate of 0.
    """
    length = first
    while epoch >= length:
        epoch, length = epoch - length, length * growth
    return (1 + math.cos(math.pi * epoch / length)) / 2


def warm_cosine(layer: LayerFields, epoch: int, epochs: int) -> float:
    """Return the rate of ``epoch`` (from 0) of E: a line up to eta in W epochs, then a cosine down to the last rate.

    e < W: s + (eta - s) e/(W - 1);  e >= W: f + (eta - f)(1 + cos(pi (e - W)/(E - W)))/2.

    Args:
        layer: the layer's spec: ``lr_sup`` (eta), ``start_lr`` (s), ``final_lr`` (f), ``warmup`` (W).
        epoch: e; with a warm-up the first epoch takes s, which is 0 by default.
        epochs: E, more than W.
    """
    if epoch < layer.warmup:
        return layer.start_lr + (layer.lr_sup - layer.start_lr) * epoch / max(layer.warmup - 1, 1)
    turned = math.cos(math.pi * (epoch - layer.warmup) / (epochs - layer.warmup))
    return layer.final_lr + 0.5 * (layer.lr_sup - layer.final_lr) * (1 + turned)


def step_decay(epoch: int, epochs: int) -> float:
    """Return the factor of the classifier's rate in ``epoch`` (from 0) of ``epochs``.

    The rate halves at .2 .35 .5 .6 .7 .8 .9 of 50 epochs or more, at .5 and .75 of 20 to 49, never below.
    """
    if epochs < 20:
        return 1.0
    ratios = (0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9) if epochs >= 50 else (0.5, 0.75)
    return 0.5 ** sum(epoch >= int(epochs * ratio) for ratio in ratios)
