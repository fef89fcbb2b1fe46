"""Parallel coordinates: every configuration of a search as a line through its values to its metric."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hebb.analysis import style
from hebb.analysis.importance import value_of
from hebb.config.domains import Axis, Choice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GAP = 0.07
"""Least distance of two ticks, in heights of the axis; nearer values have evenly spaced ticks instead."""
_WIDE = 20
"""Positive numbers have a logarithmic axis when the largest is more than this many times the smallest."""


def compute(axes: Sequence[Axis], choices: Sequence[Choice], means: Sequence[float], metric: str) -> pd.DataFrame:
    """Return one line a configuration: a column for every axis whose values differ, and the metric.

    A value is None where a configuration has none.
    """
    columns = {axis.name: [value_of(axis, choice) for choice in choices] for axis in axes}
    shown = {name: values for name, values in columns.items() if len(set(map(str, values))) > 1}
    return pd.DataFrame({**{k: pd.Series(v, dtype=object) for k, v in shown.items()}, metric: list(means)})


def heights(values: Sequence[object]) -> tuple[list[float], list[tuple[float, str]]]:
    """Return the height of each value on its axis, from 0 to 1, and the ticks (height, text) of the axis.

    Numbers are placed in proportion, or in proportion to their logarithms; words and missing values are evenly spaced.
    """
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]
    if len(numbers) < len(values) or min(numbers) == max(numbers):
        names = list(dict.fromkeys("-" if v is None else str(v) for v in values))
        names = sorted(names, key=lambda name: (name != "-", name))
        places = {name: (i / (len(names) - 1) if len(names) > 1 else 0.5) for i, name in enumerate(names)}
        return [places["-" if v is None else str(v)] for v in values], [(y, name) for name, y in places.items()]
    low, high = min(numbers), max(numbers)
    logarithmic = low > 0 and high / low > _WIDE
    at = (lambda v: math.log(v / low) / math.log(high / low)) if logarithmic else (lambda v: (v - low) / (high - low))
    different = sorted(set(numbers))
    if any(at(above) - at(below) < _GAP for below, above in itertools.pairwise(different)):
        spaced = np.geomspace(low, high, 5) if logarithmic else np.linspace(low, high, 5)
        different = [float(v) for v in spaced]
    return [at(v) for v in numbers], [(at(v), f"{v:.3g}") for v in different]


@style.drawn
def draw(frame: pd.DataFrame, better: str = "max") -> Figure:
    """Draw a line for each configuration, coloured by the metric in the last column; the best is black and on top."""
    from matplotlib import colormaps

    metric = str(frame.columns[-1])
    rising = better == "max"
    frame = frame.sort_values(metric, ascending=rising, kind="stable")
    figure, axes = style.figure(width=max(4.2, 1.5 * len(frame.columns)), height=3.4)
    placed = [heights(list(frame[column])) for column in frame.columns]
    score = frame[metric].to_numpy(dtype=float)
    span = float(score.max() - score.min()) or 1.0
    shades = 0.9 * (score - score.min()) / span if rising else 0.9 * (score.max() - score) / span
    for i in range(len(frame)):
        best = i == len(frame) - 1
        line = [places[i] for places, _ in placed]
        colour = "black" if best else colormaps["viridis_r"](shades[i])
        axes.plot(range(len(line)), line, color=colour, linewidth=2 if best else 1, alpha=1 if best else 0.8)
    for x, (_, ticks) in enumerate(placed):
        axes.axvline(x, color=style.GREY, linewidth=0.8, zorder=0)
        for y, text in ticks:
            axes.text(
                x + 0.03,
                y,
                text,
                fontsize=8,
                va="center",
                bbox={"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 0.5},
            )
    names = [str(column) for column in frame.columns[:-1]] + [style.unit(metric)]
    axes.set_xticks(range(len(names)), names)
    for text in axes.get_xticklabels():
        text.set(rotation=20, ha="right", rotation_mode="anchor")
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xlim(-0.1, len(names) - 1 + 0.35)
    return figure
