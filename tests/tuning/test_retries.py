"""A trial that a mishap ended is tried again by the next session, which records how that ends; no run is trained.

Without it the second end would be recorded as that of a scheduler: its reason and its checkpoint would be lost, and
the trial never be tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import small

from hebb.analysis import fates
from hebb.analysis.fates import Fate
from hebb.config import catalog, search_space
from hebb.config.vocabulary import Goal, Launcher
from hebb.storage import folders
from hebb.storage.journal import Journal
from hebb.tuning import job_array, trials
from hebb.tuning.kept_models import KeptModels
from hebb.tuning.observer import SearchObserver
from hebb.tuning.search import Group, Search
from hebb.tuning.work import GroupState, Ledger, Limits, Work, state

MISHAP = "the worker died"


def planned(folder: Path) -> Search:
    """Return a search of one trial."""
    data = {"description": "a test", "purpose": "sweep", "seeds": [0], "space": {"b0.layer.lr": {"grid": [0.1]}}}
    search = Search(
        spec=search_space.parse(data, "rates", "test"),
        base=small.config(small.CNN),
        seeds=(0,),
        metric="test_acc",
        mode=Goal.MAX,
        folder=folder,
    )
    return trials.planned(search, catalog.load())


def session(search: Search) -> Ledger:
    """Begin a session of the search, which knows of earlier ones what is on the disk."""
    work = Work(
        search=search,
        groups=tuple(search.groups()),
        task=SimpleNamespace(metric="test_acc"),  # type: ignore[arg-type]
        limits=Limits(failures=1),
        journal=Journal.load(search.folder),
        catalog=catalog.load(),
        models=KeptModels(search),
    )
    return Ledger(work, SearchObserver())


def interrupted(group: Group) -> None:
    """Leave what a run leaves whose worker dies."""
    folder = group.runs[0].folder
    (folder / folders.CHECKPOINT).parent.mkdir(parents=True)
    (folder / folders.CHECKPOINT).write_bytes(b"weights")
    folders.write_json(folder / folders.CONFIG, {})


def finish(group: Group) -> None:
    folder = group.runs[0].folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / folders.METRICS).write_text("")
    folders.write_json(folder / folders.RESULT, {"metrics": {"test_acc": 90.0}, "seconds": 1.0})


@pytest.fixture
def again(tmp_path: Path) -> Ledger:
    """Return the session that goes on after a mishap."""
    search = planned(tmp_path)
    first = session(search)
    (group,) = search.groups()
    first.begun(group)
    interrupted(group)
    first.errored(group, MISHAP)
    second = session(search)
    assert second.work.to_run() == [group]
    return second


def ends(ledger: Ledger) -> tuple[GroupState, Fate | None, dict[str, str], bool, bool]:
    """Return what the next session knows of the group: state, fate, reason, whether it has a model and runs again."""
    after, (group,) = session(ledger.work.search).work, ledger.work.search.groups()
    run = group.runs[0]
    return (
        state(group, after.journal),
        fates.of_run(folders.state(run.folder), after.journal, run.name),
        after.reasons(),
        (run.folder / folders.CHECKPOINT).exists(),
        bool(after.to_run()),
    )


def test_a_fault_of_its_own_is_recorded(again: Ledger) -> None:
    (group,) = again.work.search.groups()
    again.begun(group)
    again.reported(group, {"step": 2, "score": 0.0, "failed": "weights are not finite"})
    again.completed(group)
    assert ends(again) == (GroupState.FAILED, Fate.FAILED, {group.name: "weights are not finite"}, True, False)


def test_a_run_that_measures_nothing_has_failed(tmp_path: Path) -> None:
    """Its result is on the disk, and lacks the metric: the search must not end as if it had succeeded."""
    ledger = session(planned(tmp_path))
    (group,) = ledger.work.search.groups()
    ledger.begun(group)
    finish(group)
    ledger.reported(group, {"step": 1, "score": 0.0, "failed": "it gives no R1"})
    ledger.completed(group)
    assert ledger.work.reasons() == {group.name: "it gives no R1"}
    assert session(ledger.work.search).work.reasons() == {group.name: "it gives no R1"}


def test_a_second_mishap_is_tried_again(again: Ledger) -> None:
    (group,) = again.work.search.groups()
    again.begun(group)
    again.errored(group, "the disk is gone")
    assert ends(again) == (GroupState.FAILED, Fate.FAILED, {group.name: "the disk is gone"}, True, True)


def test_a_kill_leaves_it_to_the_next_session(again: Ledger) -> None:
    (group,) = again.work.search.groups()
    again.begun(group)
    assert ends(again) == (GroupState.LEFT, Fate.INTERRUPTED, {}, True, True)


def test_a_scheduler_stops_it(again: Ledger) -> None:
    """It is then no failure, by which the search would not have succeeded."""
    (group,) = again.work.search.groups()
    again.begun(group)
    again.reported(group, {"step": 1, "score": 50.0, "n": 1})
    again.completed(group)
    assert ends(again) == (GroupState.STOPPED, Fate.STOPPED, {}, False, False)
    assert not again.work.reasons()


@pytest.mark.parametrize("finished", [True, False])
def test_a_mishap_while_reports_are_repeated_changes_nothing(finished: bool, tmp_path: Path) -> None:
    """A scheduler that starts anew hears finished and stopped trials again, from workers that may die."""
    search = planned(tmp_path)
    (group,) = search.groups()
    first = session(search)
    first.begun(group)
    if finished:
        finish(group)
    first.completed(group)
    before = ends(first)
    second = session(search)
    second.begun(group)
    second.errored(group, MISHAP)
    assert ends(second) == before
    assert not second.work.reasons()


class _Cluster:
    """A batch system that does one thing to every job."""

    launcher, pause, patience, outlives = Launcher.SLURM, 0.0, 0.0, True

    def __init__(self) -> None:
        self.submitted = 0

    def room(self, open_jobs: int, waiting: int) -> int:
        return waiting

    def submit(self, jobs: Sequence[Any], name: str, cpus: int) -> list[str]:
        self.submitted += 1
        self.start(jobs[0])
        return [str(self.submitted)]

    def start(self, job: Any) -> None:
        """Die in the queue."""

    def gone(self, numbers: Sequence[str]) -> set[str]:
        return set(numbers)

    def fate(self, number: str) -> str:
        return "NODE_FAIL"

    def cancel(self, numbers: Sequence[str]) -> None:
        pass

    def settle(self, numbers: Sequence[str]) -> None:
        pass


class _Late(_Cluster):
    """One whose files arrive after what the job reports, as on a shared disk."""

    patience = 60.0
    looks = 0

    def start(self, job: Any) -> None:
        self.group = job.group
        job.reports.write_text('{"begun": true}\n{"ended": true}\n')

    def gone(self, numbers: Sequence[str]) -> set[str]:
        self.looks += 1
        if self.looks == 3:
            finish(self.group)
        return set(numbers)


def run_jobs(ledger: Ledger, cluster: _Cluster) -> None:
    options: Any = SimpleNamespace(cpus_of=lambda _: 1)
    job_array._Array(ledger.work, cluster, options, ledger).run()  # type: ignore[arg-type]


def test_a_job_that_dies_again_is_tried_as_any_other(again: Ledger) -> None:
    (group,), cluster = again.work.search.groups(), _Cluster()
    run_jobs(again, cluster)
    assert cluster.submitted == 2, "once, and once more in this session"
    end = ends(again)
    assert end[:2] == (GroupState.FAILED, Fate.FAILED)
    assert "its job 2 left no result and is NODE_FAIL" in end[2][group.name]
    assert end[3:] == (True, True)


def test_the_result_of_a_job_may_come_late(again: Ledger) -> None:
    run_jobs(again, _Late())
    assert ends(again)[:3] == (GroupState.FINISHED, None, {})
