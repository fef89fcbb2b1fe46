"""A search config and a base run become trials: one per configuration and seed. Imports neither Ray nor torch."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hebb.config import grammar, overrides, plan, plugins, serialise, shapes
from hebb.config.catalog import Catalog
from hebb.config.domains import Axis, Choice
from hebb.config.search_space import SearchSpec
from hebb.config.specs import DataSpec, RunConfig
from hebb.core.errors import ConfigError, within

Packs = tuple[tuple[int, ...], ...]
"""Seeds that are trained together."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of a search.

    Attributes:
        name: ``<config hash>-s<seed>``, also the name of its folder.
        label: its configuration as a person reads it; no two listed configurations share one.
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
class Group:
    """What one worker runs, and what is judged and stopped as a whole: one run, or a configuration on its seeds.

    Attributes:
        name: the run's name, or the configuration's hash, with the seeds of a pack.
        runs: the runs, one after the other, or packed.
    """

    name: str
    runs: tuple[Trial, ...]

    def packs(self) -> list[tuple[Trial, ...]]:
        """List what is trained together: the members of a pack, or one run."""

        def shared(trial: Trial) -> tuple[object, ...]:
            return (configuration_name(trial), trial.config.pack) if trial.config.pack else (trial.name,)

        return [tuple(found) for _, found in itertools.groupby(self.runs, shared)]

    @property
    def label(self) -> str:
        """The configuration as a person reads it."""
        return self.runs[0].label

    @property
    def choice(self) -> Choice:
        """The values of the search space."""
        return self.runs[0].choice


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search, resolved and checked.

    Attributes:
        spec: the search config, with its blocks named.
        base: the run that the space changes.
        seeds: the replicates of every configuration.
        trials: one run per configuration and seed; none where a model-based algorithm is still to choose them.
        metric: what configurations are compared by.
        mode: whether ``max`` or ``min`` of it is better.
        final_seeds: seeds with which the winner is trained again on all training images; none in a sweep.
        folder: where everything is stored.
        resume_from: checkpoint with the initial weights, if any.
        pack_seeds: how many seeds of a configuration are trained together; 1 trains each by itself.
        packs: the seeds that are; others are trained by themselves.
    """

    spec: SearchSpec
    base: RunConfig
    seeds: tuple[int, ...]
    trials: tuple[Trial, ...]
    metric: str
    mode: str
    final_seeds: tuple[int, ...]
    folder: Path
    resume_from: Path | None = None
    pack_seeds: int = 1
    packs: Packs = ()

    @property
    def runs(self) -> int:
        """The number of runs, the winner's final ones not counted."""
        return self.spec.count() * len(self.seeds)

    def groups(self) -> list[Group]:
        """List what the workers run."""
        return groups(self.trials, together=self.spec.grouped)


def groups(trials: Iterable[Trial], *, together: bool) -> list[Group]:
    """Put the runs of a configuration together, or each pack and each other run by itself."""
    if not together:
        return [
            Group(name="+".join([runs[0].name, *(str(trial.config.seed) for trial in runs[1:])]), runs=runs)
            for runs in Group(name="", runs=tuple(trials)).packs()
        ]
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(configuration_name(trial), []).append(trial)
    return [Group(name=name, runs=tuple(runs)) for name, runs in found.items()]


def packed(seeds: Sequence[int], count: int) -> Packs:
    """Return the seeds in packs of ``count``; the last one may be smaller, and one that is left is by itself."""
    found = (tuple(seeds[i : i + count]) for i in range(0, len(seeds), count))
    return tuple(together for together in found if len(together) > 1)


def configuration_name(trial: Trial) -> str:
    """Return the part of a trial's name that its seeds share."""
    return trial.name.rpartition("-s")[0]


def labels(choices: list[Choice]) -> list[str]:
    """Write points of the space as ``path=value path=value``, with as many digits as tell them apart."""
    for digits in (4, 8, 17):
        found = [label(choice, digits) for choice in choices]
        if len(set(found)) == len(found):
            break
    return found


def label(choice: Choice, digits: int = 4) -> str:
    """Write a point of the space as ``path=value path=value``."""
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


