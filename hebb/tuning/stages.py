"""The stages of a search: its trials, its results and, for a ``purpose: search``, the winner and its final runs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from hebb.config.catalog import Catalog
from hebb.config.vocabulary import DeviceKind, Goal
from hebb.core import peak
from hebb.core.errors import ConfigError, DiskFullError, InterruptedRunError
from hebb.nn import model
from hebb.storage import board, checkpoints, folders
from hebb.storage.journal import Event, Journal
from hebb.training.train import Place
from hebb.tuning import (
    front,
    gains,
    job_array,
    launchers,
    results,
    search_folder,
    search_notes,
    shared_data,
    studies,
    trials,
    verdict,
)
from hebb.tuning.kept_models import KeptModels
from hebb.tuning.launchers import Runner, Session
from hebb.tuning.observer import Cause, FrontPoint, Outcome, Ranking, SearchObserver, Winner
from hebb.tuning.search import Group, Search, Trial, grouped
from hebb.tuning.search_settings import SearchSettings
from hebb.tuning.work import Limits, Work
from hebb.tuning.worker import Task


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    Attributes:
        search: the search, with the trials that a model-based algorithm chose.
        runs: a line for each run that is finished or was stopped, as in ``results.csv``.
        summary: a line for each configuration: n, mean, sd, half-width and ends of the 95 % interval, values, minutes;
            best first where the search names a winner.
        winner: the best configuration; None in a sweep, and where none has a finite score on every seed.
        points: by several metrics the configurations on the Pareto front, in the order of the summary.
        final: likewise a line for the runs of the winner, or of each point, on all training images; empty without them.
        failed: why groups failed, by name.
        complete: whether no trial is left to run; a budget may end a search before.
    """

    search: Search
    runs: pd.DataFrame
    summary: pd.DataFrame
    winner: Winner | None = None
    points: tuple[FrontPoint, ...] = ()
    final: pd.DataFrame = field(default_factory=pd.DataFrame)
    failed: dict[str, str] = field(default_factory=dict)
    complete: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether nothing failed, and there is a winner, or a front, if the search was to name one."""
        named = self.winner is not None or bool(self.points)
        return not self.failed and (named or not self.search.selects or not len(self.runs))


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the stages of a search share.

    Attributes:
        search: the search.
        task: what its trials share.
        session: what runs them.
        limits: when to give up.
        journal: what became of its configurations.
        catalog: presets and datasets.
        observer: follows the search.
        models: removes the models of configurations that are not the best; None keeps what the runs store.
        study: keeps the study of a model-based algorithm; None keeps it in memory.
    """

    search: Search
    task: Task
    session: Session
    limits: Limits
    journal: Journal
    catalog: Catalog
    observer: SearchObserver
    models: KeptModels | None = None
    study: studies.Study | None = None


def run(
    search: Search,
    settings: SearchSettings,
    catalog: Catalog,
    observer: SearchObserver | None = None,
    *,
    fresh: bool = True,
) -> SearchResult:
    """Run a search to its end.

    Args:
        search: the search.
        settings: how and where its trials run.
        catalog: presets and datasets.
        observer: follows the search.
        fresh: begin in place of what the folder holds; otherwise continue the search in it.

    Raises:
        InterruptedRunError: when Ctrl-C ends the search; its folder can be continued.
        DiskFullError: when a disk is full.
    """
    observer = SearchObserver() if observer is None else observer
    runner = launchers.of(settings)
    with runner.joined() as has_gpu:
        search = _on_device(search, settings, catalog, has_gpu)
        return _run(search, settings, catalog, observer, runner, fresh=fresh)


