"""Trials on Ray Tune: scheduling, resources and workers are Ray's, the results are our run folders.

Ray's own state is thrown away at the end. Its snapshots are seconds old when a search is killed, cannot be extended,
and are pickles; what is finished stands in the run folders, and what was chosen or stopped in the journal.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hebb import builtin
from hebb.storage import folders
from hebb.tuning import ray_session
from hebb.tuning.ray_session import Resources, ray, tune
from hebb.tuning.search_folder import Journal
from hebb.tuning.searchers import SCORE, choice_of, plain, scheduler, searcher
from hebb.tuning.steps import of_run
from hebb.tuning.trials import Group, Search, configuration_name, label, runs_of
from hebb.tuning.worker import Task


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When to give up.

    Attributes:
        time: seconds after which nothing goes on; None for as long as it takes.
        trials: trials that are begun; None for all.
        failures: times that a trial which ended in an error, or with its worker, is tried again.
    """

    time: float | None = None
    trials: int | None = None
    failures: int = 1


class Watcher:
    """What a search tells while it goes on; every method does nothing here."""

    def started(self, group: Group) -> None:
        """A group began."""

    def reported(self, group: Group, report: Mapping[str, Any]) -> None:
        """A group reported a score."""

    def ended(self, group: Group, how: str) -> None:
        """A group is finished, stopped or failed; ``how`` says which."""


@dataclass
class Outcome:
    """How the trials ended.

    Attributes:
        failed: why groups failed, by name.
        left: groups that are not finished, stopped or failed.
        cause: why: ``time`` or ``trials`` (a budget), ``full`` (a disk) or ``interrupted``; empty when none is left.
        problem: what is wrong with the disk.
    """

    failed: dict[str, str] = field(default_factory=dict)
    left: int = 0
    cause: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Maker:
    """Turns what a searcher suggests into a group; the driver and the workers do it alike."""

    search: Search
    known: Any

    def __call__(self, parameters: Mapping[str, Any]) -> Group:
        """Return the group at a point of the space."""
        search = self.search
        choice = choice_of(search.spec.axes, dict(parameters))
        spec, seeds = search.spec, search.seeds
        runs = runs_of(search.base, choice, label(choice), spec, seeds, search.folder, self.known, search.packs)
        return Group(name=configuration_name(runs[0]), runs=tuple(runs))


def state(group: Group, journal: Journal) -> str:
    """Tell ``finished``, ``stopped``, ``failed`` or ``left``; the run folders decide before the journal does."""
    if all(folders.state(trial.folder) == "finished" for trial in group.runs):
        return "finished"
    if group.name in journal.stopped:
        return "stopped"
    return "failed" if group.name in journal.failed else "left"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is run, and what earlier work a scheduler or a searcher is to hear of.

    Attributes:
        search: the search.
        groups: what is run; None where a model-based algorithm chooses.
        task: what all groups share.
        limits: when to give up.
        journal: what became of groups earlier, and now.
        known: presets and datasets.
    """

    search: Search
    groups: tuple[Group, ...] | None
    task: Task
    limits: Limits
    journal: Journal
    known: Any

    @property
    def maker(self) -> Maker | None:
        """Makes groups of what a searcher suggests."""
        return Maker(self.search, self.known) if self.groups is None else None

    def all_groups(self) -> list[Group]:
        """List the groups, or those that were chosen so far."""
        if self.maker is not None:
            return [self.maker(parameters) for parameters in dict(self.journal.suggested).values()]
        return list(self.groups or ())

    def left(self) -> int:
        """Return how many groups are to be run; one that failed by a mishap is tried again."""
        again = sum(self._again(group) for group in self.all_groups())
        return again + (self.search.spec.plan.samples - len(self.journal.suggested) if self.groups is None else 0)

    def _again(self, group: Group) -> bool:
        found = state(group, self.journal)
        return found == "left" or (found == "failed" and self.journal.failed[group.name]["again"])

    def settled(self) -> dict[str, str]:
        """Return the groups that are not run again though they are not finished, with the reason of failed ones."""
        found = {group.name: group for group in self.all_groups() if not self._again(group)}
        reasons = {name: entry["reason"] for name, entry in self.journal.failed.items()}
        return {name: reasons.get(name, "") for name, g in found.items() if state(g, self.journal) != "finished"}

    def listed(self) -> list[Group]:
        """List what Ray is given: what is to be run, and for a scheduler what it heard of before."""
        begun = [group for group in self.groups or () if self._again(group)][: self.limits.trials]
        return [g for g in self.groups or () if g in begun or (self.judged and not self._again(g))]

    @property
    def judged(self) -> bool:
        """Whether a scheduler compares the groups: those of a winner's final runs are not."""
        together = self.groups is None or any("-s" not in group.name for group in self.groups)
        return together and self.search.spec.scheduler.name != "none"

    def samples(self) -> int:
        """Return how many points a searcher suggests, those of before included."""
        wanted, before = self.search.spec.plan.samples, len(self.journal.suggested)
        return wanted if self.limits.trials is None else min(wanted, before + self.limits.trials)

    def last_step(self) -> int:
        """Return the last step of the longest group."""
        seeds = len(self.search.seeds)
        configs = [g.runs[0].config for g in self.groups] if self.groups is not None else [self.search.base]
        return max(of_run(c, self.task.metric, self.task.probe_every).count for c in configs) * seeds


