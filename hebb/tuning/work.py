"""What a stage of a search runs, and what becomes of it, whoever launches its groups. Imports neither Ray nor torch.

A launcher (``hebb.tuning.driver`` on Ray, ``hebb.tuning.job_array`` on Slurm) runs the groups of a ``Work`` and tells
its ``Ledger`` what happens to them. Journal, models and observer follow from that alone, so they are the same for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from hebb.config.catalog import Catalog
from hebb.config.domains import label
from hebb.core.user_code import TRACEBACK
from hebb.storage import run_names
from hebb.storage.journal import Event, Journal
from hebb.tuning.kept_models import KeptModels
from hebb.tuning.observer import Cause, Outcome, SearchObserver, Stage, TrialReport
from hebb.tuning.search import Group, Search
from hebb.tuning.steps import of_run
from hebb.tuning.studies import Study
from hebb.tuning.suggestions import SCORE, Number, choice_of
from hebb.tuning.trials import network_string, other_changes, replicates

if TYPE_CHECKING:
    from hebb.tuning.worker import Task


class GroupState(StrEnum):
    """What became of a group."""

    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    LEFT_OUT = "left out"
    LEFT = "left"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When to give up.

    Attributes:
        time: seconds after which no trial goes on; None for as long as it takes.
        trials: trials that begin; None for all.
        failures: times that a trial is tried again after an error, or after its worker has died.
    """

    time: float | None = None
    trials: int | None = None
    failures: int = 1


@dataclass(frozen=True)
class GroupMaker:
    """Turns what a searcher suggests into a group, in the driver and in the workers alike."""

    search: Search
    catalog: Catalog

    def __call__(self, parameters: Mapping[str, Number]) -> Group:
        """Return the group at a point of the space."""
        choice = choice_of(self.search.spec.axes, parameters)
        runs = replicates(self.search, choice, label(choice), self.catalog)
        return Group(name=runs[0].configuration, runs=tuple(runs))


@dataclass(frozen=True)
class Readable:
    """Gives a point of a kept study the attributes by which a person reads it; Ray pickles it."""

    maker: GroupMaker

    def __call__(self, parameters: Mapping[str, Number]) -> dict[str, object]:
        """Return the values, the network and the other changes of a point, and the name of its runs."""
        group = self.maker(parameters)
        if group.fault:
            return {"configuration": group.label, "failed": group.fault}
        return {
            "configuration": group.label,
            "preset": network_string(group.runs[0], self.maker.catalog),
            "set": " ".join(other_changes(group.choice)),
            "runs": group.name,
        }


