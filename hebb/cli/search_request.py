"""From flags to a search and its settings; nothing is written. Imports neither Ray nor torch."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from hebb import builtin
from hebb.cli import arguments, search_flags
from hebb.config import catalog as catalogs
from hebb.config import objectives, search_space
from hebb.config.catalog import Catalog
from hebb.config.objectives import Objective
from hebb.config.search_space import SearchSpec
from hebb.config.vocabulary import DeviceKind, Goal, Launcher
from hebb.core import documents
from hebb.core.choices import choose
from hebb.core.errors import ConfigError
from hebb.storage import folders
from hebb.tuning import job_options, request, search_folder, studies
from hebb.tuning.job_options import JobOptions
from hebb.tuning.request import Extension, SearchRequest
from hebb.tuning.search import Search
from hebb.tuning.search_settings import SearchSettings


def of_flags(options: argparse.Namespace, catalog: Catalog, spec: SearchSpec) -> SearchRequest:
    """Return the search that the flags ask for; ``spec`` is its search config with the changes of flags."""
    home = folders.Home.find(options.data_dir)
    share_sup, share_unsup = (
        request.validation_share(spec, held_out) for held_out in (options.validation_sup, options.validation_unsup)
    )
    base = arguments.run_config(
        options,
        catalog,
        seed=0,
        validation=(share_sup, share_unsup),
        threads=_threads(options, spec),
    )

    def folder_of(name: str) -> Path:
        return home.search(f"{name}-{spec.name}")

    name = options.folder_name
    folder = folder_of(arguments.plain_name(base, folder_of)) if name is None else home.search(name)
    model = arguments.plain_name(base, home.network) if options.model_name is None else options.model_name
    base, resume_from = arguments.resumed(base, options.resume, home, model)
    metric, mode, others = _objectives(options)
    return SearchRequest(
        base=base,
        spec=spec,
        folder=folder,
        source=f"--config {options.config}",
        seed=options.seed,
        search_block=options.search_block,
        metric=metric,
        mode=mode,
        others=others,
        final_seeds=options.final_seeds,
        final_points=tuple(options.final_points),
        pack_seeds=options.pack_seeds,
        probe_every=options.probe_every,
        resume_from=resume_from,
    )


def _threads(options: argparse.Namespace, spec: SearchSpec) -> int:
    """Return the CPU threads of a run that asks for none: its share of this machine, or the cores of a job."""
    if launcher(options) == Launcher.RAY:
        return request.threads_of(spec, options.pack_seeds, options.workers)
    return jobs(options).threads()


def launcher(options: argparse.Namespace) -> Launcher:
    """Return what runs the trials."""
    return choose(Launcher, options.launcher or Launcher.RAY, "--launcher")


def jobs(options: argparse.Namespace) -> JobOptions:
    """Return what each job takes; a continued search has its options as a mapping."""
    asked = options.slurm or ()
    return job_options.parse(asked if isinstance(asked, Mapping) else job_options.of_words(asked))


def _objectives(options: argparse.Namespace) -> tuple[str | None, Goal | None, tuple[Objective, ...] | None]:
    """Return metric and mode of the first objective, and the others; None for what neither flag says."""
    names, modes = options.metric, options.mode
    if len(names or ()) < 2 and len(modes or ()) < 2:
        mode = None if modes is None else choose(Goal, modes[0], "--mode")
        if names is None:
            return None, mode, None
        return names[0], mode, ()
    first, *others = objectives.objectives(names or [], modes, "", ("--metric", "--mode"))
    return first.metric, first.mode, tuple(others)


def settings(options: argparse.Namespace, home: folders.Home, *commands: str) -> SearchSettings:
    """Return how and where the trials run; ``commands`` are those that began and continued the search."""
    device = arguments.device(options)
    return SearchSettings(
        home=home,
        gpu=device.index if device.kind == DeviceKind.CUDA else None,
        trials_per_gpu=options.gpu_exp,
        workers=options.workers,
        address=options.address,
        dashboard=options.dashboard,
        max_failures=options.max_failures,
        retry_failed=options.retry_failed,
        share_blocks=options.share_blocks,
        keep_features=not options.no_feature_cache,
        cache_limit=options.cache_limit,
        save_models=options.save_model,
        keep_best=options.save_best,
        save_trials=options.save,
        preset_file=options.preset_file,
        on_end=options.on_end or None,
        launcher=launcher(options),
        jobs=jobs(options),
        storage=studies.absolute(options.storage),
        commands=commands,
    )


def restored(options: argparse.Namespace, command: str) -> tuple[Search, SearchSettings, Catalog]:
    """Return the search in the folder of ``--restore``, its settings, and the presets it was started with.

    Flags that a continued search keeps are those it was started with, unless they are given anew.
    """
    search_flags.check_restore(options)
    extension = None
    if options.extend:
        space = search_flags.domains_of(options.space or [])
        extension = Extension(seeds=tuple(options.seeds or ()), samples=options.num_samples, space=space)
    budget = options.time_budget
    time = None if budget is None else search_space.duration(budget, "--time-budget")
    home = folders.Home.find(options.data_dir)
    folder = request.folder_of(options.restore, home)
    stored = search_folder.read(folder)["options"]
    for name in sorted(options.given.intersection(search_flags.NEED_RUNS)):
        search_folder.check_runs(folder, f"--{name.replace('_', '-')}")
    builtin.load()
    kept = _with_kept(options, SearchSettings.restored(stored, home).stored())
    catalog = catalogs.load(kept.preset_file)
    search = request.restored(
        folder,
        catalog,
        extension=extension,
        time=time,
        count=options.max_trials,
        final_points=tuple(options.final_points),
    )
    asked = arguments.device(options)
    if asked.kind not in (DeviceKind.AUTO, search.base.device):
        problem = f"must be {search.base.device}, on which alone the search goes on to the same bits, got {asked.kind}"
        raise ConfigError("--gpu-id or --device", problem)
    if options.data_dir is None:
        home = _home_of(folder) or home
    return search, settings(kept, home, *stored.get("commands", ()), command), catalog


def _home_of(folder: Path) -> folders.Home | None:
    """Return the parent folder in which a search lies; None for one that was stored elsewhere."""
    homes = (folders.Home(parent) for parent in folder.parents)
    return next((home for home in homes if home.searches == folder.parent), None)


def _with_kept(options: argparse.Namespace, stored: dict[str, object]) -> argparse.Namespace:
    """Return the flags of a continued search, given the values that were stored with it."""
    kept = {name: stored[name] for name in search_flags.KEPT if name not in options.given}
    file = kept.get("preset_file")
    kept |= _launched(options, stored)
    return argparse.Namespace(**{**vars(options), **kept, "preset_file": None if file is None else Path(str(file))})


def _launched(options: argparse.Namespace, stored: Mapping[str, object]) -> dict[str, object]:
    """Return launcher and options of the jobs of a continued search; new options are laid over the stored ones."""
    before = stored.get("launcher", Launcher.RAY)
    name = options.launcher or before
    kept = documents.as_object(stored.get("slurm", {}), "slurm") if name == before else {}
    return {"launcher": name, "slurm": {**kept, **job_options.of_words(options.slurm or ())}}
