"""The charts of a report: vector drawings that take their colours from the page, so that they suit light and dark.

Every chart is drawn twice, for a desk and for a phone; the page shows one of them. What a mark stands for is its
``title``, which browsers show on hover and readers of screens read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

from hebb.analysis.scales import AxisScale, ScaleKind, Tick

DESK, PHONE = 900, 344
"""Widths of a chart in pixels."""
SHADES = 9
"""Steps of the colour scale, from the worst to the best."""
_BANDS = 3  # of a chart whose bands may be dark; more would hide one another
_SEED = 3.2  # radius in pixels of the dot of a seed
_LETTER = 6.6  # widths in pixels of a letter of an axis, on average
_LEFT, _RIGHT, _BOTTOM = 54, 16, 52
_SHIFT = 10.0  # pixels by which a text may reach beyond the end of its axis


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A configuration as a chart shows it.

    Attributes:
        value: where it stands on the axis.
        mean: its mean.
        low, high: the ends of its interval; NaN where there is none.
        seeds: the value of each seed.
        title: what it stands for.
        best: whether it leads.
        partial: whether it lacks seeds.
    """

    value: Any
    mean: float
    low: float = math.nan
    high: float = math.nan
    seeds: Sequence[float] = ()
    title: str = ""
    best: bool = False
    partial: bool = False

    @property
    def look(self) -> str:
        """How it is drawn."""
        return "best" if self.best else "partial" if self.partial else ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart: places, and a band around it; ``number`` decides its look."""

    name: str
    number: int
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = field(default_factory=tuple)
    high: Sequence[float] = field(default_factory=tuple)


def both(draw: Callable[[int], ElementTree.Element], alt: str) -> Markup:
    """Return a chart for a desk and for a phone; ``draw`` takes the width."""
    parts = []
    for name, width in (("desk", DESK), ("phone", PHONE)):
        svg = draw(width)
        svg.set("class", f"chart {name}")
        svg.set("role", "img")
        svg.set("aria-label", alt)
        parts.append(ElementTree.tostring(svg, encoding="unicode"))
    return Markup("".join(parts))


@dataclass(frozen=True)
class Panel:
    """A drawing area with two axes."""

    svg: ElementTree.Element
    left: float
    top: float
    width: float
    height: float
    x: AxisScale
    y: AxisScale
    pad: float = 14

    def at_x(self, value: object) -> float:
        """Return the pixel of a value on the horizontal axis."""
        return self._across(self.x.at(value))

    def at_y(self, value: float) -> float:
        """Return the pixel of a value on the vertical axis."""
        return self._up(self.y.at(value))

    def _across(self, place: float) -> float:
        return self.left + self.pad + place * (self.width - 2 * self.pad)

    def _up(self, place: float) -> float:
        return self.top + (1 - place) * self.height

    def axes(self, x_label: str, y_label: str = "") -> None:
        """Draw grid, ticks and labels."""
        bottom = self.top + self.height
        for tick in self.y.ticks:
            y = self._up(tick.place)
            add(self.svg, "line", "grid", x1=self.left, x2=self.left + self.width, y1=y, y2=y)
            text(self.svg, tick.text, self.left - 7, y + 4, "tick end")
        inner = self.width - 2 * self.pad
        for tick, row in staggered(self.x, inner):
            x = self._across(tick.place)
            add(self.svg, "line", "mark", x1=x, x2=x, y1=bottom, y2=bottom + 4 + 13 * row)
            below(self.svg, tick, x, bottom + 17 + 13 * row, inner)
        add(self.svg, "line", "axis", x1=self.left, x2=self.left + self.width, y1=bottom, y2=bottom)
        if x_label:
            shown = x_label + (" (logarithmic)" if self.x.kind == ScaleKind.LOG else "")
            text(self.svg, shown, self.left + self.width / 2, bottom + 44, "label middle")
        if y_label:
            text(self.svg, y_label, 2, self.top - 12, "label")


def below(parent: ElementTree.Element, tick: Tick, x: float, y: float, width: float, look: str = "") -> None:
    """Write the text of a tick below an axis of this width, moved inwards where it would leave the drawing."""
    anchor, shift = _anchor(tick, width)
    text(parent, shortened(tick.text, width + 2 * _SHIFT), x + shift, y, f"tick {anchor} {look}".strip())


def _anchor(tick: Tick, width: float) -> tuple[str, float]:
    """Return how the text of a tick is anchored, and how far from the tick."""
    if min(tick.place, 1 - tick.place) * width + 2 * _SHIFT >= _length(tick.text, width) / 2:
        return "middle", 0.0
    return ("start", -_SHIFT) if tick.place < 0.5 else ("end", _SHIFT)


def _span(tick: Tick, width: float) -> tuple[float, float]:
    """Return where the text of a tick begins and ends along an axis of this width."""
    (anchor, shift), length = _anchor(tick, width), _length(tick.text, width)
    start = tick.place * width + shift - length * {"middle": 0.5, "start": 0.0, "end": 1.0}[anchor]
    return start, start + length


def _length(words: str, width: float) -> float:
    return _LETTER * len(shortened(words, width + 2 * _SHIFT))


def shortened(words: str, width: float) -> str:
    """Return a text without its middle where it is longer than a width in pixels: its ends tell it from others."""
    letters = max(int(width / _LETTER), 8)
    if len(words) <= letters:
        return words
    end = (letters - 1) // 2
    return f"{words[: letters - 1 - end]}…{words[-end:]}"


def staggered(scale: AxisScale, width: float) -> list[tuple[Tick, int]]:
    """Return the ticks with the row of their texts; words that would touch stand in two rows."""
    ticks = list(scale.ticks)
    if scale.kind != ScaleKind.EVEN or len(apart(ticks, width)) == len(ticks):
        return [(tick, 0) for tick in apart(ticks, width)]
    kept = [apart(ticks[row::2], width) for row in (0, 1)]
    return [(tick, row) for row in (0, 1) for tick in kept[row]]


def apart(ticks: Sequence[Tick], width: float) -> list[Tick]:
    """Return the ticks whose texts do not touch; the first and the last stay."""
    kept: list[Tick] = []
    for tick in ticks:
        if not kept or _clear(kept[-1], tick, width):
            kept.append(tick)
        elif tick is ticks[-1] and len(kept) > 1:
            kept[-1] = tick
    return kept


def _clear(left: Tick, right: Tick, width: float) -> bool:
    """Tell whether two texts side by side do not touch."""
    return _span(left, width)[1] + 6 <= _span(right, width)[0]


def drawing(width: float, height: float) -> ElementTree.Element:
    """Return an empty drawing of this size in pixels."""
    return ElementTree.Element("svg", {"viewBox": f"0 0 {width:g} {height:g}", "width": f"{width:g}"})


def add(parent: ElementTree.Element, tag: str, look: str = "", **attributes: object) -> ElementTree.Element:
    """Append an element; numbers are rounded to tenths of a pixel."""
    values = {
        name.replace("_", "-"): f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
        for name, value in attributes.items()
    }
    return ElementTree.SubElement(parent, tag, {**({"class": look} if look else {}), **values})


def text(parent: ElementTree.Element, words: str, x: float, y: float, look: str) -> ElementTree.Element:
    """Append a text."""
    element = add(parent, "text", look, x=float(x), y=float(y))
    element.text = words
    return element


def titled(parent: ElementTree.Element, title: str, look: str = "", **attributes: object) -> ElementTree.Element:
    """Append a group with a title."""
    group = add(parent, "g", f"hit {look}".strip(), **attributes)
    add(group, "title").text = title
    return group


# -- the metric over one hyper-parameter ----------------------------------------------------------------------------


def panel_of(width: float, x: AxisScale, y: AxisScale) -> tuple[ElementTree.Element, Panel]:
    """Return an empty drawing with one panel, for a desk or a phone."""
    height = 380 if width == DESK else 310
    svg = drawing(width, height)
    return svg, Panel(svg, _LEFT, 34, width - _LEFT - _RIGHT, height - 34 - _BOTTOM, x, y)


def over(marks: Sequence[Mark], x: AxisScale, y: AxisScale, labels: tuple[str, str], width: int) -> ElementTree.Element:
    """Draw the mean over a value as a curve, with the interval and the seeds of each point."""
    svg, panel = panel_of(width, x, y)
    panel.axes(*labels)
    svg.set("data-scale", x.kind)
    ordered = sorted(marks, key=lambda mark: x.at(mark.value))
    if x.kind != ScaleKind.EVEN:
        whole = [mark for mark in ordered if not mark.partial]
        path(svg, [(panel.at_x(mark.value), panel.at_y(mark.mean)) for mark in whole], "curve c0")
    for mark in ordered:
        _with_spread(panel, mark)
    return svg


def _with_spread(panel: Panel, mark: Mark) -> None:
    """Draw a mean with its interval and its seeds."""
    x, y = panel.at_x(mark.value), panel.at_y(mark.mean)
    group = titled(panel.svg, mark.title, mark.look)
    if not math.isnan(mark.low):
        add(group, "line", "span", x1=x, x2=x, y1=panel.at_y(mark.low), y2=panel.at_y(mark.high))
    for seed in mark.seeds if len(mark.seeds) > 1 else ():
        add(group, "circle", "seed", cx=x + 10, cy=panel.at_y(seed), r=_SEED)
    add(group, "circle", "mean", cx=x, cy=y, r=5.0)
    add(group, "rect", "target", x=x - 10, y=panel.top, width=20, height=panel.height)


def rows(marks: Sequence[Mark], x: AxisScale, label: str, width: int) -> ElementTree.Element:
    """Draw a row for each configuration, with its name above: mean, interval and seeds."""
    tall, top = 44, 8
    height = top + tall * len(marks) + _BOTTOM
    svg = drawing(width, height)
    svg.set("data-scale", x.kind)
    panel = Panel(svg, 8, top, width - 16, tall * len(marks), x, AxisScale(kind=ScaleKind.LINEAR))
    for tick in apart(x.ticks, panel.width - 2 * panel.pad):
        place = panel.left + panel.pad + tick.place * (panel.width - 2 * panel.pad)
        add(svg, "line", "grid", x1=place, x2=place, y1=top, y2=top + panel.height)
        text(svg, tick.text, place, top + panel.height + 17, "tick middle")
    text(svg, label, width / 2, top + panel.height + 36, "label middle")
    for i, mark in enumerate(marks):
        _row(panel, mark, top + tall * i, tall)
    return svg


def _row(panel: Panel, mark: Mark, top: float, tall: float) -> None:
    y = top + 30.0
    group = titled(panel.svg, mark.title, mark.look)
    add(group, "rect", "target", x=0, y=top, width=panel.width + 16, height=tall)
    letters = int(panel.width / _LETTER)
    name = str(mark.value)
    text(group, name if len(name) <= letters else name[: letters - 1] + "…", panel.left, top + 15, "name")
    if not math.isnan(mark.low):
        add(group, "line", "span", x1=panel.at_x(mark.low), x2=panel.at_x(mark.high), y1=y, y2=y)
    for seed in mark.seeds if len(mark.seeds) > 1 else ():
        add(group, "circle", "seed", cx=panel.at_x(seed), cy=y + 9, r=_SEED)
    add(group, "circle", "mean", cx=panel.at_x(mark.mean), cy=y, r=5.0)


def path(parent: ElementTree.Element, points: Iterable[tuple[float, float]], look: str) -> ElementTree.Element:
    """Draw a line through points; of none, nothing."""
    points = list(points)
    if not points:
        return add(parent, "path", look, d="")
    return add(parent, "path", look, d="M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points))


# -- several hyper-parameters -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Facet:
    """One hyper-parameter of several: its name, its scale, its configurations, and its means if it is a list."""

    name: str
    scale: AxisScale
    marks: Sequence[Mark]
    means: Sequence[tuple[Any, float]] = ()


def multiples(facets: Sequence[Facet], y: AxisScale, label: str, width: int) -> ElementTree.Element:
    """Draw a panel for each hyper-parameter: every configuration, and the means over a list's values."""
    columns = min(len(facets), 3 if width == DESK else 1)
    if len(facets) in (2, 4):
        columns = min(columns, 2)
    gap, tall = 16, 250
    wide = (width - gap * (columns - 1)) / columns
    count = -(-len(facets) // columns)
    svg = drawing(width, count * tall)
    for i, facet in enumerate(facets):
        left, top = (i % columns) * (wide + gap), (i // columns) * tall
        group = add(svg, "g", "facet", transform=f"translate({left:.1f} {top})", data_scale=facet.scale.kind)
        panel = Panel(group, 46, 28, wide - 50, tall - 28 - _BOTTOM, facet.scale, y)
        panel.axes(facet.name, label if i % columns == 0 else "")
        if facet.means:
            path(group, [(panel.at_x(value), panel.at_y(mean)) for value, mean in facet.means], "curve c0 thin")
        for mark in sorted(facet.marks, key=lambda mark: mark.best):
            dot = titled(group, mark.title, mark.look)
            add(dot, "circle", "dot", cx=panel.at_x(mark.value), cy=panel.at_y(mark.mean), r=5.0 if mark.best else 3.5)
    return svg


@dataclass(frozen=True, kw_only=True)
class Strand:
    """A configuration in parallel coordinates: its values, its mean last."""

    values: Sequence[object]
    title: str
    shade: int
    best: bool


def parallel(
    strands: Sequence[Strand], names: Sequence[str], scales: Sequence[AxisScale], width: int
) -> ElementTree.Element:
    """Draw every configuration as a line through its values, the best on top; on a phone the axes lie."""
    upright = width == DESK
    size = 380 if upright else 96 * len(names) + 20
    svg = drawing(width, size)
    svg.set("data-scales", " ".join(scale.kind for scale in scales))
    along = [40 + i * (width - 130) / (len(names) - 1) if upright else 34.0 + i * 96 for i in range(len(names))]
    low, high = (size - 64, 24) if upright else (30, width - 30)
    for strand in reversed(strands):
        places = [low + scale.at(value) * (high - low) for scale, value in zip(scales, strand.values, strict=True)]
        points = list(zip(along, places, strict=True) if upright else zip(places, along, strict=True))
        group = titled(svg, strand.title, "best" if strand.best else "")
        path(group, points, f"strand q{strand.shade}")
        path(group, points, "target-line")
    room = along[1] - along[0] - 14
    for name, scale, at in zip(names, scales, along, strict=True):
        _standing(svg, name, scale, at, (low, high), room) if upright else _lying(svg, name, scale, at, (low, high))
    return svg


def _standing(
    svg: ElementTree.Element, name: str, scale: AxisScale, x: float, ends: tuple[float, float], room: float
) -> None:
    """Draw an upright axis, with ``room`` pixels up to the next one."""
    low, high = ends
    add(svg, "line", "axis", x1=x, x2=x, y1=low, y2=high)
    for tick in scale.ticks:
        y = low + tick.place * (high - low)
        add(svg, "line", "mark", x1=x - 3, x2=x + 3, y1=y, y2=y)
        text(svg, shortened(tick.text, room), x + 7, y + 4, "tick halo")
    start, _, end = name.rpartition(".")
    text(svg, end, x, low + 24, "label middle")
    text(svg, f"{start}." if start else "", x, low + 40, "tick middle")


def _lying(svg: ElementTree.Element, name: str, scale: AxisScale, y: float, ends: tuple[float, float]) -> None:
    low, high = ends
    add(svg, "line", "axis", x1=low, x2=high, y1=y, y2=y)
    for tick, row in staggered(scale, high - low):
        x = low + tick.place * (high - low)
        add(svg, "line", "mark", x1=x, x2=x, y1=y - 3, y2=y + 3)
        below(svg, tick, x, y + 17 + 13 * row, high - low, "halo")
    text(svg, name, low - 22, y - 12, "label halo")


# -- curves -----------------------------------------------------------------------------------------------------------


def curves(panels: Sequence[tuple[str, Sequence[Line]]], y: AxisScale, label: str, width: int) -> ElementTree.Element:
    """Draw a panel for each phase with a line for each configuration, and a band over its seeds."""
    columns = min(len(panels), 2) if width == DESK else 1
    gap, tall = 16, 310
    wide = (width - gap * (columns - 1)) / columns
    svg = drawing(width, tall * -(-len(panels) // columns))
    for i, (name, lines) in enumerate(panels):
        group = add(svg, "g", transform=f"translate({(i % columns) * (wide + gap):.1f} {(i // columns) * tall})")
        ends = [x for line in lines for x in line.x]
        panel = Panel(group, 46, 30, wide - 56, tall - 30 - _BOTTOM, _epochs(min(ends), max(ends)), y)
        panel.axes("epoch" if len(panels) == 1 else f"{name}, epoch", label if i % columns == 0 else "")
        for line in lines:
            _line(panel, line, "band faint" if len(lines) > _BANDS else "band")
    return svg


def _epochs(low: float, high: float) -> AxisScale:
    """Return a scale of whole numbers."""
    from matplotlib.ticker import MaxNLocator

    if low == high:
        return AxisScale(kind=ScaleKind.LINEAR, low=low - 1, high=high + 1, ticks=(Tick(0.5, f"{low:g}"),))
    places = [place for place in MaxNLocator(6, integer=True).tick_values(low, high) if low <= place <= high]
    ticks = tuple(Tick((place - low) / (high - low), f"{place:g}") for place in places)
    return AxisScale(kind=ScaleKind.LINEAR, low=low, high=high, ticks=ticks)


def _line(panel: Panel, line: Line, band: str) -> None:
    xs = [panel.at_x(x) for x in line.x]
    group = titled(panel.svg, line.name, f"k{line.number}")
    edges = [(x, low, high) for x, low, high in zip(xs, line.low, line.high, strict=False) if not math.isnan(low)]
    if len(edges) > 1:
        outline = [(x, panel.at_y(high)) for x, _, high in edges] + [(x, panel.at_y(low)) for x, low, _ in edges[::-1]]
        path(group, outline, f"{band} c{line.number}").set("stroke", "none")
    points = list(zip(xs, map(panel.at_y, line.y), strict=True))
    path(group, points, f"curve c{line.number}")
    for x, y, value, epoch in zip(xs, (y for _, y in points), line.y, line.x, strict=True):
        dot = titled(group, f"{line.name}\nepoch {epoch:g}: {panel.y.write(value)}")
        add(dot, "circle", f"end c{line.number}", cx=x, cy=y, r=3.0 if len(xs) < 30 else 1.5)
        add(dot, "circle", "target", cx=x, cy=y, r=8.0)
