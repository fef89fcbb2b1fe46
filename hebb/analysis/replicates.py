"""Runs that differ only in their seed: n, mean, deviation and 95 % interval, and how people read them.

The interval is Student's, mean +- t(0.975, n-1) sd / sqrt(n), cut to the range of the metric: an accuracy lies between
0 and 100 %, a loss above 0. The true mean lies in the range too, so what is cut away never held it, and the interval
covers as often as before. Inside the range it is the interval that papers print.

There is none below three seeds, where t(0.975, 1) = 12.7 makes it 18 deviations wide, and none where all seeds agree,
where it would have no width and claim certainty. The values of the seeds are shown instead. Bars and bands of figures
show one deviation on either side of the mean, cut in the same way; of two seeds they reach from one to the other.

Imports pandas for type checkers only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

LEAST = 3
"""Least number of seeds of an interval."""
SPREAD = ("sd", "interval", "low", "high", "values")
"""Columns of ``statistics`` beside n and mean."""
NOTHING = "-"
"""What stands for a number that there is not."""
_COUNTS = ("parameters", "accumulates", "operations", "seen")
"""Last words of the names of whole numbers."""
_RANGES = {
    "acc": (0.0, 100.0),
    "accuracy": (0.0, 100.0),
    "sparsity": (0.0, 100.0),
    "angle": (0.0, 180.0),
    "alignment": (0.0, 1.0),
    "correlation": (-1.0, 1.0),
    "share": (0.0, 100.0),
    **dict.fromkeys(
        (
            "loss",
            "convergence",
            "R1",
            "change",
            "winners",
            "lr",
            "second",
            "norm",
            "response",
            "seconds",
            "memory",
            "entropy",
            *_COUNTS,
        ),
        (0.0, math.inf),
    ),
}
"""Ranges of metrics by the last word of their names."""
_DIGITS = {"loss": 4, "convergence": 4, "memory": 0, **dict.fromkeys(_COUNTS, 0)}
_HUGE = 1e6  # from here on a number is written with an exponent


def bounds(metric: str) -> tuple[float, float]:
    """Return the least and the largest value that a metric can have; infinite where it has no bound."""
    return _RANGES.get(metric.rpartition("_")[2], (-math.inf, math.inf))


def cut(low: float, mean: float, high: float, metric: str) -> tuple[float, float]:
    """Cut the ends around a mean to the range of the metric; a mean outside it, as of LPL's loss, cuts nothing."""
    least, most = bounds(metric)
    return (max(low, least), min(high, most)) if least <= mean <= most else (low, high)


def statistics(frame: pd.DataFrame, by: Sequence[str], column: str, metric: str | None = None) -> pd.DataFrame:
    """Return one line per group: n, mean, sd, interval (half-width), its low and high end, and the values as text.

    The deviation is that of a sample (n - 1), NaN for one run. The interval is NaN below ``LEAST`` runs and where all
    agree. Its half-width is Student's; the ends are cut to the range of the metric. Values are in ascending order of
    the column ``seed``, if there is one. Groups are in the order of their first lines; NaN values do not count.

    Args:
        frame: one line per run.
        by: columns that make a group.
        column: what is averaged.
        metric: what it is, which says its range; None takes the name of the column.
    """
    groups = frame.groupby(list(by), sort=False, dropna=False)
    lines = _summed_up(groups[column])
    lines["interval"] = [half_width(n, sd) for n, sd in zip(lines["n"], lines["sd"], strict=True)]
    ends = [
        cut(mean - half, mean, mean + half, metric or column)
        for mean, half in zip(lines["mean"], lines["interval"], strict=True)
    ]
    texts = [" ".join(f"{value:.10g}" for value in _by_seed(rows, column)) for _, rows in groups]
    return lines.assign(low=[low for low, _ in ends], high=[high for _, high in ends], values=texts)


def _by_seed(rows: pd.DataFrame, column: str) -> pd.Series:
    """Return the measured values of a group, in ascending order of seeds."""
    return (rows.sort_values("seed") if "seed" in rows else rows)[column].dropna()


def half_width(n: int, sd: float) -> float:
    """Return the half-width of Student's 95 % interval of a mean; NaN below ``LEAST`` runs and where all agree."""
    from scipy import stats

    return float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n) if n >= LEAST and sd > 0 else math.nan


