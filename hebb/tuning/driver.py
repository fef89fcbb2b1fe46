"""Groups on Ray Tune: scheduling, resources and workers are Ray's, the results are our run folders.

Ray's own state is deleted at the end. Its snapshots are seconds old when a search is killed, cannot be extended, and
are pickles. What is finished stands in the run folders instead, and what was chosen or stopped in the journal.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hebb import builtin
from hebb.config.catalog import Catalog
from hebb.config.domains import label
from hebb.config.vocabulary import Scheduler
from hebb.core.user_code import TRACEBACK
from hebb.storage.journal import Event, Journal
from hebb.tuning import ray_session
from hebb.tuning.kept_models import KeptModels
from hebb.tuning.observer import Cause, Outcome, SearchObserver, Stage, TrialReport
from hebb.tuning.ray_session import RayTrial, Resources, ray, tune
from hebb.tuning.search import Group, Search
from hebb.tuning.searchers import SCORE, Number, choice_of, of_search, plain, scheduler
from hebb.tuning.steps import of_run
from hebb.tuning.trials import broken, replicates

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
    """

    search: Search
    groups: tuple[Group, ...] | None
    task: Task
    limits: Limits
    journal: Journal
    catalog: Catalog
    models: KeptModels | None = None

    @property
    def maker(self) -> GroupMaker | None:
        """Makes groups of what a searcher suggests."""
        return GroupMaker(self.search, self.catalog) if self.groups is None else None

    def all_groups(self) -> list[Group]:
        """List the groups, or those that were chosen so far."""
        if self.maker is not None:
            return [self.maker(parameters) for parameters in dict(self.journal.suggested).values()]
        return list(self.groups or ())

    def left(self) -> int:
        """Return how many groups are to be run; one that failed by a mishap is tried again."""
        return sum(self._to_run(group) for group in self.all_groups()) + self.unsuggested()

    def unsuggested(self) -> int:
        """Return how many points a searcher is still to suggest."""
        return self.search.spec.plan.samples - len(self.journal.suggested) if self.groups is None else 0

    def _to_run(self, group: Group) -> bool:
        match state(group, self.journal):
            case GroupState.LEFT:
                return True
            case GroupState.FAILED:
                return bool(self.journal.failed[group.name]["again"])
        return False

    def verdicts(self) -> dict[str, str]:
        """Return the unfinished groups that are not run again, with the reason of those that failed."""
        over = [group for group in self.all_groups() if not self._to_run(group) and not group.finished]
        reasons = self.reasons()
        return {group.name: reasons.get(group.name, "") for group in over}

    def reasons(self) -> dict[str, str]:
        """Return why groups of this stage failed."""
        names = {group.name for group in self.all_groups()}
        return {name: entry["reason"] for name, entry in self.journal.failed.items() if name in names}

    def listed(self) -> list[Group]:
        """List the groups Ray gets: those to be run, and for a scheduler those whose reports it got before."""
        begun = [group for group in self.groups or () if self._to_run(group)][: self.limits.trials]
        return [g for g in self.groups or () if g in begun or (self.judged and not self._to_run(g))]

    @property
    def judged(self) -> bool:
        """Whether a scheduler compares the groups; it does not compare a winner's final runs."""
        configurations = self.groups is None or any("-s" not in group.name for group in self.groups)
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


def run(work: Work, resources: Resources, observer: SearchObserver) -> Outcome:
    """Run what is not finished, inside a session of Ray, and return when nothing goes on."""
    left = work.left()
    if work.models is not None:
        _judge_earlier(work, work.models)
    if left <= 0:
        return Outcome(failed=work.reasons())
    before = len(work.all_groups()) + work.unsuggested() - left
    observer.stage(Stage(metric=work.task.metric, groups=left, at_once=ray_session.places(resources), before=before))
    try:
        callback = _fit(work, resources, observer)
    finally:
        observer.stage_over()
    left = sum(state(group, work.journal) == GroupState.LEFT for group in work.all_groups()) + work.unsuggested()
    cause = callback.cause
    if not cause:
        cause = Cause.TRIALS if work.limits.trials is not None and not callback.open else Cause.INTERRUPTED
    return Outcome(
        failed=work.reasons(), left=left, cause=cause if left else Cause.NOTHING_LEFT, problem=callback.problem
    )


