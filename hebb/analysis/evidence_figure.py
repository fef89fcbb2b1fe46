"""Published numbers beside ours: a panel for each group of headlines, a row for each claim."""

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
