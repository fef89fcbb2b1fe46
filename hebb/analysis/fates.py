"""What became of the runs of a search: which ran to the end, and why the others did not.

A scheduler stops runs on purpose, and a failed run is over too. A search is complete when none of its runs is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from hebb.storage import run_names
from hebb.storage.folders import FolderState
from hebb.storage.journal import Journal


class Fate(StrEnum):
    """Why a run is not finished."""

    STOPPED = "stopped"
    """By a scheduler."""
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """Or still running."""
    NEVER_STARTED = "never started"


LEFT = (Fate.INTERRUPTED, Fate.NEVER_STARTED)
"""Fates of runs that a continued search would still run."""


def of_run(state: FolderState, journal: Journal, name: str) -> Fate | None:
    """Return what became of a run of a search; None if it ran to the end, whatever the journal says."""
    if state == FolderState.FINISHED:
        return None
    begun = Fate.INTERRUPTED if state == FolderState.INTERRUPTED else Fate.NEVER_STARTED
    return ended(journal, name) or begun


def ended(journal: Journal, name: str) -> Fate | None:
    """Return why a search ended a run early, which is in the journal under its name or that of its group."""
    if any(holds(group, name) for group in journal.failed):
        return Fate.FAILED
    return Fate.STOPPED if any(holds(group, name) for group in journal.stopped) else None


def holds(group: str, name: str) -> bool:
    """Tell whether a run belongs to a group: it is the run, a pack (``<hash>-s0+1+2``) or a configuration."""
    configuration, seed = run_names.configuration(name), str(run_names.seed(name))
    first, *others = group.split("+")
    return first in (name, configuration) or (run_names.configuration(first) == configuration and seed in others)


def members(group: str) -> list[str]:
    """Return the names of the runs of a group that is a run or a pack."""
    first, *others = group.split("+")
    return [first, *(run_names.of(run_names.configuration(first), int(seed)) for seed in others)]


@dataclass(frozen=True)
class Tally:
    """How many runs of a search ran to the end, and how many had which other fate.

    Attributes:
        finished: runs that ran to the end.
        fates: number of the others by fate.
    """

    finished: int
    fates: Counter[Fate]

    @property
    def total(self) -> int:
        """Number of all runs."""
        return self.finished + self.fates.total()

    @property
    def ended_early(self) -> bool:
        """Whether a scheduler stopped runs, or some failed."""
        return self.fates[Fate.STOPPED] + self.fates[Fate.FAILED] > 0

    @property
    def left(self) -> bool:
        """Whether a continued search might run something: what is left, or what failed by a mishap."""
        return not self.complete or self.fates[Fate.FAILED] > 0

    @property
    def complete(self) -> bool:
        """Whether no run is left."""
        return not any(self.fates[fate] for fate in LEFT)

    def others(self, scheduler: str = "") -> str:
        """Say what became of the runs that did not run to the end; ``scheduler`` is what stopped runs."""
        words = {
            Fate.STOPPED: f"stopped early{f' by {scheduler}' if scheduler else ''}",
            Fate.FAILED: "failed",
            Fate.INTERRUPTED: "interrupted",
            Fate.NEVER_STARTED: "never started",
        }
        return ", ".join(f"{self.fates[fate]} {text}" for fate, text in words.items() if self.fates[fate])

    def sentence(self, scheduler: str = "") -> str:
        """Say in one line how far a search is."""
        others = self.others(scheduler)
        state = "complete" if self.complete else "not complete"
        return f"{state}: {self.finished} of {self.total} ran to the end{f', {others}' if others else ''}"


def tally(fates: Iterable[Fate | None], *, to_come: int = 0) -> Tally:
    """Count what became of runs; ``to_come`` are those that a model-based algorithm has yet to choose."""
    counts = Counter(fates)
    finished = counts.pop(None, 0)
    others: Counter[Fate] = Counter({fate: number for fate, number in counts.items() if fate is not None})
    if to_come > 0:
        others[Fate.NEVER_STARTED] += to_come
    return Tally(finished, others)