def _judge_earlier(work: Work, models: KeptModels) -> None:
    """Judge what an earlier session has finished."""
    groups = work.all_groups()
    for group in groups:
        models.begun(group.runs)
    for group in groups:
        models.ended(group.runs, stopped=state(group, work.journal) == GroupState.STOPPED)


def _fit(work: Work, resources: Resources, observer: SearchObserver) -> _Callback:
    """Let Ray Tune run the groups, and return the callback that followed them."""
    verdicts, listed = work.verdicts(), {group.name: group for group in work.listed()}
    callback = _Callback(work, verdicts, observer)
    pauses = work.judged and work.search.spec.scheduler.name == Scheduler.HYPERBAND
    function = tune.with_parameters(
        _run_trial, task=work.task, groups=listed, maker=work.maker, verdicts=verdicts, pauses=pauses
    )
    needs = {"cpu": resources.cpus, "gpu": resources.gpu}
    with _storage(work.search, resources) as storage:
        tuner = tune.Tuner(
            tune.with_resources(function, {name: amount for name, amount in needs.items() if amount}),
            param_space={} if work.groups is None else {"group": tune.grid_search(list(listed))},
            tune_config=tune.TuneConfig(
                metric=SCORE,
                mode=work.search.mode.value,
                reuse_actors=True,
                trial_dirname_creator=_directory_name,
                max_concurrent_trials=ray_session.places(resources),
                **_algorithms(work),
            ),
            run_config=tune.RunConfig(
                name=storage.name,
                storage_path=str(storage.parent),
                verbose=0,
                callbacks=[callback],
                failure_config=tune.FailureConfig(max_failures=work.limits.failures),
            ),
        )
        # Ray prints a banner whatever its verbosity
        with contextlib.redirect_stdout(io.StringIO()), ray_session.terminated_as_interrupted():
            tuner.fit()
    return callback


def _algorithms(work: Work) -> dict[str, Any]:
    """Return the arguments of ``TuneConfig`` for Ray's searcher and scheduler."""
    spec, arguments = work.search.spec, dict[str, Any]()
    if work.groups is None:
        earlier = [parameters for _, parameters in work.journal.suggested]
        arguments["search_alg"] = of_search(work.search, earlier)
        arguments["num_samples"] = work.samples()
    if work.judged:
        arguments["scheduler"] = scheduler(spec.scheduler, work.last_step())
    return arguments


