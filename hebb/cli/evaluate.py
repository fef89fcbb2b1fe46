"""Measure a stored model on test images."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from hebb.cli import arguments, describe, pulse, train_flags
from hebb.cli.parsing import Exclusive, Parser, Section
from hebb.cli.run import read_config
from hebb.config import overrides
from hebb.config.catalog import Catalog
from hebb.config.data_spec import DataSpec
from hebb.config.specs import RunConfig
from hebb.core import commands
from hebb.core.errors import ConfigError
from hebb.storage import folders

_VERB = "evaluate"


def parser(flag: str = _VERB) -> Parser:
    """Return the parser of the command, in which the model follows the verb or the flag ``--evaluate``."""
    flags = Parser(
        "Measure a stored model on test images.",
        prog=commands.name(_VERB),
        exclusive=Exclusive(flag, "measures a model as it was stored", train_flags.parser),
    )
    flags.add_subject(flag, _VERB, dest="model", metavar="MODEL_OR_DIR", help="name of a model, or its run folder")
    train_flags.add_export_flag(flags)
    flags.section(Section.NETWORK).add_argument(
        "--dataset-sup", metavar="NAME", help="dataset whose test images are used (default: the one of the run)"
    )
    arguments.add_changes_flag(flags, "only dataset_sup.*, as in dataset_sup.batch_size=500")
    arguments.add_catalog_flags(flags)
    arguments.add_device_flags(flags)
    arguments.add_home_flag(flags)
    return flags


def main(argv: list[str], flag: str = _VERB) -> int:
    """Run the command and return its exit code."""
    options = parser(flag).parse(argv)
    if options.export_features is not None:
        _check_export(options.export_features)
    home = folders.Home.find(options.data_dir)
    device = arguments.device(options)
    catalog = arguments.load_catalog(options)
    checkpoint = folders.checkpoint_of(options.model, home, flag)
    run = replace(read_config(checkpoint.parent.parent / folders.CONFIG), device=device.kind)
    data = _data(options, run, catalog)

    from hebb.probing import stored

    file = options.export_features
    with pulse.during(f"measuring {run.network.name} on {data.dataset}"):
        measured = stored.evaluate(run, checkpoint, data, home, device_index=device.index, features=file)
    describe.evaluation(run.network.name, data.dataset, measured.loss, measured.accuracy, measured.classes)
    if options.export_features is not None:
        describe.console().print(f"features: {options.export_features.absolute()}", soft_wrap=True)
    return 0


def _check_export(file: Path) -> None:
    """Raise unless ``--export-features`` names a new .npz file in a folder that exists."""
    flag = "--export-features"
    if file.suffix != ".npz":
        raise ConfigError(flag, f"must be a file that ends in .npz, got '{file}'")
    if file.exists():
        raise ConfigError(flag, f"must be a new file, and '{file}' exists", hint="remove it, or choose another name")
    if not file.parent.is_dir():
        raise ConfigError(flag, f"must be a file in a folder that exists, got '{file}'")
    folders.check_writable(file.parent, flag)


def _data(options: argparse.Namespace, run: RunConfig, catalog: Catalog) -> DataSpec:
    """Return the dataset of the run, or another one, with the changes of ``--set``."""
    if options.dataset_sup is not None:
        run = replace(run, dataset_sup=catalog.dataset(options.dataset_sup, "--dataset-sup"))
    changes = overrides.parse(options.changes)
    for path in changes:
        if not path.startswith("dataset_sup."):
            raise ConfigError("--set", f"'{path}' would change the stored model", hint="only dataset_sup.* can be set")
    return overrides.apply(run, changes, catalog).dataset_sup
