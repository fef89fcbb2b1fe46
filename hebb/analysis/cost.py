"""Accuracy against what it cost: a point for each group of runs, beside the published accuracy of its network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from hebb.analysis import groups, published, replicates, style
from hebb.analysis import runs as stored
from hebb.config import controls
from hebb.config.vocabulary import Control, ProbeKind
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hebb.analysis.runs import StoredRun

COSTS = ("images_seen", "multiply_accumulates", "seconds")
"""Costs that the table shows beside the one on the axis."""
_MARGIN, _COLUMN = 1.02, 0.02
"""Where the first column of published values stands, and how far the next, as shares of the panel's width."""
_NETWORK = ["preset", "trained", "control", "dataset"]
"""Columns that make a line of the figure."""
KNN = "kNN"
"""Column of the nearest neighbours: their test accuracy, read from the highest block that was probed."""


def compute(
    runs: Sequence[StoredRun],
    cost: str,
    by: Sequence[str] | None = None,
    *,
    metric: str = "test_acc",
    figure: str | None = None,
) -> pd.DataFrame:
    """Return one line per group: its name, preset, n, mean and sd, the means of costs, and the published value.

    Args:
        runs: finished runs; those of a group differ only in their seed.
        cost: a cost or metric, for the axis.
        by: what makes a group, as in ``groups.labels``.
        metric: what was measured.
        figure: a published table whose values are of presets; None shows none.

    Raises:
        ConfigError: when a group holds a seed twice, or for an unknown name.
    """
    for name, flag in ((metric, "--metric"), (cost, "--cost")):
        stored.check_metric(name, where=flag)
    costs = list(dict.fromkeys((cost, *COSTS)))
    labels = groups.labels(runs, by)
    groups.check(runs, labels)
    frame = pd.DataFrame(
        [
            {
                "group": label,
                "preset": run.preset,
                "trained": run.trained,
                "control": run.values.get(controls.PATH, Control.LEARNED.value),
                "dataset": run.dataset,
                "seed": run.seed,
                **{name: run.measured(name) for name in (metric, *costs)},
                KNN: _nearest(run),
            }
            for label, run in zip(labels, runs, strict=True)
        ]
    )
    if frame[cost].isna().all():
        raise replicates.unmeasured(cost, "--cost")
    keys = ["group", *_NETWORK]
    lines = replicates.over_seeds(frame, keys, metric)
    grouped = frame.groupby(keys, sort=False)
    means = {name: grouped[name].mean().to_numpy() for name in costs}
    lines = lines.assign(metric=metric, cost=cost, **means)
    if frame[KNN].notna().any():
        lines[KNN] = grouped[KNN].mean().to_numpy()
    return lines if figure is None else _beside(lines, published.read(figure))


def _nearest(run: StoredRun) -> float:
    """Return the accuracy of the nearest neighbours in the highest block that was probed; NaN without such a probe."""
    probes = [probe for probe in run.probes if probe["kind"] == ProbeKind.KNN]
    return float(str(probes[-1]["test_acc"])) if probes else math.nan


def _beside(lines: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Add the published value of each preset on its dataset, and how it was chosen.

    It belongs to the network all of whose blocks learn by their rules, and not to one that was partly frozen, nor to a
    control.
    """
    if not (theirs["by"] == "preset").any():
        kind = theirs["by"].iloc[0]
        raise ConfigError("--published", f"must name values of presets, got values by {kind}", hint="rules has some")
    theirs = theirs[theirs["by"] == "preset"].rename(columns={"series": "preset", "mean": "published"})
    theirs = theirs[["preset", "dataset", "published", "chosen", "source"]]
    both = [set(zip(side["preset"], side["dataset"], strict=True)) for side in (lines, theirs)]
    if not both[0] & both[1]:
        raise ConfigError("--published", "has no value for these presets on these datasets", choices=theirs["preset"])
    return lines.merge(theirs.assign(trained="all", control=Control.LEARNED.value), how="left")


def text(lines: pd.DataFrame) -> str:
    """Write the table as people read it."""
    metric = str(lines["metric"].iloc[0])
    shown = lines[["group"]].copy()
    if lines["dataset"].nunique() > 1:
        shown["dataset"] = lines["dataset"]
    shown[style.unit(metric)] = [replicates.mean_and_deviation(line, metric) for line in lines.itertuples()]
    shown["n"] = lines["n"]
    for name in [name for name in (KNN, *COSTS, str(lines["cost"].iloc[0])) if name in lines]:
        shown[name] = [replicates.number(value, "accuracy" if name == KNN else name) for value in lines[name]]
    if "published" in lines:
        shown["published"] = [replicates.number(value, metric) for value in lines["published"]]
        shown["chosen"] = lines["chosen"].fillna("")
    return str(shown.to_string(index=False))


@style.drawn
def draw(lines: pd.DataFrame) -> Figure:
    """Draw a line with bars for each network and dataset, the best first, and published values at the right."""
    metric, cost = str(lines["metric"].iloc[0]), str(lines["cost"].iloc[0])
    figure, panel = style.figure(width=style.PAGE, height=4.0)
    networks = lines.groupby(_NETWORK, sort=False)
    best = networks["mean"].max().sort_values(ascending=False, kind="stable")
    several = lines["dataset"].nunique() > 1
    theirs: dict[int, float] = {}
    for number, network in enumerate(best.index):
        group = networks.get_group(network).sort_values(cost)
        name = _named(*network) if several else _named(*network[:-1])
        if "published" in group and group["published"].notna().any():
            theirs[number] = group["published"].iloc[0]
            name += f" (published {replicates.number(theirs[number], metric)})"
        style.bars(panel, number, name, group[cost], group, metric)
    _draw_published(panel, theirs)
    low, high = lines[cost].min(), lines[cost].max()
    if low > 0:
        style.logarithmic(panel, low / 1.2, high * 1.2)
    style.label(panel, style.unit(cost), style.unit(metric))
    note = style.spread(lines, "bars")
    style.legend(figure, panel, f"{note}; hollow, at the right: published" if theirs else note)
    return figure


def _named(preset: str, trained: str, control: str, dataset: str = "") -> str:
    """Name a line of the figure: its network, what of it was trained, and the dataset where there are several."""
    if control != Control.LEARNED:
        name = f"{preset}, control {control}"
    else:
        name = preset if trained == "all" else f"{preset}, only {trained} trained"
    return f"{name} on {dataset}" if dataset else name


def _draw_published(panel: Axes, theirs: dict[int, float]) -> None:
    """Put a hollow marker for each published value, by the number of its line, beside the panel.

    A paper's cost is that of its own protocol, so these have no place on the axis of costs. Values that would cover
    each other stand side by side.
    """
    from matplotlib.transforms import blended_transform_factory

    beside = blended_transform_factory(panel.transAxes, panel.transData)
    low, high = panel.get_ylim()
    gap = 0.025 * (max((high, *theirs.values())) - min((low, *theirs.values())))
    lowest: list[float] = []  # of each column, the value that was put there last
    for number, value in sorted(theirs.items(), key=lambda item: -item[1]):
        column = next((i for i, last in enumerate(lowest) if last - value >= gap), len(lowest))
        lowest[column : column + 1] = [value]
        hollow = {**style.line(number), "markerfacecolor": "white", "linestyle": "", "clip_on": False}
        panel.plot([_MARGIN + _COLUMN * column], [value], transform=beside, **hollow)
