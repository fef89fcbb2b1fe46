"""The Pareto front: the points that no other is at least as good as in everything and better in something."""

from __future__ import annotations

import math
from collections.abc import Sequence


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Tell whether a point is nowhere worse than another and somewhere better; less is better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


def front(points: Sequence[Sequence[float]]) -> list[bool]:
    """Tell of each point whether it is on the front; less is better in every coordinate.

    Equal points are on the front together. A point with a coordinate that is not a finite number is not on it, and
    keeps no other from it.
    """
    finite = [i for i, point in enumerate(points) if all(map(math.isfinite, point))]
    kept: list[int] = []
    for i in sorted(finite, key=lambda i: tuple(points[i])):  # nothing later can dominate what is kept
        if not any(dominates(points[j], points[i]) for j in kept):
            kept.append(i)
    members = set(kept)
    return [i in members for i in range(len(points))]
