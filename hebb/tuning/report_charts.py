"""What the charts of a report show: which of them a search has, and their marks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from hebb.analysis import curves, parallel, replicates, scales, style
from hebb.analysis.importance import value_of
from hebb.analysis.scales import AxisScale, ScaleKind, Write
from hebb.config.domains import Axis
from hebb.config.vocabulary import DomainKind
from hebb.tuning import charts
from hebb.tuning.charts import Facet, Line, Mark, Strand

if TYPE_CHECKING:
    import pandas as pd

    from hebb.analysis.runs import StoredRun
    from hebb.tuning.search_report import SearchReport

MOST = 200
"""Configurations in a chart; the table has more."""
_ROWS = 40
"""Configurations of a chart that gives each a row."""
_HOLLOW = "hollow dots lack seeds"
_MARGIN = 0.06
_FAR = 50


@dataclass(frozen=True, kw_only=True)
class Heat:
    """The mean over two hyper-parameters that were varied in full: rows of (text, shade), best cells marked."""

    down: str
    across: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[str, int, bool]]]]


def varied(report: SearchReport) -> list[Axis]:
    """Return the domains of which the measured configurations have more than one value."""
    choices = _choices(report)
    measured = [choices[label] for label in report.ranking["configuration"]]
    return [a for a in report.search.spec.axes if len({str(value_of(a, choice)) for choice in measured}) > 1]


def name_of(axis: Axis) -> str:
    """Return the name of a domain as charts and tables show it."""
    return " with ".join(axis.paths()) if axis.kind == DomainKind.JOINT else axis.name


def _choices(report: SearchReport) -> dict[str, Mapping[str, Any]]:
    return {trial.label: trial.choice for trial in report.search.trials}


def shade(value: float, means: Sequence[float], *, rising: bool) -> int:
    """Return the step of a mean on the colour scale; the best is the last."""
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = min(finite), max(finite)
    if not math.isfinite(value) or low == high:
        return charts.SHADES - 1 if low == high else 0
    place = (value - low) / (high - low)
    return round((place if rising else 1 - place) * (charts.SHADES - 1))


def marks(report: SearchReport, axis: Axis | None) -> list[Mark]:
    """Return the measured configurations, best first; ``axis`` gives the value, else it is the configuration."""
    metric, lines = report.search.metric, report.ranking[report.ranking["mean"].notna()].head(MOST)
    choices = _choices(report)
    chosen = []
    for rank, line in enumerate(lines.itertuples(), 1):
        value = line.configuration if axis is None else value_of(axis, choices[line.configuration])
        chosen.append(
            Mark(
                value=value,
                mean=float(line.mean),
                low=float(line.low),
                high=float(line.high),
                seeds=[float(text) for text in str(line.values).split()],
                title=_title(rank, line, metric),
                best=line.configuration in report.leading,
                partial=line.n < len(report.search.seeds),
            )
        )
    return chosen


def _title(rank: int, line: Any, metric: str) -> str:
    mean = replicates.mean_and_deviation(line, metric)
    return f"{rank}. {line.configuration}\n{mean}{' %' if metric.endswith('_acc') else ''}, n = {line.n}"


def scale_of_metric(values: Sequence[float], metric: str) -> AxisScale:
    """Return the scale of a metric that holds the values with a margin, within the range of the metric."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    write = partial(_short, metric=metric)
    if metric.endswith("loss") and 0 < _FAR * low < high:
        return scales.of_range(low / 1.3, high * 1.3, "{:.3g}".format, logarithmic=True)
    return linear(low, high, metric, write)


def linear(low: float, high: float, metric: str, write: Write) -> AxisScale:
    """Return a linear scale from ``low`` to ``high`` with a margin, within the range of the metric."""
    margin = _MARGIN * (high - low) or max(abs(high) * 0.02, 1e-6)
    least, most = replicates.bounds(metric)
    return scales.of_range(max(low - margin, min(least, low)), min(high + margin, max(most, high)), write)


def _short(value: float, *, metric: str) -> str:
    """Write a tick of a metric."""
    return f"{value:g}" if abs(value) < 1e5 else replicates.number(value, metric)


def extent(chosen: Sequence[Mark]) -> list[float]:
    """Return every number that marks show."""
    return [v for mark in chosen for v in (mark.mean, mark.low, mark.high, *mark.seeds) if math.isfinite(v)]


# -- the answer as a chart ------------------------------------------------------------------------------------------


