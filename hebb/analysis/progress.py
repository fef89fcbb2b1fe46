"""How far a search is, from its folder alone: nothing is written, no plugin is loaded, and it may run elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from hebb.analysis import fates
from hebb.analysis.fates import Fate, Tally
from hebb.config import domains
from hebb.config.vocabulary import Goal
from hebb.core import documents, locks
from hebb.core.errors import ConfigError
from hebb.storage import folders
from hebb.storage.folders import FolderState
from hebb.storage.journal import Journal


class SearchState(StrEnum):
    """Whether a search goes on, and how it ended."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    """It has ended, and runs of it have failed."""
    INTERRUPTED = "interrupted"
    """Nobody runs it, and something of it is left."""


class RunStatus(StrEnum):
    """What a run of a search is doing."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


_STATUSES = {
    None: RunStatus.FINISHED,
    Fate.STOPPED: RunStatus.STOPPED,
    Fate.FAILED: RunStatus.FAILED,
    Fate.INTERRUPTED: RunStatus.INTERRUPTED,
    Fate.NEVER_STARTED: RunStatus.WAITING,
}
_FATES = {status: fate for fate, status in _STATUSES.items()} | {RunStatus.RUNNING: Fate.INTERRUPTED}


@dataclass(frozen=True)
class RunProgress:
    """How far a run is.

    Attributes:
        name: of its folder.
        label: its configuration.
        seed: its seed.
        state: what it is doing.
        phase: its phase, as ``1 backprop b1``; empty before its first row.
        epoch: epochs of that phase that are over, as ``3 of 10``.
        value: the last value of the metric; None before the first.
    """

    name: str
    label: str
    seed: int
    state: RunStatus
    phase: str = ""
    epoch: str = ""
    value: float | None = None


@dataclass(frozen=True)
class SearchProgress:
    """How far a search is.

    Attributes:
        state: whether it goes on, or how it ended.
        holder: the process that runs it; None where none does.
        metric: what is compared.
        maximises: whether more of it is better.
        runs: its runs, in order.
        final: those of a winner that is trained again on all images; their value is ``test_acc``.
        tally: what became of the runs, without final ones.
        quiet: seconds since a record changed last.
    """

    state: SearchState
    holder: str | None
    metric: str
    maximises: bool
    runs: tuple[RunProgress, ...]
    final: tuple[RunProgress, ...]
    tally: Tally
    quiet: float

    @property
    def leading(self) -> RunProgress | None:
        """The finished run with the best value."""
        done = [run for run in self.runs if run.state == RunStatus.FINISHED and run.value is not None]
        ranked = sorted(done, key=lambda run: run.value or 0.0, reverse=self.maximises)
        return ranked[0] if ranked else None