def make(
    base: RunConfig, spec: SearchSpec, seeds: tuple[int, ...], folder: Path, known: Catalog, packs: Packs = ()
) -> tuple[Trial, ...]:
    """List the trials, every configuration checked: its paths, its phases and its shapes.

    The seeds of a configuration are replicates: they share the configuration's values. Where a model-based
    algorithm will choose the points, the ends of every domain are checked, and there is nothing to list.
    """
    if spec.plan.model_based:
        for choice in _corners(spec.axes):
            _with_seed(configured(base, choice, spec, known), seeds[0], packs)
        return ()
    choices = spec.configurations()
    trials: list[Trial] = []
    seen: dict[str, str] = {}
    for choice, words in zip(choices, labels(choices), strict=True):
        runs = runs_of(base, choice, words, spec, seeds, folder, known, packs)
        name = configuration_name(runs[0])
        if name in seen:
            raise ConfigError(f"search config '{spec.name}'", f"{seen[name]} and {words} are the same run")
        seen[name] = words
        trials += runs
    return tuple(trials)


def configured(base: RunConfig, choice: Choice, spec: SearchSpec, known: Catalog) -> RunConfig:
    """Return the run at a point of the space; its phases and shapes are checked."""
    made = overrides.apply(base, choice, known, where=f"search config '{spec.name}',")
    made = replace(made, plugins=plugins.of_run(made))
    if not choice:
        plan.phases(made)
        shapes.of_run(made)
        return made
    with within(f"search config '{spec.name}', {label(choice)}"):
        plan.phases(made)
        shapes.of_run(made)
    return made


def runs_of(
    base: RunConfig,
    choice: Choice,
    words: str,
    spec: SearchSpec,
    seeds: tuple[int, ...],
    folder: Path,
    known: Catalog,
    packs: Packs = (),
) -> list[Trial]:
    """Return the runs of one configuration, one a seed."""
    chosen = configured(base, choice, spec, known)
    name = serialise.digest(chosen, leave_out=("seed",))
    return [
        Trial(
            name=f"{name}-s{seed}",
            label=words,
            choice=choice,
            config=_with_seed(chosen, seed, packs),
            folder=folder / "trials" / f"{name}-s{seed}",
        )
        for seed in seeds
    ]


def chosen(search: Search, choices: Iterable[Choice], known: Catalog) -> tuple[Trial, ...]:
    """List the runs of configurations that a model-based algorithm chose."""
    points, spec = list(choices), search.spec
    return tuple(
        trial
        for choice, words in zip(points, labels(points), strict=True)
        for trial in runs_of(search.base, choice, words, spec, search.seeds, search.folder, known, search.packs)
    )


def _with_seed(chosen: RunConfig, seed: int, packs: Packs) -> RunConfig:
    """Return the run of a seed, which may be one of a pack; what cannot be packed is refused."""
    made = replace(chosen, seed=seed, pack=next((together for together in packs if seed in together), ()))
    if made.pack:
        plan.phases(made)
    return made


def _corners(axes: tuple[Axis, ...]) -> Iterable[Choice]:
    """Yield points by which each domain is checked: its ends, within the first branch in which it exists."""
    setters = {path: axis for axis in axes for path in axis.paths()}

    def context(axis: Axis) -> Choice:
        found: Choice = {}
        for path, values in axis.when:
            found |= context(setters[path])
            found |= next(point for point in setters[path].options if point[path] in values)
        return found

    for axis in axes:
        around = context(axis)
        for point in axis.corners():
            yield {**around, **point}


def final_seeds(seeds: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Return seeds with which no trial of the search ran."""
    start = max(seeds) + 1
    return tuple(range(start, start + count))


def retrained(winner: Trial, seeds: tuple[int, ...], packs: Packs = ()) -> tuple[Trial, ...]:
    """List the winner's runs on all training images, one per seed, beside the trials of the search."""
    config = replace(
        winner.config,
        dataset_sup=_whole(winner.config.dataset_sup),
        dataset_unsup=_whole(winner.config.dataset_unsup),
        pack=(),
    )
    made = []
    for seed in seeds:
        run = _with_seed(config, seed, packs)
        name = f"final-{serialise.digest(run, leave_out=('seed', 'pack'))}-s{seed}"
        folder = winner.folder.with_name(name)
        made.append(Trial(name=name, label=winner.label, choice=winner.choice, config=run, folder=folder))
    return tuple(made)


def _whole(data: DataSpec) -> DataSpec:
    return replace(data, validation=0.0)


def network_string(trial: Trial, known: Catalog) -> str:
    """Return the network of a trial as a string to paste after ``--preset``."""
    return grammar.format_network(trial.config.network, known.defaults)


def other_changes(choice: Choice) -> list[str]:
    """Return what a choice changes outside the network, as words for ``--set``."""
    return [f"{path}={value}" for path, value in choice.items() if not re.match(r"(b(-?\d+|\*)|settle)\.", path)]
