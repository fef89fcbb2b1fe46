"""``hebb.diff``: what differs between two stored runs or searches."""

from __future__ import annotations

from pathlib import Path

from hebb.analysis import difference
from hebb.analysis.difference import Difference
from hebb.api.arguments import checked
from hebb.api.runs import TrainedRun
from hebb.api.searches import FinishedSearch
from hebb.core.errors import ConfigError
from hebb.storage import folders
from hebb.storage.folders import Home

Stored = str | Path | TrainedRun | FinishedSearch
"""A run or a search: its folder, its name below the parent folder, or what ``hebb.load`` returned."""


@checked
def diff(left: Stored, right: Stored, *, data_dir: str | Path | None = None) -> Difference:
    """Return what differs between two finished runs, two searches, or a run and a search, and nothing else.

    The result is false where nothing differs. ``table()`` is a line for each difference; ``changes`` are values of
    config, plugins, versions, machine and data, ``curves`` the metrics of runs, ``pairs`` the configurations of
    searches, and ``sources`` the lines of plugins. Files alone are read, and no plugin is loaded.

    Args:
        left: one of them: a folder, a name below ``data_dir``, or what ``hebb.load`` returned.
        right: the other.
        data_dir: parent folder of everything that is stored; None takes ``$HEBB_HOME``, else ``./hebb_data``.

    Raises:
        ConfigError: for what is not stored, or not finished.
    """
    home = Home.find(None if data_dir is None else str(data_dir))
    return difference.of(_folder(left, home, "left"), _folder(right, home, "right"))


def _folder(stored: Stored, home: Home, name: str) -> Path:
    if isinstance(stored, str | Path):
        return folders.stored_folder(str(stored), home, name).absolute()
    if not isinstance(stored, TrainedRun | FinishedSearch):
        kinds = "its name, its folder, or what hebb.load returned"
        raise ConfigError(name, f"must be a run or a search: {kinds}, got {stored!r}")
    if stored.folder is None:
        raise ConfigError(name, "must be a run that is stored: hebb.train(..., folder=...) stores it")
    return stored.folder
