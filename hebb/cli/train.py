"""Train one network: flags -> RunConfig -> train.run -> summary.

A flag that names another use of the command (``--resume-run``, ``--evaluate``, ``--run-config``, ``--list``) hands over
to the command of that use, with a parser of its own.
"""

from __future__ import annotations

import argparse
import importlib
from dataclasses import replace

from hebb.cli import arguments, from_best, train_flags
from hebb.cli.run import start
from hebb.config import plan, shapes
from hebb.config.catalog import Catalog
from hebb.config.specs import VALIDATION_SHARE, RunConfig
from hebb.core.threads import cores

OTHER_USES = {
    "--list": "hebb.cli.listing",
    "--resume-run": "hebb.cli.resume",
    "--evaluate": "hebb.cli.evaluate",
    "--run-config": "hebb.cli.run_config",
}
"""For each flag the module whose ``main(argv, flag)`` takes the command over; of several flags the first one wins."""

parser = train_flags.parser


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    flags = {word.partition("=")[0] for word in argv}
    for flag, module in OTHER_USES.items():
        if flag in flags:
            code: int = importlib.import_module(module).main(argv, flag)
            return code
    if not argv:
        return arguments.print_help(parser())
    options = parser().parse(argv)
    catalog = arguments.load_catalog(options)
    options = from_best.applied(options, catalog)
    return start(resolve(options, catalog), options, catalog, device_index=arguments.device(options).index)


def resolve(options: argparse.Namespace, catalog: Catalog) -> RunConfig:
    """Return the run that the flags describe, with its plan and shapes checked."""
    share = VALIDATION_SHARE if options.validation else 0.0
    run = arguments.run_config(options, catalog, seed=options.seed, validation=(share, share), threads=cores())
    if options.pack_seeds > 1:
        run = replace(run, pack=tuple(range(run.seed, run.seed + options.pack_seeds)))
    plan.phases(run)
    shapes.of_run(run)
    return run
