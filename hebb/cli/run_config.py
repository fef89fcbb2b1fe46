"""Train the run of a stored ``config.json``; what it fixes cannot be given as flags."""

from __future__ import annotations

import argparse
from dataclasses import replace

from hebb.cli import arguments, describe, train_flags
from hebb.cli.arguments import Exclusive, Parser, Section
from hebb.cli.run import members, read_config, train_all
from hebb.config import overrides, plan, plugins, shapes
from hebb.config.catalog import Catalog
from hebb.config.specs import RunConfig
from hebb.core import commands
from hebb.storage import folders


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
    run = resolve(options, catalog)
    name = arguments.plain_name(run) if options.model_name is None else options.model_name
    home = folders.Home.find(options.data_dir)
    folder = home.network(name)
    run, resume_from = arguments.resumed(run, options.resume, home, name)
    if options.dry_run:
        describe.dry_run(run, catalog, trials=max(1, len(run.pack)), cache_limit=arguments.cache_limit(options))
        return 0
    return train_all(members(run, folder), home, options, overwrite=options.overwrite, resume_from=resume_from)


def resolve(options: argparse.Namespace, catalog: Catalog) -> RunConfig:
    """Return the stored run with the changes of ``--set``, with its plan and shapes checked."""
    run = overrides.apply(read_config(options.run_config), overrides.parse(options.changes), catalog)
    run = replace(run, plugins=plugins.of_run(run))
    plan.phases(run)
    shapes.of_run(run)
    return run