def _run(
    search: Search,
    settings: SearchSettings,
    catalog: Catalog,
    observer: SearchObserver,
    runner: Runner,
    *,
    fresh: bool,
) -> SearchResult:
    """Run a search whose device is settled."""
    configs = [trial.config for trial in search.trials] or [search.base]
    # read, or download, once before any trial does
    observer.preparing("reading the data")
    data = shared_data.read(shared_data.specs(configs), settings.home.datasets, settings.home.cache)
    notes = search_notes.of(search, fresh=fresh)
    study = studies.of_search(search, settings.storage)
    observer.preparing(runner.preparing)
    with runner.session(search, data) as session, _claimed(search, settings, fresh):
        context = Context(
            search=search,
            task=_task(search, settings, session),
            session=session,
            limits=Limits(time=search.spec.plan.time, trials=search.spec.plan.trials, failures=settings.max_failures),
            journal=Journal.load(search.folder),
            catalog=catalog,
            observer=observer,
            models=None if settings.save_models else KeptModels(search),
            study=study,
        )
        del data
        for name in tuple(context.journal.failed) if settings.retry_failed else ():
            context.journal.note(Event.AGAIN, name)
        observer.start(search)
        observer.noted(notes)
        result = _select(context) if search.selects else _sweep(context)
        complete = results.tally(result.search, result.search.trials, context.journal).complete
        if complete and context.journal.succeeded != result.succeeded:
            context.journal.note(Event.ENDED, "", succeeded=result.succeeded)
        return replace(result, complete=complete)


def _on_device(search: Search, settings: SearchSettings, catalog: Catalog, has_gpu: bool | None) -> Search:
    """Return the search on the device that its runs will use, with the digest of their initial weights.

    Args:
        search: the search.
        settings: how and where its trials run.
        catalog: presets and datasets.
        has_gpu: whether the cluster has a GPU, which the machine of this process may lack; None: it is this machine.
    """
    if search.base.device in (DeviceKind.MPS, DeviceKind.XPU):
        problem = f"Ray gives out no {search.base.device}, so all trials would share one GPU and its memory"
        raise ConfigError(
            "--device", problem, hint=f"train the runs one by one: hebb train --device {search.base.device}"
        )
    if has_gpu is None or search.base.device == DeviceKind.CPU:
        kind = DeviceKind(model.device_of(search.base, settings.gpu or 0).type)
    elif has_gpu:
        kind = DeviceKind.CUDA
    elif search.base.device == DeviceKind.AUTO:
        kind = DeviceKind.CPU
    else:
        hint = "give --gpu-id cpu, or leave it out"
        raise ConfigError("--gpu-id or --device", "no node of the cluster has a GPU", hint=hint)
    if "peak_memory" in search.beside and settings.address is None and not peak.can_follow(kind):
        problem = f"a process here cannot tell the peak of a trial on {kind} from those of the trials before it"
        raise ConfigError("peak_memory", problem, hint="Linux can, and CUDA")
    digest = None if search.resume_from is None else checkpoints.sha256(search.resume_from)
    base = replace(search.base, device=kind, resume_sha256=digest)
    return trials.planned(replace(search, base=base), catalog)


def _task(search: Search, settings: SearchSettings, session: Session) -> Task:
    """Return what all trials share."""
    home, memory = settings.home, "peak_memory" in search.beside
    own = memory or "seconds" in search.beside  # a trial that takes over blocks has not paid for them
    place = Place(
        datasets=home.datasets,
        layers=home.layers,
        cache=home.cache,
        shared_blocks=home.cache / "blocks" if settings.share_blocks and not own else None,
        give_back_memory=memory,
        keep_model=settings.save_models or settings.keep_best,
        resume_from=search.resume_from,
        keep_features=settings.keep_features,
        cache_limit=settings.cache_limit,
        load=session.load,
        trials=session.sharing,
        trials_on_gpu=settings.trials_per_gpu,
    )
    return Task(
        metric=search.metric, mode=search.mode, place=place, probe_every=search.probe_every, beside=search.beside
    )


@contextlib.contextmanager
def _claimed(search: Search, settings: SearchSettings, fresh: bool) -> Iterator[None]:
    """Make or take over the folder of a search, which one process at a time may run."""
    with search_folder.held(search.folder):
        job_array.check_left(search.folder, None if fresh else settings.launcher)
        if fresh:
            search_folder.claim(search, settings)
        else:
            search_folder.write(search, settings)
        board.renew(search.folder)
        yield
        search_folder.forget_trials(search.folder)


def _sweep(context: Context) -> SearchResult:
    """Compare every configuration, in the order of the search config."""
    context, outcome = _search(context)
    search = context.search
    runs, table, ranking = _tables(context, outcome)
    if len(runs):
        _show(context, runs, table)
    _sum_up(context, outcome, search.trials, search.runs)
    result = SearchResult(search=search, runs=runs, summary=table, failed=outcome.failed)
    if not search.several or not len(runs):
        return result
    points = _points(context, ranking)
    front.write(search, points, len(table))
    return replace(result, points=points)