def run(work: Work, resources: Resources, watcher: Watcher) -> Outcome:
    """Run what is not finished, inside a session, and return when nothing goes on."""
    if work.left() <= 0:
        return Outcome(failed=_reasons(work))
    settled, listed = work.settled(), {group.name: group for group in work.listed()}
    tell = _Tell(work, settled, watcher)
    pauses = work.judged and work.search.spec.scheduler.name == "hyperband"
    function = tune.with_parameters(
        _run_trial, task=work.task, groups=listed, maker=work.maker, settled=settled, pauses=pauses
    )
    needed = {"cpu": resources.cpus, "gpu": resources.gpu}
    storage = _storage(work.search, resources)
    tuner = tune.Tuner(
        tune.with_resources(function, {name: amount for name, amount in needed.items() if amount}),
        param_space={} if work.groups is None else {"group": tune.grid_search(list(listed))},
        tune_config=tune.TuneConfig(
            metric=SCORE,
            mode=work.search.mode,
            reuse_actors=True,
            trial_dirname_creator=_directory_name,
            max_concurrent_trials=ray_session.places(resources),
            **_chooser(work),
        ),
        run_config=tune.RunConfig(
            name=storage.name,
            storage_path=str(storage.parent),
            verbose=0,
            callbacks=[tell],
            failure_config=tune.FailureConfig(max_failures=work.limits.failures),
        ),
    )
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            ray_session.terminated_as_interrupted(),
        ):  # Ray's banner is not for us
            tuner.fit()
    finally:
        shutil.rmtree(storage, ignore_errors=True)
    left = sum(state(group, work.journal) == "left" for group in work.all_groups())
    left += work.search.spec.plan.samples - len(work.journal.suggested) if work.groups is None else 0
    cause = tell.cause or ("trials" if work.limits.trials is not None and not tell.open else "interrupted")
    return Outcome(failed=_reasons(work), left=left, cause=cause if left else "", problem=tell.problem)


def _chooser(work: Work) -> dict[str, Any]:
    """Return Ray's searcher and scheduler."""
    spec, options = work.search.spec, dict[str, Any]()
    if work.groups is None:
        earlier = [parameters for _, parameters in work.journal.suggested]
        options["search_alg"] = searcher(spec.plan, spec.axes, work.search.mode, earlier)
        options["num_samples"] = work.samples()
    if work.judged:
        options["scheduler"] = scheduler(spec.scheduler, work.last_step())
    return options


def _reasons(work: Work) -> dict[str, str]:
    names = {group.name for group in work.all_groups()}
    return {name: entry["reason"] for name, entry in work.journal.failed.items() if name in names}


def _storage(search: Search, resources: Resources) -> Path:
    """Return an empty folder for what Ray writes: on this machine, or where every node of a cluster sees it."""
    if resources.address is None:
        return Path(tempfile.mkdtemp(prefix="hebb-ray-"))
    folder = search.folder / "ray"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


