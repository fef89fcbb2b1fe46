"""What a searcher suggests and reads, and the points of the space that it means. Imports neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hebb.config.domains import Axis, Choice

Number = int | float
Parameters = dict[str, Number]
"""What a searcher suggests: by the name of a domain, the index of a point or the value of an interval."""

STEP, SCORE = "step", "score"
"""Keys of a report that schedulers and searchers read."""


def choice_of(axes: Sequence[Axis], parameters: Mapping[str, Number]) -> Choice:
    """Return the point of the space that a searcher suggests, without the domains that do not exist there."""
    choice: Choice = {}
    for axis in axes:
        if axis.active(choice):
            choice.update(point_of(axis, parameters[axis.name]))
    return choice


def point_of(axis: Axis, value: Number) -> Choice:
    """Return what a value of a domain sets: the index of a point, or a number of an interval."""
    count = axis.count()
    return axis.point((int(value) + 0.5) / count) if count else {axis.name: float(value)}


def parameters_of(axes: Sequence[Axis], choice: Choice) -> Parameters:
    """Return what a searcher would suggest for a point of the space: the inverse of ``choice_of``."""
    return {axis.name: _parameter(axis, choice) for axis in axes if axis.active(choice)}


def _parameter(axis: Axis, choice: Choice) -> Number:
    if axis.listed:
        return axis.options.index({path: choice[path] for path in axis.paths()})
    value: float = choice[axis.name]
    if not axis.count():
        return value
    return round((value - axis.low) / (axis.step or 1))


def plain(parameters: Mapping[str, Any]) -> Parameters:
    """Return the parameters as plain numbers for JSON; HyperOpt gives numpy numbers."""
    return {name: value.item() if hasattr(value, "item") else value for name, value in parameters.items()}