def _select(context: Context) -> SearchResult:
    """Rank the configurations on the metric, name the best, and train it again on all training images."""
    context, outcome = _search(context)
    search = context.search
    runs, _, ranking = _tables(context, outcome)
    if not len(runs):
        _sum_up(context, outcome, search.trials, search.runs)
        return SearchResult(search=search, runs=runs, summary=runs, failed=outcome.failed)
    shown = runs if search.metric in results.TEST_COLUMNS else runs.drop(columns=list(results.TEST_COLUMNS))
    _show(context, shown, ranking, stopped=_stopped(context))
    _sum_up(context, outcome, search.trials, search.runs)
    result = SearchResult(search=search, runs=shown, summary=ranking, failed=outcome.failed)
    return _of_front(context, result) if search.several else _of_winner(context, result, runs)


def _tables(context: Context, outcome: Outcome) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return a line for each run, and one for each configuration: in the order of the search config, and best first.

    Of the trained models those of the best configurations stay. Without a run every table is empty.
    """
    search = context.search
    runs = results.read(search.trials, search.metric, context.journal, search.beside)
    if not len(runs):
        return runs, runs, runs
    table = results.judged(results.summary(runs, search.metric, search.beside), search)
    ranking = results.ranked(table, search)
    _settle(context, outcome, ranking)
    return results.marked(runs, table), table, ranking


def _show(
    context: Context, runs: pd.DataFrame, table: pd.DataFrame, stopped: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Write ``results.csv``, and tell the observer."""
    search = context.search
    path = results.write(runs, search.folder / "results.csv")
    added = gains.table(search, runs)
    gains.write(added, search.folder)
    context.observer.ranked(
        Ranking(
            metric=search.metric,
            summary=table,
            path=path,
            stopped=stopped or {},
            beside=search.beside,
            left_out=search.left_out,
            gains=gains.sentences(added, search.metric),
        )
    )


def _of_front(context: Context, result: SearchResult) -> SearchResult:
    """Name the points of the front, and train them again on all training images."""
    search, among = context.search, len(result.summary)
    points = _points(context, result.summary)
    if not points:
        return result
    absent = sorted(set(search.final_points) - {point.number for point in points})
    if absent:
        context.observer.noted([front.absent(absent, [point.number for point in points])])
    records = {}
    again = [point for point in points if not search.final_points or point.number in search.final_points]
    if search.final_seeds and again:
        final, failed = _retrain(context, [point.trial for point in again], [point.trial for point in points])
        records = {str(line["configuration"]): _final_record(search, line) for _, line in final.iterrows()}
        result = replace(result, final=final, failed={**result.failed, **failed})
    front.write(search, points, among, records)
    return replace(result, points=points)


def _points(context: Context, ranking: pd.DataFrame) -> tuple[FrontPoint, ...]:
    """Return the configurations on the front, best by the first metric first, and tell the observer."""
    points = front.points(context.search, ranking, context.catalog)
    context.observer.fronted(points, context.search)
    return points


def _final_record(search: Search, line: pd.Series) -> dict[str, object]:
    return {"seeds": list(search.final_seeds), "metric": "test_acc", **_numbers(line)}


def _of_winner(context: Context, result: SearchResult, runs: pd.DataFrame) -> SearchResult:
    """Name the winner, and train it again on all training images; ``runs`` has the columns of the test, too."""
    search, table = context.search, result.summary
    winner = _winner(search, runs, table, context.catalog)
    context.observer.selected(winner)
    if winner is None:
        return result
    record = _record(context, winner, table)
    if search.final_seeds:
        final, failed = _retrain(context, [winner.trial], [winner.trial])
        if len(final):
            record["final"] = _final_record(search, final.iloc[0])
        result = replace(result, final=final, failed={**result.failed, **failed})
    folders.write_json(search.folder / "winner.json", record)
    return replace(result, winner=winner)


def _settle(context: Context, outcome: Outcome, ranking: pd.DataFrame) -> None:
    """Keep the models of the best configuration alone, once nothing is left that could be better."""
    if context.models is not None and outcome.cause == Cause.NOTHING_LEFT and len(ranking):
        labels = results.best(context.search, ranking) if context.search.several else []
        best = [results.trial_of(context.search, label) for label in labels or [str(ranking.iloc[0]["configuration"])]]
        context.models.settle(*(trial.configuration for trial in best))


