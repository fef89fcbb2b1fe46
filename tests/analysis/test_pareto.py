"""The Pareto front against its definition, by brute force.

Without it a search by several metrics could name a point that another beats, or leave out one that nothing beats.
"""

from __future__ import annotations

import math
import random

import pytest

from hebb.analysis import pareto


def by_definition(points: list[list[float]]) -> list[bool]:
    """A point of finite numbers is on the front unless one of them is nowhere worse and somewhere better."""

    def beats(a: list[float], b: list[float]) -> bool:
        return all(math.isfinite(x) for x in a) and a != b and all(x <= y for x, y in zip(a, b, strict=True))

    return [all(map(math.isfinite, p)) and not any(beats(other, p) for other in points) for p in points]


@pytest.mark.parametrize("seed", range(60))
def test_it_is_the_front_of_the_definition(seed: int) -> None:
    """Of few values, so that ties in some and in all coordinates are common; in any order."""
    draw = random.Random(seed)
    dimensions, count = draw.randint(1, 4), draw.randint(0, 40)
    values = [*range(draw.randint(1, 6)), *([math.nan, math.inf, -math.inf] if seed % 3 == 0 else [])]
    points = [[float(draw.choice(values)) for _ in range(dimensions)] for _ in range(count)]
    assert pareto.front(points) == by_definition(points)
    order = draw.sample(range(count), count)
    assert pareto.front([points[i] for i in order]) == [pareto.front(points)[i] for i in order]


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([[1.0, 1.0]], [True]),
        ([[1.0, 2.0], [2.0, 1.0]], [True, True]),
        ([[1.0, 1.0], [1.0, 1.0]], [True, True]),
        ([[1.0, 1.0], [1.0, 2.0]], [True, False]),
        ([[3.0], [1.0], [2.0], [1.0]], [False, True, False, True]),
        ([[math.nan, 0.0], [1.0, 1.0]], [False, True]),
        ([[-math.inf, 0.0], [1.0, 1.0]], [False, True]),
    ],
)
def test_ties_and_numbers_that_there_are_not(points: list[list[float]], front: list[bool]) -> None:
    assert pareto.front(points) == front