def answer(report: SearchReport) -> tuple[Markup, str] | None:
    """Return the chart of the metric over what is varied, and what it shows; None where several things are varied."""
    axes, metric = varied(report), report.search.metric
    if len(axes) > 1:
        return None
    label = style.unit(metric)
    axis = axes[0] if axes else None
    chosen = marks(report, axis)
    if not chosen:
        return None
    y = scale_of_metric(extent(chosen), metric)
    x = scales.of_axis(axis, [mark.value for mark in chosen]) if axis is not None else None
    if axis is not None and x is not None and x.kind != ScaleKind.EVEN:
        draw = partial(charts.over, chosen, x, y, (name_of(axis), label))
        return charts.both(draw, f"{label} over {name_of(axis)}"), f"{label} over {name_of(axis)}. {_explained(report)}"
    rows = chosen[:_ROWS]
    if axis is not None and x is not None:
        rows = [_renamed(mark, scales.text_of(mark.value)) for mark in rows]
    draw = partial(charts.rows, rows, y, label)
    left = f" The best {_ROWS} of {len(report.ranking)}." if len(report.ranking) > _ROWS else ""
    return charts.both(draw, f"{label} of each configuration"), f"{_explained(report)}{left}"


def _renamed(mark: Mark, text: str) -> Mark:
    return Mark(**{**vars(mark), "value": text})


def _explained(report: SearchReport) -> str:
    """Say what the marks are."""
    parts = ["Large dots are means"]
    if report.ranking["interval"].notna().any():
        parts.append("lines are 95 % intervals")
    if (report.ranking["n"] > 1).any():
        parts.append("small dots are seeds")
    if (report.ranking["n"] < len(report.search.seeds)).any():
        parts.append(_HOLLOW)
    what = "the front is" if report.search.several else "the best is"
    best = f"; {what} marked by colour and a ring" if len(report.ranking) > 1 and report.leading else ""
    return f"{', '.join(parts)}{best}."


# -- several hyper-parameters ---------------------------------------------------------------------------------------


def multiples(report: SearchReport) -> tuple[Markup, str] | None:
    """Return a panel for each of several hyper-parameters, and what it shows; None where fewer than two are varied."""
    axes, metric = varied(report), report.search.metric
    if len(axes) < 2:
        return None
    facets = []
    for axis in axes:
        chosen = [_bare(mark) for mark in marks(report, axis) if mark.value is not None]
        scale = scales.of_axis(axis, [mark.value for mark in chosen])
        means = _means(chosen) if axis.listed and scale.kind != ScaleKind.EVEN else ()
        absent = len(marks(report, axis)) - len(chosen)
        name = name_of(axis) + (f" ({len(chosen)} have it)" if absent else "")
        facets.append(Facet(name=name, scale=scale, marks=chosen, means=means))
    y = scale_of_metric([mark.mean for facet in facets for mark in facet.marks], metric)
    label = style.unit(metric)
    draw = partial(charts.multiples, facets, y, label)
    lacking = any(mark.partial for facet in facets for mark in facet.marks)
    parts = ["Every dot is the mean of a configuration"]
    parts += ["the front is ringed" if report.search.several else "the best is ringed"] if report.leading else []
    parts += [_HOLLOW] if lacking else []
    over = "the configurations with all seeds" if lacking else "all configurations"
    parts += [f"a line is the mean over {over} at a value"] if any(facet.means for facet in facets) else []
    text = f"{'; '.join(parts)}."
    return charts.both(draw, f"{label} over each of {', '.join(map(name_of, axes))}"), text


def _bare(mark: Mark) -> Mark:
    """Leave out what a small panel does not draw."""
    return Mark(value=mark.value, mean=mark.mean, title=mark.title, best=mark.best, partial=mark.partial)


def _means(chosen: Sequence[Mark]) -> list[tuple[Any, float]]:
    """Return the mean over the configurations at each value of a list, in order."""
    by_value: dict[Any, list[float]] = {}
    for mark in chosen:
        if mark.partial:
            continue
        by_value.setdefault(mark.value, []).append(mark.mean)
    return [(value, math.fsum(means) / len(means)) for value, means in sorted(by_value.items())]


