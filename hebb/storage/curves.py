"""Learning curves inside an epoch: what is measured at a few updates of it, as lines of ``blocks.jsonl``.

A point has the keys ``update``, ``phase``, ``kind``, ``epoch`` and ``blocks``, and in a phase with a loss
``recent_loss`` and ``recent_acc``. Settling networks write lines of their own into the file
(``hebb.energy.diagnostics``), which have no ``phase``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hebb.storage import folders

Numbers = Mapping[str, float | int | None]
"""Measurements by name; None where a number was not finite."""

RECENT = ("recent_loss", "recent_acc")
"""Keys of a point beside its blocks: means over the updates since the point before, accuracy in percent."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """What was measured after an update.

    Attributes:
        update: number of updates in the run before the measurement, like ``step`` of a row.
        phase: number of the phase in the run.
        kind: how its blocks learn.
        epoch: the epoch, counted from 1; 0 is the start of the phase.
        blocks: measurements of the blocks that learn, by ``bN``.
        recent: the numbers of ``RECENT`` that the phase has.
    """

    update: int
    phase: int
    kind: str
    epoch: int
    blocks: Mapping[str, Numbers]
    recent: Numbers = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the line of the point, in which a number that is not finite is null."""
        blocks = {name: _finite(numbers) for name, numbers in self.blocks.items()}
        return {**self._place, **_finite(self.recent), "blocks": blocks}

    def by_block(self) -> list[dict[str, Any]]:
        """Return a flat line for each block: where the point lies, the means of the phase, the numbers of the block."""
        return [{**self._place, "block": block, **self.recent, **numbers} for block, numbers in self.blocks.items()]

    @property
    def _place(self) -> dict[str, Any]:
        return {"update": self.update, "phase": self.phase, "kind": self.kind, "epoch": self.epoch}

    def value(self, name: str) -> float | None:
        """Return a number of the phase: one of ``RECENT``, the sum of R1, or the mean of another over the blocks."""
        if name in RECENT:
            return self.recent.get(name)
        values = [value for numbers in self.blocks.values() if (value := numbers.get(name)) is not None]
        if not values:
            return None
        return sum(values) if name == "R1" else sum(values) / len(values)


Tell = Callable[[Point], None]
"""Receives the points as they are measured."""


def _finite(numbers: Numbers) -> Numbers:
    return {name: value if value is not None and math.isfinite(value) else None for name, value in numbers.items()}


def of_json(line: Mapping[str, Any]) -> Point:
    """Return the point of a line; the inverse of ``Point.to_json`` but for numbers that were not finite."""
    places = {name: line[name] for name in ("update", "phase", "kind", "epoch", "blocks")}
    return Point(**places, recent={name: line[name] for name in RECENT if name in line})


def is_point(line: Mapping[str, Any]) -> bool:
    """Tell whether a line of ``blocks.jsonl`` is a point."""
    return "phase" in line


def read(folder: Path) -> list[Point]:
    """Return the points of a run in order; none for a run that has none."""
    path = folder / folders.LOOKS
    return [of_json(line) for line in folders.read_rows(path) if is_point(line)] if path.exists() else []
