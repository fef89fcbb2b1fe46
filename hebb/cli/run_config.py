"""Train the run of a stored ``config.json``; what it fixes cannot be given as flags."""

from __future__ import annotations

import argparse
from dataclasses import replace

from hebb.cli import arguments, train_flags
from hebb.cli.parsing import Exclusive, Parser, Section
from hebb.cli.run import read_config, start
from hebb.config import overrides, plan, plugins, shapes
from hebb.config.catalog import Catalog
from hebb.config.specs import RunConfig
from hebb.core import commands
from hebb.core.errors import said_as


def parser(flag: str = "--run-config") -> Parser:
    """Return the parser of the command."""
    flags = Parser(
        "Train the run of a stored config.json, to the same bits on the same machine.",
        prog=commands.name("train"),
        exclusive=Exclusive(flag, "already fixes the run (--set changes single values)", train_flags.parser),
    )
    train_flags.add_run_config_flag(flags)
    flags.section(Section.INSTEAD).add_argument(
        "--dry-run", action="store_true", help="print network, phases and updates, then stop"
    )
    arguments.add_changes_flag(flags, "seed=3 dataset_sup.epochs=2")
    arguments.add_plugin_flag(flags)
    train_flags.add_model_name_flag(flags)
    arguments.add_home_flag(flags)
    arguments.add_start_flags(flags)
    train_flags.add_storage_flags(flags)
    arguments.add_cache_flags(flags)
    return flags


def main(argv: list[str], flag: str = "--run-config") -> int:
    """Run the command and return its exit code."""
    options = parser(flag).parse(argv)
    catalog = arguments.load_catalog(options)
    return start(resolve(options, catalog), options, catalog)


def resolve(options: argparse.Namespace, catalog: Catalog) -> RunConfig:
    """Return the stored run with the changes of ``--set``, with its plan and shapes checked."""
    with said_as({str(options.run_config): f"--run-config {options.run_config}"}):
        run = read_config(options.run_config)
    run = overrides.apply(run, overrides.parse(options.changes), catalog)
    run = replace(run, plugins=plugins.of_run(run))
    plan.phases(run)
    shapes.of_run(run)
    return run
