"""What a search compares by: objectives with the better direction of each, and constraints. Imports nothing heavy.

An objective is a metric of ``metrics.jsonl`` or a cost of a run; the docs define each in ``docs/glossary.md``.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hebb.config.vocabulary import Goal
from hebb.core.choices import choose
from hebb.core.errors import ConfigError

METRICS = ("train_loss", "train_acc", "val_loss", "val_acc", "test_loss", "test_acc", "convergence", "R1")
"""What the rows of a run measure, by epoch."""
STATIC = ("parameters", "multiply_accumulates", "synaptic_operations", "images_seen")
"""Costs that follow from a configuration, before anything is trained."""
MEASURED = ("seconds", "peak_memory", "winner_entropy", "activity_sparsity")
"""Costs that are known when a run has ended."""
COSTS = (*STATIC, *MEASURED)
NAMES = (*METRICS, *COSTS)
_LARGE_IS_GOOD = ("winner_entropy", "activity_sparsity")
_COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
_CONSTRAINT = re.compile(r"\s*(\w+)\s*(<=|>=|<|>)\s*(\S+)\s*")


def better(name: str) -> Goal:
    """Return which value is best: costs and losses are minimised, accuracies and R1 maximised.

    Convergence is a distance, from radius 1. Entropy and sparsity are properties of a code and not costs in the strict
    sense; more of them is better.
    """
    costs = name in COSTS and name not in _LARGE_IS_GOOD
    return Goal.MIN if costs or name.endswith("_loss") or name == "convergence" else Goal.MAX


def comparable(mean: float) -> float:
    """Round a mean so far that the order in which seeds were added cannot decide a rank."""
    return float(f"{mean:.10g}")


@dataclass(frozen=True)
class Objective:
    """What is compared, and whether the largest or the least of it is best."""

    metric: str
    mode: Goal

    @property
    def sign(self) -> int:
        """The factor that makes less better."""
        return -1 if self.mode == Goal.MAX else 1


@dataclass(frozen=True)
class Constraint:
    """A bound on the mean of a metric or cost: ``parameters <= 300000``."""

    metric: str
    comparison: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric} {self.comparison} {self.bound:.12g}"

    @property
    def static(self) -> bool:
        """Whether it is decided before a run."""
        return self.metric in STATIC

    def holds(self, value: float | None) -> bool:
        """Tell whether a value keeps the bound; one that was not measured does not."""
        return value is not None and bool(_COMPARISONS[self.comparison](value, self.bound))

    def excess(self, value: float | None) -> float:
        """Return by how much a value breaks the bound, in units of the bound; at most 0 where it holds."""
        if value is None or not math.isfinite(value):
            return 1.0
        past = value - self.bound if self.comparison in ("<=", "<") else self.bound - value
        scaled = past / (abs(self.bound) or 1.0)
        return scaled if past != 0 or self.holds(value) else 1e-12


def nobody(metric: str, bounds: Sequence[Constraint]) -> str:
    """Say that nothing can be named best, and what it would take; ``metric`` may be several, in words."""
    keeps = f" and keeps {', '.join(map(str, bounds))}" if bounds else ""
    return f"no configuration has a finite {metric} on every seed{keeps}"


def objectives(metric: object, mode: object, where: str, flags: tuple[str, str] = ("", "")) -> tuple[Objective, ...]:
    """Read one or several objectives: a name, a list of names, or a mapping of names to modes.

    Args:
        metric: the names; None for none.
        mode: the mode of the first, or a list with one for each; None for what suits the metric.
        where: the place, as errors name it.
        flags: what the user calls metric and mode; empty takes the keys below ``where``.
    """
    places = [flag or f"{where}, {key}" for flag, key in zip(flags, ("metric", "mode"), strict=True)]
    pairs = _pairs(metric, mode, places)
    names = [name for name, _ in pairs]
    for name in names:
        if name not in NAMES:
            raise ConfigError(places[0], f"unknown metric '{name}'", given=name, choices=NAMES)
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(places[0], f"names {twice[0]} twice")
    if names and names[0] not in METRICS:
        hint = f"for example {' '.join(['test_acc', *names][:3])}"
        problem = f"must begin with what a run measures by epoch, {', '.join(METRICS)}, got {names[0]}"
        raise ConfigError(places[0], problem, hint=f"the first orders the table, and schedulers stop by it; {hint}")
    goals = [better(name) if word is None else choose(Goal, str(word), places[1]) for name, word in pairs]
    return tuple(map(Objective, names, goals))


def _pairs(metric: object, mode: object, places: Sequence[str]) -> list[tuple[str, Any]]:
    if metric is None:
        return []
    if isinstance(metric, Mapping):
        if mode is not None:
            raise ConfigError(places[1], f"must be left out: {places[0]} has the mode of each")
        pairs = [(str(name), word) for name, word in metric.items()]
    else:
        names = [str(name) for name in metric] if isinstance(metric, list | tuple) else [str(metric)]
        words = list(mode) if isinstance(mode, list | tuple) else [mode]
        if mode is None:
            words = [None] * len(names)
        if len(words) != len(names):
            got = f"{len(words)} for {len(names)} metrics"
            raise ConfigError(places[1], f"must be left out, or be one of max and min for each metric, got {got}")
        pairs = list(zip(names, words, strict=True))
    if not pairs:
        raise ConfigError(places[0], "must name a metric, got none", choices=NAMES)
    return pairs


def constraints(data: object, where: str) -> tuple[Constraint, ...]:
    """Read constraints: a mapping of names to bounds (``{parameters: "<= 300000"}``), or texts of both."""
    if data is None:
        return ()
    if isinstance(data, Mapping):
        texts = [f"{name} {bound}" for name, bounds in data.items() for bound in _listed(bounds)]
    else:
        texts = [str(text) for text in _listed(data)]
    return tuple(_constraint(text, where) for text in texts)


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _constraint(text: str, where: str) -> Constraint:
    match = _CONSTRAINT.fullmatch(text)
    if match is None:
        hint = "for example 'parameters <= 300000'"
        raise ConfigError(
            where, f"must be a metric, one of {' '.join(_COMPARISONS)}, and a number, got '{text}'", hint=hint
        )
    name, comparison, number = match.groups()
    if name not in NAMES:
        raise ConfigError(where, f"unknown metric '{name}'", given=name, choices=NAMES)
    try:
        bound = float(number.replace("_", ""))
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise ConfigError(where, f"the bound of {name} must be a number, got '{number}'")
    return Constraint(name, comparison, bound)
