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
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ParamSpec, TypeVar

from hebb.analysis import replicates

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
    "activity_sparsity": "silent neurons (%)",
    "convergence": "mean distance of the radii from 1",
    "images_per_second": "images per second",
    "images_seen": "images seen while learning",
    "lr": "learning rate",
    "multiply_accumulates": "multiply-accumulates an image",
    "radius_mean": "mean radius",
    "synaptic_operations": "plastic operations an image",
    "weight_change": "relative change of the weights",
    "winner_share": "largest share of the wins (%)",
    "peak_memory": "peak memory (MB)",
    "winner_entropy": "entropy of the wins (bits)",
    "winners": "neurons that share the wins",
}
WIDTH, HEIGHT = 4.2, 3.0
"""Size of one panel in inches."""
_LEGEND_LINE, _HANDLE, _LETTER = 0.19, 0.45, 0.065  # inches
_NOTE = 36
"""Letters to a line of a legend's note, at least: a longer one takes no room from further columns."""
_FAR = 50
"""Losses have a logarithmic axis when the largest is more than this many times the smallest."""
PAGE = 7.0
"""Width in inches of a page of a paper; figures of several panels in a row fit it."""
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
    """Return colour, marker and dashes of line ``number``; the first 28 all differ, even in grey or as bare markers."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
        "linestyle": LINES[number // len(COLOURS) % len(LINES)],
    }


def label(axes: Axes, x: str, y: str, title: str = "") -> None:
    """Label the axes; units stand in brackets."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if title:
        axes.set_title(title)


def wrapped(text: str, width: int) -> str:
    """Break a name into lines of at most ``width`` letters, at spaces; longer words behind the signs of a network."""
    return "\n".join(line for word in _packed(text.split(), width, " ") for line in _broken(word, width))


def _broken(line: str, width: int) -> list[str]:
    return [line] if len(line) <= width else _packed(re.split(r"(?<=[,:=/-])", line), width, "")


def _packed(words: list[str], width: int, gap: str) -> list[str]:
    """Put words into lines of at most ``width`` letters; a longer word has a line of its own."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + len(gap) + len(word) <= width:
            lines[-1] += gap + word
        else:
            lines.append(word)
    return lines


def unit(metric: str) -> str:
    """Return the axis label of a metric: ``test accuracy (%)`` for ``test_acc``."""
    split, _, kind = metric.partition("_")
    if kind in _KINDS:
        return f"{_SPLITS.get(split, split)} {_KINDS[kind]}"
    return _METRICS.get(metric, metric)


def unit_alone(metric: str) -> str:
    """Return the unit of a metric: what its label has in brackets, or the label, which says what is counted."""
    brackets = re.search(r"\(([^()]+)\)$", unit(metric))
    return brackets[1] if brackets else unit(metric)


def legend(figure: Figure, axes: Axes | Iterable[Axes], note: str = "") -> None:
    """Put one legend for all panels below them, with a note on what bars or bands show."""
    from matplotlib.lines import Line2D

    panels = [axes] if not isinstance(axes, Iterable) else list(axes)
    by_name: dict[str, Artist] = {}
    for panel in panels:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            by_name.setdefault(name, handle)
    handles = list(by_name.values())
    width, height = figure.get_size_inches()
    letters = int((width - _HANDLE) / _LETTER)
    names = [wrapped(name, letters) for name in by_name]
    longest = max((len(line) for name in names for line in name.split("\n")), default=1)
    if note:
        longest = max(longest, min(len(note), letters, _NOTE))
        handles.append(Line2D([], [], linestyle=""))
        names.append(wrapped(note, longest))
    columns = max(1, min(len(names), int(width / (_HANDLE + _LETTER * longest))))
    rows = -(-len(names) // columns)  # matplotlib fills the columns one after the other
    lines = [name.count("\n") + 1 for name in names]
    deepest = max((sum(lines[i : i + rows]) for i in range(0, len(lines), rows)), default=0)
    figure.set_size_inches(width, height + _LEGEND_LINE * deepest)  # the panels keep their height
    figure.legend(handles, names, loc="outside lower center", ncols=columns)


def band(panel: Axes, number: int, name: str, x: pd.Series, lines: pd.DataFrame, metric: str) -> None:
    """Draw the means of ``lines`` with a band, as ``replicates.span`` says; a single point has a bar instead."""
    if len(x) == 1:
        bars(panel, number, name, x, lines, metric)
        return
    look, (low, high) = line(number), spans(lines, metric)
    panel.plot(x, lines["mean"], label=name, markevery=max(1, len(x) // 10), **look)
    panel.fill_between(x, low, high, color=look["color"], alpha=0.2, linewidth=0)


def bars(panel: Axes, number: int, name: str, x: pd.Series, lines: pd.DataFrame, metric: str, **look: Any) -> None:
    """Draw the means of ``lines`` with bars, as ``replicates.span`` says; ``look`` changes their look."""
    low, high = spans(lines, metric)
    reach = [lines["mean"] - low, high - lines["mean"]]
    panel.errorbar(x, lines["mean"], yerr=reach, label=name, capsize=2, **{**line(number), **look})


def spans(lines: pd.DataFrame, metric: str) -> tuple[Any, Any]:
    """Return the ends of the bars or bands of lines with n, mean and sd; NaN where nothing is drawn."""
    import numpy as np

    numbers = lines[["n", "mean", "sd"]].astype(float).to_numpy()
    ends = np.array([replicates.span(n, mean, sd, metric) for n, mean, sd in numbers]).reshape(-1, 2)
    return ends[:, 0], ends[:, 1]


def spread(frame: pd.DataFrame, what: str = "band") -> str:
    """Say for a legend what bars or bands show, and of how many seeds."""
    least, most = int(frame["n"].min()), int(frame["n"].max())
    n = f"n = {most if least == most else f'{least} to {most}'}"
    if most < 2:
        return n
    if most == 2:
        return f"{what}: from one seed to the other, {n}"
    return f"{what}: ± 1 s.d.{', of two seeds from one to the other' if (frame['n'] == 2).any() else ''}, {n}"


def fit(panel: Axes, metric: str, means: pd.Series) -> None:
    """Fit the y axis to a metric: whole numbers for counts, a logarithmic one for losses that lie far apart."""
    if metric == "R1":
        from matplotlib.ticker import MaxNLocator

        panel.yaxis.set_major_locator(MaxNLocator(integer=True))
        low, high = panel.get_ylim()
        panel.set_ylim(max(low, -0.05 * max(high, 1)), max(high, 1))
    elif metric.endswith("loss") and 0 < _FAR * means.min() < means.max():
        panel.set_yscale("log")
        panel.set_ylim(means.min() / 1.5, means.max() * 1.5)


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
    """Put ticks of a logarithmic axis at 1, 2, 5, 10, or at powers of 10; label them with plain numbers.

    A range in which fewer than two of these lie has ticks at even steps.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    locator = LogLocator(10, (1.0,) if high / low > 1e3 else (1.0, 2.0, 5.0), numticks=12)
    if sum(low <= place <= high for place in locator.tick_values(low, high)) > 1:
        axis.set_major_locator(locator)
    else:
        axis.set_major_locator(MaxNLocator(4))
        axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    if high / low <= 1e5:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def save(figure: Figure, path: Path | BinaryIO, kind: str) -> None:
    """Write a figure as ``png`` or ``svg``; the same figure gives the same bytes."""
    import matplotlib

    with matplotlib.rc_context(_RC):
        figure.savefig(path, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
