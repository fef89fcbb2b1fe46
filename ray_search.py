"""Train many networks: seeds x search space -> Ray Tune trials -> a table of mean and spread.

python ray_search.py --preset 2SoftHebbCnnCIFAR --dataset-unsup CIFAR10_1 --dataset-sup CIFAR10_50
"""

from __future__ import annotations

import argparse
import re
import shutil
from dataclasses import replace
from typing import Any

from cli import arguments, describe
from cli.entry import run_command
from hebb import config_json, folders, space
from hebb.config import RunConfig
from hebb.errors import ConfigError, InterruptedRunError
from search import trials as trial_list
from search.trials import Trial


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
            default=False,
            metavar="BOOL",
            help=f"hold out 20 %% of the training images of --dataset-{kind} (default: false)",
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
    spec = space.load(options.config)
    _check(options)
    home = folders.Home.find(options.data_dir)
    count = len(spec.configurations()) * len(spec.seeds)
    threads = options.threads or max(1, arguments.cores() // min(count, arguments.cores()))
    base = arguments.run_config(
        options,
        known,
        seed=0,
        validation=(options.validation_sup, options.validation_unsup),
        threads=threads,
    )
    name = options.folder_name or f"{_plain(base)}-{spec.name}"
    base, resume_from = arguments.resumed(base, options.resume, home, options.model_name or _plain(base))
    folder = home.search(name)
    trials = trial_list.make(base, spec, options.seed, folder, known)
    metric = options.metric or spec.metric or ("val_acc" if base.validated else "test_acc")
    if metric.startswith("val") and not base.validated:
        raise ConfigError("--metric", f"there is no {metric} without --validation-sup")
    if options.dry_run:
        describe.dry_run(trials[0].config, known, trials=len(trials))
        describe.console().print(
            f"{len(trials)} trials: {len(spec.configurations())} configuration(s) x seeds {_seeds(trials)}"
        )
        return 0
    return _search(options, trials, spec, metric, home, name, resume_from)


def _check(options: argparse.Namespace) -> None:
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
    if options.metric is not None and options.metric not in space.METRICS:
        raise ConfigError("--metric", f"unknown metric '{options.metric}'", given=options.metric, choices=space.METRICS)


def _search(
    options: argparse.Namespace,
    trials: list[Trial],
    spec: space.SearchSpec,
    metric: str,
    home: folders.Home,
    name: str,
    resume_from: Any,
) -> int:
    """Run the trials on Ray and print the table."""
    import torch

    import model
    from hebb import checkpoints
    from hebb.data import images
    from search import table, tuning
    from search.display import SearchDisplay

    asked = arguments.device(options)
    device = model.device_of(replace(trials[0].config, device=asked.kind), asked.index)
    if resume_from is not None:
        found = checkpoints.sha256(resume_from)
        trials = [replace(t, config=replace(t.config, resume_sha256=found)) for t in trials]
    trials = [replace(t, config=replace(t.config, device=device.type)) for t in trials]
    for data in {trials[0].config.dataset_sup, trials[0].config.dataset_unsup}:
        images.load(data, home.datasets, 0, torch.device("cpu"))  # read, or download, once before any trial does
    folder = home.search(name)
    trial_list.claim(folder, trials, spec, metric, options.overwrite)
    resources = tuning.Resources(
        cpus=trials[0].config.threads,
        gpu=1 / options.gpu_exp if device.type == "cuda" else 0,
        gpu_id=asked.index if asked.kind == "cuda" else None,
    )
    display = SearchDisplay(trials, metric)
    display.console.print(
        f"{len(trials)} trials of {trials[0].config.network.name}, {resources.cpus} thread(s) each on {device.type}; "
        f"in {folder}",
        soft_wrap=True,
    )
    place = {"datasets": home.datasets, "keep_model": options.save_model, "resume_from": resume_from}
    try:
        outcome = tuning.run(trials, place, metric, resources, folder / "ray", display)
    finally:
        display.close()
    results = table.results(trials, metric)
    if len(results):
        display.console.print(table.show(table.summary(results, metric), metric))
        display.console.print(f"results: {table.write(results, folder)}", soft_wrap=True)
        display.console.print(f"compare: tensorboard --logdir {folder / 'trials'}", soft_wrap=True)
    for trial, reason in outcome.failed.items():
        display.console.print(f"failed: {trial}: {reason}", soft_wrap=True)
    if outcome.interrupted:
        raise InterruptedRunError(
            f"interrupted: {len(results)} of {len(trials)} trials are finished, their results are in {folder}"
        )
    if not options.save:
        shutil.rmtree(folder / "trials")
    return 1 if outcome.failed or len(results) < len(trials) else 0


def _plain(run: RunConfig) -> str:
    name = run.network.name
    return name if re.fullmatch(r"[\w+.,=@-]+", name) else f"inline-{config_json.digest(run)}"


def _seeds(trials: list[Trial]) -> str:
    return " ".join(map(str, sorted({trial.config.seed for trial in trials})))


if __name__ == "__main__":
    run_command(main)
