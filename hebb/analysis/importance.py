"""How much each hyper-parameter of a search matters: functional analysis of variance (fANOVA).

A random forest is fitted to the mean of the metric as a function of the configuration. The importance of a
hyper-parameter is the share of the forest's variance over the whole space that it explains by itself; the rest lies in
interactions. Hutter, Hoos & Leyton-Brown 2014 (ICML), as in Optuna (64 trees, seed 0).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from hebb.config.domains import Axis, Choice
from hebb.core import extras

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

LEAST = 8
"""Least number of configurations for an answer."""


def value_of(axis: Axis, choice: Mapping[str, Any]) -> Any:
    """Return the value of an axis in a configuration, or None; for a joint axis, its values in one string."""
    if axis.kind != "joint":
        return choice.get(axis.name)
    values = [choice.get(path) for path in axis.paths()]
    return None if None in values else ", ".join(map(str, values))


def compute(axes: Sequence[Axis], choices: Sequence[Choice], means: Sequence[float]) -> pd.DataFrame:
    """Return one line a hyper-parameter, most important first: parameter, importance (share of the variance), n.

    Hyper-parameters that some configurations lack, or that never differ, are left out. The frame is empty for fewer
    than two hyper-parameters or ``LEAST`` configurations, and where all means are equal.

    Args:
        axes: the space.
        choices: values by override path, for each configuration that was measured.
        means: mean of the metric for each configuration.

    Raises:
        ConfigError: without Optuna.
    """
    columns = {axis.name: [value_of(axis, choice) for choice in choices] for axis in axes}
    kept = [axis for axis in axes if None not in columns[axis.name] and len(set(map(str, columns[axis.name]))) > 1]
    if len(kept) < 2 or len(choices) < LEAST or max(means) == min(means):
        return pd.DataFrame({"parameter": [], "importance": [], "n": []})
    extras.require("the importance of hyper-parameters", "optuna", extra=extras.EXTRAS["optuna"])
    import optuna
    from optuna.importance import FanovaImportanceEvaluator

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    coded = {axis.name: _coded(axis, columns[axis.name]) for axis in kept}
    distributions = {name: distribution for name, (distribution, _) in coded.items()}
    study = optuna.create_study()
    for i, mean in enumerate(means):
        parameters = {name: values[i] for name, (_, values) in coded.items()}
        study.add_trial(optuna.trial.create_trial(params=parameters, distributions=distributions, value=float(mean)))
    shares = FanovaImportanceEvaluator(seed=0).evaluate(study)
    frame = pd.DataFrame({"parameter": list(shares), "importance": list(shares.values()), "n": len(choices)})
    return frame.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def _coded(axis: Axis, values: Sequence[Any]) -> tuple[BaseDistribution, list[float]]:
    """Return an axis as a distribution of Optuna, and the values as numbers in it; log-uniform ones are logarithms.

    The values of a list become places 0, 1, ... of an interval that extends half a place beyond both ends. The trees
    cut it half-way between two places, so that every value has the same weight.
    """
    from optuna.distributions import FloatDistribution

    if axis.listed:
        listed: list[Any] = list({str(value): value for value in values}.values())
        if all(isinstance(value, int | float) for value in listed):
            listed.sort()
        return FloatDistribution(-0.5, len(listed) - 0.5), [float(listed.index(value)) for value in values]
    scale = math.log if axis.kind == "loguniform" else float
    return FloatDistribution(scale(axis.low), scale(axis.high)), [scale(value) for value in values]
