"""Accuracy over the number of hidden layers, for each arm or width, beside the published values.

Figures 1, 3, 4 and B.4 of Journé et al. (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from hebb.analysis import groups, published, replicates, style
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hebb.analysis.runs import StoredRun

_ARMS = {
    frozenset({"Soft", "SoftKrotov"}): "SoftHebb",
    frozenset({"Hard", "HardKrotov"}): "Hard WTA",
    frozenset({"BP"}): "BP",
}
_SHIFT = 0.04  # layers, so that the bars of two series do not overlap


def arm(run: StoredRun) -> str:
    """Name how the hidden layers were trained: SoftHebb, Hard WTA, Random, BP, or else the methods."""
    hidden, trained = range(run.hidden), run.config.training_blocks
    if trained is not None and not set(trained) & set(hidden):
        return "Random"
    methods = {block.layer.method for block in run.config.network.blocks[:-1]}
    return next((name for own, name in _ARMS.items() if methods and methods <= own), "+".join(sorted(methods)))


def width(run: StoredRun) -> str:
    """Return the width of the second layer over that of the first; empty for networks with one hidden layer."""
    if run.hidden < 2:
        return ""
    first, second = (block.layer.out_channels for block in run.config.network.blocks[:2])
    return f"{second / first:g}"


def neurons(run: StoredRun) -> str:
    """Return the number of neurons of the first layer."""
    return str(run.config.network.blocks[0].layer.out_channels)


SERIES: dict[str, Callable[[StoredRun], str]] = {"arm": arm, "width": width, "neurons": neurons}
OURS = "ours"
"""Source of our own values; that of the others is where they were published."""
_TITLES = {"arm": "", "width": "width ratio ", "neurons": "first-layer neurons "}


def compute(
    runs: Sequence[StoredRun], by: str = "arm", *, metric: str = "test_acc", figure: str | None = None
) -> pd.DataFrame:
    """Return one line per dataset, series, depth and source: n, mean, sd.

    Args:
        runs: finished runs; those of one dataset, series and depth differ only in their seed.
        by: what makes a series: ``arm``, ``neurons`` or ``width``; one hidden layer belongs to every width.
        metric: what was measured.
        figure: a published figure, to put its values for these datasets beside ours.
    """
    if by not in SERIES:
        raise ConfigError("--by", f"unknown '{by}'", given=by, choices=SERIES)
    series = [SERIES[by](run) for run in runs]
    groups.check(runs, [(run.dataset, name, run.hidden) for run, name in zip(runs, series, strict=True)], "--where")
    shared = sorted(set(series) - {""}) or ["1"]
    lines = pd.DataFrame(
        [
            {"dataset": run.dataset, "series": s, "depth": run.hidden, "seed": run.seed, metric: run.measured(metric)}
            for run, name in zip(runs, series, strict=True)
            for s in ([name] if name else shared)
        ]
    )
    ours = replicates.over_seeds(lines, ["dataset", "series", "depth"], metric).assign(source=OURS)
    if figure is None:
        return _sorted(ours, by, metric)
    theirs = published.read(figure)
    if by not in set(theirs["by"]):
        kind = theirs["by"].iloc[0]
        raise ConfigError(
            "--published", f"figure '{figure}' is published by {kind}, got --by {by}", hint=f"use --by {kind}"
        )
    published_for = list(dict.fromkeys(theirs["dataset"]))
    theirs = theirs[theirs["dataset"].isin(lines["dataset"])]
    if theirs.empty:
        ours_on = " ".join(dict.fromkeys(lines["dataset"]))
        raise ConfigError("--published", f"figure '{figure}' has no values for {ours_on}", choices=published_for)
    return _sorted(pd.concat([ours, theirs.assign(n=pd.NA)], ignore_index=True), by, metric)


def _sorted(frame: pd.DataFrame, by: str, metric: str) -> pd.DataFrame:
    """Return the lines by dataset and series, arms in the published order, ours before the published values."""
    frame = frame.assign(by=by, metric=metric, n=frame["n"].astype("Int64"))
    order = {name: i for i, name in enumerate(("SoftHebb", "Hard WTA", "Random", "BP"))}
    keys = [(order.get(s, 99), 0.0 if SERIES[by] is arm else float(s), str(s)) for s in frame["series"]]
    frame = frame.assign(_key=keys, _published=frame["source"] != OURS).sort_values(
        ["dataset", "_key", "_published", "depth"], ignore_index=True
    )
    return frame[["dataset", "by", "series", "depth", "source", "metric", "n", "mean", "sd"]]


def text(frame: pd.DataFrame) -> str:
    """Write the table as people read it."""
    metric = str(frame["metric"].iloc[0])
    shown = frame.assign(
        **{name: [replicates.number(value, metric) for value in frame[name]] for name in ("mean", "sd")}
    )
    return str(shown.to_string(index=False, na_rep=replicates.NOTHING))


@style.drawn
def draw(frame: pd.DataFrame) -> Figure:
    """Draw a panel per dataset; ours with filled markers and solid lines, the published values hollow and dotted."""
    datasets, series = (list(dict.fromkeys(frame[name])) for name in ("dataset", "series"))
    figure, axes = style.figure(1, len(datasets), squeeze=False)
    title, metric = _TITLES[str(frame["by"].iloc[0])], str(frame["metric"].iloc[0])
    for panel, dataset in zip(axes[0], datasets, strict=True):
        for number, name in enumerate(series):
            lines = frame[(frame["dataset"] == dataset) & (frame["series"] == name)]
            shift = (number - (len(series) - 1) / 2) * _SHIFT
            _line(panel, lines[lines["source"] == OURS], number, shift, f"{title}{name}", metric, ours=True)
            _line(panel, lines[lines["source"] != OURS], number, shift, f"{title}{name}, published", metric, ours=False)
        first = panel is axes[0][0]
        style.label(panel, "hidden layers", style.unit(metric) if first else "", dataset)
        depths = frame[frame["dataset"] == dataset]["depth"]
        panel.set_xticks(range(int(depths.min()), int(depths.max()) + 1))
        panel.set_xlim(depths.min() - 0.4, depths.max() + 0.4)
    style.legend(figure, axes[0], style.spread(frame[frame["source"] == OURS], "bars"))
    return figure


def _line(panel: Axes, lines: pd.DataFrame, number: int, shift: float, name: str, metric: str, *, ours: bool) -> None:
    if lines.empty:
        return
    hollow = {} if ours else {"linestyle": ":", "markerfacecolor": "white", "alpha": 0.75}
    style.bars(panel, number, name, lines["depth"] + shift, lines, metric, **hollow)
