"""What a search tells whoever follows it: the interface, and the records that pass through it. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from hebb.analysis import fates
from hebb.analysis.fates import Tally
from hebb.tuning.search import Group, Search, Trial

if TYPE_CHECKING:
    import pandas as pd


class TrialReport(TypedDict, total=False):
    """What a worker reports of its group, at each evaluation and at the end of each run.

    ``step``, ``score`` and ``n`` are what schedulers and searchers read; ``value`` is that of the latest evaluation.
    ``failed`` says why the group cannot go on, ``halt`` why no group can, ``left_out`` which bound it breaks so that
    it is not trained. ``beside`` are the means of further objectives and of bounded metrics. ``node`` is where it runs.
    """

    step: int
    score: float
    n: int
    seed: int
    kind: str
    phase: int
    epoch: int
    value: float
    failed: str
    halt: str
    left_out: str
    beside: dict[str, float]
    node: str


class Cause(StrEnum):
    """Why groups are left when a stage ends."""

    NOTHING_LEFT = ""
    TIME = "time"
    TRIALS = "trials"
    DISK_FULL = "full"
    INTERRUPTED = "interrupted"


@dataclass
class Outcome:
    """How the groups of a stage ended.

    Attributes:
        failed: why groups failed, by name.
        left: groups that are neither finished nor stopped nor failed.
        cause: why they are left.
        problem: what is wrong with the disk, where it is full.
        tally: what became of the runs of the stage.
        warnings: what their user should know, and in how many runs.
    """

    failed: dict[str, str] = field(default_factory=dict)
    left: int = 0
    cause: Cause = Cause.NOTHING_LEFT
    problem: str = ""
    tally: Tally = field(default_factory=lambda: fates.tally(()))
    warnings: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a search whose groups are trained together: the search itself, or the winner's final runs.

    Attributes:
        metric: what its groups report.
        groups: the number of groups to be trained.
        at_once: groups that are trained at the same time.
        before: groups of the stage that ended in an earlier session.
    """

    metric: str
    groups: int
    at_once: int
    before: int = 0


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The results of a stage.

    Attributes:
        metric: what is compared.
        summary: a line for each configuration with finished runs; best first where the search names a winner.
        path: the CSV file with a line for each run, which has a Parquet file beside it.
        stopped: step, score and number of seeds at which a scheduler stopped a configuration, by its label.
        beside: further columns with means: other objectives, and what is bounded.
        left_out: why configurations were never trained, by label.
        gains: what the rule adds to its controls, a sentence each.
    """

    metric: str
    summary: pd.DataFrame
    path: Path
    stopped: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    beside: Sequence[str] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    gains: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class _Best:
    """A configuration that a search names.

    Attributes:
        trial: one of its runs.
        network: its network, as ``--preset`` takes it.
        changes: what it changes outside the network, as ``--set`` takes it.
    """

    trial: Trial
    network: str
    changes: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """The words of a command that trains it."""
        return ["--preset", self.network, *(["--set", *self.changes] if self.changes else ())]


@dataclass(frozen=True, kw_only=True)
class Winner(_Best):
    """The best configuration of a search.

    Attributes:
        tied: a run of each other configuration with the same mean; the winner is the first of them in the search.
        doubt: why the order may be chance, ``verdict.doubt``; empty where the seeds tell it from the next.
    """

    tied: tuple[Trial, ...] = ()
    doubt: str = ""


@dataclass(frozen=True, kw_only=True)
class FrontPoint(_Best):
    """A configuration that no other beats in every objective.

    Attributes:
        number: its place on the front, from 1, best by the first objective first.
        values: its means by objective.
    """

    number: int
    values: Mapping[str, float]


class SearchObserver:
    """Follows a search. Every method does nothing here; override those of interest."""

    def preparing(self, what: str) -> None:
        """Something begins that takes a while: data are read, Ray is started."""

    def start(self, search: Search) -> None:
        """The search begins, or continues."""

    def noted(self, notes: Sequence[str]) -> None:
        """What the user should know before anything is trained, a line each."""

    def stage(self, stage: Stage) -> None:
        """A stage begins."""

    def started(self, group: Group) -> None:
        """A group begins."""

    def reported(self, group: Group, report: TrialReport) -> None:
        """A group reported a score."""

    def ended(self, group: Group, how: str) -> None:
        """A group is finished, stopped or failed; ``how`` says which."""

    def stage_over(self) -> None:
        """The stage is over, whatever its outcome."""

    def ranked(self, ranking: Ranking) -> None:
        """The results of a stage are written."""

    def summed_up(self, outcome: Outcome, finished: int, total: int) -> None:
        """A stage has ended with ``finished`` of its ``total`` runs."""

    def selected(self, winner: Winner | None) -> None:
        """The winner is known; None where no configuration has a finite score on every seed."""

    def fronted(self, points: Sequence[FrontPoint], search: Search) -> None:
        """The Pareto front of a search by several objectives is known; it may be empty."""

    def retraining(self, trials: tuple[Trial, ...]) -> None:
        """The winner is trained again on all training images."""
