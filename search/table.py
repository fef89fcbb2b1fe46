"""Results of a search: one line per trial, and mean and spread per configuration, from the run folders alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.table import Table

from cli import describe
from hebb import folders
from search.trials import Search, Trial


def results(trials: Sequence[Trial], metric: str) -> pd.DataFrame:
    """Read one line per finished trial: trial, configuration, seed, every metric, minutes."""
    lines = []
    for trial in trials:
        if folders.state(trial.folder) != "finished":
            continue
        stored = folders.read_json(trial.folder / folders.RESULT)
        row = stored["metrics"]
        lines.append(
            {
                "trial": trial.name,
                "configuration": trial.label,
                "seed": trial.config.seed,
                **{
                    name: row[name]
                    for name in ("train_acc", "val_acc", "test_acc", "train_loss", "val_loss", "test_loss")
                },
                "convergence": row["convergence"],
                "R1": row["R1"],
                "minutes": stored["seconds"] / 60,
                metric: math.nan if row[metric] is None else row[metric],
            }
        )
    return pd.DataFrame(lines)


def summary(found: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return per configuration n, mean, standard deviation and the half-width of the 95 % interval.

    The deviation is that of a sample (n - 1); the interval is Student's: mean +- t(0.975, n-1) sd / sqrt(n).
    Both are NaN for one run.
    """
    from scipy import stats

    groups = found.groupby("configuration", sort=False)
    made = groups[metric].agg(n="count", mean="mean", sd="std").reset_index()
    made["interval"] = [
        float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n) if n > 1 else math.nan
        for n, sd in zip(made["n"], made["sd"], strict=True)
    ]
    made["minutes"] = groups["minutes"].mean().to_numpy()
    return made


def ranked(summed: pd.DataFrame, mode: str) -> pd.DataFrame:
    """Sort the summary, best mean first; equals keep the order of the search config."""
    return summed.sort_values("mean", ascending=mode == "min", kind="stable", ignore_index=True)


def winner(search: Search, ranking: pd.DataFrame) -> Trial | None:
    """Return a trial of the best configuration among those that finished on every seed.

    The mean over the seeds that survived would favour a configuration that diverges on its bad ones.
    """
    complete = ranking[ranking["n"] == len(search.spec.seeds)]
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


def write(found: pd.DataFrame, path: Path) -> Path:
    """Write one line per trial as CSV."""
    found.to_csv(path, index=False)
    return path
