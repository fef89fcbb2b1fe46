"""Mean, standard deviation and 95 % interval of runs that differ only in their seed; as CSV, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from hebb.analysis import groups, replicates, style
from hebb.analysis import runs as stored

if TYPE_CHECKING:
    from hebb.analysis.runs import StoredRun


_ACCURACIES = ("train_acc", "val_acc", "test_acc")
_MOST = 4
"""Values in which runs differ that a line of ``listing`` has room for."""


def compute(
    runs: Sequence[StoredRun], metric: str, by: Sequence[str] | None = None, beside: Sequence[str] = ()
) -> pd.DataFrame:
    """Return one line per group of runs: what makes it, n, mean, sd, interval (half-width), low and high end, values.

    The interval is that of ``replicates.statistics``; ``values`` are those of the seeds, in ascending order of seeds.

    Args:
        runs: finished runs.
        metric: a name of ``runs.METRICS``.
        by: override paths, or ``preset``, ``dataset``, ``search``, ``mode``, ``hidden``; None takes preset, dataset
            and every path at which runs of one preset differ; a run that lacks one has an empty cell.
        beside: further metrics or costs, whose means become columns; NaN where a run lacks one.

    Raises:
        ConfigError: when no run measured the metric, or runs of one group have the same seed.
    """
    columns = list(by) if by is not None else groups.columns(runs)
    paths = [name for name in columns if name not in stored.COLUMNS]
    beside = [name for name in dict.fromkeys(beside) if name != metric]
    for name in beside:
        stored.check_metric(name, where="--with")
    frame = stored.frame(runs, [metric], paths, lacking=by is None).assign(
        **{name: [run.measured(name) for run in runs] for name in beside}
    )
    if frame[metric].isna().all():
        raise replicates.unmeasured(metric)
    groups.check(runs, groups.keys(runs, by))
    lines = replicates.statistics(frame, columns, metric)
    grouped = frame.groupby(columns, sort=False, dropna=False)
    means = {name: grouped[name].agg(lambda column: column.mean(skipna=False)).to_numpy() for name in beside}
    return lines[[*columns, "n", "mean", "sd", "interval"]].assign(
        metric=metric, low=lines["low"], high=lines["high"], values=lines["values"], **means
    )


def cells(lines: pd.DataFrame) -> pd.DataFrame:
    """Return the table as people read it: the groups, ``mean +- sd``, the interval or the seeds, n."""
    metric = str(lines["metric"].iloc[0])
    names = list(lines.columns)
    keys, beside = names[: names.index("n")], names[names.index("values") + 1 :]
    shown = lines[keys].astype(object).where(lines[keys].notna(), replicates.NOTHING)
    shown[style.unit(metric)] = [replicates.mean_and_deviation(line, metric) for line in lines.itertuples()]
    spreads = replicates.spread_cells(lines, metric)
    for name in spreads[0]:
        if name != "sd":
            shown[name] = [cells[name] for cells in spreads]
    shown["n"] = lines["n"].to_numpy()
    for name in beside:
        shown[style.unit(name)] = [replicates.number(value, name) for value in lines[name]]
    return shown


def listing(runs: Sequence[StoredRun]) -> str:
    """Write a line for each run: what it was, the values in which runs of one network differ, accuracies and time."""
    columns = groups.columns(runs)
    names = [name for name in columns if name not in stored.COLUMNS]
    frame = stored.frame(runs, _ACCURACIES, names, lacking=True)
    several = ["search"] if frame["search"].nunique() > 1 else []
    differing = [name for name in columns if name in ("mode", "trained")]
    shown = frame[["run", *several, "preset", "dataset", *differing, "seed"]].assign(
        **{name: [_cell(value) for value in frame[name]] for name in names[:_MOST]},
        **{name: [replicates.number(value, name) for value in frame[name]] for name in (*_ACCURACIES, "seconds")},
    )
    text = str(shown.to_string(index=False))
    further = names[_MOST:]
    return f"{text}\nthey also differ in {', '.join(further)}" if further else text


def _cell(value: Any) -> str:
    """Write a value of a run, which may lack it."""
    return replicates.NOTHING if pd.isna(value) else groups.value_text(value, 4)


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
