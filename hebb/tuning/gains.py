"""What a learning rule adds to its controls, seed by seed: the arms of ``hebb.config.controls`` in one search."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from hebb.analysis import compare
from hebb.config import controls
from hebb.config.domains import label
from hebb.config.vocabulary import Control
from hebb.core import files
from hebb.tuning import verdict
from hebb.tuning.search import Search

FILE = "controls.csv"
"""File in the folder of a search with controls."""
_COLUMNS = (
    *("configuration", "control", "mean_control", "mean", "gain", "low", "high"),
    *("n", "t", "p", "p_holm", "values"),
)


def table(search: Search, runs: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each control of each configuration; none where a search has no controls.

    Args:
        search: the search.
        runs: a line for each run, as ``results.read``.

    Returns:
        configuration (what the space varies beside the control), control, both means over the seeds that both arms
        finished, gain (learned - control) with its 95 % interval, n, t and p of the paired t-test, p with Holm's
        correction over the table, and the gain of each seed as text. One seed has no interval and no test.
    """
    values = verdict.values_of(runs, search.metric) if len(runs) else {}
    lines = [
        {"configuration": configuration, "control": control.value, **line}
        for configuration, arms in _arms(search).items()
        for control, name in arms.items()
        if control != Control.LEARNED and (line := _line(values, arms[Control.LEARNED], name, search.metric))
    ]
    frame = pd.DataFrame(lines, columns=_COLUMNS)
    return frame.assign(p_holm=compare.holm(list(frame["p"])))


def write(frame: pd.DataFrame, folder: Path) -> None:
    """Write ``controls.csv`` in the folder of a search that has controls; ``frame`` is its ``table``."""
    if len(frame):
        with files.replaced(folder / FILE) as (path,):
            frame.to_csv(path, index=False)


def _arms(search: Search) -> dict[str, dict[Control, str]]:
    """Return the labels of the arms by what the space varies beside them, where both arms of a pair are there."""
    arms: dict[str, dict[Control, str]] = {}
    for trial in search.trials[:: len(search.seeds)]:
        if controls.PATH in trial.choice:
            rest = {path: value for path, value in trial.choice.items() if path != controls.PATH}
            arms.setdefault(label(rest, None), {})[Control(trial.choice[controls.PATH])] = trial.label
    return {rest: of_rest for rest, of_rest in arms.items() if Control.LEARNED in of_rest}


def _line(values: verdict.Values, learned: str, control: str, metric: str) -> dict[str, object]:
    """Compare two arms on the seeds that both have finished; empty where they have none in common."""
    of_learned, of_control = values.get(learned, {}), values.get(control, {})
    seeds = sorted(set(of_learned) & set(of_control))
    if not seeds:
        return {}
    if len(seeds) == 1:
        gain = of_learned[seeds[0]] - of_control[seeds[0]]
        means = {"mean_control": of_control[seeds[0]], "mean": of_learned[seeds[0]]}
        nothing = dict.fromkeys(("low", "high", "t", "p"), math.nan)
        return {**means, **nothing, "gain": gain, "n": 1, "values": f"{gain:.10g}"}
    line = compare.of_values({"control": of_control, "learned": of_learned}, metric).iloc[0]
    kept = {name: line[name] for name in ("low", "high", "n", "t", "p", "values", "mean")}
    return {**kept, "mean_control": line["mean_reference"], "gain": line["difference"]}


def sentences(frame: pd.DataFrame, metric: str) -> list[str]:
    """Write a line of ``table`` as a sentence: learned against frozen: +3.1 points, and how sure that is."""
    several, tests = frame["configuration"].nunique() > 1, int(frame["p"].notna().sum())
    return [
        f"{f'{line.configuration}: ' if several else ''}learned against {line.control}: "
        f"{_gain(line._asdict(), metric, tests)}"
        for line in frame.itertuples(index=False)
    ]


def _gain(line: Mapping[str, object], metric: str, tests: int) -> str:
    if line["n"] == 1:
        return f"{verdict.difference(float(str(line['gain'])), metric)} (one seed)"
    tested = pd.Series({**line, "difference": line["gain"], "test": compare.PAIRED})
    return verdict.compared(tested, metric, tests, sign=1)
