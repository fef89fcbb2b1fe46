"""Results of a search: a line for each run, and mean and spread of each configuration, from the run folders alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hebb.analysis import fates, pareto, replicates, run_costs
from hebb.analysis.fates import Tally
from hebb.config import objectives
from hebb.core import files
from hebb.storage import finished, folders
from hebb.storage.folders import Row
from hebb.storage.journal import Journal
from hebb.tuning.search import Search, Trial

TEST_COLUMNS = ("test_loss", "test_acc")
METRIC_COLUMNS = ("train_acc", "val_acc", "test_acc", "train_loss", "val_loss", "test_loss", "convergence", "R1")


def read(trials: Sequence[Trial], metric: str, journal: Journal, beside: Sequence[str] = ()) -> pd.DataFrame:
    """Return a line for each run that is finished or was stopped by a scheduler.

    Its columns are configuration, seed, metrics, minutes, and what is measured ``beside`` the metric. The numbers of a
    stopped run are those of its last report, and no mean is taken over them.
    """
    lines = []
    for trial in trials:
        stored = _stored(trial, metric, journal, beside)
        if stored is None:
            continue
        row, seconds, status = stored
        lines.append(
            {
                "trial": trial.name,
                "configuration": trial.label,
                "seed": trial.config.seed,
                "status": status,
                **{name: row[name] for name in METRIC_COLUMNS},
                "minutes": seconds / 60,
                metric: math.nan if row[metric] is None else row[metric],
                **_beside(trial, row, seconds, beside),
            }
        )
    return pd.DataFrame(lines)


def _beside(trial: Trial, row: Row, seconds: float, names: Sequence[str]) -> dict[str, float]:
    """Return further metrics and costs of a run; of one that was stopped, those that need no end."""
    if not names:
        return {}
    measured = {
        name: math.nan if row[name] is None else float(row[name]) for name in names if name in objectives.METRICS
    }
    available = objectives.COSTS if trial.finished else objectives.STATIC
    paid = run_costs.of_records(trial.config, seconds, trial.folder, [name for name in names if name in available])
    return dict.fromkeys(names, math.nan) | measured | paid


def means(trials: Sequence[Trial], names: Sequence[str]) -> dict[str, float]:
    """Return the means of metrics and costs over finished runs; NaN where one lacks its value."""
    lines = [_beside(trial, *_finished(trial, *names), names) for trial in trials] if names else []
    return {name: math.fsum(line[name] for line in lines) / len(lines) for name in names} if lines else {}


def _stored(trial: Trial, metric: str, journal: Journal, beside: Sequence[str]) -> tuple[Row, float, str] | None:
    """Return the last row of a run, its seconds, and whether it was finished or stopped."""
    if trial.finished:
        return *_finished(trial, metric, *beside), "finished"
    if trial.interrupted and trial.configuration in journal.stopped:
        rows = folders.read_rows(trial.folder / folders.METRICS)
        measured = [row for row in rows if row[metric] is not None]
        return (measured[-1], math.nan, "stopped") if measured else None
    return None


def _finished(trial: Trial, *names: str) -> tuple[Row, float]:
    """Return the last row of a finished run, with a value of the named metrics, and its seconds."""
    result = folders.read_json(trial.folder / folders.RESULT)
    row = result["metrics"]
    missing = [name for name in names if name in objectives.METRICS and row[name] is None]
    if missing:  # radii are those of the Hebbian phases, which come first
        rows = finished.rows(trial.folder)
        row = {**row, **{name: folders.value_of(rows, name) for name in missing}}
    return row, result["seconds"]


def tally(search: Search, trials: Sequence[Trial], journal: Journal) -> Tally:
    """Count what became of trials, and of those that a model-based algorithm has yet to choose."""
    states = [fates.of_run(folders.state(trial.folder), journal, trial.name) for trial in trials]
    return fates.tally(states, to_come=to_come(search, journal) if trials == search.trials else 0)


def warnings(trials: Sequence[Trial]) -> dict[str, int]:
    """Return what runs warned of, and how many of them did."""
    files_of_runs = [path for trial in trials if (path := trial.folder / folders.WARNINGS).exists()]
    texts = [{str(line["text"]) for line in folders.read_rows(path)} for path in files_of_runs]
    return dict(Counter(text for of_run in texts for text in sorted(of_run)))


def to_come(search: Search, journal: Journal) -> int:
    """Return how many runs a model-based algorithm has yet to choose; it may choose a configuration twice."""
    points = search.spec.plan.samples - len(journal.suggested) if search.spec.plan.model_based else 0
    return max(points, 0) * len(search.seeds)


def summary(runs: pd.DataFrame, metric: str, beside: Sequence[str] = ()) -> pd.DataFrame:
    """Return n, mean, sd, 95 % interval and values of each configuration, as ``replicates.statistics``, and minutes.

    What is measured ``beside`` the metric has a column with its mean, NaN where a run lacks it.
    """
    runs = runs[runs["status"] == "finished"] if "status" in runs else runs
    table = replicates.statistics(runs, ["configuration"], metric)
    groups = runs.groupby("configuration", sort=False)
    table["minutes"] = groups["minutes"].mean().to_numpy()
    for name in beside:
        table[name] = groups[name].agg(lambda column: math.fsum(column) / len(column)).to_numpy(dtype=float)
    return table


def judged(table: pd.DataFrame, search: Search) -> pd.DataFrame:
    """Return a summary with the columns of several objectives and constraints; that of one metric as it is.

    ``feasible`` says whether the means keep every bound, ``front`` whether a configuration is on the Pareto front: it
    finished on every seed, is feasible, and no other of those is at least as good in everything and better in one
    thing. Means are compared as ``ranked`` does: where only rounding tells them apart they are equal.
    """
    table = table.copy()
    complete = table["n"] == len(search.seeds)
    if search.constraints:
        table["feasible"] = [_keeps(line, search) for line in table.to_dict("records")]
        complete &= table["feasible"]
    if search.several:
        lines = table[complete]
        points = [_point(line, search) for line in lines.to_dict("records")]
        members = pd.Series(pareto.front(points), index=lines.index, dtype=bool)
        table["front"] = members.reindex(table.index, fill_value=False)
    return table


def value_of(line: Mapping[str, Any], metric: str, search: Search) -> float:
    """Return the mean of a metric or cost in a line of a summary."""
    return float(line["mean" if metric == search.metric else metric])


def _keeps(line: Mapping[str, Any], search: Search) -> bool:
    return all(bound.holds(value_of(line, bound.metric, search)) for bound in search.constraints)


def _point(line: Mapping[str, Any], search: Search) -> list[float]:
    return [one.sign * objectives.comparable(value_of(line, one.metric, search)) for one in search.objectives]


def marked(runs: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return the lines of runs with the columns that ``judged`` gave their configurations.

    Nothing is known of the bounds of a configuration without a finished run; it is not on the front.
    """
    judged_table = table.set_index("configuration")
    if "feasible" in judged_table:
        runs = runs.assign(feasible=runs["configuration"].map(judged_table["feasible"]).astype("boolean"))
    if "front" in judged_table:
        runs = runs.assign(front=runs["configuration"].map(judged_table["front"]).eq(True))
    return runs


