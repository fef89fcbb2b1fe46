"""One style for all figures: colours safe for colour-blind readers, no screen, the same bytes for the same figure.

@style.drawn
def draw(frame):
    figure, axes = style.figure()
    axes.plot(frame["epoch"], frame["mean"], **style.line(0))
    style.label(axes, "epoch", "test accuracy (%)")
    return figure
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ParamSpec, TypeVar

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe & Ito (2008), without yellow, which is too faint on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
GREY = "0.55"
_KINDS = {"acc": "accuracy (%)", "loss": "loss (nats)"}
_SPLITS = {"train": "training", "val": "validation", "test": "test"}
_METRICS = {
    "R1": "neurons of radius 1",
    "convergence": "mean distance of the radii from 1",
    "images_per_second": "images per second",
    "lr": "learning rate",
}
WIDTH, HEIGHT = 4.2, 3.0
"""Size of one panel in inches."""
_LEGEND_LINE = 0.19  # inches
TITLE = 6.0
"""Least width in inches of a figure whose title is a sentence."""

_RC: dict[str, object] = {
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same text everywhere
    "font.size": 9,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "savefig.dpi": 200,
    "svg.hashsalt": "hebb",  # the same bytes for the same figure
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}


def drawn(draw: Callable[P, T]) -> Callable[P, T]:
    """Make a function draw in this style, independent of the caller's settings and without changing them."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> T:
        import matplotlib

        with matplotlib.rc_context(_defaults() | _RC):
            return draw(*args, **kwargs)

    return styled


def _defaults() -> dict[str, object]:
    import matplotlib

    return {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith(("backend", "date"))}


def figure(
    rows: int = 1, columns: int = 1, *, width: float = WIDTH, height: float = HEIGHT, **options: Any
) -> tuple[Figure, Any]:
    """Return a figure of ``rows`` x ``columns`` panels and its axes, as ``Figure.subplots`` gives them.

    ``width`` and ``height`` are those of a panel, in inches. The figure has no window, so nothing has to close it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **options)


def line(number: int) -> dict[str, Any]:
    """Return colour, marker and dashes of line ``number``; the first 28 all differ, even in grey."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[number // len(COLOURS) % len(LINES)],
    }


def label(axes: Axes, x: str, y: str, title: str = "") -> None:
    """Label the axes; units stand in brackets."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if title:
        axes.set_title(title)


def unit(metric: str) -> str:
    """Return the axis label of a metric: ``test accuracy (%)`` for ``test_acc``."""
    split, _, kind = metric.partition("_")
    if kind in _KINDS:
        return f"{_SPLITS.get(split, split)} {_KINDS[kind]}"
    return _METRICS.get(metric, metric)


def legend(figure: Figure, axes: Axes | Iterable[Axes], note: str = "") -> None:
    """Put one legend for all panels below them, with a note on what bars or bands show."""
    from matplotlib.lines import Line2D

    panels = [axes] if not isinstance(axes, Iterable) else list(axes)
    by_name: dict[str, Artist] = {}
    for panel in panels:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            by_name.setdefault(name, handle)
    handles, names = list(by_name.values()), list(by_name)
    if note:
        handles.append(Line2D([], [], linestyle=""))
        names.append(note)
    width = figure.get_size_inches()[0]
    longest = max((len(name) for name in names), default=1)
    columns = max(1, min(len(names), int(width / (0.45 + 0.065 * longest))))
    height = figure.get_size_inches()[1] + _LEGEND_LINE * -(-len(names) // columns)  # the panels keep their height
    figure.set_size_inches(width, height)
    figure.legend(handles, names, loc="outside lower center", ncols=columns)


def band(panel: Axes, number: int, name: str, x: pd.Series, mean: pd.Series, sd: pd.Series) -> None:
    """Draw line ``number`` with a band of one standard deviation; a single point has a bar instead of a band."""
    look, spread = line(number), sd.fillna(0.0)
    if len(x) == 1:
        bars(panel, number, name, x, mean, sd)
        return
    panel.plot(x, mean, label=name, markevery=max(1, len(x) // 10), **look)
    panel.fill_between(x, mean - spread, mean + spread, color=look["color"], alpha=0.2, linewidth=0)


def bars(panel: Axes, number: int, name: str, x: pd.Series, mean: pd.Series, sd: pd.Series, **look: Any) -> None:
    """Draw line ``number`` with bars of one standard deviation; ``look`` changes its look."""
    spread = sd.fillna(0).to_numpy(dtype=float)
    panel.errorbar(x, mean, yerr=spread, label=name, capsize=2, **{**line(number), **look})


def spread(frame: pd.DataFrame, what: str = "band") -> str:
    """Say for a legend what bands or bars show, and of how many seeds."""
    least, most = int(frame["n"].min()), int(frame["n"].max())
    return "n = 1" if most == 1 else f"{what}: ± 1 s.d., n = {most if least == most else f'{least} to {most}'}"


def whole(axis: Axis, values: Iterable[float]) -> None:
    """Put ticks at whole numbers only."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    places = sorted(set(values))
    axis.set_major_locator(FixedLocator(places) if len(places) < 7 else MaxNLocator(integer=True))


def logarithmic(axes: Axes, low: float, high: float) -> None:
    """Make the x axis logarithmic from ``low`` to ``high``."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    log_ticks(axes.xaxis, low, high)


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Put ticks of a logarithmic axis at 1, 2, 5, 10, or at powers of 10; label them with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(10, (1.0,) if high / low > 1e3 else (1.0, 2.0, 5.0), numticks=12))
    axis.set_minor_formatter(NullFormatter())
    if high / low <= 1e5:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def save(figure: Figure, path: Path | BinaryIO, kind: str) -> None:
    """Write a figure as ``png`` or ``svg``; the same figure gives the same bytes."""
    import matplotlib

    with matplotlib.rc_context(_RC):
        figure.savefig(path, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
