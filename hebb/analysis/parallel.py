"""Parallel coordinates: every configuration of a search as a line through its values to its metric."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import pandas as pd

from hebb.analysis import replicates, style
from hebb.analysis.importance import value_of
from hebb.config.domains import Axis, Choice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GAP = 0.07
"""Least distance of two ticks, in heights of the axis; nearer values have evenly spaced ticks instead."""
_LETTERS = 22
"""Letters of a line of a tick's text."""
_WIDE = 20
"""Positive numbers have a logarithmic axis when the largest is more than this many times the smallest."""


def compute(axes: Sequence[Axis], choices: Sequence[Choice], means: Sequence[float], metric: str) -> pd.DataFrame:
    """Return one line a configuration: a column for every axis whose values differ, and the metric.

    A value is None where a configuration has none.
    """
    columns = {axis.name: [value_of(axis, choice) for choice in choices] for axis in axes}
    shown = {name: values for name, values in columns.items() if len(set(map(str, values))) > 1}
    return pd.DataFrame({**{k: pd.Series(v, dtype=object) for k, v in shown.items()}, metric: list(means)})


def heights(
    values: Sequence[object], write: Callable[[float], str] = "{:.3g}".format
) -> tuple[list[float], list[tuple[float, str]]]:
    """Return the height of each value on its axis, from 0 to 1, and the ticks (height, text) of the axis.

    Numbers are placed in proportion, or in proportion to their logarithms; words and missing values are evenly spaced.
    ``write`` gives the text of a number.
    """
    numbers = [v for v in values if _is_number(v)]
    if len(numbers) < len(values) or min(numbers) == max(numbers):
        return _spaced(values, write)
    low, high = min(numbers), max(numbers)
    logarithmic = low > 0 and high / low > _WIDE
    at = (lambda v: math.log(v / low) / math.log(high / low)) if logarithmic else (lambda v: (v - low) / (high - low))
    different = sorted(set(numbers))
    if any(at(above) - at(below) < _GAP for below, above in itertools.pairwise(different)):
        spaced = np.geomspace(low, high, 5) if logarithmic else np.linspace(low, high, 5)
        different = [float(v) for v in spaced]
    return [at(v) for v in numbers], [(at(v), write(v)) for v in different]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _spaced(values: Sequence[object], write: Callable[[float], str]) -> tuple[list[float], list[tuple[float, str]]]:
    """Return evenly spaced heights and their ticks: missing values lowest, then numbers, then words."""
    texts = ["-" if v is None else write(v) if _is_number(v) else str(v) for v in values]

    def rank(text: str) -> tuple[int, float, str]:
        value = values[texts.index(text)]
        return (0 if value is None else 1 if _is_number(value) else 2), (value if _is_number(value) else 0.0), text

    names = sorted(set(texts), key=rank)
    places = {name: (i / (len(names) - 1) if len(names) > 1 else 0.5) for i, name in enumerate(names)}
    return [places[text] for text in texts], [(y, name) for name, y in places.items()]


@style.drawn
def draw(frame: pd.DataFrame, better: str = "max", leading: int = 1) -> Figure:
    """Draw a line for each configuration, coloured by the metric in the last column.

    Args:
        frame: the configurations, best first.
        better: whether ``max`` or ``min`` of the metric is better.
        leading: how many of the first have the best mean: the first is black and on top, the others dashed; 0 marks
            none.
    """
    from matplotlib import colormaps

    metric = str(frame.columns[-1])
    figure, axes = style.figure(width=max(4.2, 1.5 * len(frame.columns)), height=3.4)
    placed = [heights(list(frame[column])) for column in frame.columns[:-1]]
    placed.append(heights(list(frame[metric]), lambda value: replicates.number(value, metric)))
    shades = _shades(frame[metric].to_numpy(dtype=float), better == "max")
    for i in reversed(range(len(frame))):
        colour = "black" if i < leading else colormaps["viridis_r"](shades[i])
        look: dict[str, Any] = {
            "linewidth": 2 if i == 0 < leading else 1.2,
            "linestyle": "--" if 0 < i < leading else "-",
        }
        axes.plot([places[i] for places, _ in placed], color=colour, alpha=1 if i < leading else 0.8, **look)
    for x, (_, ticks) in enumerate(placed):
        axes.axvline(x, color=style.GREY, linewidth=0.8, zorder=0)
        for y, text in ticks:
            box = {"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 0.5}
            axes.text(x + 0.03, y, style.wrapped(text, _LETTERS), fontsize=8, va="center", bbox=box)
    names = [*map(str, frame.columns[:-1]), style.unit(metric)]
    axes.set_xticks(range(len(names)), [style.wrapped(name, 24) for name in names])
    for text in axes.get_xticklabels():
        text.set(rotation=20, ha="right", rotation_mode="anchor")
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xlim(-0.1, len(names) - 1 + 0.35)
    return figure


def _shades(scores: np.ndarray, rising: bool) -> np.ndarray:
    """Return the colour of each score, from 0.1 for the worst (less is too faint on white) to 0.9 for the best."""
    span = float(scores.max() - scores.min()) or 1.0
    shades: np.ndarray = 0.1 + 0.8 * ((scores - scores.min()) if rising else (scores.max() - scores)) / span
    return shades
