"""Accuracy and the number of neurons of radius 1 over the temperature of the soft competition.

Figures B.1 (one hidden layer) and B.2 (three) of Journé et al. (2023). The temperature is 1 / beta, where beta is the
inverse temperature ``t_invert`` that all Hebbian blocks share. The hard winner-take-all is the limit of temperature 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from hebb.analysis import groups, replicates, style
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hebb.analysis.runs import StoredRun

SERIES = {
    "Soft": "SoftHebb",
    "SoftKrotov": "SoftHebb, anti-Hebbian losers",
    "Hard": "Hard WTA (temperature 0)",
}


def compute(runs: Sequence[StoredRun], metric: str = "test_acc") -> pd.DataFrame:
    """Return one line per series, temperature and metric (``metric`` and R1): n, mean, sd.

    R1 counts the neurons of all Hebbian blocks, each at the end of its own phase.

    Args:
        runs: finished runs whose Hebbian blocks share one method and one inverse temperature.
        metric: the metric that is drawn beside R1.
    """
    lines, keys = [], []
    for run in runs:
        method = str(run.value("b*.method")) if run.has("b*.method") else ""
        if method not in SERIES:
            methods = " ".join(block.layer.method for block in run.config.network.blocks[:-1])
            raise ConfigError(str(run.folder), f"all blocks must share one method, got {methods}", choices=SERIES)
        beta = None if method == "Hard" else run.number("b*.layer.t_invert")
        at = {"series": SERIES[method], "temperature": 0.0 if beta is None else 1 / beta, "seed": run.seed}
        keys.append((at["series"], at["temperature"]))
        lines.append({**at, "metric": metric, "value": run.measured(metric)})
        lines.append({**at, "metric": "R1", "value": radius_one(run)})
    groups.check(runs, keys, "--where")
    measured = pd.DataFrame(lines)
    if measured["value"][measured["metric"] == metric].isna().all():
        raise replicates.unmeasured(metric)
    measured = measured[measured.groupby("metric")["value"].transform("count") > 0]
    frame = replicates.over_seeds(measured, ["series", "temperature", "metric"], "value")
    frame["series"] = pd.Categorical(frame["series"], SERIES.values())
    frame = frame.sort_values(["metric", "series", "temperature"], key=_r1_last, ignore_index=True)
    return frame.astype({"series": str})


def _r1_last(column: pd.Series) -> pd.Series:
    return column == "R1" if column.name == "metric" else column


def radius_one(run: StoredRun) -> float:
    """Return the number of neurons of radius 1 in all Hebbian blocks, each at the end of its phase."""
    last = {row["phase"]: row["R1"] for row in run.rows if row["R1"] is not None}
    return float(sum(last.values())) if last else float("nan")


@style.drawn
def draw(frame: pd.DataFrame) -> Figure:
    """Draw accuracy and R1 over the temperature, on a logarithmic axis; the hard limit is a horizontal line."""
    metrics = list(dict.fromkeys(frame["metric"]))
    figure, axes = style.figure(1, len(metrics), squeeze=False)
    series = list(dict.fromkeys(frame["series"]))
    for panel, metric in zip(axes[0], metrics, strict=True):
        for number, name in enumerate(series):
            lines = frame[(frame["series"] == name) & (frame["metric"] == metric)]
            if name == SERIES["Hard"]:
                colour = style.line(number)["color"]
                level = lines.iloc[0]
                panel.axhline(level["mean"], color=colour, linestyle="--", label=name)
                low, high = replicates.span(level["n"], level["mean"], level["sd"], metric)
                if not math.isnan(low):
                    panel.axhspan(low, high, color=colour, alpha=0.15, linewidth=0)
            else:
                style.bars(panel, number, name, lines["temperature"], lines, metric)
        warm = frame[frame["temperature"] > 0]["temperature"]
        if len(warm):
            style.logarithmic(panel, warm.min() / 1.5, warm.max() * 1.5)
        style.fit(panel, metric, frame[frame["metric"] == metric]["mean"])
        style.label(panel, "temperature 1/β", style.unit(metric))
    style.legend(figure, axes[0], style.spread(frame, "bars"))
    return figure