def state(group: Group, journal: Journal) -> GroupState:
    """Return what became of a group; the run folders decide before the journal does."""
    if group.finished:
        return GroupState.FINISHED
    if group.name in journal.stopped:
        return GroupState.STOPPED
    if group.name in journal.left_out:
        return GroupState.LEFT_OUT
    return GroupState.FAILED if group.name in journal.failed else GroupState.LEFT


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a stage runs, and what schedulers and searchers learn of earlier work.

    Attributes:
        search: the search.
        groups: what is run; None where a model-based algorithm chooses.
        task: what all groups share.
        limits: when to give up.
        journal: what became of groups, earlier and now.
        catalog: presets and datasets.
        models: removes models while the stage goes on; None keeps what the runs store.
        study: keeps what a model-based algorithm chooses where others can see it; None keeps it in memory.
    """

    search: Search
    groups: tuple[Group, ...] | None
    task: Task
    limits: Limits
    journal: Journal
    catalog: Catalog
    models: KeptModels | None = None
    study: Study | None = None

    @property
    def maker(self) -> GroupMaker | None:
        """Makes groups of what a searcher suggests."""
        return GroupMaker(self.search, self.catalog) if self.groups is None else None

    def all_groups(self) -> list[Group]:
        """List the groups, or those that were chosen so far."""
        if self.maker is not None:
            return [self.maker(parameters) for parameters in dict(self.journal.suggested).values()]
        return list(self.groups or ())

    def to_run(self) -> list[Group]:
        """List the groups that are to be run, whatever the limit; one that failed by a mishap is tried again."""
        return [group for group in self.all_groups() if self.is_open(group)]

    def left(self) -> int:
        """Return how many groups are to be run."""
        return len(self.to_run()) + self.unsuggested()

    def unsuggested(self) -> int:
        """Return how many points a searcher is still to suggest."""
        return self.search.spec.plan.samples - len(self.journal.suggested) if self.groups is None else 0

    def is_open(self, group: Group) -> bool:
        """Tell whether nothing says yet how a group ends, or no more than a mishap of an earlier session."""
        match state(group, self.journal):
            case GroupState.LEFT:
                return True
            case GroupState.FAILED:
                return bool(self.journal.failed[group.name]["again"])
        return False

    def verdicts(self) -> dict[str, str]:
        """Return the unfinished groups that are not run again, with the reason of those that failed."""
        over = [group for group in self.all_groups() if not self.is_open(group) and not group.finished]
        reasons = self.reasons()
        return {group.name: reasons.get(group.name, "") for group in over}

    def reasons(self) -> dict[str, str]:
        """Return why groups of this stage failed."""
        names = {group.name for group in self.all_groups()}
        return {name: entry["reason"] for name, entry in self.journal.failed.items() if name in names}

    def listed(self) -> list[Group]:
        """List the groups Ray gets: those to be run, and for a scheduler those whose reports it got before."""
        if self.groups is None:
            return []  # the searcher gives them
        waiting = [group.name for group in self.to_run()]
        repeated = {group.name for group in self.groups}.difference(waiting) if self.judged else set[str]()
        names = repeated.union(waiting[: self.limits.trials])
        return [group for group in self.groups if group.name in names]

    @property
    def judged(self) -> bool:
        """Whether a scheduler compares the groups; it does not compare a winner's final runs."""
        configurations = self.groups is None or not all(run_names.is_final(g.name) for g in self.groups)
        return configurations and self.search.stops_early

    def samples(self) -> int:
        """Return how many points a searcher suggests, including those of before."""
        samples, before = self.search.spec.plan.samples, len(self.journal.suggested)
        return samples if self.limits.trials is None else min(samples, before + self.limits.trials)

    def last_step(self) -> int:
        """Return the last step of the longest group."""
        configs = [g.runs[0].config for g in self.groups] if self.groups is not None else [self.search.base]
        steps = max(of_run(config, self.task.metric, self.task.probe_every).count for config in configs)
        return steps * len(self.search.seeds)


def _judge_earlier(work: Work, models: KeptModels) -> None:
    """Judge what an earlier session has finished."""
    groups = work.all_groups()
    for group in groups:
        models.begun(group.runs)
    for group in groups:
        models.ended(group.runs, stopped=state(group, work.journal) == GroupState.STOPPED)


def run(work: Work, at_once: int, observer: SearchObserver, fit: Callable[[Ledger], None]) -> Outcome:
    """Run what is not finished, and return when nothing goes on.

    Args:
        work: what the stage runs.
        at_once: groups that are trained at the same time.
        observer: follows the search.
        fit: runs the groups and tells the ledger of them; not called where nothing is left.
    """
    left = work.left()
    if work.models is not None:
        _judge_earlier(work, work.models)
    if left <= 0:
        return Outcome(failed=work.reasons())
    before = len(work.all_groups()) + work.unsuggested() - left
    observer.stage(Stage(metric=work.task.metric, groups=left, at_once=at_once, before=before))
    ledger = Ledger(work, observer)
    try:
        fit(ledger)
    finally:
        observer.stage_over()
    left = sum(state(group, work.journal) == GroupState.LEFT for group in work.all_groups()) + work.unsuggested()
    cause = ledger.cause
    if not cause:
        cause = Cause.TRIALS if work.limits.trials is not None and not ledger.open else Cause.INTERRUPTED
    return Outcome(
        failed=work.reasons(), left=left, cause=cause if left else Cause.NOTHING_LEFT, problem=ledger.problem
    )


