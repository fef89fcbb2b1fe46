"""Train one network: argv -> RunConfig -> train.run -> summary.

python multi_layer.py --preset 2SoftHebbCnnCIFAR --dataset-unsup CIFAR10_1 --dataset-sup CIFAR10_50
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

from cli import arguments, describe
from cli.entry import run_command
from hebb import config_json, folders, overrides, plan, shapes
from hebb.catalog import Catalog
from hebb.config import RunConfig
from hebb.errors import ConfigError, InterruptedRunError


def parser() -> arguments.Parser:
    """Return the parser of this command."""
    made = arguments.Parser(__doc__ or "", prog="multi_layer.py")
    arguments.add_network_flags(made)
    made.add_argument("--seed", type=int, metavar="N", help="varies weights, order, dropout (default: 0)")
    made.add_argument(
        "--model-name", metavar="NAME", help="name under which the run is stored (default: the preset's name)"
    )
    made.add_argument(
        "--save", type=arguments.boolean, default=True, metavar="BOOL", help="keep the trained model (default: true)"
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
    arguments.add_run_flags(made)
    return made


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parser().parse(argv)
    known = arguments.load_catalog(options)
    if options.listing is not None:
        describe.listing(options.listing, known)
        return 0
    if options.resume_run is not None:
        return _continue(options)
    run = _config(options, known)
    name = options.model_name or _model_name(run)
    home = folders.Home.find(options.data_dir)
    plan.phases(run)
    shapes.of_run(run)
    run, resume_from = arguments.resumed(run, options.resume, home, name)
    if options.dry_run:
        describe.dry_run(run, known)
        return 0
    keep = options.save or options.save_model
    return train_one(run, home, home.network(name), options, resume_from=resume_from, keep_model=keep)


def train_one(
    run: RunConfig,
    home: folders.Home,
    folder: Path,
    options: argparse.Namespace,
    *,
    resume_from: Path | None = None,
    keep_model: bool = True,
    carry_on: bool = False,
) -> int:
    """Train one run and print what happens; torch is imported here and not before."""
    import train
    from cli.display import ConsoleReport
    from hebb import checkpoints

    if resume_from is not None:
        run = replace(run, resume_sha256=checkpoints.sha256(resume_from))
        if options.overwrite and resume_from.is_relative_to(folder):
            raise ConfigError(
                "--overwrite", "would delete the model that --resume reads", hint="give another --model-name"
            )
    report = ConsoleReport(options.verbose)
    place = train.Place(
        datasets=home.datasets,
        folder=folder,
        device_index=arguments.device(options).index,
        keep_model=keep_model,
        overwrite=options.overwrite,
        carry_on=carry_on,
        resume_from=resume_from,
        layers=home.layers,
        store_blocks=folder.name if keep_model else None,
        checkpoint_every=options.checkpoint_every,
    )
    try:
        train.run(run, report, place=place)
    except KeyboardInterrupt:
        if folders.state(folder) == "interrupted":
            raise InterruptedRunError(f"interrupted; python multi_layer.py --resume-run {folder} continues") from None
        raise
    finally:
        report.close()
    return 0


def _config(options: argparse.Namespace, known: Catalog) -> RunConfig:
    """Build the run from flags, or read it from ``--run-config``."""
    if options.run_config is None:
        return arguments.run_config(
            options,
            known,
            seed=0 if options.seed is None else options.seed,
            validation=(options.validation, options.validation),
            threads=arguments.cores(),
        )
    allowed = (
        "run_config",
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
    )
    _refuse_others(options, allowed, "--run-config", "holds the whole run; --set changes single values")
    return overrides.apply(read_config(options.run_config), overrides.parse(options.changes), known)


def read_config(path: Path) -> RunConfig:
    """Read a stored ``config.json``; its list of phases must be what the plan makes of the rest."""
    data = folders.read_json(path)
    if not isinstance(data, dict):
        raise ConfigError(str(path), "is not a config.json")
    described = data.pop("phases", None)
    run = config_json.run_from_json(data, str(path))
    kinds = [(p.kind, list(p.blocks)) for p in plan.phases(run)]
    if described is not None and [(p.get("kind"), p.get("blocks")) for p in described] != kinds:
        raise ConfigError(
            str(path), "'phases' is not what mode and blocks give", hint="delete 'phases', it only informs"
        )
    return run


def _continue(options: argparse.Namespace) -> int:
    """Continue the interrupted run of ``--resume-run``."""
    allowed = ("resume_run", "data_dir", "gpu_id", "device", "verbose", "save", "save_model", "checkpoint_every")
    _refuse_others(options, allowed, "--resume-run", "continues the run as it was started")
    folder = options.resume_run.absolute()
    found = folders.state(folder)
    if found == "finished":
        raise ConfigError("--resume-run", f"{folder} is finished; there is nothing to continue")
    if found != "interrupted":
        raise ConfigError("--resume-run", f"nothing to resume: {folder} holds no run")
    environment = folders.read_json(folder / folders.ENVIRONMENT) if (folder / folders.ENVIRONMENT).exists() else {}
    source = environment.get("resumed_from")
    return train_one(
        read_config(folder / folders.CONFIG),
        folders.Home.find(options.data_dir),
        folder,
        options,
        resume_from=Path(source) if source else None,
        keep_model=options.save or options.save_model,
        carry_on=True,
    )


def _refuse_others(options: argparse.Namespace, allowed: tuple[str, ...], flag: str, why: str) -> None:
    """Refuse flags that would be ignored beside ``flag``."""
    standard = vars(parser().parse([]))
    for name, value in vars(options).items():
        if name not in allowed and value != standard[name]:
            raise ConfigError(flag, f"--{name.replace('_', '-')} has no place beside it: it {why}")


def _model_name(run: RunConfig) -> str:
    """Name a run after its preset, or a network written inline after its text."""
    name = run.network.name
    return name if re.fullmatch(r"[\w+.,=@-]+", name) else f"inline-{config_json.digest(run)}"


if __name__ == "__main__":
    run_command(main)
