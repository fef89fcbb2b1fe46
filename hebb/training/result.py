"""The result of a finished run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hebb.config.specs import RunConfig
from hebb.nn import model
from hebb.probing.geometry import Geometry
from hebb.probing.probes import Probe
from hebb.storage import folders
from hebb.storage.curves import Point


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a finished run.

    Attributes:
        config: the config as it was run, with the device resolved.
        rows: all rows of ``metrics.jsonl``.
        points: the points of its learning curves.
        network: the trained network, on its device.
        probes: accuracies of the probes in the config.
        geometry: geometry of the representations, if the config includes it.
        seconds: its time in all sessions, each up to the checkpoint that the next one continued from.
        peak_memory: the largest memory of the run in bytes; None where it cannot be told.
        folder: the run folder, if there is one.
    """

    config: RunConfig
    rows: list[folders.Row]
    points: list[Point] = field(repr=False)
    network: model.Network = field(repr=False)
    probes: list[Probe]
    geometry: list[Geometry]
    seconds: float
    peak_memory: int | None
    folder: Path | None

    @property
    def metrics(self) -> folders.Row:
        """The last row."""
        return self.rows[-1]
