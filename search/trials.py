"""A search config and a base run become trials: one per configuration and seed. Imports neither Ray nor torch."""

from __future__ import annotations

import contextlib
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from hebb import config_json, folders, grammar, overrides, plan, plugins, shapes
from hebb.catalog import Catalog
from hebb.config import DataSpec, RunConfig
from hebb.errors import ConfigError, within
from hebb.space import Choice, SearchSpec


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of a search.

    Attributes:
        name: ``<config hash>-s<seed>``, also the name of its folder.
        label: its configuration as a person reads it; no two configurations share one.
        choice: the values of the search space, by override path.
        config: the run.
        folder: its run folder.
    """

    name: str
    label: str
    choice: Choice
    config: RunConfig
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search, resolved and checked.

    Attributes:
        spec: the search config, with its blocks named.
        trials: one run per configuration and seed.
        metric: what configurations are compared by.
        mode: whether ``max`` or ``min`` of it is better.
        final_seeds: seeds with which the winner is trained again on all training images; none in a sweep.
        folder: where everything is stored.
        resume_from: checkpoint with the initial weights, if any.
    """

    spec: SearchSpec
    trials: tuple[Trial, ...]
    metric: str
    mode: str
    final_seeds: tuple[int, ...]
    folder: Path
    resume_from: Path | None = None


def labels(choices: list[Choice]) -> list[str]:
    """Write points of the space as ``path=value path=value``, with as many digits as tell them apart."""
    for digits in (4, 8, 17):
        found = [_label(choice, digits) for choice in choices]
        if len(set(found)) == len(found):
            break
    return found


def _label(choice: Choice, digits: int) -> str:
    words = (f"{path}={f'{v:.{digits}g}' if isinstance(v, float) else v}" for path, v in choice.items())
    return " ".join(words) or "(preset)"


def on_block(spec: SearchSpec, block: int | None, base: RunConfig) -> SearchSpec:
    """Put the block that is searched in place of ``bX``; ``block`` is that of ``--search-block``."""
    if not spec.has_placeholder():
        if block is not None:
            raise ConfigError(
                "--search-block",
                f"search config '{spec.name}' names its blocks itself",
                hint="it is for spaces with paths like bX.layer.lr",
            )
        return spec
    chosen = 0 if block is None else block
    blocks = base.network.blocks
    if not 0 <= chosen < len(blocks):
        raise ConfigError(
            "--search-block",
            f"block {chosen} does not exist; {base.network.name} has blocks 0 to {len(blocks) - 1}",
            choices=[str(i) for i in range(len(blocks))],
        )
    classifier = chosen == len(blocks) - 1 and blocks[chosen].supervised
    if classifier and "bX.activation" in spec.paths():
        raise ConfigError("--search-block", f"block {chosen} is the classifier: its outputs pass no activation")
    return spec.on_block(chosen)


def make(base: RunConfig, spec: SearchSpec, first_seed: int, folder: Path, known: Catalog) -> tuple[Trial, ...]:
    """List the trials, every configuration checked: its paths, its phases and its shapes.

    The seeds of a configuration are replicates: they share the configuration's values.
    """
    choices = spec.configurations()
    trials: list[Trial] = []
    seen: dict[str, str] = {}
    for choice, label in zip(choices, labels(choices), strict=True):
        chosen = overrides.apply(base, choice, known, where=f"search config '{spec.name}',")
        chosen = replace(chosen, plugins=plugins.of_run(chosen))
        with within(f"search config '{spec.name}', {label}") if choice else contextlib.nullcontext():
            plan.phases(chosen)
            shapes.of_run(chosen)
        name = config_json.digest(chosen, leave_out=("seed",))
        if name in seen:
            raise ConfigError(f"search config '{spec.name}'", f"{seen[name]} and {label} are the same run")
        seen[name] = label
        for seed in spec.seeds:
            run = replace(chosen, seed=first_seed + seed)
            trial = f"{name}-s{run.seed}"
            trials.append(Trial(name=trial, label=label, choice=choice, config=run, folder=folder / "trials" / trial))
    return tuple(trials)


def final_seeds(spec: SearchSpec, first_seed: int, count: int) -> tuple[int, ...]:
    """Return seeds with which no trial of the search ran."""
    start = first_seed + max(spec.seeds) + 1
    return tuple(range(start, start + count))


def retrained(winner: Trial, seeds: tuple[int, ...]) -> tuple[Trial, ...]:
    """List the winner's runs on all training images, one per seed, beside the trials of the search."""
    config = replace(
        winner.config,
        dataset_sup=_whole(winner.config.dataset_sup),
        dataset_unsup=_whole(winner.config.dataset_unsup),
    )
    made = []
    for seed in seeds:
        run = replace(config, seed=seed)
        name = f"final-{config_json.digest(run, leave_out=('seed',))}-s{seed}"
        folder = winner.folder.with_name(name)
        made.append(Trial(name=name, label=winner.label, choice=winner.choice, config=run, folder=folder))
    return tuple(made)


def _whole(data: DataSpec) -> DataSpec:
    return replace(data, validation=0.0)


def check_free(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that holds something else, or a search that ``--overwrite`` is not to replace."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / "search.json").exists():
        raise ConfigError(
            str(folder), "is not the folder of a search and is not empty", hint="choose another --folder-name"
        )
    if not overwrite:
        raise ConfigError(
            str(folder), "holds a search already", hint="--overwrite replaces it; another --folder-name keeps both"
        )


def claim(search: Search) -> None:
    """Make the folder of a search, in place of an earlier one, and write down what it holds."""
    if search.folder.exists():
        shutil.rmtree(search.folder)
    search.folder.mkdir(parents=True)
    folders.write_json(
        search.folder / "search.json",
        {
            "config": search.spec.name,
            "purpose": search.spec.purpose,
            "metric": search.metric,
            "trials": [{"name": t.name, "seed": t.config.seed, "choice": t.choice} for t in search.trials],
        },
    )


def network_string(trial: Trial, known: Catalog) -> str:
    """Return the network of a trial as a string to paste after ``--preset``."""
    return grammar.format_network(trial.config.network, known.defaults)


def other_changes(choice: Choice) -> list[str]:
    """Return what a choice changes outside the network, as words for ``--set``."""
    return [f"{path}={value}" for path, value in choice.items() if not re.match(r"b(-?\d+|\*)\.", path)]
