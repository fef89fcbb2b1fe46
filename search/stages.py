"""A search from its first trial to its last table; a ``purpose: search`` names its winner and trains it again."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import Console

from cli import describe
from hebb import folders
from hebb.catalog import Catalog
from hebb.errors import InterruptedRunError
from search import table, tuning
from search import trials as trial_list
from search.display import SearchDisplay
from search.trials import Search, Trial

_CLOSED = ("test_loss", "test_acc")  # columns that a search, which selects on validation, does not show


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What the stages of a search share.

    Attributes:
        search: the search.
        place: keyword arguments of ``train.Place`` beside the folder.
        resources: what a trial takes.
        console: where tables go.
    """

    search: Search
    place: dict[str, Any]
    resources: tuning.Resources
    console: Console


def run(search: Search, place: dict[str, Any], resources: tuning.Resources, known: Catalog) -> bool:
    """Run a search to its end and print its tables; tell whether every trial finished."""
    stages = Stages(search=search, place=place, resources=resources, console=describe.console())
    with tuning.session(resources):
        trial_list.claim(search)
        first = search.trials[0].config
        stages.console.print(
            f"{len(search.trials)} trials of {first.network.name}, {resources.cpus} thread(s) each on {first.device}; "
            f"in {search.folder}",
            soft_wrap=True,
        )
        if search.spec.purpose == "sweep":
            return _sweep(stages)
        return _select(stages, known)


def _sweep(stages: Stages) -> bool:
    """Report every configuration, in the order of the search config."""
    search = stages.search
    outcome = _train(stages, search.trials, search.metric, "tune")
    found = table.results(search.trials, search.metric)
    if len(found):
        stages.console.print(table.show(table.summary(found, search.metric), search.metric))
        _say_where(stages, table.write(found, search.folder / "results.csv"))
    return _all_finished(stages, outcome, search.trials, len(found))


def _select(stages: Stages, known: Catalog) -> bool:
    """Rank the configurations on the metric, name the best, and train it again on all training images."""
    search = stages.search
    outcome = _train(stages, search.trials, search.metric, "tune")
    found = table.results(search.trials, search.metric)
    if not len(found):
        return _all_finished(stages, outcome, search.trials, 0)
    ranking = table.ranked(table.summary(found, search.metric), search.mode)
    stages.console.print(table.show(ranking, search.metric))
    shown = found if search.metric in _CLOSED else found.drop(columns=list(_CLOSED))
    _say_where(stages, table.write(shown, search.folder / "results.csv"))
    finished = _all_finished(stages, outcome, search.trials, len(found))
    best = table.winner(search, ranking)
    if best is None:
        stages.console.print(f"no winner: no configuration has a finite {search.metric} on every seed")
        return False
    record = _name_winner(stages, best, ranking, known)
    if search.final_seeds:
        finished = _retrain(stages, best, record) and finished
    folders.write_json(search.folder / "winner.json", record)
    return finished


def _name_winner(stages: Stages, best: Trial, ranking: pd.DataFrame, known: Catalog) -> dict[str, Any]:
    """Print the winner, ready to paste, and return the content of ``winner.json``."""
    search, network = stages.search, trial_list.network_string(best, known)
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
        "among": len(search.trials) // len(search.spec.seeds),
        "selection": _numbers(line),
    }


def _retrain(stages: Stages, best: Trial, record: dict[str, Any]) -> bool:
    """Train the winner on all training images with fresh seeds and report its test accuracy, once."""
    search = stages.search
    trials = trial_list.retrained(best, search.final_seeds)
    images = trials[0].config.dataset_sup.train_samples()
    seeds = " ".join(map(str, search.final_seeds))
    stages.console.print(f"training the winner on all {images:,} training images, seeds {seeds}")
    outcome = _train(stages, trials, "train_acc", "final")
    found = table.results(trials, "test_acc")
    if len(found):
        summed = table.summary(found, "test_acc")
        stages.console.print(table.show(summed, "test_acc"))
        stages.console.print(f"results: {table.write(found, search.folder / 'final.csv')}", soft_wrap=True)
        record["final"] = {"seeds": list(search.final_seeds), "metric": "test_acc", **_numbers(summed.iloc[0])}
    return _all_finished(stages, outcome, trials, len(found))


def _train(stages: Stages, trials: Sequence[Trial], metric: str, name: str) -> tuning.Outcome:
    """Run trials under a live line that shows ``metric``."""
    display = SearchDisplay(trials, metric)
    storage = stages.search.folder / "ray" / name
    try:
        return tuning.run(trials, stages.place, metric, stages.resources, storage, display)
    finally:
        display.close()


def _all_finished(stages: Stages, outcome: tuning.Outcome, trials: Sequence[Trial], finished: int) -> bool:
    """Print why trials failed; an interruption ends the search here."""
    for trial, reason in outcome.failed.items():
        stages.console.print(f"failed: {trial}: {reason}", soft_wrap=True)
    if outcome.interrupted:
        raise InterruptedRunError(
            f"interrupted: {finished} of {len(trials)} trials are finished, their results are in {stages.search.folder}"
        )
    return not outcome.failed and finished == len(trials)


def _say_where(stages: Stages, results: Any) -> None:
    stages.console.print(f"results: {results}", soft_wrap=True)
    stages.console.print(f"compare: tensorboard --logdir {stages.search.folder / 'trials'}", soft_wrap=True)


def _numbers(line: pd.Series) -> dict[str, Any]:
    """Return n, mean, sd and half-width of the interval as JSON; null where one run has none."""
    spread = {name: None if math.isnan(line[name]) else float(line[name]) for name in ("mean", "sd", "interval")}
    return {"n": int(line["n"]), **spread}