def over_seeds(frame: pd.DataFrame, keys: Sequence[str], column: str, metric: str | None = None) -> pd.DataFrame:
    """Return n, mean and sd over the seeds of each group.

    Args:
        frame: one line per run, which ``groups.check`` has passed.
        keys: columns that make a group.
        column: what is averaged.
        metric: what it is; None takes the name of the column.

    Raises:
        ConfigError: when no run measured it.
    """
    if frame[column].isna().all():
        raise unmeasured(metric or column)
    return _summed_up(frame.groupby(list(keys), sort=False, dropna=False)[column])


def unmeasured(metric: str, flag: str = "--metric") -> ConfigError:
    """Return the error for a metric that no run has."""
    return ConfigError(flag, f"none of these runs measured '{metric}'")


def _summed_up(groups: Any) -> pd.DataFrame:
    """Return n, mean and sd of each group; equal values have the deviation 0, whatever their mean is rounded to."""
    lines = groups.agg(n="count", mean="mean", sd="std", least="min", most="max").reset_index()
    agree = (lines["n"] > 1) & (lines["least"] == lines["most"])
    return lines.assign(sd=lines["sd"].mask(agree, 0.0)).drop(columns=["least", "most"])


def span(n: float, mean: float, sd: float, metric: str) -> tuple[float, float]:
    """Return the ends of a bar or band: NaN without a deviation, two seeds themselves, else mean +- sd, cut.

    ``n`` may be NaN for a published deviation, which is taken as it is.
    """
    reach = sd / math.sqrt(2) if n == 2 else sd
    return cut(mean - reach, mean, mean + reach, metric)


# -- for people -------------------------------------------------------------------------------------------------------


def digits(metric: str) -> int:
    """Return the decimals with which a metric is printed, and everything said of its spread."""
    return _DIGITS.get(metric.rpartition("_")[2], 2)


def number(value: float | None, metric: str) -> str:
    """Write a value of a metric: with the decimals of the metric, or with an exponent if it is huge."""
    if value is None or math.isnan(value):
        return NOTHING
    if metric.rpartition("_")[2] in _COUNTS and math.isfinite(value):
        return f"{value:,.0f}"
    if _HUGE <= abs(value) < math.inf:
        return f"{value:.1e}".replace("e+", "e")
    if metric == "lr":
        return f"{value:.4g}"
    if metric == "R1":
        return f"{value:.1f}".removesuffix(".0")  # a count, but of several seeds a mean
    text = f"{value:.{digits(metric)}f}"
    return text if text.strip("-0.") else text.removeprefix("-")


def with_unit(value: float | None, metric: str) -> str:
    """Write a value of a metric with its unit, where that is percent."""
    return number(value, metric) + (" %" if metric.endswith("_acc") else "")


def signed(value: float, metric: str) -> str:
    """Write a difference of a metric with its sign, unless it rounds to nothing."""
    size = number(abs(value), metric)
    return f"{'+' if value > 0 else '−'}{size}" if size.strip("0.") else size


def probability(p: float) -> str:
    """Write a p value."""
    if math.isnan(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def minutes(value: float) -> str:
    """Write minutes; a run of less than a hundredth of one took some time, too."""
    if math.isnan(value):
        return NOTHING
    return f"{value:.2f}" if value >= 0.005 else "< 0.01"


def mean_and_deviation(line: Any, metric: str) -> str:
    """Write ``mean +- sd`` of a line of ``statistics``, or the mean alone of a single run."""
    mean = number(line.mean, metric)
    return f"{mean} ± {number(line.sd, metric)}" if line.n > 1 else mean


def spread_cells(lines: pd.DataFrame, metric: str) -> list[dict[str, str]]:
    """Return the cells of a table for each line of ``statistics``.

    ``sd``; ``95 % interval`` and ``each seed`` where something stands in them: the values are shown of several seeds
    without an interval.
    """
    cells = [
        {
            "sd": number(line.sd, metric),
            "95 % interval": _interval(line, metric),
            "each seed": _seeds(line, metric),
        }
        for line in lines.itertuples()
    ]
    shown = ["sd", *(n for n in ("95 % interval", "each seed") if any(cell[n] != NOTHING for cell in cells))]
    return [{name: cell[name] for name in shown} for cell in cells]


def _interval(line: Any, metric: str) -> str:
    if math.isnan(line.interval):
        return NOTHING
    return f"{number(line.low, metric)} to {number(line.high, metric)}"


def _seeds(line: Any, metric: str) -> str:
    if line.n < 2 or not math.isnan(line.interval):
        return NOTHING
    texts = [number(float(value), metric) for value in line.values.split()]
    return f"all {texts[0]}" if len(set(texts)) == 1 else ", ".join(texts)
