"""Train one network: argv -> RunConfig -> train.run -> summary.

python multi_layer.py --preset 2SoftHebbCnnCIFAR --dataset-unsup CIFAR10_1 --dataset-sup CIFAR10_50
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from hebb.cli import arguments, describe
from hebb.config import overrides, plan, plugins, serialise, shapes
from hebb.config.catalog import Catalog
from hebb.config.specs import VALIDATION_SHARE, RunConfig
from hebb.core.errors import ConfigError, InterruptedRunError, within
from hebb.core.threads import cores
from hebb.storage import folders


def parser(prog: str = "multi_layer.py") -> arguments.Parser:
    """Return the parser of this command."""
    made = arguments.Parser(__doc__ or "", prog=prog)
    arguments.add_network_flags(made)
    made.add_argument("--seed", type=int, metavar="N", help="varies weights, order, dropout (default: 0)")
    arguments.add_pack_flag(made, "train seeds S to S+N-1 together, each into a run folder of its own, NAME-sS;")
    made.add_argument(
        "--model-name", metavar="NAME", help="name under which the run is stored (default: the preset's name)"
    )
    made.add_argument(
        "--save",
        type=arguments.boolean,
        nargs="?",
        const=True,
        default=True,
        metavar="BOOL",
        help="keep the trained model (default: true)",
    )
    made.add_argument("--save-model", action="store_true", help="the same as --save true")
    made.add_argument(
        "--validation",
        type=arguments.boolean,
        nargs="?",
        const=True,
        default=False,
        metavar="BOOL",
        help="hold out 20 %% of the training images and report on them (default: false)",
    )
    made.add_argument("--run-config", type=Path, metavar="FILE", help="run a stored config.json")
    made.add_argument(
        "--checkpoint-every",
        type=arguments.count,
        default=1,
        metavar="N",
        help="epochs between two checkpoints of a phase (default: 1)",
    )
    made.add_argument("--resume-run", type=Path, metavar="DIR", help="continue an interrupted run to the same bits")
    made.add_argument(
        "--evaluate",
        metavar="MODEL_OR_DIR",
        help="measure a stored model on the test images of --dataset-sup, then stop",
    )
    made.add_argument(
        "--export-features",
        type=Path,
        metavar="FILE",
        help="with --evaluate: write what the last block receives (.npz)",
    )
    arguments.add_run_flags(made)
    return made


def main(argv: list[str], prog: str = "multi_layer.py") -> int:
    """Run the command, under the name ``prog``, and return its exit code."""
    options = parser(prog).parse(argv)
    known = arguments.load_catalog(options)
    if options.listing is not None:
        describe.listing(options.listing, known)
        return 0
    if options.resume_run is not None:
        return _continue(options)
    if options.evaluate is not None:
        return _evaluate(options, known)
    if options.export_features is not None:
        raise ConfigError("--export-features", "goes with --evaluate, which names the model")
    run = resolve(options, known)
    name = arguments.plain_name(run) if options.model_name is None else options.model_name
    home = folders.Home.find(options.data_dir)
    folder = home.network(name)
    run, resume_from = arguments.resumed(run, options.resume, home, name)
    if options.dry_run:
        describe.dry_run(run, known, trials=max(1, len(run.pack)), cache_limit=arguments.cache_limit(options))
        return 0
    return train_all(members(run, folder), home, options, resume_from=resume_from)


def resolve(options: argparse.Namespace, known: Catalog) -> RunConfig:
    """Return the run that the flags describe; its plan and shapes are checked."""
    run = _config(options, known)
    plan.phases(run)
    shapes.of_run(run)
    return run


def members(run: RunConfig, folder: Path) -> dict[Path, RunConfig]:
    """Return the run and its folder, or those of all members of its pack."""
    if not run.pack:
        return {folder: run}
    return {folder.with_name(f"{folder.name}-s{seed}"): replace(run, seed=seed) for seed in run.pack}


def train_all(
    runs: dict[Path, RunConfig],
    home: folders.Home,
    options: argparse.Namespace,
    *,
    resume_from: Path | None = None,
    carry_on: bool = False,
) -> int:
    """Train one run, or the members of a pack, and print what happens; torch is imported here and not before.

    Args:
        runs: by their folders.
        home: where everything is stored.
        options: parsed flags.
        resume_from: checkpoint with the initial weights.
        carry_on: whether to continue what is in the folders.
    """
    if not carry_on:
        for folder in runs:
            folders.refuse_existing(folder, options.overwrite)

    from hebb.cli.run_display import reports_of
    from hebb.storage import checkpoints
    from hebb.training import train

    if resume_from is not None:
        digest = checkpoints.sha256(resume_from)
        runs = {folder: replace(run, resume_sha256=digest) for folder, run in runs.items()}
        if options.overwrite and any(resume_from.is_relative_to(folder) for folder in runs):
            raise ConfigError(
                "--overwrite", "would delete the model that --resume reads", hint="give another --model-name"
            )
    keep = options.save or options.save_model
    places = [
        train.Place(
            datasets=home.datasets,
            folder=folder,
            device_index=arguments.device(options).index,
            keep_model=keep,
            overwrite=options.overwrite,
            carry_on=carry_on,
            resume_from=resume_from,
            layers=home.layers,
            cache=home.cache,
            store_blocks=folder.name if keep else None,
            checkpoint_every=options.checkpoint_every,
            **arguments.feature_cache(options),
        )
        for folder in runs
    ]
    reports = reports_of(runs.values(), options.verbose)
    try:
        train.run_pack(list(runs.values()), reports, places=places)
    except KeyboardInterrupt:
        left = next((folder for folder in runs if folders.state(folder) == "interrupted"), None)
        if left is not None:
            raise InterruptedRunError(f"interrupted; python multi_layer.py --resume-run {left} continues") from None
        raise
    finally:
        for report in reports:
            report.close()
    return 0


def _config(options: argparse.Namespace, known: Catalog) -> RunConfig:
    """Build the run from flags, or read it from ``--run-config``."""
    if options.run_config is None:
        share = VALIDATION_SHARE if options.validation else 0.0
        run = arguments.run_config(
            options,
            known,
            seed=0 if options.seed is None else options.seed,
            validation=(share, share),
            threads=cores(),
        )
        together = tuple(range(run.seed, run.seed + options.pack_seeds))
        return replace(run, pack=together if len(together) > 1 else ())
    allowed = (
        "run_config",
        "plugin",
        "changes",
        "model_name",
        "data_dir",
        "overwrite",
        "dry_run",
        "verbose",
        "checkpoint_every",
        "resume",
        "save",
        "save_model",
        "no_feature_cache",
        "cache_limit",
    )
    _refuse_others(options, allowed, "--run-config", "holds the whole run; --set changes single values")
    run = overrides.apply(read_config(options.run_config), overrides.parse(options.changes), known)
    return replace(run, plugins=plugins.of_run(run))


def read_config(path: Path) -> RunConfig:
    """Read a stored ``config.json``; its list of phases must be what the plan makes of the rest."""
    data = folders.read_json(path)
    if not isinstance(data, dict):
        raise ConfigError(str(path), "is not a config.json")
    described = data.pop("phases", None)
    run = serialise.run_from_json(data, str(path))
    with within(str(path)):
        phases = plan.described(plan.phases(run))
    if described is not None and described != phases:
        raise ConfigError(
            str(path), "'phases' is not what mode and blocks give", hint="delete 'phases', it only informs"
        )
    return run


def _continue(options: argparse.Namespace) -> int:
    """Continue the interrupted run of ``--resume-run``."""
    allowed = (
        "resume_run",
        "plugin",
        "data_dir",
        "gpu_id",
        "device",
        "verbose",
        "save",
        "save_model",
        "checkpoint_every",
        "no_feature_cache",
        "cache_limit",
    )
    _refuse_others(options, allowed, "--resume-run", "continues the run as it was started")
    folder = options.resume_run.absolute()
    found = folders.state(folder)
    if found == "finished":
        raise ConfigError("--resume-run", f"{folder} is finished; there is nothing to continue")
    if found != "interrupted":
        raise ConfigError("--resume-run", f"nothing to resume: {folder} holds no run")
    run = read_config(folder / folders.CONFIG)
    asked = arguments.device(options)
    if asked.kind not in ("auto", run.device):
        where = f"GPU {asked.index}" if asked.kind == "cuda" else "the CPU"
        raise ConfigError(
            "--gpu-id or --device", f"{where} was asked for, and the run goes on to the same bits only on {run.device}"
        )
    source = None
    if run.resume is not None:
        environment = folders.read_json(folder / folders.ENVIRONMENT)
        source = environment.get("resumed_from") if isinstance(environment, dict) else None
        if not isinstance(source, str):
            raise ConfigError(str(folder / folders.ENVIRONMENT), "does not say where the initial weights lie")
    return train_all(
        _together(run, folder),
        folders.Home.find(options.data_dir),
        options,
        resume_from=Path(source) if source else None,
        carry_on=True,
    )


def _together(run: RunConfig, folder: Path) -> dict[Path, RunConfig]:
    """Return the interrupted run, with the other members of its pack, which lie beside it under their seeds."""
    tail = f"-s{run.seed}"
    if run.pack and not folder.name.endswith(tail):
        raise ConfigError(
            "--resume-run",
            f"{folder} holds a member of a pack, and its name does not end with {tail}",
            hint="rename it",
        )
    found = members(run, folder.with_name(folder.name.removesuffix(tail)) if run.pack else folder)
    for other, expected in found.items():
        state = folders.state(other)
        if state == "foreign" or (state != "absent" and read_config(other / folders.CONFIG) != expected):
            raise ConfigError(
                "--resume-run",
                f"{other} does not hold seed {expected.seed} of the pack {' '.join(map(str, run.pack))}",
                hint="the members of a pack go on together: put their folders side by side",
            )
    return found


def _evaluate(options: argparse.Namespace, known: Catalog) -> int:
    """Measure the stored model of ``--evaluate``."""
    model = ("evaluate", "export_features", "plugin", "preset_file")
    allowed = (*model, "dataset_sup", "changes", "data_dir", "gpu_id", "device")
    _refuse_others(options, allowed, "--evaluate", "measures a model as it was stored")
    home = folders.Home.find(options.data_dir)
    checkpoint = folders.checkpoint_of(options.evaluate, home, "--evaluate")
    run = read_config(checkpoint.parent.parent / folders.CONFIG)
    data = run.dataset_sup
    if options.dataset_sup is not None:
        data = known.dataset(options.dataset_sup, "--dataset-sup")
    changes = overrides.parse(options.changes)
    for path in changes:
        if not path.startswith("dataset_sup."):
            raise ConfigError(
                "--set", f"'{path}' would change the stored model", hint="only dataset_sup.* can be set here"
            )
    data = overrides.apply(replace(run, dataset_sup=data), changes, known).dataset_sup
    asked = arguments.device(options)
    run = replace(run, device=asked.kind)

    from hebb.training import evaluate

    found = evaluate.run(run, checkpoint, data, home, device_index=asked.index, features=options.export_features)
    describe.evaluation(run.network.name, data.dataset, found.loss, found.accuracy, found.classes)
    if options.export_features is not None:
        describe.console().print(f"features: {options.export_features.absolute()}", soft_wrap=True)
    return 0


def _refuse_others(options: argparse.Namespace, allowed: tuple[str, ...], flag: str, why: str) -> None:
    """Refuse flags that would be ignored beside ``flag``."""
    standard = vars(parser().parse([]))
    for name, value in vars(options).items():
        if name not in allowed and value != standard[name]:
            raise ConfigError(flag, f"--{name.replace('_', '-')} has no place beside it: it {why}")
