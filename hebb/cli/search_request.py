"""From flags to a search, every configuration of it checked; nothing is written. Imports neither Ray nor torch."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from hebb import builtin
from hebb.cli import arguments, search_flags
from hebb.config import catalog, domains, search_space
from hebb.config.catalog import Catalog
from hebb.config.specs import VALIDATION_SHARE, RunConfig
from hebb.core.errors import ConfigError
from hebb.core.threads import cores
from hebb.storage import folders
from hebb.tuning import search_folder, steps
from hebb.tuning import trials as trial_list
from hebb.tuning.trials import Search


def search(options: argparse.Namespace, known: Catalog) -> Search:
    """Return the search that the flags describe."""
    search_flags.check(options)
    spec = search_flags.spec(options)
    if options.final_seeds is not None and spec.purpose == "sweep":
        raise ConfigError("--final-seeds", f"search config '{spec.name}' is a sweep, which names no winner")
    home = folders.Home.find(options.data_dir)
    base = _base(options, spec, known)
    spec = trial_list.on_block(spec, options.search_block, base)
    name = f"{arguments.plain_name(base)}-{spec.name}" if options.folder_name is None else options.folder_name
    model_name = arguments.plain_name(base) if options.model_name is None else options.model_name
    base, resume_from = arguments.resumed(base, options.resume, home, model_name)
    metric, mode = _metric(options, spec, base)
    folder, seeds = home.search(name), tuple(options.seed + seed for seed in spec.seeds)
    packs = trial_list.packed(seeds, options.pack_seeds)
    final = 3 if options.final_seeds is None else options.final_seeds
    made = Search(
        spec=spec,
        base=base,
        seeds=seeds,
        trials=trial_list.make(base, spec, seeds, folder, known, packs),
        metric=metric,
        mode=mode,
        final_seeds=trial_list.final_seeds(seeds, final) if spec.purpose == "search" else (),
        folder=folder,
        resume_from=resume_from,
        pack_seeds=options.pack_seeds,
        packs=packs,
    )
    check_steps(made, options.probe_every)
    return made


def restored(options: argparse.Namespace) -> tuple[Search, Catalog, dict[str, Any]]:
    """Return the search in the folder of ``--restore``, what it knows, and the flags it was started with."""
    search_flags.check(options)
    search_flags.check_restore(options)
    folder = Path(options.restore).absolute()
    if not folder.is_dir() and "/" not in options.restore:
        folder = folders.Home.find(options.data_dir).search(options.restore)
    data = search_folder.read(folder)
    kept = {name: data["options"].get(name, getattr(options, name)) for name in search_flags.KEPT}
    builtin.load()
    known = catalog.load(None if kept["preset_file"] is None else Path(kept["preset_file"]))
    if options.extend:
        data = _extended(data, options, str(folder / search_folder.SEARCH))
    found = search_folder.search_of(data, folder, known)
    plan = found.spec.plan
    if options.time_budget is not None:
        plan = replace(plan, time=search_space.duration(options.time_budget, "--time-budget"))
    if options.max_trials is not None:
        if options.max_trials < 1:
            raise ConfigError("--max-trials", f"starts at 1, not {options.max_trials}")
        plan = replace(plan, trials=options.max_trials)
    return replace(found, spec=replace(found.spec, plan=plan)), known, kept


def _extended(data: dict[str, Any], options: argparse.Namespace, where: str) -> dict[str, Any]:
    """Add seeds, samples and points of lists to a stored search."""
    if not any((options.seeds, options.space, options.num_samples)):
        raise ConfigError("--extend", "adds nothing", choices=("--seeds", "--num-samples", "--space"))
    spec = search_space.parse(data["spec"], str(data["config"]), where)
    seeds = [*data["seeds"], *(options.seeds or ())]
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ConfigError("--seeds", "these are added: distinct whole numbers from 0 that the search has not used")
    if options.num_samples is not None:
        if spec.plan.algorithm == "grid" or options.num_samples < 1:
            raise ConfigError(
                "--num-samples",
                "a grid has no samples to add to" if options.num_samples >= 1 else "starts at 1",
                hint="--space adds points to its lists, --seeds adds replicates",
            )
        spec = replace(spec, plan=replace(spec.plan, samples=spec.plan.samples + options.num_samples))
    axes = {axis.name: axis for axis in spec.axes}
    for more in domains.parse(search_flags.domains_of(options.space or []), "--space"):
        if more.name not in axes:
            raise ConfigError("--space", f"{more.name} is no domain of this search", given=more.name, choices=axes)
        axes[more.name] = axes[more.name].extended(more, "--space")
    spec = replace(spec, axes=tuple(axes.values()), seeds=tuple(seeds))
    final = trial_list.final_seeds(tuple(seeds), len(data["final_seeds"]))
    packs = [*data.get("packs", ()), *trial_list.packed(options.seeds or (), data.get("pack_seeds", 1))]
    return {**data, "spec": search_folder.to_data(spec), "seeds": seeds, "packs": packs, "final_seeds": list(final)}


def check_steps(found: Search, probe_every: int) -> None:
    """Refuse a scheduler that would never act, and probes of what is no accuracy."""
    spec = found.spec
    if probe_every and not found.metric.endswith("_acc"):
        raise ConfigError("--probe-every", f"a probe gives an accuracy, and the metric is {found.metric}")
    if probe_every and spec.scheduler.name == "none":
        raise ConfigError(
            "--probe-every",
            "no scheduler would hear the probes",
            hint=f"--scheduler {' | '.join(search_space.SCHEDULERS[1:])}",
        )
    if probe_every and (spec.plan.model_based or spec.scheduler.name == "median"):
        who = spec.plan.algorithm if spec.plan.model_based else "median"
        raise ConfigError(
            "--probe-every",
            f"{who} would compare accuracies of probes with those of the classifier",
            hint="asha and hyperband compare what was measured at the same step",
        )
    if spec.scheduler.name == "none":
        return
    configs = [trial.config for trial in found.trials] or [found.base]
    last = max(steps.of_run(config, found.metric, probe_every).count for config in configs) * len(found.seeds)
    if spec.scheduler.grace > last:
        raise ConfigError(
            "scheduler, grace",
            f"{spec.scheduler.grace} is past the last step, {last}: nothing would ever be stopped",
            hint="steps are the epochs of the classifier, over all seeds",
        )


def _base(options: argparse.Namespace, spec: search_space.SearchSpec, known: Catalog) -> RunConfig:
    """Return the run that the search changes."""
    trials = spec.count() * (1 if spec.grouped else -(-len(spec.seeds) // options.pack_seeds))
    at_once = min(trials, cores(), options.workers or trials)
    base = arguments.run_config(
        options,
        known,
        seed=0,
        validation=(_share(spec, options.validation_sup), _share(spec, options.validation_unsup)),
        threads=max(1, cores() // at_once),
    )
    if base.seed:
        raise ConfigError("--set seed", "a search has its own seeds", hint="--seed N is added to each of them")
    return base


def _share(spec: search_space.SearchSpec, asked: bool | None) -> float:
    """Return the share of training images to hold out: that of the search config unless a flag says otherwise."""
    if asked is None:
        return spec.validation
    return (spec.validation or VALIDATION_SHARE) if asked else 0.0


def _metric(options: argparse.Namespace, spec: search_space.SearchSpec, base: RunConfig) -> tuple[str, str]:
    """Return what configurations are compared by, and whether its ``max`` or ``min`` is better."""
    selects = spec.purpose == "search"
    metric = options.metric or spec.metric or ("val_acc" if base.validated or selects else "test_acc")
    where = f"--config {options.config}, metric" if spec.metric and not options.metric else "--metric"
    if metric.startswith("val") and not base.validated:
        hint = "--metric test_acc selects on the test set" if selects else None
        raise ConfigError(where, f"there is no {metric} without --validation-sup", hint=hint)
    if metric.startswith("test") and base.validated and selects:
        raise ConfigError(
            where,
            f"a search with validation images does not select on {metric}",
            hint="--validation-sup false --metric test_acc selects on the test set",
        )
    if metric.startswith("test") and base.validated and spec.grouped:
        raise ConfigError(where, f"with validation images {metric} is known only at the end, too late to act on")
    stated = spec.mode if metric == (spec.metric or metric) else None
    return metric, options.mode or stated or search_space.better(metric)
