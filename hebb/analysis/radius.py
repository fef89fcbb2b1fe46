"""Accuracy over the initial radius of the first block, for each learning-rate schedule.

Figure B.3 A of Journé et al. (2023): weights that start inside the unit sphere learn nothing, weights that start well
outside it learn; between lies a zone of partial learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from hebb.analysis import groups, replicates, style
from hebb.analysis.runs import schedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hebb.analysis.runs import StoredRun

ZONES = ((0.0, 1.0, "none"), (1.0, 2.2, "partial"), (2.2, float("inf"), "learning"))
"""Published zones of the initial radius: from, to, name."""
ZONE_MEANINGS = {
    "none": "no learning: weights start inside the unit sphere (radius < 1)",
    "partial": "partial learning: they start just outside it (1 to 2.2)",
    "learning": "learning: they start well outside it (2.2 and above)",
}
"""What the published zones mean."""
SOURCE = "shades: the regimes of Journé et al. (2023), figure B.3"
ZONE_LABELS = {"none": "no learning", "partial": "partial learning", "learning": "learning"}


def compute(runs: Sequence[StoredRun], metric: str = "test_acc") -> pd.DataFrame:
    """Return one line per schedule and initial radius of the first block: n, mean, sd, and the published zone."""
    places = [{"schedule": schedule(run), "radius": run.number("b0.layer.radius")} for run in runs]
    groups.check(runs, [tuple(place.values()) for place in places], "--where")
    lines = [{**place, "seed": run.seed, metric: run.measured(metric)} for place, run in zip(places, runs, strict=True)]
    frame = replicates.over_seeds(pd.DataFrame(lines), ["schedule", "radius"], metric)
    zones = [next(name for low, high, name in ZONES if low <= radius < high) for radius in frame["radius"]]
    return frame.assign(metric=metric, zone=zones).sort_values(["schedule", "radius"], ignore_index=True)


@style.drawn
def draw(frame: pd.DataFrame) -> Figure:
    """Draw accuracy over the radius, on a logarithmic axis, with the published zones shaded."""
    figure, axes = style.figure(width=5.2)
    low, high = frame["radius"].min() / 1.3, frame["radius"].max() * 1.3
    metric = str(frame["metric"].iloc[0])
    for number, name in enumerate(dict.fromkeys(frame["schedule"])):
        lines = frame[frame["schedule"] == name]
        style.bars(axes, number, name, lines["radius"], lines, metric)
    for number, (start, end, name) in enumerate(ZONES):
        left, right = max(start, low), min(end, high)
        if left < right:
            shading = {"facecolor": ("0.80", "0.91", "1.0")[number], "edgecolor": "0.7", "linewidth": 0.5}
            axes.axvspan(left, right, zorder=-1, label=ZONE_MEANINGS[name], **shading)
            place = (left * right) ** 0.5
            axes.text(
                place,
                1.02,
                ZONE_LABELS[name],
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="bottom",
                fontsize=8,
            )
    style.logarithmic(axes, low, high)
    style.label(axes, "initial radius of the first block", style.unit(metric))
    style.legend(figure, axes, f"{SOURCE}; {style.spread(frame, 'bars')}")
    return figure
