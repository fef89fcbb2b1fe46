"""Train many networks: seeds x search space -> Ray Tune trials -> a table of mean and spread.

python ray_search.py --preset 2SoftHebbCnnCIFAR --dataset-unsup CIFAR10_1 --dataset-sup CIFAR10_50
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace

from cli import arguments, describe
from cli.entry import run_command
from hebb import folders, space
from hebb.catalog import Catalog
from hebb.config import VALIDATION_SHARE, RunConfig
from hebb.errors import ConfigError
from search import trials as trial_list
from search.trials import Search, Trial


def parser() -> arguments.Parser:
    """Return the parser of this command."""
    made = arguments.Parser(__doc__ or "", prog="ray_search.py")
    arguments.add_network_flags(made)
    made.add_argument(
        "--config", default="seed", metavar="NAME|FILE", help="search config (default: seed, which is seeds 0 to 3)"
    )
    made.add_argument(
        "--seed", type=int, default=0, metavar="N", help="added to every seed of the search config (default: 0)"
    )
    made.add_argument(
        "--search-block", type=int, metavar="N", help="block that bX stands for in the search config (default: 0)"
    )
    made.add_argument(
        "--final-seeds",
        type=int,
        metavar="N",
        help="runs of a search's winner on all training images, with seeds the search did not use (default: 3)",
    )
    made.add_argument("--folder-name", metavar="NAME", help="name of the search (default: preset and config)")
    made.add_argument("--model-name", metavar="NAME", help="model that --resume loads (default: the preset's name)")
    made.add_argument(
        "--metric", metavar="NAME", help=f"{' | '.join(space.METRICS)} (default: test_acc, or val_acc with validation)"
    )
    made.add_argument(
        "--num-samples",
        type=int,
        default=1,
        metavar="N",
        help="points drawn from a space of distributions (default: 1)",
    )
    made.add_argument("--gpu-exp", type=int, default=1, metavar="N", help="trials that share one GPU (default: 1)")
    for kind in ("sup", "unsup"):
        made.add_argument(
            f"--validation-{kind}",
            type=arguments.boolean,
            nargs="?",
            const=True,
            metavar="BOOL",
            help=f"hold out 20 %% of the training images of --dataset-{kind} (default: false; a search config of "
            "purpose search holds them out; it selects on the test set only with --validation-sup false "
            "--metric test_acc)",
        )
    made.add_argument("--save-model", action="store_true", help="keep the trained model of every trial")
    made.add_argument(
        "--save",
        type=arguments.boolean,
        default=True,
        metavar="BOOL",
        help="keep the run folders of the trials (default: true)",
    )
    arguments.add_run_flags(made)
    return made


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parser().parse(argv)
    known = arguments.load_catalog(options)
    if options.listing is not None:
        describe.listing(options.listing, known)
        return 0
    search = resolve(options, known)
    if options.dry_run:
        limit = arguments.cache_limit(options)
        describe.dry_run(search.trials[0].config, known, trials=len(search.trials), cache_limit=limit)
        describe.console().print(_plan(search))
        return 0
    trial_list.check_free(search.folder, options.overwrite)
    return _search(options, search, known)


def resolve(options: argparse.Namespace, known: Catalog) -> Search:
    """Return the search that the flags describe, every trial of it checked; nothing is written."""
    spec = space.load(options.config)
    _check(options, spec)
    home = folders.Home.find(options.data_dir)
    base = _base(options, spec, known)
    spec = trial_list.on_block(spec, options.search_block, base)
    name = f"{arguments.plain_name(base)}-{spec.name}" if options.folder_name is None else options.folder_name
    model_name = arguments.plain_name(base) if options.model_name is None else options.model_name
    base, resume_from = arguments.resumed(base, options.resume, home, model_name)
    metric, mode = _metric(options, spec, base)
    folder = home.search(name)
    final = 3 if options.final_seeds is None else options.final_seeds
    return Search(
        spec=spec,
        trials=trial_list.make(base, spec, options.seed, folder, known),
        metric=metric,
        mode=mode,
        final_seeds=trial_list.final_seeds(spec, options.seed, final) if spec.purpose == "search" else (),
        folder=folder,
        resume_from=resume_from,
    )


def _base(options: argparse.Namespace, spec: space.SearchSpec, known: Catalog) -> RunConfig:
    """Return the run that the search changes."""
    trials = len(spec.configurations()) * len(spec.seeds)
    base = arguments.run_config(
        options,
        known,
        seed=0,
        validation=(_share(spec, options.validation_sup), _share(spec, options.validation_unsup)),
        threads=max(1, arguments.cores() // min(trials, arguments.cores())),
    )
    if base.seed:
        raise ConfigError("--set seed", "a search has its own seeds", hint="--seed N is added to each of them")
    return base


def _share(spec: space.SearchSpec, asked: bool | None) -> float:
    """Return the share of training images to hold out: that of the search config unless a flag says otherwise."""
    if asked is None:
        return spec.validation
    return (spec.validation or VALIDATION_SHARE) if asked else 0.0


def _check(options: argparse.Namespace, spec: space.SearchSpec) -> None:
    if options.num_samples < 1 or options.gpu_exp < 1:
        raise ConfigError("command line", "--num-samples and --gpu-exp start at 1")
    if options.num_samples > 1:
        raise ConfigError(
            "--num-samples",
            "this space has no distribution to draw from: every point of its grid is run once",
            hint="more seeds give more replicates",
        )
    if options.seed < 0:
        raise ConfigError("--seed", f"starts at 0, not {options.seed}")
    if options.final_seeds is not None and spec.purpose == "sweep":
        raise ConfigError("--final-seeds", f"search config '{spec.name}' is a sweep, which names no winner")
    if options.final_seeds is not None and options.final_seeds < 0:
        raise ConfigError("--final-seeds", f"starts at 0, not {options.final_seeds}")
    if options.metric is not None and options.metric not in space.METRICS:
        raise ConfigError("--metric", f"unknown metric '{options.metric}'", given=options.metric, choices=space.METRICS)


def _metric(options: argparse.Namespace, spec: space.SearchSpec, base: RunConfig) -> tuple[str, str]:
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
    stated = spec.mode if metric == (spec.metric or metric) else None
    return metric, stated or space.better(metric)


def _search(options: argparse.Namespace, search: Search, known: Catalog) -> int:
    """Run the trials on Ray; torch and Ray are imported here and not before."""
    import torch

    import model
    from hebb import checkpoints
    from hebb.data import images
    from search import stages, tuning

    home, asked, config = folders.Home.find(options.data_dir), arguments.device(options), search.trials[0].config
    device = model.device_of(replace(config, device=asked.kind), asked.index)
    source = search.resume_from
    found = None if source is None else checkpoints.sha256(source)
    trials = tuple(replace(t, config=replace(t.config, device=device.type, resume_sha256=found)) for t in search.trials)
    for data in {config.dataset_sup, config.dataset_unsup}:
        images.load(
            data, home.datasets, config.split_seed, torch.device("cpu"), home.cache
        )  # read, or download, once before any trial does
    resources = tuning.Resources(
        cpus=config.threads,
        gpu=1 / options.gpu_exp if device.type == "cuda" else 0,
        gpu_id=asked.index if asked.kind == "cuda" else None,
    )
    place = {
        "datasets": home.datasets,
        "layers": home.layers,
        "cache": home.cache,
        "keep_model": options.save_model,
        "resume_from": source,
        **arguments.feature_cache(options),
    }
    finished = stages.run(replace(search, trials=trials), place, resources, known)
    if not options.save:
        shutil.rmtree(search.folder / "trials")
    return 0 if finished else 1


def _plan(search: Search) -> str:
    """Say what would be run."""
    configurations = len(search.trials) // len(search.spec.seeds)
    text = f"{len(search.trials)} trials: {configurations} configuration(s) x seeds {_seeds(search.trials)}"
    if search.final_seeds:
        seeds = " ".join(map(str, search.final_seeds))
        text += f"; then the best by {search.metric} on all training images, seeds {seeds}"
    return text


def _seeds(trials: Sequence[Trial]) -> str:
    return " ".join(map(str, sorted({trial.config.seed for trial in trials})))


if __name__ == "__main__":
    run_command(main)