@dataclass
class Follower:
    """Reads a search again and again; what is finished is read once.

    Attributes:
        folder: of the search.
    """

    folder: Path
    _ended: dict[str, RunProgress] = field(default_factory=dict)
    _phases: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)

    def look(self) -> SearchProgress:
        """Return how far the search is now.

        Raises:
            ConfigError: where the folder holds no search.
        """
        search = documents.as_object(folders.read_json(self.folder / folders.SEARCH), str(self.folder))
        if not isinstance(search.get("trials"), list) or not isinstance(search.get("seeds"), list):
            raise ConfigError(str(self.folder / folders.SEARCH), "is not the description of a search")
        holder = self._holder()
        journal = Journal.load(self.folder)
        planned = _planned(search, journal)
        metric = str(search.get("metric"))
        runs = [self._run(*run, journal, metric, running=holder is not None) for run in planned]
        tally = fates.tally((_FATES[run.state] for run in runs), to_come=_to_come(search, journal))
        final = [self._run(*run, journal, "test_acc", running=holder is not None) for run in self._final()]
        state = SearchState.RUNNING if holder else _ended(tally, final, search)
        maximises = search.get("mode") != Goal.MIN
        return SearchProgress(state, holder, metric, maximises, tuple(runs), tuple(final), tally, self._quiet())

    def _holder(self) -> str | None:
        """Name the process that runs the search; jobs that a command has left in a queue run it without one."""
        held = self.folder / folders.LOCKS
        holder = locks.holder(held / folders.SEARCH)
        trials = (path for path in sorted(held.glob("*-s*")) if path.suffix != ".pid") if holder is None else ()
        return holder or next(filter(None, map(locks.holder, trials)), None)

    def _final(self) -> list[tuple[str, str, int]]:
        names = sorted(path.name for path in (self.folder / folders.TRIALS).glob("final-*-s*"))
        return [(name, "winner, all images", int(name.rpartition("-s")[2])) for name in names]

    def _run(self, name: str, label: str, seed: int, journal: Journal, metric: str, *, running: bool) -> RunProgress:
        """Return how far a run is; a finished one does not change."""
        if name in self._ended:
            return self._ended[name]
        folder = self.folder / folders.TRIALS / name
        state = _state(folders.state(folder), journal, name, running=running)
        rows = _rows(folder)
        last = rows[-1] if rows else None
        phase, epoch = ("", "") if last is None else (f"{last['phase']} {last['kind']} {last['blocks']}", "")
        if last is not None:
            total = self._epochs(folder, name, int(last["phase"]))
            epoch = f"{last['epoch']}" + (f" of {total}" if total else "")
        progress = RunProgress(name, label, seed, state, phase, epoch, folders.value_of(rows, metric))
        if state == RunStatus.FINISHED:
            self._ended[name] = progress
        return progress

    def _epochs(self, folder: Path, name: str, phase: int) -> int | None:
        """Return the epochs of a phase, which the config of a run lists for its readers."""
        if name not in self._phases:
            try:
                config = documents.as_object(folders.read_json(folder / folders.CONFIG), name)
            except ConfigError:
                return None
            self._phases[name] = list(config.get("phases") or ())
        phases = self._phases[name]
        return int(phases[phase]["epochs"]) if phase < len(phases) else None

    def _quiet(self) -> float:
        """Return the seconds since a record changed last; the journal notes the end of each run."""
        own = [self.folder / name for name in (folders.SEARCH, folders.JOURNAL)]
        begun = [name for name in _names(self.folder / folders.TRIALS) if name not in self._ended]
        of_runs = (folders.METRICS, folders.LOOKS, folders.CONFIG, str(folders.CHECKPOINT))
        paths = [*own, *(self.folder / folders.TRIALS / name / file for name in begun for file in of_runs)]
        return max(0.0, time.time() - max(map(_changed, paths), default=0.0))


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _planned(search: Mapping[str, Any], journal: Journal) -> list[tuple[str, str, int]]:
    """List name, configuration and seed of every run that was planned or chosen."""
    listed = [(str(t["name"]), domains.label(t["choice"]), int(t["seed"])) for t in search["trials"]]
    chosen = [(f"{g}-s{s}", domains.label(c), int(s)) for g, c in journal.trained.items() for s in search["seeds"]]
    return list({run[0]: run for run in listed + chosen}.values())


def _to_come(search: Mapping[str, Any], journal: Journal) -> int:
    """Return how many runs an algorithm has yet to choose."""
    spec = search.get("spec")
    plan = spec.get("search") if isinstance(spec, dict) else None
    if search["trials"] or not isinstance(plan, dict):
        return 0
    return max(0, int(plan.get("samples", 1)) - len(journal.suggested)) * len(search["seeds"])


def _state(stored: FolderState, journal: Journal, name: str, *, running: bool) -> RunStatus:
    fate = fates.of_run(stored, journal, name)
    return RunStatus.RUNNING if running and fate == Fate.INTERRUPTED else _STATUSES[fate]


def _ended(tally: Tally, final: Iterable[RunProgress], search: Mapping[str, Any]) -> SearchState:
    """Return how a search ended that nobody runs."""
    done = sum(run.state == RunStatus.FINISHED for run in final)
    failed = tally.fates[Fate.FAILED] or any(run.state == RunStatus.FAILED for run in final)
    if not tally.complete or (not failed and done < len(search.get("final_seeds") or ())):
        return SearchState.INTERRUPTED
    return SearchState.FAILED if failed else SearchState.FINISHED


def _rows(folder: Path) -> list[folders.Row]:
    try:
        return folders.read_rows(folder / folders.METRICS, ("phase", "kind", "blocks", "epoch"))
    except (OSError, ConfigError):  # not begun, or just being written
        return []
