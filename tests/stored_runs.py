"""Runs on Digits as the commands store them, made once for all tests that read stored runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import small

from hebb.config import catalog, search_space
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import Goal
from hebb.storage import folders
from hebb.tuning import search_folder, trials
from hebb.tuning.search import Search
from hebb.tuning.search_settings import SearchSettings


def sweep(
    home: Path,
    name: str,
    base: RunConfig,
    axes: Mapping[str, Sequence[object]],
    seeds: Sequence[int],
    *,
    leave_out: int = 0,
) -> Path:
    """Run a grid over seeds below ``home``, one run after the other, and store it as a search; no Ray.

    Args:
        home: the parent folder.
        name: of the search.
        base: the run that the grid changes.
        axes: values by override path.
        seeds: the replicates.
        leave_out: the last runs that are planned and not made.
    """
    folder = folders.Home(home).search(name)
    data = {"description": "a test", "purpose": "sweep", "seeds": list(seeds)}
    spec = search_space.parse({**data, "space": {path: {"grid": list(v)} for path, v in axes.items()}}, name, "test")
    search = Search(
        spec=spec,
        base=base,
        seeds=tuple(seeds),
        metric="test_acc",
        mode=Goal.MAX,
        folder=folder,
    )
    search = trials.planned(search, catalog.load())
    search_folder.claim(search, SearchSettings(home=folders.Home(home)))
    for trial in search.trials[: len(search.trials) - leave_out]:
        small.run(replace(trial.config, device="cpu"), trial.folder, keep_model=False, give_back_memory=True)
    return folder


def single(home: Path, name: str, config: RunConfig) -> Path:
    """Run one configuration, as ``multi_layer.py`` stores it."""
    folder = folders.Home(home).network(name)
    small.run(config, folder)
    return folder
