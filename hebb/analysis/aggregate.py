"""Methods over several tasks: interquartile mean, probability of improvement and performance profiles.

The statistics of Agarwal et al. (NeurIPS 2021) for few seeds on many tasks. A method is a group of runs, by default a
preset; a task is another, by default a dataset. With the scores x_{t,i} of the seeds i of a method on the tasks t:

    interquartile mean (IQM)      mean of the middle half of all x_{t,i}, of all tasks together
    probability of improvement    P(X > Y): mean over tasks of the share of pairs (i, j) with x_{t,i} > y_{t,j}; a tie
                                  counts one half (the U statistic of Mann & Whitney divided by its largest value)
    performance profile           share of all x_{t,i} that are above tau (below, where less is better), for every tau

The 95 % intervals are percentiles of the stratified bootstrap: within each task of a method its seeds are drawn again,
with replacement. There is none unless each task has three seeds. Scores are taken as they are, so their tasks must have
the same unit: accuracies do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hebb.analysis import groups, replicates, style
from hebb.analysis import runs as stored
from hebb.config.objectives import better
from hebb.config.vocabulary import Goal
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hebb.analysis.runs import StoredRun

REPEATS = 2000
"""Draws of the bootstrap."""
_THRESHOLDS = 101

Scores = dict[str, list[np.ndarray]]
"""The scores of each method, task by task in the same order."""


def scores(
    runs: Sequence[StoredRun], metric: str, by: Sequence[str], tasks: Sequence[str], first: str | None = None
) -> Scores:
    """Return the scores of the runs by method and task.

    Args:
        runs: finished runs.
        metric: a name of ``runs.METRICS``.
        by: columns that make a method.
        tasks: columns that make a task.
        first: the method that comes first; None keeps the order of the runs.

    Raises:
        ConfigError: when a run has not measured the metric, a seed occurs twice, a method lacks a task, or none is
            called ``first``.
    """
    stored.check_metric(metric)
    columns = [*by, *tasks]
    for column in (name for name in tasks if name not in stored.COLUMNS):
        runs[0].value(column, "--tasks")  # raises for an unknown one
    frame = stored.frame(runs, [metric], [name for name in columns if name not in stored.COLUMNS])
    lacking = frame["run"][frame[metric].isna()]
    if len(lacking):
        raise ConfigError("--metric", f"not every run has measured '{metric}', such as {lacking.iloc[0]}")
    groups.check(runs, groups.keys(runs, columns))
    frame = frame.assign(method=_joined(frame, by), task=_joined(frame, tasks))
    every = list(dict.fromkeys(frame["task"]))
    methods: Scores = {}
    for method, rows in frame.groupby("method", sort=False):
        missing = [task for task in every if task not in set(rows["task"])]
        if missing:
            problem = f"{method} has no run on {', '.join(missing)}, which others have"
            raise ConfigError("runs", problem, hint="--dataset and --preset choose what all have")
        methods[str(method)] = [rows[metric][rows["task"] == task].to_numpy(float) for task in every]
    if first is None:
        return methods
    if first not in methods:
        raise ConfigError("--baseline", f"is none of the methods: '{first}'", given=first, choices=list(methods))
    return {first: methods[first], **methods}


def _joined(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """Return the values of several columns as one text a line."""
    return frame[list(columns)].astype(str).agg(" ".join, axis=1)


def compute(methods: Scores, metric: str, *, repeats: int = REPEATS) -> pd.DataFrame:
    """Return one line per method: tasks, n, mean, IQM, its interval, and its probability of improvement on the first.

    Args:
        methods: what ``scores`` returned.
        metric: what was measured.
        repeats: draws of the bootstrap.
    """
    sign = -1.0 if better(metric) == Goal.MIN else 1.0
    (first, base), *_ = methods.items()
    lines = []
    for name, tasks in methods.items():
        values = np.concatenate(tasks)
        low, high = _with_width(*_interval(_iqm, tasks, repeats))
        chance, worst, best = math.nan, math.nan, math.nan
        if name != first:
            sides = [sign * side for side in (*tasks, *base)]
            chance = float(_improvement(*sides))
            worst, best = _with_width(*_interval(_improvement, sides, repeats))
        lines.append(
            {
                "method": name,
                "metric": metric,
                "tasks": len(tasks),
                "n": len(values),
                "mean": math.fsum(values) / len(values),
                "iqm": float(_iqm(*tasks)),
                "low": low,
                "high": high,
                "reference": "" if name == first else first,
                "improvement": chance,
                "improvement_low": worst,
                "improvement_high": best,
            }
        )
    return pd.DataFrame(lines)


def profiles(methods: Scores, metric: str, *, repeats: int = REPEATS) -> pd.DataFrame:
    """Return the performance profile of each method: method, tau, share of runs beyond it, low and high end."""
    less = better(metric) == Goal.MIN
    everything = np.concatenate([values for tasks in methods.values() for values in tasks])
    lines = []
    for tau in np.linspace(everything.min(), everything.max(), _THRESHOLDS):
        for name, tasks in methods.items():
            beyond = [(values < tau if less else values > tau).astype(float) for values in tasks]
            low, high = _interval(_share, beyond, repeats)
            share = float(_share(*beyond))
            lines.append({"method": name, "metric": metric, "tau": tau, "share": share, "low": low, "high": high})
    return pd.DataFrame(lines)


def _iqm(*tasks: np.ndarray, axis: int = -1) -> Any:
    from scipy import stats

    return stats.trim_mean(np.concatenate(tasks, axis=axis), 0.25, axis=axis)


def _share(*tasks: np.ndarray, axis: int = -1) -> Any:
    return np.concatenate(tasks, axis=axis).mean(axis=axis)


def _improvement(*sides: np.ndarray, axis: int = -1) -> Any:
    """Return P(X > Y) of the tasks' X, the first half of the sides, and their Y; the seeds lie along the last axis."""
    half = len(sides) // 2
    pairs = [(x[..., :, None], y[..., None, :]) for x, y in zip(sides[:half], sides[half:], strict=True)]
    shares = [((x > y) + 0.5 * (x == y)).mean(axis=(-2, -1)) for x, y in pairs]
    return np.mean(shares, axis=0)