@dataclass
class Ledger:
    """Turns what happens to groups into lines of the journal, models that go, and calls of the observer.

    Attributes:
        work: what the stage runs.
        observer: follows the search.
        cause: why nothing goes on; empty while something does.
        problem: what is wrong with the disk, where it is full.
        open: names of the groups that have begun and not ended.
    """

    work: Work
    observer: SearchObserver
    cause: Cause = Cause.NOTHING_LEFT
    problem: str = ""
    open: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        work = self.work
        # groups whose reports are only repeated
        self.over = {*work.verdicts(), *(group.name for group in work.all_groups() if group.finished)}
        self._deadline = None if work.limits.time is None else time.monotonic() + work.limits.time
        self._last: dict[str, TrialReport] = {}

    @property
    def late(self) -> bool:
        """Whether the time budget is used up."""
        return self._deadline is not None and time.monotonic() > self._deadline

    def begun(self, group: Group) -> None:
        """A group begins, or goes on."""
        self.open.add(group.name)
        if self.work.models is not None:
            self.work.models.begun(group.runs)
        if group.name not in self.over:
            if group.name in self.work.journal.failed:  # the mishap is past, and is not how the group ends
                self.work.journal.note(Event.AGAIN, group.name)
            self.observer.started(group)

    def reported(self, group: Group, report: TrialReport) -> None:
        """Take a report of a group; ``cause`` says afterwards whether anything goes on."""
        journal = self.work.journal
        if "halt" in report:
            self.problem = report["halt"]
            self.cause = self.cause or Cause.DISK_FULL
        elif "failed" in report:
            if journal.failed.get(group.name, {"again": True})["again"]:  # a fault of its own outweighs a mishap
                journal.note(Event.FAILED, group.name, reason=report["failed"], again=False)
        elif "left_out" in report:
            if group.name not in journal.left_out:
                journal.note(Event.LEFT_OUT, group.name, reason=report["left_out"])
        elif SCORE in report:
            self._last[group.name] = report
            if group.name not in self.over:
                self.observer.reported(group, report)

    def completed(self, group: Group) -> None:
        """A group has ended: finished, failed, left out, or else stopped by a scheduler."""
        journal, models = self.work.journal, self.work.models
        last = self._last.pop(group.name, TrialReport())
        if self.cause:
            return
        self.open.discard(group.name)
        if group.name in self.over:
            return
        self.over.add(group.name)
        final = state(group, journal)
        if not journal.failed.get(group.name, {"again": True})["again"]:  # also where it ran, and measured nothing
            self._failed(group)
        elif final == GroupState.FINISHED:
            journal.note(Event.FINISHED, group.name, node=last.get("node"))
            if models is not None:
                models.ended(group.runs)
            self.observer.ended(group, "done")
        elif final == GroupState.LEFT_OUT:
            self.observer.ended(group, f"left out: {journal.left_out[group.name]}")
        else:
            journal.note(Event.STOPPED, group.name, **{key: last.get(key) for key in ("step", "score", "n")})
            if models is not None:
                models.ended(group.runs, stopped=True)
            self.observer.ended(group, f"stopped at step {last.get('step')}")

    def errored(self, group: Group, reason: str) -> None:
        """A group has ended by a mishap; it is tried again when the search is continued."""
        self.open.discard(group.name)
        if group.name in self.over:  # its reports were being repeated, and it keeps the end that it has
            return
        traces = [path for run in group.runs if (path := run.folder / TRACEBACK).exists()]
        reason += f" (traceback: {traces[0]})" if traces else ""
        self.work.journal.note(Event.FAILED, group.name, reason=reason, again=True)
        self._failed(group)

    def _failed(self, group: Group) -> None:
        self.observer.ended(group, f"failed: {self.work.journal.failed[group.name]['reason']}")
