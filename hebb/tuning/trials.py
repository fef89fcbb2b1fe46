"""A search config and a base run become trials: one per configuration and seed. Imports neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from hebb.config import catalog as catalogs
from hebb.config import controls, costs, grammar, overrides, plan, plugins, serialise, shapes
from hebb.config.catalog import Catalog
from hebb.config.classifier import ClassifierSpec, StopSpec
from hebb.config.data_spec import DataSpec
from hebb.config.domains import Axis, Choice, label, labels
from hebb.config.search_space import SearchSpec
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import Control
from hebb.core import documents
from hebb.core.errors import ConfigError, within
from hebb.storage import folders, run_names
from hebb.storage.journal import Journal
from hebb.tuning.search import Packs, Search, Trial, packs_of


def on_block(spec: SearchSpec, block: int | None, base: RunConfig) -> SearchSpec:
    """Put the searched block in place of ``bX``; ``block`` is that of ``--search-block``."""
    if not spec.has_placeholder():
        if block is not None:
            raise ConfigError(
                "--search-block",
                f"search config '{spec.name}' names its blocks itself",
                hint="it is for spaces with paths like bX.layer.lr",
            )
        return spec
    index, blocks = 0 if block is None else block, base.network.blocks
    if not 0 <= index < len(blocks):
        raise ConfigError(
            "--search-block",
            f"must be a block of {base.network.name}, which has blocks 0 to {len(blocks) - 1}, got {index}",
            choices=[str(i) for i in range(len(blocks))],
        )
    classifier = index == len(blocks) - 1 and blocks[index].supervised
    if classifier and "bX.activation" in spec.paths():
        raise ConfigError("--search-block", f"block {index} is the classifier, whose outputs do not pass an activation")
    return spec.on_block(index)


def planned(search: Search, catalog: Catalog) -> Search:
    """Return the search with its trials, after checking the paths, phases and shapes of every configuration.

    The seeds of a configuration are replicates: they share its values. Where a model-based algorithm will choose the
    points, there is nothing to list yet, and the ends of every domain are checked instead.
    """
    spec = search.spec
    if spec.plan.model_based:
        for choice in _corners(spec.axes):
            _with_seed(configured(search, choice, catalog), search.seeds[0], search.packs)
        return replace(search, trials=())
    search = at_points(search, spec.configurations(), catalog)
    if search.left_out and not search.trials:
        name, reason = next(iter(search.left_out.items()))
        raise ConfigError("--constraint", f"leaves no configuration: {name or 'the only one'} has {reason}")
    _check_distinct(search)
    return search


def at_points(search: Search, choices: Iterable[Choice], catalog: Catalog) -> Search:
    """Return the search with its runs at the given points of the space, but for points that break a static bound."""
    everything = trials_at(search, choices, catalog)
    reasons = {trial.label: broken(search, trial) for trial in everything[:: len(search.seeds)]}
    kept = tuple(trial for trial in everything if not reasons[trial.label])
    return replace(search, trials=kept, left_out={name: reason for name, reason in reasons.items() if reason})


def with_choices(search: Search, journal: Journal, catalog: Catalog) -> Search:
    """Return the search with its runs at the points that a model-based algorithm has chosen; another one as it is."""
    if not search.spec.plan.model_based:
        return search
    return at_points(search, journal.chosen.values(), catalog)


def broken(search: Search, trial: Trial) -> str:
    """Say which bound a configuration breaks before it is trained; empty where it keeps all of them, or has a fault."""
    bounds = [] if trial.fault else [bound for bound in search.constraints if bound.static]
    costs_of_run = costs.static(trial.config) if bounds else {}
    parts = [
        f"{bound.metric} {costs_of_run[bound.metric]:,}, must be {bound.comparison} {bound.bound:,.12g}"
        for bound in bounds
        if not bound.holds(costs_of_run[bound.metric])
    ]
    return "; ".join(parts)


def _check_distinct(search: Search) -> None:
    """Raise where two points of the space are the same run."""
    label_of: dict[str, str] = {}
    for trial in search.trials[:: len(search.seeds)]:
        if trial.configuration in label_of:
            problem = f"{label_of[trial.configuration]} and {trial.label} are the same run"
            rule = controls.PATH in trial.choice
            hint = "controls do not read the values of the rule: choose these first, then run one with controls"
            raise ConfigError(f"search config '{search.spec.name}'", problem, hint=hint if rule else None)
        label_of[trial.configuration] = trial.label


def configured(search: Search, choice: Choice, catalog: Catalog) -> RunConfig:
    """Return the run at a point of the space, after checking its phases and shapes."""
    where = f"search config '{search.spec.name}',"
    run = overrides.apply(search.base, choice, catalog, where=where)
    run = replace(run, plugins=plugins.of_run(run))
    if not choice:
        _check(run)
        return run
    with within(f"{where} {label(choice)}"):
        _check(run)
    return run


def _check(run: RunConfig) -> None:
    plan.phases(run)
    shapes.of_run(run)


def trials_at(search: Search, choices: Iterable[Choice], catalog: Catalog) -> tuple[Trial, ...]:
    """List the runs at the given points of the space, those of each point together."""
    points = list(choices)
    return tuple(
        trial
        for choice, text in zip(points, labels(points), strict=True)
        for trial in replicates(search, choice, text, catalog)
    )


def replicates(search: Search, choice: Choice, text: str, catalog: Catalog) -> list[Trial]:
    """Return the runs of one configuration, one per seed; ``text`` is its label.

    Where a model-based algorithm chose the point, a run that cannot be is one with a fault: the model learns of it, and
    the search goes on.
    """
    try:
        run, fault = configured(search, choice, catalog), ""
        configs = [_with_seed(run, seed, search.packs) for seed in search.seeds]
        name = serialise.digest(run, leave_out=("seed",))
    except ConfigError as error:
        if not search.spec.plan.model_based:
            raise
        fault = str(error)
        configs = [replace(search.base, seed=seed) for seed in search.seeds]
        name = serialise.digest_of(choice)
    return [
        Trial(
            name=run_names.of(name, config.seed),
            label=text,
            choice=choice,
            config=config,
            folder=search.folder / folders.TRIALS / run_names.of(name, config.seed),
            fault=fault,
        )
        for config in configs
    ]


def _with_seed(run: RunConfig, seed: int, packs: Packs) -> RunConfig:
    """Return the run of a seed, which may belong to a pack; raise where the run cannot be packed."""
    run = replace(run, seed=seed, pack=next((pack for pack in packs if seed in pack), ()))
    if run.pack:
        plan.phases(run)
    return run


def _corners(axes: tuple[Axis, ...]) -> Iterable[Choice]:
    """Yield points that check every domain: its ends, within the first branch in which it exists."""
    setters = {path: axis for axis in axes for path in axis.paths()}

    def branch(axis: Axis) -> Choice:
        choice: Choice = {}
        for path, values in axis.when:
            choice |= branch(setters[path])
            choice |= next(point for point in setters[path].options if point[path] in values)
        return choice

    for axis in axes:
        around = branch(axis)
        for point in axis.corners():
            yield {**around, **point}


def final_trials(winner: Trial, seeds: tuple[int, ...], packs: Packs = ()) -> tuple[Trial, ...]:
    """List the winner's runs on all training images, one per seed, beside the trials of the search."""
    config = replace(
        winner.config,
        dataset_sup=_whole(winner.config.dataset_sup),
        dataset_unsup=_whole(winner.config.dataset_unsup),
        pack=(),
    )
    trials = []
    for seed in seeds:
        run = _with_seed(config, seed, packs)
        name = run_names.of(serialise.digest(run, leave_out=("seed", "pack")), seed, final=True)
        folder = winner.folder.with_name(name)
        trials.append(Trial(name=name, label=winner.label, choice=winner.choice, config=run, folder=folder))
    return tuple(trials)


