"""Mean, standard deviation and 95 % interval of runs that differ only in their seed; as CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from hebb.analysis import runs as stored
from hebb.analysis import style
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from hebb.analysis.runs import StoredRun


def statistics(frame: pd.DataFrame, by: Sequence[str], column: str) -> pd.DataFrame:
    """Return n, mean, standard deviation and the half-width of the 95 % interval of the mean, one line per group.

    The deviation is that of a sample (n - 1); the interval is Student's: mean +- t(0.975, n-1) sd / sqrt(n).
    Both are NaN for one run. Groups are in the order of their first lines; NaN values do not count.
    """
    from scipy import stats

    groups = frame.groupby(list(by), sort=False, dropna=False)
    lines = groups[column].agg(n="count", mean="mean", sd="std").reset_index()
    lines["interval"] = [
        float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n) if n > 1 else math.nan
        for n, sd in zip(lines["n"], lines["sd"], strict=True)
    ]
    return lines


def over_seeds(frame: pd.DataFrame, keys: Sequence[str], column: str, flag: str) -> pd.DataFrame:
    """Return n, mean and sd over the seeds of each group.

    Args:
        frame: one line per run, with its ``seed``.
        keys: columns that make a group.
        column: what is averaged.
        flag: the flag that would tell runs of a group apart.

    Raises:
        ConfigError: when a group holds a seed twice, so that its runs are not replicates.
    """
    twice = frame[frame.duplicated([*keys, "seed"], keep=False)]
    if len(twice):
        at = ", ".join(f"{key} {twice.iloc[0][key]}" for key in keys)
        raise ConfigError(flag, f"more than one run with {at}, seed {twice.iloc[0]['seed']}")
    return statistics(frame, keys, column).drop(columns="interval")


def compute(runs: Sequence[StoredRun], metric: str, by: Sequence[str] | None = None) -> pd.DataFrame:
    """Return one line per group of runs: its values, n, mean, sd, interval (half-width), low and high end.

    Args:
        runs: finished runs.
        metric: a name of ``runs.METRICS``.
        by: override paths, or ``preset``, ``dataset``, ``search``, ``mode``, ``hidden``; None takes preset, dataset
            and every path at which runs of one preset differ.

    Raises:
        ConfigError: when no run measured the metric, or runs of one group have the same seed.
    """
    columns = list(by) if by is not None else stored.groups(runs)
    paths = [name for name in columns if name not in stored.COLUMNS]
    frame = stored.frame(runs, [metric], paths)
    if frame[metric].isna().all():
        raise ConfigError("--metric", f"none of these runs measured '{metric}'")
    twice = frame[frame.duplicated([*columns, "seed"], keep=False)]
    if len(twice):
        some = ", ".join(twice["run"].iloc[:2])
        problem = f"{some} have the same seed and the same {', '.join(columns)}"
        raise ConfigError("--by", problem, hint=_difference(runs, twice["run"]))
    lines = statistics(frame, columns, metric)
    return lines.assign(metric=metric, low=lines["mean"] - lines["interval"], high=lines["mean"] + lines["interval"])


def _difference(runs: Sequence[StoredRun], names: pd.Series) -> str:
    """Say how runs that should be replicates differ."""
    paths = stored.varying([run for run in runs if run.folder.name in set(names)])[:6]
    return f"they differ in {', '.join(paths)}: add what matters to --by" if paths else "name each run once"


def cells(lines: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """Return the table as people read it: the groups, ``mean +- sd``, the interval, n."""
    unit = style.unit(str(lines["metric"].iloc[0]))
    groups = [name for name in lines.columns if name not in ("n", "mean", "sd", "interval", "metric", "low", "high")]
    shown = lines[groups].astype(object).where(lines[groups].notna(), "-")
    shown[unit] = [
        f"{line.mean:.{digits}f} ± {line.sd:.{digits}f}" if line.n > 1 else f"{line.mean:.{digits}f}"
        for line in lines.itertuples()
    ]
    shown["95 % interval"] = [
        f"{line.low:.{digits}f} to {line.high:.{digits}f}" if line.n > 1 else "-" for line in lines.itertuples()
    ]
    shown["n"] = lines["n"].to_numpy()
    return shown


def markdown(shown: pd.DataFrame) -> str:
    """Write a table as Markdown."""
    lines = [list(map(str, shown.columns)), ["---"] * len(shown.columns)]
    lines += [[str(cell) for cell in line] for line in shown.itertuples(index=False)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def latex(shown: pd.DataFrame) -> str:
    r"""Write a table as a LaTeX ``tabular`` (needs the package ``booktabs``)."""
    marks = {"\\": r"\textbackslash{}", "±": r"$\pm$", **{c: f"\\{c}" for c in "%_&#${}"}, "~": r"\~{}", "^": r"\^{}"}

    def escaped(cell: object) -> str:
        return "".join(marks.get(letter, letter) for letter in str(cell))

    lines = [" & ".join(escaped(name) for name in shown.columns), r"\midrule"]
    lines += [" & ".join(escaped(cell) for cell in line) for line in shown.itertuples(index=False)]
    body = "".join(line + ("\n" if line.startswith(r"\midrule") else " \\\\\n") for line in lines)
    return f"\\begin{{tabular}}{{{'l' * len(shown.columns)}}}\n\\toprule\n{body}\\bottomrule\n\\end{{tabular}}\n"
