"""The STDP window of the spiking LPL rule: how it depends on the neuron's variance and on the rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from hebb.analysis import style
from hebb.spiking import stdp
from hebb.spiking.settings import StdpConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor


def compute(config: StdpConfig) -> pd.DataFrame:
    """Return one line per point: panel (``window``, ``rate``), variance, rate, interval in ms, change in percent."""
    columns = ["panel", "variance", "rate", "interval_ms", "change_percent"]
    rows: list[tuple[str, float, float, float, float]] = []
    for panel, protocol in (
        ("window", config),
        *(("rate", config.rate_dependence(rate)) for rate in config.rates),
    ):
        lags = stdp.intervals(protocol)
        shown = range(len(lags)) if panel == "window" else _nearest(lags, (-config.rate_interval, config.rate_interval))
        for variance, changes in zip(protocol.variances, stdp.window(protocol), strict=True):
            rows += [(panel, variance, protocol.rate, 1e3 * float(lags[i]), 100 * float(changes[i])) for i in shown]
    return pd.DataFrame(rows, columns=columns)


def _nearest(lags: Tensor, wanted: Sequence[float]) -> list[int]:
    """Return the index of the interval nearest to each wanted one."""
    return [int((lags - lag).abs().argmin()) for lag in wanted]


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one line per window: largest and smallest change in percent, and the intervals in ms at which they lie."""
    lines = []
    for variance, rows in frame[frame["panel"] == "window"].groupby("variance", sort=False):
        line: dict[str, float] = {"variance": float(variance)}
        for name, at in (("largest", rows["change_percent"].idxmax()), ("smallest", rows["change_percent"].idxmin())):
            line |= {f"{name} (%)": rows["change_percent"][at], f"at (ms), {name}": rows["interval_ms"][at]}
        lines.append(line)
    return pd.DataFrame(lines).round(3)


@style.drawn
def draw(frame: pd.DataFrame, config: StdpConfig) -> Figure:
    """Draw the windows, the same in units of their largest change, and the change over the rate."""
    figure, (left, middle, right) = style.figure(1, 3, width=3.6)
    windows, rates = frame[frame["panel"] == "window"], frame[frame["panel"] == "rate"]
    for number, variance in enumerate(config.variances):
        rows = windows[windows["variance"] == variance]
        look = {**style.line(number), "marker": ""}
        largest = rows["change_percent"].abs().max()
        left.plot(rows["interval_ms"], rows["change_percent"], label=f"$\\sigma^2$ = {variance:g} Hz", **look)
        middle.plot(rows["interval_ms"], rows["change_percent"] / (largest or 1.0), **look)
    for number, (interval, rows) in enumerate(rates.groupby("interval_ms", sort=True)):
        look = style.line(len(config.variances) + number)
        right.plot(rows["rate"], rows["change_percent"], label=f"$\\Delta t$ = {interval:+.3g} ms", **look)
    for panel, name in ((left, "change of the weight (%)"), (middle, "change / largest change")):
        panel.axhline(0, color=style.GREY, linewidth=0.8)
        panel.axvline(0, color=style.GREY, linewidth=0.8)
        style.label(panel, r"$\Delta t = t_{\mathrm{post}} - t_{\mathrm{pre}}$ (ms)", name)
    right.axhline(0, color=style.GREY, linewidth=0.8)
    style.label(right, "pairings per second (Hz)", "change of the weight (%)")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
    left.set_title(f"{config.rate:g} pairings per second")
    middle.set_title("scaled to the largest change")
    right.legend(title=f"$\\sigma^2$ = {config.rate_variance:g} Hz at the start")
    return figure
