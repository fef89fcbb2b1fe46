"""Measure the post-hoc loss: train a network, then its lower blocks again below its classifier.

The curve (loss and accuracy per example seen) is written to the run folder as CSV, PNG and SVG.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hebb.cli import arguments, describe, listing, resume
from hebb.cli.parsing import Exclusive, Parser, Section
from hebb.cli.run import check_start, read_config, with_next_step
from hebb.config import plan, shapes
from hebb.config.catalog import Catalog
from hebb.config.specs import RunConfig
from hebb.core import commands, extras
from hebb.core.errors import ConfigError
from hebb.core.threads import cores
from hebb.storage import folders
from hebb.storage.folders import FolderState

_VERB = "post-hoc"
_CONTINUE = "--resume-run"

_FIRST = {
    "--protocol": "a named group of changes, before --set",
    "--training-mode": "successive | consecutive | simultaneous",
    "--seed": "of weights, order and dropout (default: 0)",
    "--model-name": "name of the run (default: PRESET_post_hoc)",
    "--gpu-id": "GPU, or cpu (default: GPU 0 if there is one)",
    "--resume": "start from stored weights",
    _CONTINUE: "continue what was interrupted, to the same bits",
}


def parser() -> Parser:
    """Return the parser of this command."""
    flags = Parser(__doc__ or "", prog=commands.name(_VERB))
    arguments.add_network_flags(flags)
    arguments.add_seed_flag(flags)
    flags.section(Section.STORAGE).add_argument(
        "--model-name", metavar="NAME", help="name under which the run is stored (default: PRESET_post_hoc)"
    )
    arguments.add_run_flags(flags)
    flags.section(Section.INSTEAD).add_argument(
        _CONTINUE, metavar="MODEL_OR_DIR", help="continue an interrupted training or measurement, to the same bits"
    )
    flags.put_first(arguments.FIRST | _FIRST)
    return flags


def _parser_to_continue() -> Parser:
    """Return the parser of the command with ``--resume-run``."""
    flags = Parser(
        "Continue an interrupted training or measurement, to the bits of an uninterrupted one.",
        prog=commands.name(_VERB),
        exclusive=Exclusive(_CONTINUE, "continues the run as it was started", parser),
    )
    flags.add_subject(_CONTINUE, _VERB, metavar="MODEL_OR_DIR", help="name of the run, or its folder")
    arguments.add_plugin_flag(flags)
    arguments.add_device_flags(flags)
    arguments.add_cache_flags(flags)
    arguments.add_home_flag(flags)
    arguments.add_verbose_flag(flags)
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
    if _CONTINUE in {word.partition("=")[0] for word in argv}:
        return _continue(_parser_to_continue().parse(argv))
    options = parser().parse(argv)
    catalog = arguments.load_catalog(options)
    run = resolve(options, catalog)
    home = folders.Home.find(options.data_dir)
    name = options.model_name
    if name is None:
        name = f"{arguments.plain_name(run, lambda name: home.network(f'{name}_post_hoc'))}_post_hoc"
    folder = home.network(name)
    run, resume_from = arguments.resumed(run, options.resume, home, name)
    check_start(run, home, resume_from)
    if options.dry_run:
        describe.dry_run(run, catalog, cache_limit=arguments.cache_limit(options))
        phase = plan.post_hoc(run)
        describe.console().print(f"then {phase.updates:,} updates of {phase.describe()} below the frozen classifier")
        return 0
    if resume_from is not None and options.overwrite:
        from hebb.storage import checkpoints  # needs torch

        checkpoints.check_stays(resume_from, folder, "--model-name")
    return _measure(
        run,
        folder,
        home,
        options,
        device_index=arguments.device(options).index,
        overwrite=options.overwrite,
        resume_from=resume_from,
    )


def _continue(options: argparse.Namespace) -> int:
    """Continue what was begun in the folder of ``--resume-run``."""
    arguments.load_plugins(options)
    home = folders.Home.find(options.data_dir)
    folder = folders.run_folder(options.resume_run, home, _CONTINUE)
    if folders.state(folder) not in (FolderState.INTERRUPTED, FolderState.FINISHED):
        choices = folders.names(folder.parent, FolderState.INTERRUPTED)
        raise ConfigError(_CONTINUE, f"{folder} holds no run", given=folder.name, choices=choices)
    if _is_measured(folder):
        raise ConfigError(_CONTINUE, f"{folder} is finished; there is nothing to continue")
    run = read_config(folder / folders.CONFIG)
    if run.pack:
        raise ConfigError(_CONTINUE, f"{folder} holds a member of a pack, which has no post-hoc loss")
    plan.post_hoc(run)
    return _measure(
        run,
        folder,
        home,
        options,
        device_index=resume.device_index(options, run),
        resume_from=resume.initial_weights(run, folder),
        carry_on=True,
    )


def _is_measured(folder: Path) -> bool:
    """Tell whether a folder holds the curve and its pictures, which are written last."""
    return (folder / folders.POST_HOC).with_suffix(".svg").exists()


def _next_step(folder: Path) -> str | None:
    """Return the command that continues what was begun in a folder."""
    begun = folders.state(folder) in (FolderState.INTERRUPTED, FolderState.FINISHED) and not _is_measured(folder)
    return commands.line(_VERB, _CONTINUE, folder) if begun else None


def _measure(
    run: RunConfig,
    folder: Path,
    home: folders.Home,
    options: argparse.Namespace,
    *,
    device_index: int,
    resume_from: Path | None,
    overwrite: bool = False,
    carry_on: bool = False,
) -> int:
    """Train the network and measure the loss; the arguments are those of ``train_all``."""
    home.check_writable()
    folders.check_writable(folder, str(folder))
    extras.require("the curve of the post-hoc loss", "matplotlib", "pandas", extra=extras.EXTRAS["matplotlib"])
    from hebb.analysis.post_hoc import moving_average, write_figure
    from hebb.cli.run_display import ConsoleReport
    from hebb.training import post_hoc, train

    report = ConsoleReport(options.verbose)
    place = train.Place(
        datasets=home.datasets,
        folder=folder,
        device_index=device_index,
        overwrite=overwrite,
        carry_on=carry_on,
        resume_from=resume_from,
        layers=home.layers,
        cache=home.cache,
        **arguments.feature_cache(options),
    )
    with folders.all_held([folder]):
        if not carry_on:
            folders.refuse_existing(folder, overwrite)
        with with_next_step(lambda: _next_step(folder)):
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