def _winner(search: Search, runs: pd.DataFrame, ranking: pd.DataFrame, catalog: Catalog) -> Winner | None:
    labels = results.best(search, ranking)
    if not labels:
        return None
    best, *tied = (results.trial_of(search, label) for label in labels)
    changes = tuple(trials.other_changes(best.choice))
    return Winner(
        trial=best,
        network=trials.network_string(best, catalog),
        changes=changes,
        tied=tuple(tied),
        doubt=verdict.doubt(search, runs, ranking, labels),
    )


def _record(context: Context, winner: Winner, table: pd.DataFrame) -> dict[str, object]:
    """Return the content of ``winner.json``."""
    search = context.search
    line = table[table["configuration"] == winner.trial.label].iloc[0]
    return {
        "configuration": winner.trial.choice,
        "network": winner.network,
        "selected_by": search.metric,
        "among": len(search.trials) // len(search.seeds),
        "selection": _numbers(line),
        "tied_with": [trial.choice for trial in winner.tied],
    }


def _retrain(
    context: Context, best: Sequence[Trial], everything: Sequence[Trial]
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Train configurations on all training images with new seeds; return their test accuracy, and what failed.

    The accuracy is that of ``everything``: an earlier session may have trained other points of the front.
    """
    search = context.search
    final = trials.final_of(search, best)
    context.observer.retraining(final)
    task = replace(context.task, metric="train_acc", mode=Goal.MAX, probe_every=0, beside=())
    last = replace(context, task=task, models=None, limits=Limits(failures=context.limits.failures))
    outcome = _train(last, grouped(final, by_configuration=False))
    table = results.read(trials.final_of(search, everything), "test_acc", context.journal)
    if len(table):
        path = results.write(table, search.folder / "final.csv")
        table = results.summary(table, "test_acc")
        context.observer.ranked(Ranking(metric="test_acc", summary=table, path=path))
    _sum_up(context, outcome, final, len(final))
    return table, outcome.failed


def _search(context: Context) -> tuple[Context, Outcome]:
    """Run the search itself; the context that comes back lists what a model-based algorithm chose."""
    search = context.search
    outcome = _train(context, None if search.spec.plan.model_based else search.groups())
    return replace(context, search=trials.with_choices(search, context.journal, context.catalog)), outcome


def _train(context: Context, groups: Sequence[Group] | None) -> Outcome:
    work = Work(
        search=context.search,
        groups=None if groups is None else tuple(groups),
        task=context.task,
        limits=context.limits,
        journal=context.journal,
        catalog=context.catalog,
        models=context.models,
        study=context.study,
    )
    return context.session.run(work, context.observer)


def _stopped(context: Context) -> dict[str, dict[str, Any]]:
    """Return what the scheduler stopped, and when, by the label of the configuration."""
    labels = {trial.configuration: trial.label for trial in context.search.trials}
    return {labels[name]: entry for name, entry in context.journal.stopped.items() if name in labels}


def _sum_up(context: Context, outcome: Outcome, runs: Sequence[Trial], total: int) -> None:
    """Tell how a stage ended; an interruption or a full disk ends the search here."""
    outcome.tally = results.tally(context.search, runs, context.journal)
    outcome.warnings = results.warnings(runs)
    context.observer.summed_up(outcome, outcome.tally.finished, total)
    others = outcome.tally.others(context.search.spec.scheduler.name)
    text = f"{outcome.tally.finished} of {total} trials are finished, their results are in {context.search.folder}"
    text += f" ({others})" if outcome.tally.ended_early else ""
    if outcome.cause == Cause.DISK_FULL:
        raise DiskFullError(f"{outcome.problem}: {text}")
    if outcome.cause == Cause.INTERRUPTED:
        raise InterruptedRunError(f"interrupted: {text}")


def _numbers(line: pd.Series) -> dict[str, object]:
    """Return n, mean, sd, half-width and ends of the interval as JSON; null where there is none."""
    names = ("mean", "sd", "interval", "low", "high")
    spread = {name: None if math.isnan(line[name]) else float(line[name]) for name in names}
    return {"n": int(line["n"]), **spread}
