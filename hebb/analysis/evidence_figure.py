"""Published numbers beside ours: those of the headlines in panels of their groups, or the differences of all claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hebb.analysis import style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW = 0.27
"""Height of a row in inches."""
_LINE = 0.1
"""Height of a claim among all of them, which has no name of its own."""
_SHIFT = 0.14
"""Distance of the two points of a row from its middle, in rows."""


@style.drawn
def draw(frame: pd.DataFrame) -> Figure:
    """Draw the lines of ``evidence.headlines``; bars are one standard deviation.

    The part of a headline before ``": "`` names its panel.
    """
    groups = frame["what"].str.partition(": ")[0]
    sizes = groups.value_counts(sort=False)
    height = _ROW * len(frame) + 0.55 * len(sizes)
    figure, panels = style.figure(
        len(sizes), 1, width=6.2, height=height / len(sizes), squeeze=False, gridspec_kw={"height_ratios": list(sizes)}
    )
    for panel, (group, lines) in zip(panels[:, 0], frame.groupby(groups, sort=False), strict=True):
        _panel(panel, str(group), lines)
    style.legend(figure, panels[:, 0], note="bars: ± 1 s.d. where there are several runs")
    return figure


def _panel(panel: Axes, group: str, lines: pd.DataFrame) -> None:
    """Draw the claims of one group from top to bottom."""
    rows = np.arange(len(lines))
    for number, name, mean, sd, shift in (
        (6, "published", "published", "published_sd", -_SHIFT),
        (0, "hebb", "ours", "sd", _SHIFT),
    ):
        look = {**style.line(number), "linestyle": "none"}
        panel.errorbar(lines[mean], rows + shift, xerr=lines[sd].fillna(0), label=name, capsize=2, **look)
    panel.set_yticks(rows, lines["what"].str.partition(": ")[2])
    panel.set_ylim(len(lines) - 0.5, -0.5)
    style.label(panel, "", "", f"{group}, test accuracy (%)")
    panel.title.set_horizontalalignment("left")
    panel.title.set_x(0)


@style.drawn
def draw_all(frame: pd.DataFrame) -> Figure:
    """Draw ours minus the published number, record by record, for the claims in percent; there must be one."""
    frame = frame[frame["unit"] == "%"].reset_index(drop=True)
    figure, panels = style.figure(1, 1, width=6.2, height=_LINE * len(frame) + 0.9, squeeze=False)
    panel, rows = panels[0, 0], np.arange(len(frame))
    band = {"color": "0.82", "height": 0.9, "linewidth": 0}
    sds = frame["published_sd"].fillna(0)
    panel.barh(rows, 2 * sds, left=-sds, label="published, ± 1 s.d.", **band)
    look = {**style.line(0), "linestyle": "none", "markersize": 3}
    panel.errorbar(frame["difference"], rows, xerr=frame["sd"].fillna(0), label="hebb, ± 1 s.d. of its runs", **look)
    panel.axvline(0, color="0.4", linewidth=0.8)
    numbers = frame.index.to_series().groupby(frame["record"], sort=False)
    first, last = numbers.min(), numbers.max()
    for stop in last[:-1]:
        panel.axhline(stop + 0.5, color="0.85", linewidth=0.6)
    panel.set_yticks((first + last) / 2, first.index)
    panel.tick_params(axis="y", length=0)
    panel.grid(visible=False, axis="y")
    panel.set_ylim(len(frame) - 0.5, -0.5)
    style.label(panel, "ours minus published (percentage points)", "")
    style.legend(figure, panel)
    return figure