def heat(report: SearchReport) -> Heat | None:
    """Return the table of two hyper-parameters that were varied in full; None for any other search."""
    axes = varied(report)
    if len(axes) != 2 or not all(axis.listed and not axis.when for axis in axes):
        return None
    down, across = axes
    choices, lines = _choices(report), report.ranking[report.ranking["mean"].notna()]
    cells = {
        tuple(scales.text_of(value_of(axis, choices[line.configuration])) for axis in axes): line
        for line in lines.itertuples()
    }
    names = [_in_order(axis) for axis in axes]
    if len(cells) != len(names[0]) * len(names[1]) or max(map(len, names)) > 12:
        return None
    means, rising = list(lines["mean"]), report.search.maximises

    def cell(key: tuple[str, str]) -> tuple[str, int, bool]:
        line = cells[key]
        best = line.configuration in report.leading
        return replicates.number(line.mean, report.search.metric), shade(line.mean, means, rising=rising), best

    rows = [(row, [cell((row, column)) for column in names[1]]) for row in names[0]]
    return Heat(down=name_of(down), across=name_of(across), columns=names[1], rows=rows)


def _in_order(axis: Axis) -> list[str]:
    """Return the texts of a list's values: numbers rise, words stay as they are."""
    values = [value_of(axis, point) for point in axis.options]
    ordered = sorted(values) if all(map(scales.is_number, values)) else values
    return [scales.text_of(value) for value in ordered]


def strands(report: SearchReport) -> tuple[Markup, tuple[str, str]] | None:
    """Return parallel coordinates and the means at the ends of their colours; None below three hyper-parameters."""
    axes, metric = varied(report), report.search.metric
    if len(axes) < parallel.LEAST:
        return None
    lines = report.ranking[report.ranking["mean"].notna()].head(MOST)
    choices = _choices(report)
    frame = parallel.compute(axes, [dict(choices[label]) for label in lines["configuration"]], lines["mean"], metric)
    write = partial(replicates.number, metric=metric)
    along = [scales.of_axis(axis, list(frame[axis.name])) for axis in axes]
    along.append(scales.of_values(list(frame[metric]), write, logarithmic=False))
    means, rising = list(frame[metric]), report.search.maximises
    every = [
        Strand(
            values=values,
            title=_title(rank, line, metric),
            shade=shade(line.mean, means, rising=rising),
            best=line.configuration in report.leading,
        )
        for rank, (values, line) in enumerate(zip(frame.itertuples(index=False), lines.itertuples(), strict=True), 1)
    ]
    names = [*map(name_of, axes), style.unit(metric)]
    alt = f"values and {style.unit(metric)} of {len(every)} configurations"
    worst, best = (min(means), max(means)) if rising else (max(means), min(means))
    return charts.both(partial(charts.parallel, every, names, along), alt), (write(worst), write(best))


# -- curves -----------------------------------------------------------------------------------------------------------


def epochs(
    by_label: Mapping[str, Sequence[StoredRun]], metric: str
) -> tuple[Markup, list[tuple[int, str]], str] | None:
    """Return the metric by epoch of some configurations, number and name of each line, and what it and its band are.

    None where no run has the metric by epoch.
    """
    frames = []
    for number, (label, members) in enumerate(by_label.items()):
        if any(row.get(metric) is not None for run in members for row in run.rows):
            frames.append((number, label, curves.compute(list(members), metric, [])))
    if not frames:
        return None
    phases = sorted({phase for _, _, frame in frames for phase in frame["phase"]}, key=curves.order)
    panels = [
        (phase, [_curve(*part, phase, metric) for part in frames if phase in set(part[2]["phase"])]) for phase in phases
    ]
    values = [v for _, lines in panels for line in lines for v in (*line.y, *line.low, *line.high)]
    draw = partial(charts.curves, panels, scale_of_metric(values, metric), style.unit(metric))
    most = max(int(frame["n"].max()) for _, _, frame in frames)
    widest = next(frame for _, _, frame in frames if frame["n"].max() == most)
    legend = f"Lines are means over seeds, {style.spread(widest)}" if most > 1 else ""
    names = [(number, label) for number, label, _ in frames]
    return charts.both(draw, f"{style.unit(metric)} by epoch"), names, legend


def _curve(number: int, label: str, frame: pd.DataFrame, phase: str, metric: str) -> Line:
    lines = frame[frame["phase"] == phase].sort_values("epoch")
    low, high = style.spans(lines, metric)
    return Line(
        name=label, number=number, x=list(lines["epoch"]), y=list(lines["mean"]), low=list(low), high=list(high)
    )