def ranked(table: pd.DataFrame, search: Search) -> pd.DataFrame:
    """Sort a summary: best mean first among the configurations that finished on every seed, then those that lack seeds.

    Everything that shows or takes a best configuration reads this order. Those that break a bound come behind the
    others of as many seeds. Means that differ by rounding alone are equal, and equal means keep the order of the search
    config. A mean over surviving seeds would favour a configuration that diverges on its bad seeds.
    """
    score = table["mean"].map(objectives.comparable) * (-1 if search.maximises else 1)
    order = table.assign(_score=score).sort_values("_score", kind="stable")
    if "feasible" in table:
        order = order.sort_values("feasible", ascending=False, kind="stable")
    return order.sort_values("n", ascending=False, kind="stable", ignore_index=True).drop(columns="_score")


def score_of(trials: Sequence[Trial], metric: str) -> float | None:
    """Return the score by which a configuration is ranked, from its finished runs; None if one has no value."""
    values = [_finished(trial, metric)[0][metric] for trial in trials]
    return None if None in values else objectives.comparable(sum(values) / len(values))


def best(search: Search, ranking: pd.DataFrame) -> list[str]:
    """Return the best configuration and those of the same mean, in order; none where none finished on every seed.

    By several objectives these are the configurations on the front.
    """
    if search.several:
        return [str(label) for label in ranking["configuration"][ranking["front"]]]
    complete = ranking[(ranking["n"] == len(search.seeds)) & ranking["mean"].notna()]
    if "feasible" in complete:
        complete = complete[complete["feasible"]]
    if not len(complete):
        return []
    scores = complete["mean"].map(objectives.comparable)
    return [str(label) for label in complete["configuration"][scores == scores.iloc[0]]]


def winner(search: Search, ranking: pd.DataFrame) -> Trial | None:
    """Return a trial of the best configuration; None where none finished on every seed."""
    labels = best(search, ranking)
    return trial_of(search, labels[0]) if labels else None


def trial_of(search: Search, label: str) -> Trial:
    """Return the first trial of a configuration."""
    return next(trial for trial in search.trials if trial.label == label)


def write(runs: pd.DataFrame, path: Path) -> Path:
    """Write a line for each run as CSV, and beside it as Parquet; each file whole or not at all."""
    runs = runs.apply(lambda column: column.astype(float) if column.isna().all() else column)  # None has no type
    for kind, writer in ((".csv", runs.to_csv), (".parquet", runs.to_parquet)):
        with files.replaced(path.with_suffix(kind)) as (temporary,):
            writer(temporary, index=False)
    return path
