"""Measure the post-hoc loss: train a network, then its lower blocks again below the finished classifier.

The curve (loss and accuracy per example seen) is written to the run folder as CSV, PNG and SVG.
"""

from __future__ import annotations

import argparse

from hebb.cli import arguments, describe, listing
from hebb.cli.parsing import Parser, Section
from hebb.cli.run import check_start
from hebb.config import plan, shapes
from hebb.config.catalog import Catalog
from hebb.config.specs import RunConfig
from hebb.core import commands, extras
from hebb.core.threads import cores
from hebb.storage import folders

_VERB = "post-hoc"


def parser() -> Parser:
    """Return the parser of this command."""
    flags = Parser(__doc__ or "", prog=commands.name(_VERB))
    arguments.add_network_flags(flags)
    arguments.add_seed_flag(flags)
    flags.section(Section.STORAGE).add_argument(
        "--model-name", metavar="NAME", help="name under which the run is stored (default: PRESET_post_hoc)"
    )
    arguments.add_run_flags(flags)
    return flags


def resolve(options: argparse.Namespace, catalog: Catalog) -> RunConfig:
    """Return the run of the first training, with its plan and shapes checked."""
    run = arguments.run_config(options, catalog, seed=options.seed, validation=(0.0, 0.0), threads=cores())
    plan.phases(run)
    plan.post_hoc(run)
    shapes.of_run(run)
    return run


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    if arguments.asks_for_list(argv):
        return listing.main(argv, "--list", parser)
    if not argv:
        return arguments.print_help(parser())
    options = parser().parse(argv)
    catalog = arguments.load_catalog(options)
    run = resolve(options, catalog)
    home = folders.Home.find(options.data_dir)
    name = f"{arguments.plain_name(run)}_post_hoc" if options.model_name is None else options.model_name
    folder = home.network(name)
    run, resume_from = arguments.resumed(run, options.resume, home, name)
    check_start(run, home, resume_from)
    if options.dry_run:
        describe.dry_run(run, catalog, cache_limit=arguments.cache_limit(options))
        phase = plan.post_hoc(run)
        describe.console().print(f"then {phase.updates:,} updates of {phase.describe()} below the frozen classifier")
        return 0
    home.check_writable()
    extras.require("the curve of the post-hoc loss", "matplotlib", "pandas", extra=extras.EXTRAS["matplotlib"])
    from hebb.analysis.post_hoc import moving_average, write_figure
    from hebb.cli.run_display import ConsoleReport
    from hebb.training import post_hoc, train

    report = ConsoleReport(options.verbose)
    place = train.Place(
        datasets=home.datasets,
        folder=folder,
        device_index=arguments.device(options).index,
        overwrite=options.overwrite,
        resume_from=resume_from,
        layers=home.layers,
        cache=home.cache,
        **arguments.feature_cache(options),
    )
    with folders.all_held([folder]):
        try:
            curve = post_hoc.run(run, report, place=place)
        finally:
            report.close()
        write_figure(curve, folder)
    first, last = (moving_average(curve)[i] for i in (0, -1))
    out = describe.console()
    start, end = (f"{describe.format_loss(loss)} after {examples:,.0f}" for examples, loss, *_ in (first, last))
    out.print(f"post-hoc loss {start} examples, {end}")
    out.print(f"curve: {folder / 'post_hoc.csv'}, .png, .svg", soft_wrap=True)
    return 0
