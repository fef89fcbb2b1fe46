"""Two or more searches beside the first: difference of the means with its 95 % interval, and a test with its name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from hebb.analysis import style
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hebb.analysis.runs import StoredRun

PAIRED, WELCH = "paired t-test", "Welch's t-test"


def compute(
    groups: Mapping[str, Sequence[StoredRun]], metric: str = "test_acc", *, paired: bool = True
) -> pd.DataFrame:
    """Compare every group with the first, seed by seed.

    A seed is a pair, because it gives both runs the same initial draws and order of images. Student's interval of the
    mean difference is d +- t(0.975, n-1) sd_d / sqrt(n); unpaired, Welch's. p values of several comparisons are
    also given with Holm's correction. Two-sided throughout.

    Args:
        groups: at least two, by name, of runs that differ in their seed alone.
        metric: a name of ``runs.METRICS``.
        paired: whether seeds are pairs; if not, Welch's test compares the means.

    Returns:
        One line per comparison: group, reference, both means, difference (group - reference), low and high end of
        its 95 % interval, n (pairs; unpaired, runs of the group), t, p, p_holm, test.

    Raises:
        ConfigError: for fewer than two groups, a group with a seed twice, or fewer than two runs or pairs.
    """
    if len(groups) < 2:
        raise ConfigError("runs", "two or more are compared", hint="name each search or folder on its own")
    values = {name: _by_seed(name, runs, metric) for name, runs in groups.items()}
    (reference, base), *others = values.items()
    lines = []
    for name, found in others:
        seeds = sorted(set(base) & set(found))
        left, right = ([side[s] for s in (seeds if paired else side)] for side in (found, base))
        if min(len(left), len(right)) < 2:
            hint = "--unpaired compares runs of different seeds" if paired and min(len(found), len(base)) > 1 else None
            what = "seeds in common" if paired else "runs each"
            raise ConfigError("runs", f"{name} and {reference} have fewer than two {what}", hint=hint)
        means = [math.fsum(side) / len(side) for side in (left, right)]
        low, high, t, p = _test(left, right, paired)
        lines.append(
            {
                "group": name,
                "reference": reference,
                "metric": metric,
                "mean": means[0],
                "mean_reference": means[1],
                "difference": means[0] - means[1],
                "low": low,
                "high": high,
                "n": len(left),
                "t": t,
                "p": p,
                "test": PAIRED if paired else WELCH,
            }
        )
    made = pd.DataFrame(lines)
    made.insert(made.columns.get_loc("p") + 1, "p_holm", holm(list(made["p"])))
    return made


def _by_seed(name: str, runs: Sequence[StoredRun], metric: str) -> dict[int, float]:
    found: dict[int, float] = {}
    for run in runs:
        if run.seed in found:
            problem = f"{name} has more than one run of seed {run.seed}"
            raise ConfigError("runs", problem, hint="--where, --preset or --dataset choose one configuration")
        found[run.seed] = run.measured(metric)
    if any(math.isnan(value) for value in found.values()):
        raise ConfigError("--metric", f"not every run of {name} measured '{metric}'")
    return found


def _test(left: Sequence[float], right: Sequence[float], paired: bool) -> tuple[float, float, float, float]:
    """Return the ends of the 95 % interval of the difference, t and p; without any scatter t and p are NaN."""
    from scipy import stats

    scattered = [[a - b for a, b in zip(left, right, strict=True)]] if paired else [left, right]
    if all(max(values) == min(values) for values in scattered):
        difference = left[0] - right[0]
        return difference, difference, math.nan, math.nan
    test = stats.ttest_rel(left, right) if paired else stats.ttest_ind(left, right, equal_var=False)
    interval = test.confidence_interval(0.95)
    return float(interval.low), float(interval.high), float(test.statistic), float(test.pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Return p values corrected for their number: the k-th smallest of m times m - k + 1, never falling, at most 1.

    Holm (1979). NaN stays NaN and does not count.
    """
    order = sorted((i for i in range(len(p)) if not math.isnan(p[i])), key=lambda i: p[i])
    found, highest = [math.nan] * len(p), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, p[i] * (len(order) - rank)))
        found[i] = highest
    return found


@style.drawn
def draw(frame: pd.DataFrame) -> Figure:
    """Draw each difference with its interval beside zero."""
    figure, axes = style.figure(width=5.5, height=1.2 + 0.4 * len(frame))
    places = range(len(frame))[::-1]
    bars = [frame["difference"] - frame["low"], frame["high"] - frame["difference"]]
    axes.errorbar(frame["difference"], list(places), xerr=bars, fmt="o", color=style.COLOURS[0], capsize=3)
    axes.axvline(0, color=style.GREY, linewidth=0.8)
    axes.set_yticks(list(places), [f"{line.group}\n(n = {line.n})" for line in frame.itertuples()])
    axes.set_ylim(-0.6, len(frame) - 0.4)
    first = frame.iloc[0]
    unit = style.unit(str(first["metric"])).replace("(%)", "(percentage points)")
    style.label(axes, f"difference in {unit}", "", f"against {first['reference']}, 95 % interval ({first['test']})")
    return figure
