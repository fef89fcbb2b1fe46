"""The result of a finished run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hebb.config.specs import RunConfig
from hebb.nn import model
from hebb.probing.geometry import Geometry
from hebb.probing.probes import Probe
from hebb.storage import folders


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished run is.

    Attributes:
        config: the config as it was run, with the device resolved.
        rows: all rows of ``metrics.jsonl``.
        network: the trained network, on its device.
        probes: the readouts that the config asks for.
        geometry: the numbers of the representations, where the config asks for them.
        seconds: time from start to end, without the time before an interruption.
        folder: the run folder, if there is one.
    """

    config: RunConfig
    rows: list[folders.Row]
    network: model.Network = field(repr=False)
    probes: list[Probe]
    geometry: list[Geometry]
    seconds: float
    folder: Path | None

    @property
    def metrics(self) -> folders.Row:
        """The last row."""
        return self.rows[-1]
