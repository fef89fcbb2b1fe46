"""A metric over the epochs of training: mean over seeds, and a band of one standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from hebb.analysis import groups, replicates, style
from hebb.analysis import runs as stored
from hebb.config.objectives import better
from hebb.config.phase import PhaseKind
from hebb.config.vocabulary import Goal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hebb.analysis.runs import StoredRun


def compute(runs: Sequence[StoredRun], metric: str, by: Sequence[str] | None = None) -> pd.DataFrame:
    """Return one line per curve and epoch: curve, phase, epoch, n, mean, sd.

    Phases are numbered within their kind (``hebbian 2``), so that classifiers of networks of any depth share a panel.
    Epochs that were not evaluated have no line. Where runs of a curve ended at different epochs, n falls.

    Args:
        runs: finished runs.
        metric: a name of ``runs.METRICS``.
        by: what makes a curve, as in ``table.compute``.
    """
    stored.check_metric(metric)
    labels = groups.labels(runs, by)
    groups.check(runs, labels)
    rows = pd.DataFrame(
        [
            {"curve": label, "seed": run.seed, "phase": names[row["phase"]], "epoch": row["epoch"], metric: row[metric]}
            for run, label in zip(runs, labels, strict=True)
            for names in [_phase_names(run)]
            for row in run.rows
            if row.get(metric) is not None
        ]
    )
    if rows.empty:
        raise replicates.unmeasured(metric)
    return replicates.over_seeds(rows, ["curve", "phase", "epoch"], metric).assign(metric=metric)


def _phase_names(run: StoredRun) -> dict[int, str]:
    """Name the phases of a run by their kind, and their number among those of that kind."""
    names: dict[int, str] = {}
    for row in run.rows:
        if row["phase"] not in names:
            before = sum(name.startswith(row["kind"]) for name in names.values())
            names[row["phase"]] = f"{row['kind']} {before + 1}"
    return names


def order(phase: str) -> tuple[bool, str, int]:
    """Return what the name of a phase is sorted by: its kind, back-prop last, and then its number."""
    kind, _, number = phase.rpartition(" ")
    return kind == PhaseKind.BACKPROP, kind, int(number)


def best(frame: pd.DataFrame, most: int) -> tuple[pd.DataFrame, str]:
    """Return the ``most`` curves whose last values are best, best first, and a line that says so; empty if all are."""
    names, metric = list(dict.fromkeys(frame["curve"])), str(frame["metric"].iloc[0])
    if len(names) <= most:
        return frame, ""
    last = frame.groupby("curve", sort=False)["mean"].last()
    kept = last.sort_values(ascending=better(metric) == Goal.MIN, kind="stable").index[:most]
    note = f"{most} of {len(names)} curves, the best by their last {style.unit(metric)}"
    return pd.concat([frame[frame["curve"] == name] for name in kept], ignore_index=True), note


@style.drawn
def draw(frame: pd.DataFrame, title: str = "") -> Figure:
    """Draw a panel per phase that measured the metric, and a line per curve."""
    phases = sorted(set(frame["phase"]), key=order)
    figure, axes = style.figure(1, len(phases), squeeze=False, sharey=True)
    metric = str(frame["metric"].iloc[0])
    names = list(dict.fromkeys(frame["curve"]))
    for panel, phase in zip(axes[0], phases, strict=True):
        for number, name in enumerate(names):
            line = frame[(frame["curve"] == name) & (frame["phase"] == phase)].sort_values("epoch")
            if len(line):
                style.band(panel, number, name, line["epoch"], line, metric)
        style.label(panel, "epoch", style.unit(metric) if panel is axes[0][0] else "", phase if len(phases) > 1 else "")
        style.whole(panel.xaxis, frame[frame["phase"] == phase]["epoch"])
        style.fit(panel, metric, frame["mean"])
    if title:
        figure.suptitle(style.wrapped(title, int(13 * figure.get_size_inches()[0])), fontsize=10)
    single = frame.groupby("phase")["epoch"].nunique().max() == 1
    style.legend(figure, axes[0], style.spread(frame, "bars" if single else "band"))
    return figure
