"""The rows of a finished run, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from hebb.core.errors import ConfigError
from hebb.storage import folders
from hebb.storage.folders import Row

PLACE = ("step", "phase", "kind", "blocks", "epoch")
"""What says where in a run a row was measured."""


def rows(run: Path) -> list[Row]:
    """Read the metrics of a finished run.

    Raises:
        ConfigError: where the file is damaged, or ends before the run did.
    """
    path = run / folders.METRICS
    if not path.exists():
        raise ConfigError(str(path), "no such file")
    measured, result = folders.read_rows(path, PLACE), folders.read_json(run / folders.RESULT)
    metrics = result.get("metrics") if isinstance(result, dict) else None
    last = metrics.get("step") if isinstance(metrics, dict) else None
    end = measured[-1]["step"] if measured else 0
    if isinstance(last, int) and end < last:
        problem = f"ends after update {end:,}, and its run after {last:,}"
        raise ConfigError(str(path), problem, hint="rows are lost: put the file back")
    return measured
