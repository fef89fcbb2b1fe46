"""A search from its first trial to its last table; a ``purpose: search`` names its winner and trains it again."""

from __future__ import annotations

import contextlib
import math
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from rich.console import Console

from hebb.cli import describe
from hebb.cli.search_display import SearchDisplay
from hebb.config.catalog import Catalog
from hebb.core.errors import HebbError, InterruptedRunError
from hebb.storage import folders
from hebb.tuning import ray_session, search_folder, shared_data, tune
from hebb.tuning import results as table
from hebb.tuning import trials as trial_list
from hebb.tuning.ray_session import Resources
from hebb.tuning.search_folder import Journal
from hebb.tuning.trials import Group, Search, Trial
from hebb.tuning.tune import Limits, Outcome, Work
from hebb.tuning.worker import Task

_CLOSED = ("test_loss", "test_acc")  # columns that a search, which selects on validation, does not show


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What the stages of a search share.

    Attributes:
        search: the search.
        task: what its trials share.
        resources: what a trial takes.
        limits: when to give up.
        journal: what became of its configurations.
        known: presets and datasets.
        console: where tables go.
    """

    search: Search
    task: Task
    resources: Resources
    limits: Limits
    journal: Journal
    known: Catalog
    console: Console


def run(
    search: Search,
    task: Task,
    resources: Resources,
    limits: Limits,
    known: Catalog,
    *,
    options: Mapping[str, Any],
    fresh: bool,
) -> bool:
    """Run a search to its end and print its tables; tell whether every trial finished.

    Args:
        search: the search.
        task: what its trials share, but for the data.
        resources: what a trial takes.
        limits: when to give up.
        known: presets and datasets.
        options: flags that a continued search keeps.
        fresh: whether to begin, in place of what the folder holds; if not, the search in it is continued.
    """
    configs = [trial.config for trial in search.trials] or [search.base]
    # read, or download, once before any trial does
    data = shared_data.read(shared_data.specs(configs), task.place["datasets"], task.place["cache"])
    with ray_session.session(resources, shared_data.size(data)), _claimed(search, options, fresh):
        stages = Stages(
            search=search,
            task=replace(
                task,
                place={
                    **task.place,
                    "load": shared_data.Shared(data),
                    "trials": ray_session.places(resources, on_one=True),
                },
            ),
            resources=resources,
            limits=limits,
            journal=Journal.load(search.folder),
            known=known,
            console=describe.console(),
        )
        del data
        stages.console.print(
            f"{search.runs} trials of {search.base.network.name}, {resources.cpus} thread(s) each on "
            f"{search.base.device}; in {search.folder}",
            soft_wrap=True,
        )
        return _sweep(stages) if search.spec.purpose == "sweep" else _select(stages)


@contextlib.contextmanager
def _claimed(search: Search, options: Mapping[str, Any], fresh: bool) -> Iterator[None]:
    """Make or take over the folder of a search, which no other process may run at the same time."""
    busy = "this search is being run by another process"
    locks = search.folder / search_folder.LOCKS
    if fresh:
        with search_folder.held(locks / search_folder.SEARCH, busy) if locks.exists() else contextlib.nullcontext():
            search_folder.claim(search, options)
    with search_folder.held(locks / search_folder.SEARCH, busy):
        if not fresh:
            search_folder.write(search, options)
        yield
        shutil.rmtree(locks, ignore_errors=True)


def _sweep(stages: Stages) -> bool:
    """Report every configuration, in the order of the search config."""
    stages, outcome = _search(stages)
    search = stages.search
    found = table.results(search.trials, search.metric, stages.journal)
    if len(found):
        stages.console.print(table.show(table.summary(found, search.metric), search.metric))
        _say_where(stages, table.write(found, search.folder / "results.csv"))
    return _all_finished(stages, outcome)


def _select(stages: Stages) -> bool:
    """Rank the configurations on the metric, name the best, and train it again on all training images."""
    stages, outcome = _search(stages)
    search = stages.search
    found = table.results(search.trials, search.metric, stages.journal)
    if not len(found):
        return _all_finished(stages, outcome)
    ranking = table.ranked(table.summary(found, search.metric), search.mode)
    if len(ranking):
        stages.console.print(table.show(ranking, search.metric))
    _show_stopped(stages)
    shown = found if search.metric in _CLOSED else found.drop(columns=list(_CLOSED))
    _say_where(stages, table.write(shown, search.folder / "results.csv"))
    ended_well = _all_finished(stages, outcome)
    best = table.winner(search, ranking)
    if best is None:
        stages.console.print(f"no winner: no configuration has a finite {search.metric} on every seed")
        return False
    record = _name_winner(stages, best, ranking)
    if search.final_seeds:
        ended_well = _retrain(stages, best, record) and ended_well
    folders.write_json(search.folder / "winner.json", record)
    return ended_well


def _name_winner(stages: Stages, best: Trial, ranking: pd.DataFrame) -> dict[str, Any]:
    """Print the winner, ready to paste, and return the content of ``winner.json``."""
    search, network = stages.search, trial_list.network_string(best, stages.known)
    stages.console.print(f"winner: {best.label}", soft_wrap=True)
    words = ["--preset", shlex.quote(network)]
    others = trial_list.other_changes(best.choice)
    words += ["--set", *map(shlex.quote, others)] if others else []
    stages.console.print(f"its network: {' '.join(words)}", soft_wrap=True)
    line = ranking[ranking["configuration"] == best.label].iloc[0]
    return {
        "configuration": best.choice,
        "network": network,
        "selected_by": search.metric,
        "among": len(search.trials) // len(search.seeds),
        "selection": _numbers(line),
    }


def _retrain(stages: Stages, best: Trial, record: dict[str, Any]) -> bool:
    """Train the winner on all training images with fresh seeds and report its test accuracy, once."""
    search = stages.search
    packs = trial_list.packed(search.final_seeds, search.pack_seeds)
    trials = trial_list.retrained(best, search.final_seeds, packs)
    images = trials[0].config.dataset_sup.train_samples()
    seeds = " ".join(map(str, search.final_seeds))
    stages.console.print(f"training the winner on all {images:,} training images, seeds {seeds}")
    last = replace(stages, task=replace(stages.task, metric="train_acc", mode="max", probe_every=0))
    outcome = _train(last, trial_list.groups(trials, together=False), Limits(failures=stages.limits.failures))
    found = table.results(trials, "test_acc", stages.journal)
    if len(found):
        summed = table.summary(found, "test_acc")
        stages.console.print(table.show(summed, "test_acc"))
        stages.console.print(f"results: {table.write(found, search.folder / 'final.csv')}", soft_wrap=True)
        record["final"] = {"seeds": list(search.final_seeds), "metric": "test_acc", **_numbers(summed.iloc[0])}
    return _all_finished(stages, outcome, trials)


def _search(stages: Stages) -> tuple[Stages, Outcome]:
    """Run the search itself; what a model-based algorithm chose is listed in the stages that come back."""
    search = stages.search
    if not search.spec.plan.model_based:
        return stages, _train(stages, search.groups(), stages.limits)
    outcome = _train(stages, None, stages.limits)
    trials = trial_list.chosen(search, stages.journal.chosen.values(), stages.known)
    return replace(stages, search=replace(search, trials=trials)), outcome


def _train(stages: Stages, groups: Sequence[Group] | None, limits: Limits) -> Outcome:
    """Run groups under a live table."""
    work = Work(
        search=stages.search,
        groups=None if groups is None else tuple(groups),
        task=stages.task,
        limits=limits,
        journal=stages.journal,
        known=stages.known,
    )
    display = SearchDisplay(work, stages.resources)
    try:
        return tune.run(work, stages.resources, display)
    finally:
        display.close()


def _show_stopped(stages: Stages) -> None:
    """Print what the scheduler stopped, and when."""
    labels = {trial_list.configuration_name(trial): trial.label for trial in stages.search.trials}
    stopped = {name: entry for name, entry in stages.journal.stopped.items() if name in labels}
    if stopped:
        stages.console.print(table.show_stopped(stopped, labels, stages.search))


def _all_finished(stages: Stages, outcome: Outcome, final: Sequence[Trial] = ()) -> bool:
    """Print why trials failed and what is left; an interruption ends the search here."""
    search = stages.search
    for trial, reason in outcome.failed.items():
        stages.console.print(f"failed: {trial}: {reason}", soft_wrap=True)
    trials = final or search.trials
    total = len(trials) if final else search.runs
    done = sum(folders.state(trial.folder) == "finished" for trial in trials)
    way = f"python ray_search.py --restore {shlex.quote(str(search.folder))} continues"
    if outcome.cause in ("interrupted", "full"):
        text = f"{done} of {total} trials are finished, their results are in {search.folder}\n{way}"
        if outcome.cause == "full":
            raise HebbError(f"{outcome.problem}: {text}")
        raise InterruptedRunError(f"interrupted: {text}")
    if outcome.cause:
        budget = "time" if outcome.cause == "time" else "number of trials"
        stages.console.print(f"the {budget} is used up: {done} of {total} trials are finished", soft_wrap=True)
        stages.console.print(way, soft_wrap=True)
    return not outcome.failed


def _say_where(stages: Stages, results: Any) -> None:
    stages.console.print(f"results: {results}", soft_wrap=True)
    stages.console.print(f"compare: tensorboard --logdir {stages.search.folder / 'trials'}", soft_wrap=True)


def _numbers(line: pd.Series) -> dict[str, Any]:
    """Return n, mean, sd and half-width of the interval as JSON; null where one run has none."""
    spread = {name: None if math.isnan(line[name]) else float(line[name]) for name in ("mean", "sd", "interval")}
    return {"n": int(line["n"]), **spread}
