"""The Pareto front in a report: the first metric over each other objective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

from hebb.analysis import replicates, scales, style
from hebb.analysis.scales import AxisScale
from hebb.config.vocabulary import Goal
from hebb.tuning import charts, report_charts, results
from hebb.tuning.charts import Panel

if TYPE_CHECKING:
    from hebb.config.objectives import Objective
    from hebb.tuning.search import Search
    from hebb.tuning.search_report import SearchReport

MOST = 400
"""Configurations in a chart: those on the front, and the best others."""
_POWERS = 20  # a cost has a logarithmic axis where the largest is more than so many times the smallest
_MARGIN = 1.15


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A configuration: where it stands, what it stands for, and its number on the front (0: it is not on it)."""

    x: float
    y: float
    title: str
    number: int
    feasible: bool


def charts_of(report: SearchReport) -> list[tuple[Markup, str]]:
    """Return a chart for each objective beside the first, and what it shows; none by one metric."""
    return [_chart(report, other) for other in report.search.others]


def _chart(report: SearchReport, other: Objective) -> tuple[Markup, str]:
    search = report.search
    dots = _dots(report, other)
    two = len(search.others) == 1
    labels = style.unit(other.metric), style.unit(search.metric)
    if not dots:
        return Markup(""), f"No configuration has a number for both {labels[1]} and {labels[0]}."
    x, y = _scale([dot.x for dot in dots], other.metric), _scale([dot.y for dot in dots], search.metric)
    draw = partial(_draw, dots, x, y, labels, other, search, step=two)
    parts = ["Ringed dots, numbered as below, are the front" + (", which the line joins" if two else "")]
    beaten = any(not dot.number and dot.feasible for dot in dots)
    parts += ["pale dots are beaten by a configuration on it"] if beaten else []
    parts += ["hollow dots break a constraint"] if any(not dot.feasible for dot in dots) else []
    best = "largest" if other.mode == Goal.MAX else "least"
    text = f"{labels[1][0].upper()}{labels[1][1:]} over {labels[0]}, of which the {best} is best. {'; '.join(parts)}."
    if not two:
        text += " A dot of the front may look beaten here: it is better in another objective."
    return charts.both(draw, f"{labels[1]} over {labels[0]}"), text


def _dots(report: SearchReport, other: Objective) -> list[Dot]:
    """Return what was measured, the front last, so that it is drawn on top."""
    search, numbers = report.search, {label: i for i, label in enumerate(report.leading, 1)}
    lines = [line for line in report.ranking.to_dict("records") if line["n"] == len(search.seeds)]
    dots = [_dot(line, search, other, numbers.get(str(line["configuration"]), 0)) for line in lines]
    finite = [dot for dot in dots if math.isfinite(dot.x) and math.isfinite(dot.y)]
    others = [dot for dot in finite if not dot.number][: max(MOST - len(numbers), 0)]
    return [*reversed(others), *(dot for dot in finite if dot.number)]


def _dot(line: dict[Any, Any], search: Search, other: Objective, number: int) -> Dot:
    return Dot(
        x=results.value_of(line, other.metric, search),
        y=float(line["mean"]),
        title=_title(line, search, number),
        number=number,
        feasible=bool(line.get("feasible", True)),  # only configurations with a value have a dot
    )


def _title(line: dict[Any, Any], search: Search, number: int) -> str:
    """Say what a dot stands for: the configuration, every objective and bound, and what it is."""
    names = [search.metric, *search.beside]
    values = [named(name, results.value_of(line, name, search)) for name in names]
    means = {bound: results.value_of(line, bound.metric, search) for bound in search.constraints}
    broken = [str(bound) for bound, value in means.items() if not bound.holds(value)]
    state = f"front {number}. " if number else ""
    ends = [f"breaks {', '.join(broken)}"] if broken else []
    return "\n".join([f"{state}{line['configuration']}", *values, *ends])


def named(metric: str, value: float) -> str:
    """Write a value behind the name of its metric."""
    return f"{style.unit(metric)} {replicates.number(value, metric)}"


def _scale(values: Sequence[float], metric: str) -> AxisScale:
    """Return a scale that holds the values with a margin, within the range of the metric."""
    low, high = min(values), max(values)
    if low > 0 and high > _POWERS * low:
        return scales.of_range(low / _MARGIN, high * _MARGIN, _short, logarithmic=True)
    return report_charts.linear(low, high, metric, _short)


def _short(value: float) -> str:
    """Write a tick; large numbers in thousands, millions or billions."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size and (size > 1e3 or abs(value) >= 1e4):
            return f"{value / size:.3g} {unit}"
    return f"{value:.4g}"


def _draw(
    dots: Sequence[Dot],
    x: AxisScale,
    y: AxisScale,
    labels: tuple[str, str],
    other: Objective,
    search: Search,
    width: int,
    *,
    step: bool,
) -> ElementTree.Element:
    """Draw every configuration, and the front as a line of steps."""
    svg, panel = charts.panel_of(width, x, y)
    panel.axes(*labels)
    svg.set("data-scale", x.kind)
    front = [dot for dot in dots if dot.number]
    if step and front:
        charts.path(svg, _steps(panel, front, other, search), "curve front-line")
    for dot in dots:
        look = "best" if dot.number else "pale" if dot.feasible else "broken"
        group = charts.titled(svg, dot.title, look)
        at = {"cx": panel.at_x(dot.x), "cy": panel.at_y(dot.y)}
        charts.add(group, "circle", "dot", **at, r=6.0 if dot.number else 4.0)
        charts.add(group, "circle", "target", **at, r=11.0)
    for dot in front:
        charts.text(svg, str(dot.number), panel.at_x(dot.x) + 9, panel.at_y(dot.y) - 8, "tick halo")
    return svg


def _steps(panel: Panel, front: Sequence[Dot], other: Objective, search: Search) -> list[tuple[float, float]]:
    """Return the corners of the edge of what the front beats: between two points, the worse of both in each objective.

    The ends run on to the frame, because what costs more and reaches no more is beaten, too.
    """
    ordered = sorted(front, key=lambda dot: (other.sign * dot.x, search.objectives[0].sign * -dot.y))
    left, right = panel.left, panel.left + panel.width
    bottom, top = panel.top + panel.height, panel.top
    corners = [(panel.at_x(ordered[0].x), bottom if search.maximises else top)]
    for before, dot in zip([None, *ordered], ordered, strict=False):
        if before is not None:
            corners.append((panel.at_x(dot.x), panel.at_y(before.y)))
        corners.append((panel.at_x(dot.x), panel.at_y(dot.y)))
    corners.append((left if other.mode == Goal.MAX else right, panel.at_y(ordered[-1].y)))
    return corners
