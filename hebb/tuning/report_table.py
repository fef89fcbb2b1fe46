"""The table of a report: every configuration of a search, with what became of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hebb.analysis import fates, replicates, scales, style
from hebb.analysis.fates import Fate
from hebb.analysis.importance import value_of
from hebb.config.domains import Axis
from hebb.storage import folders
from hebb.tuning import report_charts
from hebb.tuning.search import Search, Trial

if TYPE_CHECKING:
    from hebb.storage.journal import Journal
    from hebb.tuning.search_report import SearchReport

MOST = 400
"""Configurations in the table."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell: its text, and what it is sorted by; an empty ``order`` comes last."""

    text: str
    order: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A configuration: its label, its place (empty without a mean), its cells, what became of it, whether it leads."""

    label: str
    place: str
    cells: Sequence[Cell]
    state: str
    best: bool


@dataclass(frozen=True, kw_only=True)
class Table:
    """The table: its columns (name, whether it holds numbers), its rows, and what is left out, in words."""

    columns: Sequence[tuple[str, bool]]
    rows: Sequence[Row]
    left_out: str

    @property
    def states(self) -> bool:
        """Whether any row says what became of it."""
        return any(row.state for row in self.rows)


def of_report(report: SearchReport) -> Table:
    """Return the table, best configuration first; those without a finished run come last."""
    search, metric = report.search, report.search.metric
    axes = _shown_axes(search)
    choices = {trial.label: trial.choice for trial in search.trials}
    spreads = replicates.spread_cells(report.ranking, metric)
    marks = [name for name in ("feasible", "front") if name in report.ranking]
    rows = []
    for place, (line, spread) in enumerate(zip(report.ranking.itertuples(), spreads, strict=True), 1):
        label = str(line.configuration)
        numbers = [
            Cell(text=replicates.number(line.mean, metric), order=_order(line.mean)),
            *_spread_cells(spread, line),
            Cell(text=str(line.n), order=str(line.n)),
            Cell(text=replicates.minutes(line.minutes), order=_order(line.minutes)),
            *_beside(line, search, marks),
        ]
        cells = [*_values(axes, choices[label]), *numbers]
        state = report.fates.get(label, "")
        tied = label in report.leading
        rows.append(
            Row(
                label=label,
                place="1" if tied and not search.several else str(place),
                cells=cells,
                state=state,
                best=tied,
            )
        )
    empty = [Cell(text=replicates.NOTHING)] * (3 + len(spreads[0]) + len(search.beside) + len(marks))
    others = [
        Row(label=label, place="", cells=[*_values(axes, choices[label]), *empty], state=state, best=False)
        for label, state in report.fates.items()
        if label not in set(report.ranking["configuration"])
    ]
    names = [(report_charts.name_of(axis), _numeric(axis, choices)) for axis in axes]
    measured = [f"mean {style.unit(metric)}", *("s.d." if name == "sd" else name for name in spreads[0])]
    numbers_of = (*measured, "n", "minutes a run", *map(style.unit, search.beside))
    columns = [*names, *((name, True) for name in numbers_of), *((name, False) for name in marks)]
    kept = [*rows[: max(MOST - len(others), MOST // 2)], *others][:MOST]
    return Table(columns=columns, rows=kept, left_out=_left_out(len(rows) + len(others), report.to_come))


def _shown_axes(search: Search) -> list[Axis]:
    """Return the domains with more than one value."""
    return [axis for axis in search.spec.axes if axis.count() != 1]


def _numeric(axis: Axis, choices: Mapping[str, Mapping[str, Any]]) -> bool:
    return all(scales.is_number(value_of(axis, c)) or value_of(axis, c) is None for c in choices.values())


def _values(axes: Sequence[Axis], choice: Mapping[str, Any]) -> list[Cell]:
    cells = []
    for axis in axes:
        value = value_of(axis, choice)
        cells.append(Cell(text=scales.text_of(value), order=_order(value) if scales.is_number(value) else str(value)))
    return cells


def _spread_cells(spread: Mapping[str, str], line: Any) -> list[Cell]:
    order = {"sd": line.sd, "95 % interval": line.low if not math.isnan(line.interval) else math.nan}
    return [Cell(text=text, order=_order(order.get(name, math.nan))) for name, text in spread.items()]


def _beside(line: Any, search: Search, marks: Sequence[str]) -> list[Cell]:
    """Return the means of other objectives and of what is bounded, and whether a configuration is on the front."""
    values = {name: float(getattr(line, name)) for name in search.beside}
    cells = [Cell(text=replicates.number(value, name), order=_order(value)) for name, value in values.items()]
    return [*cells, *(Cell(text="yes" if getattr(line, name) else "no") for name in marks)]


def _order(value: float) -> str:
    """Write a number for a script; nothing where there is none."""
    return f"{value:.12g}" if math.isfinite(value) else ""


def _left_out(rows: int, to_come: int) -> str:
    """Say how many configurations the table lacks."""
    parts = [f"{rows - MOST} of {rows} configurations are left out"] if rows > MOST else []
    runs = "run is" if to_come == 1 else "runs are"
    parts += [f"{to_come} {runs} still to be chosen by the search algorithm"] if to_come else []
    return "; ".join(parts)


def fates_of(search: Search, journal: Journal) -> dict[str, str]:
    """Say for each configuration what became of the runs that did not run to the end."""
    said: dict[str, dict[str, list[int]]] = {}
    for trial in search.trials:
        said.setdefault(trial.label, {})
        text = _fate(search, trial, journal)
        if text:
            said[trial.label].setdefault(text, []).append(trial.config.seed)
    return {
        label: "; ".join(
            text if len(seeds) == len(search.seeds) else f"{seeds_of(seeds)}: {text}" for text, seeds in parts.items()
        )
        for label, parts in said.items()
        if parts
    }


def seeds_of(seeds: Sequence[int]) -> str:
    """Name seeds: ``seeds 0 1``."""
    return f"seed{'s' if len(seeds) > 1 else ''} {' '.join(map(str, seeds))}"


def _fate(search: Search, trial: Trial, journal: Journal) -> str:
    """Say why a run is not finished; empty if it is."""
    fate = fates.of_run(folders.state(trial.folder), journal, trial.name)
    if fate is None:
        return ""
    if fate == Fate.FAILED:
        reasons = [entry for group, entry in journal.failed.items() if fates.holds(group, trial.name)]
        return f"failed: {reasons[0].get('reason', '')}"
    if fate == Fate.STOPPED:
        entries = [entry for group, entry in journal.stopped.items() if fates.holds(group, trial.name)]
        return f"stopped by {search.spec.scheduler.name}{_then(entries[0], search.metric)}"
    return str(fate)


def _then(entry: Mapping[str, Any], metric: str) -> str:
    """Say where a run stood when it was stopped."""
    step, score = entry.get("step"), entry.get("score")
    at = f" at step {step}" if step is not None else ""
    if score is None:
        return at
    unit = " %" if metric.endswith("_acc") else ""
    return f"{at}, {style.unit(metric).removesuffix(' (%)')} then {replicates.number(score, metric)}{unit}"
