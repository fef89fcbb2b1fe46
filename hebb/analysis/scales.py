"""Scales of an axis: linear, logarithmic or evenly spaced, with ticks at values that people can read.

A scale takes a value to its place between 0 and 1. Numbers have a logarithmic scale where their domain is one, or where
a list of them is spaced more evenly in its logarithms.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeGuard

from hebb.config.domains import Axis
from hebb.config.vocabulary import DomainKind

Write = Callable[[float], str]
_GAP = 0.07
"""Least distance of two ticks at the values themselves; nearer values have ticks at round numbers instead."""
_APART = 0.16
"""Where numbers begin on a scale that has a place for missing values."""
_WIDE = 20
"""Numbers whose largest is more than this many times the smallest have a logarithmic scale."""
_NARROW = 4
"""Numbers within this factor have a linear scale."""


class ScaleKind(StrEnum):
    """How values are placed."""

    LINEAR = "linear"
    LOG = "log"
    EVEN = "even"


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its place, from 0 to 1, and its text."""

    place: float
    text: str


@dataclass(frozen=True, kw_only=True)
class AxisScale:
    """Where values stand on an axis.

    Attributes:
        kind: linear, logarithmic or evenly spaced.
        low, high: the ends of a scale of numbers.
        words: the texts of an evenly spaced scale, in order.
        ticks: the marks.
        write: the text of a number.
        gap: where numbers begin; below them, at 0, stands what has no value.
    """

    kind: ScaleKind
    low: float = 0
    high: float = 1
    words: tuple[str, ...] = ()
    ticks: tuple[Tick, ...] = ()
    write: Write = "{:.4g}".format
    gap: float = 0

    def at(self, value: object) -> float:
        """Return the place of a value."""
        if self.kind == ScaleKind.EVEN:
            return _even(self.words.index(text_of(value, self.write)), len(self.words))
        if value is None:
            return 0
        assert is_number(value)
        if self.kind == ScaleKind.LOG:
            place = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            place = (value - self.low) / (self.high - self.low)
        return self.gap + (1 - self.gap) * place


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a value is a finite number, and no switch."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def text_of(value: object, write: Write = "{:.4g}".format) -> str:
    """Write a value; one that is missing is a dash."""
    return "-" if value is None else write(value) if is_number(value) else str(value)


def _even(place: int, count: int) -> float:
    return place / (count - 1) if count > 1 else 0.5


def of_axis(axis: Axis, values: Sequence[object], write: Write = "{:.4g}".format) -> AxisScale:
    """Return the scale of a domain: logarithmic where the domain is, or where its listed numbers are."""
    if axis.listed:
        return of_values(values, write)
    return of_values(values, write, axis.kind == DomainKind.LOGUNIFORM, rounded=axis.kind != DomainKind.RANDINT)


def of_values(
    values: Sequence[object],
    write: Write = "{:.4g}".format,
    logarithmic: bool | None = None,
    *,
    rounded: bool = False,
) -> AxisScale:
    """Return a scale that spans the values; words are evenly spaced.

    Args:
        values: at least one; None stands apart, below the numbers.
        write: the text of a number.
        logarithmic: whether the scale of numbers is logarithmic; None looks at their spacing.
        rounded: put ticks at round numbers even where there is room at the values themselves.
    """
    numbers = sorted({value for value in values if is_number(value)})
    if len(numbers) < 2 or not all(value is None or is_number(value) for value in values):
        return _words(values, write)
    if logarithmic is None:
        logarithmic = _spread_like_powers(numbers)
        if not logarithmic and _crowded(numbers):
            return _words(values, write)
    kind = ScaleKind.LOG if logarithmic else ScaleKind.LINEAR
    gap = _APART if None in values else 0
    scale = AxisScale(kind=kind, low=numbers[0], high=numbers[-1], write=write, gap=gap)
    places = [scale.at(number) for number in numbers]
    if rounded or any(above - below < _GAP for below, above in itertools.pairwise(places)):
        numbers = round_numbers(scale.low, scale.high, logarithmic)
    return _with_ticks(scale, numbers)


def of_range(low: float, high: float, write: Write = "{:.4g}".format, *, logarithmic: bool = False) -> AxisScale:
    """Return a scale of numbers from ``low`` to ``high``, with ticks at round numbers."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    kind = ScaleKind.LOG if logarithmic else ScaleKind.LINEAR
    return _with_ticks(AxisScale(kind=kind, low=low, high=high, write=write), round_numbers(low, high, logarithmic))


def _with_ticks(scale: AxisScale, numbers: Sequence[float]) -> AxisScale:
    missing = (Tick(0, text_of(None)),) if scale.gap else ()
    return replace(scale, ticks=(*missing, *(Tick(scale.at(number), scale.write(number)) for number in numbers)))


def round_numbers(low: float, high: float, logarithmic: bool = False) -> list[float]:
    """Return round numbers from ``low`` to ``high``; of a logarithmic range 1, 2, 5 and 10, or powers of 10."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if not logarithmic:
        places = MaxNLocator(5).tick_values(low, high)
    else:
        places = LogLocator(10, (1.0, 2.0, 5.0) if high / low < 300 else (1.0,), numticks=8).tick_values(low, high)
    slack = 1e-9 * (high - low)
    inside = [float(f"{place:.12g}") for place in places if low - slack <= place <= high + slack]
    return inside if len(inside) > 1 else [low, high]


def _spread_like_powers(numbers: Sequence[float]) -> bool:
    """Tell whether positive numbers, ascending, are spaced more evenly in their logarithms."""
    if numbers[0] <= 0 or numbers[-1] < _NARROW * numbers[0]:
        return False
    if len(numbers) == 2:
        return numbers[-1] > _WIDE * numbers[0]
    return numbers[-1] > _WIDE * numbers[0] or _uneven([math.log(n) for n in numbers]) < _uneven(numbers)


def _uneven(numbers: Sequence[float]) -> float:
    """Return the ratio of the largest gap to the smallest."""
    gaps = [above - below for below, above in itertools.pairwise(numbers)]
    return max(gaps) / min(gaps)


def _crowded(numbers: Sequence[float]) -> bool:
    """Tell whether few numbers, one of them 0 or less, crowd at one end, as 0, 0.001, 0.01, 0.1 do."""
    few = 2 < len(numbers) <= 8
    return few and numbers[0] == 0 and _spread_like_powers(numbers[1:]) and numbers[-1] > _WIDE * numbers[1]


def _words(values: Sequence[object], write: Write) -> AxisScale:
    """Return an evenly spaced scale: missing values first, then numbers, then words."""

    def rank(value: object) -> tuple[int, float, str]:
        number = is_number(value)
        return (0 if value is None else 1 if number else 2), (float(value) if is_number(value) else 0.0), str(value)

    words = tuple(dict.fromkeys(text_of(value, write) for value in sorted(values, key=rank)))
    ticks = tuple(Tick(_even(i, len(words)), word) for i, word in enumerate(words))
    return AxisScale(kind=ScaleKind.EVEN, words=words, ticks=ticks, write=write)
