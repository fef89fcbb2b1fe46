"""Groups on Ray Tune: scheduling, resources and workers are Ray's, the results are our run folders.

Ray's own state is deleted at the end. Its snapshots are seconds old when a search is killed, cannot be extended, and
are pickles. What is finished stands in the run folders instead, and what was chosen or stopped in the journal.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hebb import builtin
from hebb.config.vocabulary import Scheduler
from hebb.core.errors import HebbError
from hebb.core.interrupts import terminated_as_interrupted
from hebb.storage.journal import Event
from hebb.tuning import ray_session, work
from hebb.tuning.observer import Cause, Outcome, SearchObserver, TrialReport
from hebb.tuning.promotion import OnDemand, Promotion
from hebb.tuning.ray_session import RayTrial, Resources, ray, tune
from hebb.tuning.search import Group, Search
from hebb.tuning.searchers import of_search, scheduler
from hebb.tuning.suggestions import SCORE, plain
from hebb.tuning.trials import broken
from hebb.tuning.work import GroupMaker, Ledger, Readable, Work

if TYPE_CHECKING:
    from hebb.tuning.worker import Task


def run(stage: Work, resources: Resources, observer: SearchObserver) -> Outcome:
    """Run what is not finished, inside a session of Ray, and return when nothing goes on."""
    return work.run(stage, ray_session.places(resources), observer, lambda ledger: _fit(stage, resources, ledger))


def _fit(work: Work, resources: Resources, ledger: Ledger) -> None:
    """Let Ray Tune run the groups, and tell the ledger of them."""
    verdicts, listed = work.verdicts(), {group.name: group for group in work.listed()}
    callback = _Callback(ledger)
    pauses = work.judged and work.search.spec.scheduler.name.pauses
    algorithms = _algorithms(work, list(listed), ray_session.places(resources))
    if work.groups is None and work.study is not None:
        ledger.observer.noted([work.study.note()])
    function = tune.with_parameters(
        _run_trial, task=work.task, groups=listed, maker=work.maker, verdicts=verdicts, pauses=pauses
    )
    needs = {"cpu": resources.cpus, "gpu": resources.gpu}
    with _storage(work.search, resources) as storage:
        tuner = tune.Tuner(
            tune.with_resources(function, {name: amount for name, amount in needs.items() if amount}),
            param_space={} if "search_alg" in algorithms else {"group": tune.grid_search(list(listed))},
            tune_config=tune.TuneConfig(
                metric=SCORE,
                mode=work.search.mode.value,
                reuse_actors=True,
                trial_dirname_creator=_directory_name,
                **algorithms,
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
        with (
            contextlib.redirect_stdout(io.StringIO()),
            terminated_as_interrupted(),
            _closed(algorithms.get("search_alg"), ledger.observer),
            contextlib.suppress(_EndError),
        ):
            tuner.fit()


@contextlib.contextmanager
def _closed(searcher: Any, observer: SearchObserver) -> Iterator[None]:
    """Let a searcher whose study is kept mark what did not end, however the stage ended.

    A storage that fails now has had every result: the table, the winner and the report do not wait for it.
    """
    inner = getattr(searcher, "inner", searcher)
    try:
        yield
    finally:
        if hasattr(inner, "close"):
            try:
                inner.close()
            except HebbError as error:
                observer.noted([f"note: {error}"])


def _algorithms(work: Work, listed: list[str], places: int) -> dict[str, Any]:
    """Return the arguments of ``TuneConfig`` for Ray's searcher and scheduler, and for how many trials run at once."""
    spec, arguments = work.search.spec, dict[str, Any](max_concurrent_trials=places)
    if work.groups is None:
        earlier = [parameters for _, parameters in work.journal.suggested]
        attributes = None if work.study is None or work.maker is None else Readable(work.maker)
        searcher = of_search(work.search, earlier, work.study, attributes)
        arguments |= {"search_alg": searcher, "num_samples": work.samples()}
    if work.judged and spec.scheduler.name == Scheduler.ASHA_PROMOTION:
        total = arguments.get("num_samples", len(listed))
        promotion = Promotion(spec.scheduler, work.last_step(), work.search.mode, places, total, len(work.search.seeds))
        demand = OnDemand(promotion, arguments.get("search_alg", listed))
        return {"scheduler": promotion, "search_alg": demand, "num_samples": total}
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


class _EndError(Exception):
    """Ends a stage from a callback; Ray then stops its trials."""


class _Callback(tune.Callback):
    """Passes Ray's events on to the ledger, and ends the search when it has to."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.journal, self.maker = ledger, ledger.work.journal, ledger.work.maker
        self.groups = {group.name: group for group in ledger.work.groups or ()}
        self._by_trial: dict[str, Group] = {}
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
        if self.ledger.late:
            self.ledger.cause = self.ledger.cause or Cause.TIME
        if self.ledger.cause:
            raise _EndError

    def on_trial_start(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: object) -> None:
        new = trial.trial_id not in self._by_trial
        group = self._group(trial)
        if self.maker is not None and new:
            self._times[group.name] += 1
            if self._times[group.name] > sum(name == group.name for name, _ in self.journal.suggested):
                self.journal.note(Event.CHOSEN, group.name, params=plain(trial.config), choice=group.choice)
        self.ledger.begun(group)

    def on_trial_result(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, result: TrialReport, **info: object
    ) -> None:
        self.ledger.reported(self._group(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: object) -> None:
        ray_session.forget_metrics(trial)
        self.ledger.completed(self._group(trial))

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: object) -> None:
        self.ledger.errored(self._group(trial), ray_session.reason(ray_session.error_of(trial)))


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
        reason = "" if maker is None else broken(maker.search, group.runs[0])
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
