"""What a finished run cost, by the names of ``hebb.config.objectives.COSTS``, from its folder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from hebb.config import costs, objectives
from hebb.config.specs import RunConfig
from hebb.core import documents
from hebb.storage import curves, folders
from hebb.storage.curves import Point


def of_records(config: RunConfig, seconds: float | None, folder: Path, names: Iterable[str]) -> dict[str, float]:
    """Return some costs of a finished run that took so many seconds, or static ones of any.

    Its folder is read for those that lie there; a cost is NaN where the records do not tell.
    """
    names = list(names)
    static = costs.static(config) if set(names) & set(objectives.STATIC) else {}
    return {name: float(static[name]) if name in static else measured(name, seconds, folder) for name in names}


def measured(name: str, seconds: float | None, folder: Path) -> float:
    """Return a cost that is known when a run has ended; NaN where its records do not tell."""
    if name == "seconds":
        return math.nan if seconds is None else float(seconds)
    if name == "peak_memory":
        return memory(folder)
    return entropy(curves.read(folder)) if name == "winner_entropy" else sparsity(folder)


def memory(folder: Path) -> float:
    """Return the largest memory of a run in MB; NaN where its process could not tell."""
    path = folder / folders.RESULT
    peak = documents.as_object(folders.read_json(path), str(path)).get("peak_memory") if path.exists() else None
    return peak / 1e6 if isinstance(peak, int) else math.nan


def entropy(points: Sequence[Point]) -> float:
    """Return the entropy of the wins in bits, the mean over the blocks that compete, each at its last point.

    It is Renyi's of order 2, -log2 sum_i s_i^2 of the shares s of the neurons: the binary logarithm of ``winners``.
    """
    last: dict[str, float] = {}
    for point in points:
        for block, numbers in point.blocks.items():
            if winners := numbers.get("winners"):
                last[block] = math.log2(winners)
    return _mean(list(last.values()))


def sparsity(folder: Path) -> float:
    """Return the silent neurons of a settling network in percent, the mean over its blocks at the end."""
    path = folder / folders.LOOKS
    looks = [line for line in folders.read_rows(path) if not curves.is_point(line)] if path.exists() else []
    blocks = looks[-1]["blocks"].values() if looks else ()
    return _mean([float(numbers["sparsity"]) for numbers in blocks if numbers.get("sparsity") is not None])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