def final_of(search: Search, best: Iterable[Trial]) -> tuple[Trial, ...]:
    """List the runs on all training images of some configurations, given a trial of each."""
    packs = packs_of(search.final_seeds, search.pack_seeds)
    return tuple(trial for one in best for trial in final_trials(one, search.final_seeds, packs))


def _whole(data: DataSpec) -> DataSpec:
    return replace(data, validation=0.0)


def network_string(trial: Trial, catalog: Catalog) -> str:
    """Return the network of a trial as a string to paste after ``--preset``, with and without its preset file."""
    return grammar.format_network(trial.config.network, catalog.defaults, catalogs.load().defaults)


def other_changes(choice: Choice) -> list[str]:
    """Return what a choice changes outside the network, as words for ``--set``."""
    return as_words(outside_network(choice))


def as_words(values: Choice) -> list[str]:
    """Return values by path as words for ``--set``."""
    texts = {path: grammar.number(value) if isinstance(value, float) else value for path, value in values.items()}
    return [f"{path}={value}" for path, value in texts.items()]


def training_changes(base: Mapping[str, Any], choice: Choice) -> Choice:
    """Return what a configuration is trained with outside its network, where that is not the default.

    Args:
        base: the run of its search, as ``search.json`` has it; its optimiser and stopping rules may be changed ones.
        choice: the values of the configuration, which come on top.
    """
    changes: Choice = {}
    for name, kind in (("classifier", ClassifierSpec), ("stop", StopSpec)):
        values = documents.part(base, name)
        usual = asdict(kind())
        changes |= {f"{name}.{key}": values[key] for key in usual if key in values and values[key] != usual[key]}
    return {**changes, **outside_network(choice)}


def outside_network(choice: Choice) -> Choice:
    """Return what a choice changes outside the network.

    Of the controls only ``frozen`` is such a change; the others are networks.
    """
    outside = dict(choice)
    if outside.get(controls.PATH) != Control.FROZEN:
        outside.pop(controls.PATH, None)
    return {path: value for path, value in outside.items() if not overrides.of_network(path)}
