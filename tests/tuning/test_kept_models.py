"""Which models a search keeps, as its runs end in one order or another; no run is trained.

Without it a search could keep the model of a configuration that lost, or none.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import small

from hebb.config import catalog, search_space
from hebb.config.vocabulary import Goal
from hebb.storage import folders
from hebb.tuning import results, trials
from hebb.tuning.kept_models import KeptModels
from hebb.tuning.search import Search, Trial

RATES, SEEDS = (0.05, 0.1, 0.2), (0, 1)
ACCURACIES = {0.05: (90.0, 92.0), 0.1: (95.0, 93.0), 0.2: (93.0, 95.0)}
"""The means are 91, 94 and 94: the second wins where more is better, the first where less is."""


def planned(folder: Path, mode: Goal = Goal.MAX) -> Search:
    data = {"description": "a test", "purpose": "sweep", "seeds": list(SEEDS)}
    spec = search_space.parse({**data, "space": {"b0.layer.lr": {"grid": list(RATES)}}}, "rates", "test")
    search = Search(spec=spec, base=small.config(small.CNN), seeds=SEEDS, metric="test_acc", mode=mode, folder=folder)
    return trials.planned(search, catalog.load())


def finish(trial: Trial, *, scored: bool = True) -> None:
    """Store a result and a model, as a run that ends does."""
    accuracy = ACCURACIES[float(str(trial.choice["b0.layer.lr"]))][SEEDS.index(trial.config.seed)]
    (trial.folder / "checkpoint").mkdir(parents=True)
    (trial.folder / folders.CHECKPOINT).write_bytes(b"weights")
    folders.write_json(trial.folder / folders.CONFIG, {})
    (trial.folder / folders.METRICS).write_text("")
    metrics = dict.fromkeys(results.METRIC_COLUMNS) | {"test_acc": accuracy if scored else None}
    folders.write_json(trial.folder / folders.RESULT, {"metrics": metrics, "seconds": 1.0})


def kept(search: Search) -> list[tuple[object, int]]:
    """Return rate and seed of the runs that have a model."""
    stored = [trial for trial in search.trials if (trial.folder / folders.CHECKPOINT).exists()]
    return [(trial.choice["b0.layer.lr"], trial.config.seed) for trial in stored]


@pytest.mark.parametrize("order", list(itertools.permutations(range(6)))[::37])
def test_the_best_in_every_order(order: tuple[int, ...], tmp_path: Path) -> None:
    """Also where two are equal, and at most the best one and unfinished ones are on the disk at any time."""
    search = planned(tmp_path)
    models = KeptModels(search)
    models.begun(search.trials)
    ended = set()
    for i in order:
        finish(search.trials[i])
        ended.add(i)
        models.ended([search.trials[i]])
        unfinished = sum({2 * c, 2 * c + 1} & ended != {2 * c, 2 * c + 1} for c in range(3))
        assert len(kept(search)) <= 2 + unfinished
    assert kept(search) == [(0.1, 0), (0.1, 1)]


def test_least_is_best(tmp_path: Path) -> None:
    search = planned(tmp_path, Goal.MIN)
    models = KeptModels(search)
    models.begun(search.trials)
    for trial in search.trials:
        finish(trial)
        models.ended([trial])
    assert kept(search) == [(0.05, 0), (0.05, 1)]


def test_a_search_that_goes_on(tmp_path: Path) -> None:
    """It judges anew what it finds; a run that is not finished keeps its checkpoint; a lone seed may still win."""
    search = planned(tmp_path)
    for trial in search.trials[:5]:
        finish(trial)
    (search.trials[5].folder / "checkpoint").mkdir(parents=True)
    (search.trials[5].folder / folders.CHECKPOINT).write_bytes(b"half of it")
    models = KeptModels(search)
    models.begun(search.trials)
    for trial in search.trials:
        models.ended([trial])
    assert kept(search) == [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]
    models.settle(search.trials[2].configuration)  # over with a failure, as its checkpoint says
    assert kept(search) == [(0.1, 0), (0.1, 1), (0.2, 1)]


def test_what_a_scheduler_stopped_and_what_has_no_score(tmp_path: Path) -> None:
    search = planned(tmp_path)
    models = KeptModels(search)
    models.begun(search.trials)
    finish(search.trials[0])
    (search.trials[1].folder / "checkpoint").mkdir(parents=True)
    (search.trials[1].folder / folders.CHECKPOINT).write_bytes(b"half of it, which nothing reads again")
    models.ended(search.trials[:2], stopped=True)
    assert kept(search) == []
    for trial in search.trials[2:4]:
        finish(trial, scored=trial.config.seed == 0)
    models.ended(search.trials[2:4])
    for trial in search.trials[4:]:
        finish(trial)
    models.ended(search.trials[4:])
    assert kept(search) == [(0.2, 0), (0.2, 1)]