@contextlib.contextmanager
def _storage(search: Search, resources: Resources) -> Iterator[Path]:
    """Make an empty folder for what Ray writes, on this machine or where every node of a cluster sees it."""
    if resources.address is None:
        folder = Path(tempfile.mkdtemp(prefix="hebb-ray-"))
    else:
        folder = search.folder / "ray"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Callback(tune.Callback):
    """Passes Ray's events on to the observer and the journal, and ends the search when it has to."""

    def __init__(self, work: Work, verdicts: Mapping[str, str], observer: SearchObserver) -> None:
        self.journal, self.observer, self.maker = work.journal, observer, work.maker
        self.models = work.models
        # groups whose reports are only repeated
        self.over = {*verdicts, *(group.name for group in work.all_groups() if group.finished)}
        self.groups = {group.name: group for group in work.groups or ()}
        self.cause, self.problem = Cause.NOTHING_LEFT, ""
        self.open: set[str] = set()
        self._deadline = None if work.limits.time is None else time.monotonic() + work.limits.time
        self._by_trial: dict[str, Group] = {}
        self._last: dict[str, TrialReport] = {}
        self._times: Counter[str] = Counter()

    def __getstate__(self) -> dict[str, object]:
        return {}  # Ray stores its callbacks; ours holds a terminal and stays here

    def _group(self, trial: RayTrial) -> Group:
        if trial.trial_id not in self._by_trial:
            maker = self.maker
            self._by_trial[trial.trial_id] = (
                self.groups[trial.config["group"]] if maker is None else maker(trial.config)
            )
        return self._by_trial[trial.trial_id]

    def on_step_begin(self, iteration: int, trials: list[RayTrial], **info: object) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._end(Cause.TIME)

    def on_trial_start(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: object) -> None:
        new = trial.trial_id not in self._by_trial
        group = self._group(trial)
        if self.maker is not None and new:
            self._times[group.name] += 1
            if self._times[group.name] > sum(name == group.name for name, _ in self.journal.suggested):
                self.journal.note(Event.CHOSEN, group.name, params=plain(trial.config), choice=group.choice)
        self.open.add(group.name)
        if self.models is not None:
            self.models.begun(group.runs)
        if group.name not in self.over:
            self.observer.started(group)

    def on_trial_result(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, result: TrialReport, **info: object
    ) -> None:
        group = self._group(trial)
        if "halt" in result:
            self.problem = result["halt"]
            self._end(Cause.DISK_FULL)
        elif "failed" in result:
            if group.name not in self.journal.failed:
                self.journal.note(Event.FAILED, group.name, reason=result["failed"], again=False)
        elif "left_out" in result:
            if group.name not in self.journal.left_out:
                self.journal.note(Event.LEFT_OUT, group.name, reason=result["left_out"])
        elif SCORE in result:
            self._last[group.name] = result
            if group.name not in self.over:
                self.observer.reported(group, result)

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: object) -> None:
        group = self._group(trial)
        last = self._last.pop(group.name, TrialReport())
        ray_session.forget_metrics(trial)
        if self.cause:
            return
        self.open.discard(group.name)
        if group.name in self.over:
            return
        self.over.add(group.name)
        final = state(group, self.journal)
        if final == GroupState.FINISHED:
            self.journal.note(Event.FINISHED, group.name, node=last.get("node"))
            if self.models is not None:
                self.models.ended(group.runs)
            self.observer.ended(group, "done")
        elif final == GroupState.LEFT_OUT:
            self.observer.ended(group, f"left out: {self.journal.left_out[group.name]}")
        elif final == GroupState.FAILED and not self.journal.failed[group.name]["again"]:
            self._failed(group)
        else:
            self.journal.note(Event.STOPPED, group.name, **{key: last.get(key) for key in ("step", "score", "n")})
            if self.models is not None:
                self.models.ended(group.runs, stopped=True)
            self.observer.ended(group, f"stopped at step {last.get('step')}")

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: object) -> None:
        group = self._group(trial)
        self.open.discard(group.name)
        reason = ray_session.reason(ray_session.error_of(trial))
        traces = [path for run in group.runs if (path := run.folder / TRACEBACK).exists()]
        reason += f" (traceback: {traces[0]})" if traces else ""
        self.journal.note(Event.FAILED, group.name, reason=reason, again=True)
        self._failed(group)

    def _failed(self, group: Group) -> None:
        self.observer.ended(group, f"failed: {self.journal.failed[group.name]['reason']}")

    def _end(self, cause: Cause) -> None:
        """Stop the trials as Ctrl-C would, once: Ray has no other way to stop early and cleanly."""
        if not self.cause:
            self.cause = cause
            os.kill(os.getpid(), signal.SIGINT)


def _run_trial(
    parameters: dict[str, Any],
    task: Task,
    groups: dict[str, Group],
    maker: GroupMaker | None,
    verdicts: dict[str, str],
    pauses: bool,
) -> None:
    """Run one group inside a worker."""
    from hebb.tuning import worker

    if maker is None:
        group = groups[parameters["group"]]
        builtin.load(group.runs[0].config.plugins)
    else:
        builtin.load(maker.search.base.plugins)
        group = maker(parameters)
    node, paused = ray.get_runtime_context().get_node_id()[:8], tune.get_checkpoint()
    last_step = 0
    if paused is not None:
        with paused.as_directory() as folder:
            last_step = int((Path(folder) / "step").read_text(encoding="utf-8"))

    def send(report: TrialReport) -> None:
        try:
            _report({**report, "node": node}, pauses)
        except SystemExit:  # how Ray ends a trial
            raise worker.Stop from None

    try:
        reason = "" if maker is None else broken(maker.search, group.runs[0].config)
        if reason:
            worker.leave_out(group, reason, send)
        else:
            worker.run_group(group, task, send, verdict=verdicts.get(group.name), last_step=last_step)
    except worker.Stop:
        sys.exit(0)


def _report(report: Mapping[str, object], pauses: bool) -> None:
    """Report to Ray; a trial that its scheduler may pause must not report a step again, so the step is kept."""
    if not pauses:
        tune.report(dict(report))
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "step").write_text(str(report["step"]), encoding="utf-8")
        tune.report(dict(report), checkpoint=tune.Checkpoint.from_directory(folder))


def _directory_name(trial: RayTrial) -> str:
    return trial.trial_id
