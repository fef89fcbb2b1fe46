"""Compare searches with a first one: difference of the means, its 95 % interval, and a test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from hebb.analysis import groups as grouped
from hebb.analysis import replicates, style
from hebb.analysis import runs as stored
from hebb.analysis.runs import check_metric
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hebb.analysis.runs import StoredRun

PAIRED, WELCH = "paired t-test", "Welch's t-test"
_ROUNDING = 1e-12
"""Share of a value by which it may be off: samples that differ by less are alike, and a test of them is noise."""


def compute(
    groups: Mapping[str, Sequence[StoredRun]], metric: str = "test_acc", *, paired: bool = True
) -> pd.DataFrame:
    """Compare every group with the first, seed by seed.

    Two runs of one seed are a pair, because they share initial draws and order of images. The interval of the mean
    difference is Student's, d +- t(0.975, n-1) sd_d / sqrt(n), or Welch's without pairs, cut to the differences that
    the metric can have. As for a mean there is none below three seeds, and none where all seeds agree; nor is there a
    test. Tests are two-sided; p values are also given with Holm's correction for the number of comparisons.

    Args:
        groups: at least two groups by name, each of runs that differ only in their seed.
        metric: a name of ``runs.METRICS``.
        paired: compare runs of the same seed; if not, Welch's test compares the means.

    Returns:
        One line per comparison: group, reference, both means, difference (group - reference), low and high end of
        its 95 % interval, n (pairs; unpaired, runs of the group), t, p, p_holm, test, and as text the values: the
        differences seed by seed, or unpaired the values of both groups.

    Raises:
        ConfigError: for fewer than two groups, a group that holds a seed twice, or fewer than two runs or pairs.
    """
    if len(groups) < 2:
        problem = f"must be at least two searches or folders, got {len(groups)}"
        raise ConfigError("runs", problem, hint="--by compares the values of one of its columns (--by b0.layer.lr)")
    check_metric(metric)
    return of_values({name: _by_seed(name, runs, metric) for name, runs in groups.items()}, metric, paired=paired)


def by_value(
    runs: Sequence[StoredRun], columns: Sequence[str], first: Sequence[str] | None = None
) -> dict[str, tuple[StoredRun, ...]]:
    """Return the runs by the names of their values in some columns, numbers rising.

    Args:
        runs: the runs.
        columns: of ``COLUMNS``, or override paths.
        first: the values, as a user writes them, of the group that comes first.

    Raises:
        ConfigError: where no group has the values of ``first``; it lists those that there are.
    """
    groups: dict[tuple[object, ...], list[StoredRun]] = {}
    for run in runs:
        groups.setdefault(tuple(stored.value_in(run, column) for column in columns), []).append(run)
    keys = sorted(groups, key=lambda key: [(0, v, "") if _is_number(v) else (1, 0.0, str(v)) for v in key])
    texts, digits = grouped.texts(keys, columns)
    if first is not None:
        keys.sort(key=lambda key: not _written(key, first, digits))
        if not _written(keys[0], first, digits):
            choices = [" ".join(grouped.value_text(value, digits) for value in key) for key in keys]
            problem = f"no run has {' and '.join(f'{c}={v}' for c, v in zip(columns, first, strict=True))}"
            raise ConfigError("--baseline", problem, given=" ".join(first), choices=choices)
    return {texts[key]: tuple(groups[key]) for key in keys}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _written(key: Sequence[object], texts: Sequence[str], digits: int) -> bool:
    """Tell whether these values are what texts write, in full or with as many digits as they are shown with."""
    return all(
        stored.comparable(text) in (stored.comparable(str(value)), stored.comparable(grouped.value_text(value, digits)))
        for value, text in zip(key, texts, strict=True)
    )


def of_values(groups: Mapping[str, Mapping[int, float]], metric: str, *, paired: bool = True) -> pd.DataFrame:
    """Compare as ``compute`` does; every group gives its value of the metric by seed."""
    (reference, base), *others = groups.items()
    lines = []
    for name, group in others:
        seeds = sorted(set(base) & set(group))
        left, right = ([side[s] for s in (seeds if paired else side)] for side in (group, base))
        if min(len(left), len(right)) < 2:
            alone = paired and min(len(group), len(base)) > 1
            hint = "--unpaired compares runs of different seeds" if alone else "one seed says nothing of the spread"
            lacking = "seeds in common" if paired else "runs each"
            raise ConfigError("runs", f"{name} and {reference} have fewer than two {lacking}", hint=hint)
        means = [math.fsum(side) / len(side) for side in (left, right)]
        low, high, t, p = _test(left, right, paired)
        difference = means[0] - means[1]
        low, high = _cut(low, difference, high, metric)
        lines.append(
            {
                "group": name,
                "reference": reference,
                "metric": metric,
                "mean": means[0],
                "mean_reference": means[1],
                "difference": difference,
                "low": low,
                "high": high,
                "n": len(left),
                "t": t,
                "p": p,
                "test": PAIRED if paired else WELCH,
                "values": _texts([a - b for a, b in zip(left, right, strict=True)])
                if paired
                else f"{_texts(left)} against {_texts(right)}",
            }
        )
    frame = pd.DataFrame(lines)
    frame.insert(frame.columns.get_loc("p") + 1, "p_holm", holm(list(frame["p"])))
    return frame


def _by_seed(name: str, runs: Sequence[StoredRun], metric: str) -> dict[int, float]:
    grouped.check_seeds(runs, "--by")
    values = {run.seed: run.measured(metric) for run in runs}
    if any(math.isnan(value) for value in values.values()):
        raise ConfigError("--metric", f"not every run of {name} measured '{metric}'")
    return values


def _test(left: Sequence[float], right: Sequence[float], paired: bool) -> tuple[float, float, float, float]:
    """Return the ends of the 95 % interval of the difference, t and p; NaN for too few seeds, and where all agree."""
    from scipy import stats

    samples = [[a - b for a, b in zip(left, right, strict=True)]] if paired else [left, right]
    rounding = _ROUNDING * max(map(abs, [*left, *right]))
    few = min(map(len, samples)) < replicates.LEAST
    if few or all(max(values) - min(values) <= rounding for values in samples):
        return math.nan, math.nan, math.nan, math.nan
    test = stats.ttest_rel(left, right) if paired else stats.ttest_ind(left, right, equal_var=False)
    interval = test.confidence_interval(0.95)
    return float(interval.low), float(interval.high), float(test.statistic), float(test.pvalue)


def _cut(low: float, difference: float, high: float, metric: str) -> tuple[float, float]:
    """Cut an interval to the differences that two values of a metric can have."""
    least, most = replicates.bounds(metric)
    reach = most - least  # infinite unless both ends are bounded
    return (max(low, -reach), min(high, reach)) if abs(difference) <= reach else (low, high)


def _texts(values: Sequence[float]) -> str:
    return " ".join(f"{value:.10g}" for value in values)


def holm(p: Sequence[float]) -> list[float]:
    """Return p values with the correction of Holm (1979) for their number.

    The k-th smallest of m is multiplied by m - k + 1; the results never fall with k and are at most 1. NaN stays NaN
    and does not count.
    """
    order = sorted((i for i in range(len(p)) if not math.isnan(p[i])), key=lambda i: p[i])
    corrected, highest = [math.nan] * len(p), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, p[i] * (len(order) - rank)))
        corrected[i] = highest
    return corrected


def probability(line: Any, tests: int) -> str:
    """Write the p value of a comparison, corrected where it is one of several tests."""
    correction = f" with Holm's correction for {tests} tests" if tests > 1 else ""
    return f"p = {replicates.probability(line['p_holm'])}{correction}"


def unpaired(groups: Mapping[str, Sequence[StoredRun]]) -> str:
    """Say which seeds have no partner and are left out of a comparison by pairs; empty where all have one."""
    (reference, base), *others = ((name, {run.seed for run in runs}) for name, runs in groups.items())
    lines = []
    for name, seeds in others:
        sides = ((name, sorted(seeds - base)), (reference, sorted(base - seeds)))
        parts = [f"{_listed(alone)} of {side}" for side, alone in sides if alone]
        if parts:
            lines.append(f"{name} against {reference}: left out, as the other side lacks it: {' and '.join(parts)}")
    return "\n".join(lines)


def _listed(seeds: Sequence[int]) -> str:
    return f"seed{'s' if seeds[1:] else ''} {' '.join(map(str, seeds))}"


def text(frame: pd.DataFrame) -> str:
    """Write the table as people read it."""
    metric = str(frame["metric"].iloc[0])
    lines = [line._asdict() for line in frame.itertuples(index=False)]
    few = frame["low"].isna()
    shown = {
        "": [f"{line['group']} against {line['reference']}" for line in lines],
        style.unit(metric): [
            f"{replicates.number(line['mean'], metric)} against {replicates.number(line['mean_reference'], metric)}"
            for line in lines
        ],
        "difference": [replicates.signed(line["difference"], metric) for line in lines],
    }
    if not few.all():
        shown["95 % interval"] = [_interval(line, metric) for line in lines]
    if few.any() and frame["test"].iloc[0] == PAIRED:
        shown["each seed"] = [_pairs(line, metric) for line in lines]
    shown["n"] = [str(line["n"]) for line in lines]
    if not few.all():
        shown["p"] = [replicates.probability(line["p"]) for line in lines]
        if len(lines) > 1:
            shown["p (Holm)"] = [replicates.probability(line["p_holm"]) for line in lines]
    table = str(pd.DataFrame(shown).to_string(index=False))
    if few.all():
        return f"{table}\nno test: it takes {replicates.LEAST} seeds that do not all differ alike"
    return f"{table}\ntest: {frame['test'].iloc[0]}"


def _interval(line: Mapping[str, Any], metric: str) -> str:
    if math.isnan(line["low"]):
        return replicates.NOTHING
    return f"{replicates.signed(line['low'], metric)} to {replicates.signed(line['high'], metric)}"


def _pairs(line: Mapping[str, Any], metric: str) -> str:
    """Write the differences seed by seed, where there is no interval."""
    if not math.isnan(line["low"]):
        return replicates.NOTHING
    return ", ".join(replicates.signed(float(value), metric) for value in str(line["values"]).split())


@style.drawn
def draw(frame: pd.DataFrame) -> Figure:
    """Draw each difference with its interval, or where there is none the pairs as small dots, and a line at zero."""
    figure, axes = style.figure(width=5.5, height=1.2 + 0.4 * len(frame))
    places = range(len(frame))[::-1]
    bars = [frame["difference"] - frame["low"], frame["high"] - frame["difference"]]
    axes.errorbar(frame["difference"], list(places), xerr=bars, fmt="o", color=style.COLOURS[0], capsize=3)
    first = frame.iloc[0]
    for place, line in zip(places, frame.itertuples(), strict=True):
        if math.isnan(line.low) and first["test"] == PAIRED:
            pairs = [float(value) for value in line.values.split()]
            axes.plot(pairs, [place] * len(pairs), "|", color=style.COLOURS[1], markersize=9)
    axes.axvline(0, color=style.GREY, linewidth=0.8)
    axes.set_yticks(list(places), [f"{style.wrapped(line.group, 40)}\n(n = {line.n})" for line in frame.itertuples()])
    axes.set_ylim(-0.6, len(frame) - 0.4)
    unit = style.unit(str(first["metric"])).replace("(%)", "(percentage points)")
    style.label(axes, style.wrapped(f"difference in {unit}", 34), "", f"against {first['reference']}\n{_shown(frame)}")
    return figure


def _shown(frame: pd.DataFrame) -> str:
    """Say what is drawn around the differences."""
    missing, paired = frame["low"].isna(), frame["test"].iloc[0] == PAIRED
    interval = f"95 % interval ({frame['test'].iloc[0]})"
    instead = "each pair of seeds" if paired else "no interval: too few seeds, or all alike"
    if missing.all():
        return instead
    return f"{interval}; {instead} where there is none" if missing.any() and paired else interval