def _interval(statistic: Callable[..., Any], samples: Sequence[np.ndarray], repeats: int) -> tuple[float, float]:
    """Return the ends of the 95 % interval, the same ones for the same samples; NaN below three seeds of a task."""
    from scipy import stats

    if min(map(len, samples)) < replicates.LEAST:
        return math.nan, math.nan
    drawn = stats.bootstrap(
        samples, statistic, vectorized=True, n_resamples=repeats, method="percentile", rng=np.random.default_rng(0)
    )
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def _with_width(low: float, high: float) -> tuple[float, float]:
    """Return the ends of an interval, or NaN for one without width, which would claim certainty."""
    return (low, high) if low < high else (math.nan, math.nan)


@style.drawn
def draw(frame: pd.DataFrame) -> Figure:
    """Draw the interquartile means, and beside them the probabilities of improvement where there are any."""
    metric, reference = str(frame["metric"].iloc[0]), frame["reference"].iloc[-1]
    compared = len(frame) > 1
    height = 1.2 + 0.4 * len(frame)
    figure, panels = style.figure(1, 1 + compared, width=3.6, height=height, squeeze=False, sharey=True)
    places = list(range(len(frame)))[::-1]
    _bars(panels[0, 0], frame, places, "iqm", "low", "high")
    panels[0, 0].set_yticks(places, frame["method"])
    panels[0, 0].set_ylim(-0.6, len(frame) - 0.4)
    style.label(panels[0, 0], style.wrapped(f"interquartile mean, {style.unit(metric)}", 26), "")
    if compared:
        panels[0, 1].axvline(0.5, color=style.GREY, zorder=0)
        _bars(panels[0, 1], frame, places, "improvement", "improvement_low", "improvement_high")
        panels[0, 1].set_xlim(-0.02, 1.02)
        style.label(panels[0, 1], style.wrapped(f"P(better than {reference})", 30), "")
    return figure


def _bars(panel: Any, frame: pd.DataFrame, places: Sequence[int], value: str, low: str, high: str) -> None:
    ends = [(frame[value] - frame[low]).fillna(0.0), (frame[high] - frame[value]).fillna(0.0)]
    panel.errorbar(frame[value], places, xerr=ends, fmt="o", color=style.COLOURS[0], capsize=3)


@style.drawn
def draw_profiles(frame: pd.DataFrame) -> Figure:
    """Draw the performance profiles with their bands."""
    metric = str(frame["metric"].iloc[0])
    figure, axes = style.figure(width=style.TITLE - 1)
    for number, (name, rows) in enumerate(frame.groupby("method", sort=False)):
        look = {**style.line(number), "marker": ""}
        axes.step(rows["tau"], 100 * rows["share"], where="post", label=name, **look)
        axes.fill_between(
            rows["tau"], 100 * rows["low"], 100 * rows["high"], step="post", alpha=0.2, color=look["color"], linewidth=0
        )
    less = better(metric) == Goal.MIN
    style.label(axes, f"tau: {style.unit(metric)}", f"runs {'below' if less else 'above'} tau (%)")
    style.legend(figure, axes)
    return figure


def text(frame: pd.DataFrame) -> str:
    """Write the table, and a sentence for each method that is compared with the first."""
    metric = str(frame["metric"].iloc[0])

    def span(low: float, high: float, decimals: int) -> str:
        return replicates.NOTHING if math.isnan(low) else f"{low:.{decimals}f} to {high:.{decimals}f}"

    shown = pd.DataFrame(
        {
            "method": frame["method"],
            "tasks": frame["tasks"],
            "n": frame["n"],
            "mean": [replicates.number(value, metric) for value in frame["mean"]],
            "IQM": [replicates.number(value, metric) for value in frame["iqm"]],
            "95 % interval": [span(r.low, r.high, replicates.digits(metric)) for r in frame.itertuples()],
        }
    )
    sentences = [
        f"P({row.method} better than {row.reference}) = {row.improvement:.2f}, 95 % interval "
        f"{span(row.improvement_low, row.improvement_high, 2)}"
        for row in frame.itertuples()
        if row.reference
    ]
    return "\n".join([shown.to_string(index=False), *sentences])
