"""Results of a search: a line for each run, and mean and spread of each configuration, from the run folders alone."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hebb.analysis.table import statistics
from hebb.storage import folders
from hebb.storage.folders import Row
from hebb.storage.journal import Journal
from hebb.tuning.search import Search, Trial

TEST_COLUMNS = ("test_loss", "test_acc")
METRIC_COLUMNS = ("train_acc", "val_acc", "test_acc", "train_loss", "val_loss", "test_loss", "convergence", "R1")


def read(trials: Sequence[Trial], metric: str, journal: Journal) -> pd.DataFrame:
    """Return a line for each run that is finished or was stopped by a scheduler.

    Its columns are configuration, seed, metrics and minutes. The numbers of a stopped run are those of its last report,
    and no mean is taken over them.
    """
    lines = []
    for trial in trials:
        stored = _stored(trial, metric, journal)
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
            }
        )
    return pd.DataFrame(lines)


def _stored(trial: Trial, metric: str, journal: Journal) -> tuple[Row, float, str] | None:
    """Return the last row of a run, its seconds, and whether it was finished or stopped."""
    if trial.finished:
        result = folders.read_json(trial.folder / folders.RESULT)
        row = result["metrics"]
        if row[metric] is None:  # radii are those of the Hebbian phases, which come first
            row = {**row, metric: folders.value_of(folders.read_rows(trial.folder / folders.METRICS), metric)}
        return row, result["seconds"], "finished"
    if trial.interrupted and trial.configuration in journal.stopped:
        rows = folders.read_rows(trial.folder / folders.METRICS)
        measured = [row for row in rows if row[metric] is not None]
        return (measured[-1], math.nan, "stopped") if measured else None
    return None


def summary(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return n, mean, standard deviation and half-width of the 95 % interval of each configuration.

    The deviation is that of a sample (n - 1); the interval is Student's: mean +- t(0.975, n-1) sd / sqrt(n).
    Both are NaN for a single run.
    """
    runs = runs[runs["status"] == "finished"] if "status" in runs else runs
    table = statistics(runs, ["configuration"], metric)
    table["minutes"] = runs.groupby("configuration", sort=False)["minutes"].mean().to_numpy()
    return table


def ranked(table: pd.DataFrame, search: Search) -> pd.DataFrame:
    """Sort a summary, best mean first; equal means keep the order of the search config."""
    return table.sort_values("mean", ascending=not search.maximises, kind="stable", ignore_index=True)


def winner(search: Search, ranking: pd.DataFrame) -> Trial | None:
    """Return a trial of the best configuration among those that finished on every seed.

    A mean over surviving seeds would favour a configuration that diverges on its bad seeds.
    """
    complete = ranking[ranking["n"] == len(search.seeds)]
    if not len(complete):
        return None
    label = complete.iloc[0]["configuration"]
    return next(trial for trial in search.trials if trial.label == label)


def write(runs: pd.DataFrame, path: Path) -> Path:
    """Write a line for each run as CSV, and beside it as Parquet; each file whole or not at all."""
    runs = runs.apply(lambda column: column.astype(float) if column.isna().all() else column)  # None has no type
    for kind, writer in ((".csv", runs.to_csv), (".parquet", runs.to_parquet)):
        temporary = path.with_suffix(f"{kind}.tmp")
        writer(temporary, index=False)
        os.replace(temporary, path.with_suffix(kind))
    return path
