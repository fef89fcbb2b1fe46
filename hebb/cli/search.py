"""Train many networks: seeds x search space -> Ray Tune trials -> a table of mean and spread.

python ray_search.py --preset 2SoftHebbCnnCIFAR --dataset-unsup CIFAR10_1 --dataset-sup CIFAR10_50
"""

from __future__ import annotations

import argparse
import shlex
import shutil
from dataclasses import replace
from typing import Any

from hebb.cli import arguments, describe, search_flags
from hebb.cli import search_request as resolution
from hebb.config import plan
from hebb.config.catalog import Catalog
from hebb.core.errors import ConfigError
from hebb.storage import folders
from hebb.tuning import search_folder
from hebb.tuning import trials as trial_list
from hebb.tuning.trials import Search


def parser() -> arguments.Parser:
    """Return the parser of this command."""
    return search_flags.parser(__doc__ or "")


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parser().parse(argv)
    line = shlex.join(("python", "ray_search.py", *argv))
    if options.restore is not None:
        search, known, kept = resolution.restored(options)
        options.commands = [*search_folder.read(search.folder)["options"].get("commands", ()), line]
        if options.dry_run:
            return _dry_run(search, known, options)
        return _run(_given(options, kept), search, known, fresh=False)
    known = arguments.load_catalog(options)
    if options.listing is not None:
        describe.listing(options.listing, known)
        return 0
    search = resolve(options, known)
    if options.dry_run:
        return _dry_run(search, known, options)
    if options.estimate:
        from hebb.tuning import estimate

        return estimate.run(search, arguments.device(options), folders.Home.find(options.data_dir), options)
    search_folder.check_free(search.folder, options.overwrite)
    options.commands = [line]
    return _run(options, search, known, fresh=True)


def resolve(options: argparse.Namespace, known: Catalog) -> Search:
    """Return the search that the flags describe, every trial of it checked; nothing is written."""
    return resolution.search(options, known)


def _given(options: argparse.Namespace, kept: dict[str, Any]) -> argparse.Namespace:
    """Return the flags of a continued search: those it was started with, where none is given anew."""
    standard = vars(parser().parse([]))
    for name, value in kept.items():
        if getattr(options, name) == standard[name]:
            setattr(options, name, value)
    return options


def _run(options: argparse.Namespace, search: Search, known: Catalog, *, fresh: bool) -> int:
    """Run the trials on Ray; torch and Ray are imported here and not before."""
    from hebb.nn import model
    from hebb.storage import checkpoints
    from hebb.tuning import ray_session, report, stages, tune
    from hebb.tuning.worker import Task

    home, asked, source = _home(options, search, fresh), arguments.device(options), search.resume_from
    if not fresh and asked.kind not in ("auto", search.base.device):
        raise ConfigError("--gpu-id or --device", f"the search goes on to the same bits only on {search.base.device}")
    device = model.device_of(
        search.base if asked.kind == "auto" else replace(search.base, device=asked.kind), asked.index
    )
    found = None if source is None else checkpoints.sha256(source)
    base = replace(search.base, device=device.type, resume_sha256=found)
    trials = trial_list.make(base, search.spec, search.seeds, search.folder, known, search.packs)
    finished = stages.run(
        replace(search, base=base, trials=trials),
        Task(
            metric=search.metric,
            mode=search.mode,
            probe_every=options.probe_every,
            place={
                "datasets": home.datasets,
                "layers": home.layers,
                "cache": home.cache,
                "shared_blocks": home.cache / "blocks" if options.share_blocks else None,
                "keep_model": options.save_model,
                "resume_from": source,
                **arguments.feature_cache(options),
            },
        ),
        ray_session.Resources(
            cpus=base.threads,
            gpu=1 / options.gpu_exp if device.type == "cuda" else 0,
            gpu_id=asked.index if asked.kind == "cuda" else None,
            workers=options.workers,
            address=options.address,
            dashboard=options.dashboard,
        ),
        tune.Limits(time=search.spec.plan.time, trials=search.spec.plan.trials, failures=options.max_failures),
        known,
        options=_kept(options),
        fresh=fresh,
    )
    report.at_end(search.folder)
    if not options.save:
        shutil.rmtree(search.folder / "trials")
    return 0 if finished else 1


def _home(options: argparse.Namespace, search: Search, fresh: bool) -> folders.Home:
    """Return the parent folder: of a continued search the one it lies in."""
    if fresh or options.data_dir is not None:
        return folders.Home.find(options.data_dir)
    return folders.Home(search.folder.parents[2])


def _kept(options: argparse.Namespace) -> dict[str, Any]:
    found = {name: getattr(options, name) for name in search_flags.KEPT}
    file = None if options.preset_file is None else str(options.preset_file.absolute())
    return {**found, "preset_file": file, "commands": options.commands}


def _dry_run(search: Search, known: Catalog, options: argparse.Namespace) -> int:
    """Print what would be run."""
    first = search.trials[0].config if search.trials else replace(search.base, seed=search.seeds[0])
    updates = [sum(phase.updates for phase in plan.phases(trial.config)) for trial in search.trials]
    total = sum(updates) if updates else None
    describe.dry_run(first, known, trials=search.runs, total=total, cache_limit=arguments.cache_limit(options))
    describe.console().print(_plan(search), soft_wrap=True)
    return 0


def _plan(search: Search) -> str:
    """Say what would be run."""
    spec = search.spec
    text = f"{search.runs} trials: {spec.count()} configuration(s) x seeds {' '.join(map(str, sorted(search.seeds)))}"
    if search.packs:
        text += f", in packs of up to {search.pack_seeds} seeds trained together"
    if spec.plan.model_based:
        text += f", chosen by {spec.plan.algorithm}"
    if spec.scheduler.name != "none":
        text += f", stopped early by {spec.scheduler.name}"
    if search.final_seeds:
        seeds = " ".join(map(str, search.final_seeds))
        text += f"; then the best by {search.metric} on all training images, seeds {seeds}"
    return text
