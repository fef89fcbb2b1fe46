"""Results of a search: one line per trial, and mean and spread per configuration, from the run folders alone."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from hebb.analysis.table import statistics
from hebb.cli import describe
from hebb.storage import folders, records
from hebb.storage.records import Row
from hebb.tuning.search_folder import Journal
from hebb.tuning.trials import Search, Trial, configuration_name


def results(trials: Sequence[Trial], metric: str, journal: Journal) -> pd.DataFrame:
    """Read one line per run that is finished, or was stopped by a scheduler: configuration, seed, metrics, minutes.

    The numbers of a stopped run are those of its last report; no mean is taken over them.
    """
    lines = []
    for trial in trials:
        stored = _stored(trial, metric, journal)
        if stored is None:
            continue
        row, seconds, status = stored
        names = ("train_acc", "val_acc", "test_acc", "train_loss", "val_loss", "test_loss", "convergence", "R1")
        lines.append(
            {
                "trial": trial.name,
                "configuration": trial.label,
                "seed": trial.config.seed,
                "status": status,
                **{name: row[name] for name in names},
                "minutes": seconds / 60,
                metric: math.nan if row[metric] is None else row[metric],
            }
        )
    return pd.DataFrame(lines)


def _stored(trial: Trial, metric: str, journal: Journal) -> tuple[Row, float, str] | None:
    """Return the last row of a run, its seconds, and whether it was finished or stopped."""
    state = folders.state(trial.folder)
    if state == "finished":
        found = folders.read_json(trial.folder / folders.RESULT)
        row = found["metrics"]
        if row[metric] is None:  # radii are those of the Hebbian phases, which come first
            row = {**row, metric: folders.value_of(records.read_rows(trial.folder / folders.METRICS), metric)}
        return row, found["seconds"], "finished"
    if state == "interrupted" and configuration_name(trial) in journal.stopped:
        rows = records.read_rows(trial.folder / folders.METRICS)
        heard = [row for row in rows if row[metric] is not None]
        return (heard[-1], math.nan, "stopped") if heard else None
    return None


def summary(found: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return per configuration n, mean, standard deviation and the half-width of the 95 % interval.

    The deviation is that of a sample (n - 1); the interval is Student's: mean +- t(0.975, n-1) sd / sqrt(n).
    Both are NaN for one run.
    """
    found = found[found["status"] == "finished"] if "status" in found else found
    made = statistics(found, ["configuration"], metric)
    made["minutes"] = found.groupby("configuration", sort=False)["minutes"].mean().to_numpy()
    return made


def ranked(summed: pd.DataFrame, mode: str) -> pd.DataFrame:
    """Sort the summary, best mean first; equals keep the order of the search config."""
    return summed.sort_values("mean", ascending=mode == "min", kind="stable", ignore_index=True)


def winner(search: Search, ranking: pd.DataFrame) -> Trial | None:
    """Return a trial of the best configuration among those that finished on every seed.

    The mean over the seeds that survived would favour a configuration that diverges on its bad ones.
    """
    complete = ranking[ranking["n"] == len(search.seeds)]
    if not len(complete):
        return None
    label = complete.iloc[0]["configuration"]
    return next(trial for trial in search.trials if trial.label == label)


def show(summed: pd.DataFrame, metric: str) -> Table:
    """Lay the summary out for a terminal."""
    unit = " %" if metric.endswith("_acc") else ""
    columns = ("configuration", "n", f"mean {metric}{unit}", "sd", "95 % interval", "minutes a run")
    made = describe.table("", columns, columns[1:])
    made.title = None
    for line in summed.itertuples():
        low, high = line.mean - line.interval, line.mean + line.interval
        interval = f"{low:.2f} to {high:.2f}" if line.n > 1 else "-"
        made.add_row(
            str(line.configuration),
            str(line.n),
            f"{line.mean:.2f}",
            f"{line.sd:.2f}" if line.n > 1 else "-",
            interval,
            f"{line.minutes:.2f}",
        )
    return made


def show_stopped(stopped: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str], search: Search) -> Table:
    """Lay out what a scheduler stopped, best first: the score is the mean over n seeds, or the first one's so far."""
    columns = ("stopped early", "step", f"{search.metric} then", "n")
    made = describe.table("", columns, columns[1:])
    made.title = None
    worst = -math.inf if search.mode == "max" else math.inf
    by_score = sorted(
        stopped.items(),
        key=lambda item: worst if item[1].get("score") is None else item[1]["score"],
        reverse=search.mode == "max",
    )
    for name, entry in by_score:
        score = "-" if entry.get("score") is None else f"{entry['score']:.2f}"
        made.add_row(labels[name], str(entry.get("step") or "-"), score, str(entry.get("n") or "-"))
    return made


def write(found: pd.DataFrame, path: Path) -> Path:
    """Write one line per trial as CSV, and beside it as Parquet; each whole or not at all."""
    found = found.apply(lambda column: column.astype(float) if column.isna().all() else column)  # None has no type
    for kind, writer in ((".csv", found.to_csv), (".parquet", found.to_parquet)):
        temporary = path.with_suffix(f"{kind}.tmp")
        writer(temporary, index=False)
        os.replace(temporary, path.with_suffix(kind))
    return path
