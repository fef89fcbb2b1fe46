"""Groups as jobs of a batch system: no process of ours runs between them, and their results are our run folders.

While a search goes on it has the folder ``jobs`` beside its run folders: ``submitted.jsonl`` with a line for each job,
``*.jsonl`` with what each job reports, and the files of submitit with the logs. A command that is interrupted leaves
its jobs in the queue. The one that continues the search reads which of them still wait or run, and follows those.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hebb.config.vocabulary import Launcher
from hebb.core.errors import ConfigError
from hebb.core.interrupts import interrupted_by_sigterm, uninterrupted
from hebb.storage import folders
from hebb.tuning import clusters, job_options, work
from hebb.tuning.clusters import Cluster
from hebb.tuning.job import BEGUN, ENDED, ERROR, FINAL, GroupJob
from hebb.tuning.job_options import JobOptions
from hebb.tuning.observer import Cause, Outcome, SearchObserver
from hebb.tuning.search import Group, Search
from hebb.tuning.suggestions import SCORE, STEP
from hebb.tuning.work import Ledger, Work

JOBS = "jobs"
"""Folder of a search with the files of its jobs; removed when all have ended well."""
_SUBMITTED = "submitted.jsonl"


def folder_of(search: Path) -> Path:
    """Return the folder with the files of the jobs of a search."""
    return search / JOBS


def run(stage: Work, launcher: Launcher, options: JobOptions, observer: SearchObserver) -> Outcome:
    """Run what is not finished as jobs, and return when nothing goes on."""
    cluster = clusters.of(launcher, folder_of(stage.search.folder), options, options.cpus_of(stage.search))
    at_once = at_once_of(launcher, options, stage.search) or max(1, stage.left())
    return work.run(stage, at_once, observer, lambda ledger: _Array(stage, cluster, options, ledger).run())


def at_once_of(launcher: Launcher, options: JobOptions, search: Search) -> int | None:
    """Return how many jobs run at the same time; None where the cluster decides."""
    if launcher == Launcher.SLURM:
        return options.parallel
    return clusters.Processes(Path(), options, options.cpus_of(search)).parallel


def check_left(folder: Path, launcher: Launcher | None) -> None:
    """Raise where jobs of an earlier command still wait or run that ``launcher`` does not follow.

    Args:
        folder: of the search.
        launcher: what goes on with the search; None where it is replaced.
    """
    left = _submitted(folder_of(folder))
    for kind in {entry["launcher"] for entry in left.values()} - {launcher}:
        numbers = [str(entry["job"]) for entry in left.values() if entry["launcher"] == kind]
        job_options.check_installed(Launcher(kind))
        cluster = clusters.of(Launcher(kind), folder_of(folder), JobOptions(), 1)
        alive = sorted(set(numbers) - cluster.gone(numbers))
        if alive:
            end = "scancel" if kind == Launcher.SLURM else "kill -INT"
            hint = f"--launcher {kind} follows them; {end} {' '.join(alive[:8])} ends them"
            raise ConfigError(str(folder), f"{len(alive)} of its jobs still wait or run", hint=hint)


def _submitted(folder: Path) -> dict[str, folders.Row]:
    """Return the last job of each group whose end nobody has seen."""
    path = folder / _SUBMITTED
    rows = folders.read_rows(path, ("group", "job", "launcher")) if path.exists() else []
    last = {str(row["group"]): row for row in rows}
    return {group: row for group, row in last.items() if row["job"] is not None}


@dataclass
class _Job:
    """A job that waits or runs.

    Attributes:
        group: what it trains.
        number: its number in the batch system.
        reports: the file that it writes.
        offset: bytes of the file that are read.
        step: the last step that was reported.
        begun: whether it runs, or did.
        ended: whether it said that it is over.
        error: why it failed.
        final: whether another try would fail, too.
        missed: when it was first seen to be gone, while its files say otherwise.
    """

    group: Group
    number: str
    reports: Path
    offset: int = 0
    step: int = 0
    begun: bool = False
    ended: bool = False
    error: str = ""
    final: bool = False
    missed: float | None = None

    def lines(self) -> Iterator[Mapping[str, Any]]:
        """Yield the whole lines that are new."""
        try:
            with open(self.reports, "rb") as file:
                file.seek(self.offset)
                text = file.read()
        except FileNotFoundError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self.offset += len(whole)
        for line in whole.splitlines():
            yield json.loads(line)


class _Array:
    """Submits the groups of a stage, follows their jobs, and tells the ledger."""

    def __init__(self, stage: Work, cluster: Cluster, options: JobOptions, ledger: Ledger) -> None:
        self.work, self.cluster, self.ledger = stage, cluster, ledger
        self.folder = folder_of(stage.search.folder)
        self.cpus = options.cpus_of(stage.search)
        self.waiting = deque(stage.listed())
        self.jobs: dict[str, _Job] = {}
        self.tries: Counter[str] = Counter()
        self.over: list[str] = []

    def run(self) -> None:
        """Run all groups, or end early for the cause in the ledger."""
        self.folder.mkdir(exist_ok=True)
        ledger = self.ledger
        try:
            with interrupted_by_sigterm():
                self._adopt()
                while (self.waiting or self.jobs) and not ledger.cause:
                    self._submit()
                    time.sleep(self.cluster.pause)
                    self._look()
                    if ledger.late:
                        ledger.cause = ledger.cause or Cause.TIME
        except KeyboardInterrupt:
            ledger.cause = ledger.cause or Cause.INTERRUPTED
        except BaseException:
            self._abandon()
            raise
        self._leave()

    def _adopt(self) -> None:
        """Follow the jobs that an earlier command has submitted, even if this one would begin fewer."""
        groups = {group.name: group for group in (*self.work.to_run(), *self.waiting)}
        submitted, alive = self._numbers(), self._alive()
        for name, number in submitted.items():
            group = groups.get(name)
            if group is not None and (number in alive or self._told_its_end(group)):  # else it died unseen
                self.jobs[name] = _Job(group, number, self._reports(group))
        self.waiting = deque(group for group in self.waiting if group.name not in self.jobs)

    def _numbers(self) -> dict[str, str]:
        """Return the numbers of the jobs whose end nobody has seen, of any stage, by group."""
        entries = _submitted(self.folder).items()
        return {name: str(row["job"]) for name, row in entries if row["launcher"] == self.cluster.launcher}

    def _alive(self) -> set[str]:
        """Return those of them that wait or run."""
        numbers = list(self._numbers().values())
        return set(numbers) - self.cluster.gone(numbers)

    def _told_its_end(self, group: Group) -> bool:
        return any(ENDED in line for line in _Job(group, "", self._reports(group)).lines())

    def _reports(self, group: Group) -> Path:
        return self.folder / f"{group.runs[0].name}.jsonl"

    def _submit(self) -> None:
        """Submit as many groups as there is room for."""
        count = self.cluster.room(len(self.jobs), len(self.waiting))
        groups = [self.waiting.popleft() for _ in range(min(count, len(self.waiting)))]
        if not groups:
            return
        for group in groups:
            self._reports(group).unlink(missing_ok=True)
        name = f"hebb-{self.work.search.folder.name}"
        jobs = [GroupJob(group, self.work.task, self._reports(group)) for group in groups]
        with uninterrupted():  # nobody would follow a job that is submitted and not noted
            numbers = self.cluster.submit(jobs, name, self.cpus)
            for group, number in zip(groups, numbers, strict=True):
                self.jobs[group.name] = _Job(group, number, self._reports(group))
            for group, number in zip(groups, numbers, strict=True):
                self._note(group, number)
        if self.cluster.outlives:
            self.ledger.observer.noted([f"submitted to {self.cluster.launcher}: {_named(numbers)}"])

    def _note(self, group: Group, number: str | None) -> None:
        row = {"group": group.name, "job": number, "launcher": self.cluster.launcher.value}
        folders.append_row(self.folder / _SUBMITTED, row)

    def _look(self) -> None:
        """Read what jobs report, and close those that have ended."""
        gone = self.cluster.gone([job.number for job in self.jobs.values()])
        for job in list(self.jobs.values()):
            for line in job.lines():
                self._take(job, line)
            if job.ended and (job.error or self._settled(job.group)):
                self._close(job)
            elif not job.ended and job.number not in gone:
                job.missed = None
            else:
                self._missed(job)

    def _settled(self, group: Group) -> bool:
        """Tell whether the records say what became of a group, or nothing goes on."""
        return bool(self.ledger.cause) or not self.work.is_open(group)

    def _take(self, job: _Job, line: Mapping[str, Any]) -> None:
        """Take a line of a job; after a restart it repeats what it reported before."""
        if not job.begun:
            job.begun = True
            self.ledger.begun(job.group)
        if BEGUN in line:
            return
        if ERROR in line:
            job.error, job.final = str(line[ERROR]), bool(line.get(FINAL))
        elif ENDED in line:
            job.ended = True
        elif not (SCORE in line and line[STEP] <= job.step and "failed" not in line and "halt" not in line):
            job.step = int(line[STEP])
            self.ledger.reported(job.group, dict(line))  # type: ignore[arg-type]

    def _missed(self, job: _Job) -> None:
        """Give up on a job that is gone, once its files have had time to arrive."""
        job.missed = job.missed or time.monotonic()
        if time.monotonic() - job.missed < self.cluster.patience:
            return
        if not self._settled(job.group):
            job.error = self._fate(job)
        self._close(job)

    def _fate(self, job: _Job) -> str:
        """Say how a job ended that left no result."""
        fate = self.cluster.fate(job.number)
        log = next(iter(sorted(self.folder.glob(f"{job.number}_*.err"))), None)
        text = f"its job {job.number} left no result" + (f" and is {fate}" if fate else "")
        return text + (f"; its log is {log}" if log is not None else "")

    def _close(self, job: _Job) -> None:
        """Take a job off the list; a mishap is tried again."""
        group = job.group
        del self.jobs[group.name]
        self.over += [job.number] if job.ended else []
        self._note(group, None)
        if not job.begun:
            self.ledger.begun(group)
        if not job.error:
            self.ledger.completed(group)
        elif not job.final and self.tries[group.name] < self.work.limits.failures:
            self.tries[group.name] += 1
            self.waiting.append(group)
        else:
            self.ledger.errored(group, job.error)

    def _leave(self) -> None:
        """End or leave alone what still waits or runs, and remove the files of jobs that nobody needs."""
        numbers = [job.number for job in self.jobs.values()]
        if numbers and self.ledger.cause == Cause.INTERRUPTED and self.cluster.outlives:
            self._keep(numbers)
            return
        self.cluster.cancel(numbers)
        self.cluster.settle(self.over)
        for job in list(self.jobs.values()):
            self._note(job.group, None)
        if not self.work.reasons() and not self._alive():  # other stages may have jobs, too
            shutil.rmtree(self.folder, ignore_errors=True)

    def _keep(self, numbers: list[str]) -> None:
        """Leave jobs in the queue."""
        jobs = _named(numbers)
        self.ledger.observer.noted([f"still in the queue: {jobs}; --restore follows them, scancel ends them"])

    def _abandon(self) -> None:
        """After an error, end the jobs that no later command would follow."""
        noted = set(self._numbers().values()) if self.cluster.outlives else set()
        numbers = [job.number for job in self.jobs.values()]
        self.cluster.cancel([number for number in numbers if number not in noted])
        if kept := [number for number in numbers if number in noted]:
            self._keep(kept)


def _named(numbers: list[str]) -> str:
    """Name jobs by their arrays."""
    arrays = ", ".join(dict.fromkeys(number.partition("_")[0] for number in numbers))
    return f"{len(numbers)} job{'' if len(numbers) == 1 else 's'} of {arrays}"