class _Tell(tune.Callback):
    """Passes what Ray says on to the watcher and the journal, and ends the search when it has to."""

    def __init__(self, work: Work, settled: Mapping[str, str], watcher: Watcher) -> None:
        self.journal, self.watcher, self.maker = work.journal, watcher, work.maker
        # what is only heard again is no news
        self.over = {*settled, *(g.name for g in work.all_groups() if state(g, work.journal) == "finished")}
        self.groups = {group.name: group for group in work.groups or ()}
        self.cause = self.problem = ""
        self.open: set[str] = set()
        self._deadline = None if work.limits.time is None else time.monotonic() + work.limits.time
        self._by_trial: dict[str, Group] = {}
        self._last: dict[str, Mapping[str, Any]] = {}
        self._times: Counter[str] = Counter()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray stores its callbacks; ours holds a terminal and stays here

    def _group(self, trial: Any) -> Group:
        if trial.trial_id not in self._by_trial:
            maker = self.maker
            self._by_trial[trial.trial_id] = (
                self.groups[trial.config["group"]] if maker is None else maker(trial.config)
            )
        return self._by_trial[trial.trial_id]

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._end("time")

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        new = trial.trial_id not in self._by_trial
        group = self._group(trial)
        if self.maker is not None and new:
            self._times[group.name] += 1
            if self._times[group.name] > sum(name == group.name for name, _ in self.journal.suggested):
                self.journal.note("chosen", group.name, params=plain(trial.config), choice=group.choice)
        self.open.add(group.name)
        if group.name not in self.over:
            self.watcher.started(group)

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        group = self._group(trial)
        if "halt" in result:
            self.problem = result["halt"]
            self._end("full")
        elif "failed" in result:
            if group.name not in self.journal.failed:
                self.journal.note("failed", group.name, reason=result["failed"], again=False)
        elif SCORE in result:
            self._last[group.name] = result
            if group.name not in self.over:
                self.watcher.reported(group, result)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        group, found = self._group(trial), state(self._group(trial), self.journal)
        last = self._last.pop(group.name, {})
        ray_session.forget_metrics(trial)
        if self.cause:
            return
        self.open.discard(group.name)
        if group.name in self.over:
            return
        self.over.add(group.name)
        if found == "finished":
            self.journal.note("finished", group.name, node=last.get("node"))
            self.watcher.ended(group, "done")
        elif found == "failed" and not self.journal.failed[group.name]["again"]:
            self.watcher.ended(group, f"failed: {self.journal.failed[group.name]['reason']}")
        else:
            self.journal.note("stopped", group.name, **{key: last.get(key) for key in ("step", "score", "n")})
            self.watcher.ended(group, f"stopped at step {last.get('step')}")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        group = self._group(trial)
        self.open.discard(group.name)
        self.journal.note("failed", group.name, reason=ray_session.reason(ray_session.error_of(trial)), again=True)
        self.watcher.ended(group, f"failed: {self.journal.failed[group.name]['reason']}")

    def _end(self, cause: str) -> None:
        """Stop the trials as Ctrl-C would, once; it is Ray's one way to stop early and well."""
        if not self.cause:
            self.cause = cause
            os.kill(os.getpid(), signal.SIGINT)


def _run_trial(
    parameters: dict[str, Any],
    task: Task,
    groups: dict[str, Group],
    maker: Maker | None,
    settled: dict[str, str],
    pauses: bool,
) -> None:
    """Run one group inside a worker."""
    from hebb.tuning import worker

    configs = [maker.search.base] if maker else [one.config for one in groups[parameters["group"]].runs]
    builtin.load(spec for config in configs for spec in config.plugins)
    group = groups[parameters["group"]] if maker is None else maker(parameters)
    node, paused = ray.get_runtime_context().get_node_id()[:8], tune.get_checkpoint()
    told = 0
    if paused is not None:
        with paused.as_directory() as folder:
            told = int((Path(folder) / "step").read_text(encoding="utf-8"))

    def tell(report: dict[str, Any]) -> None:
        if not pauses:
            tune.report({**report, "node": node})
            return
        # a trial that its scheduler paused must not report a step again
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "step").write_text(str(report["step"]), encoding="utf-8")
            tune.report({**report, "node": node}, checkpoint=tune.Checkpoint.from_directory(folder))

    worker.run_group(group, task, tell, settled=settled.get(group.name), told=told)


def _directory_name(trial: Any) -> str:
    return str(trial.trial_id)
