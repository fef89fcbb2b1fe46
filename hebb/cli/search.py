"""Train many networks: seeds x search space -> Ray Tune trials -> a table of mean and spread."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from hebb.cli import arguments, describe, from_best, listing, on_end, pulse, search_flags
from hebb.cli.parsing import Parser
from hebb.cli.run import check_start
from hebb.config import overrides, plan
from hebb.config.catalog import Catalog
from hebb.config.vocabulary import Launcher
from hebb.core.commands import line as command_line
from hebb.core.errors import DiskFullError, HebbError, InterruptedRunError, cause_of, said_as
from hebb.core.words import counted
from hebb.storage import board, folders
from hebb.storage.journal import Journal

if TYPE_CHECKING:
    from hebb.cli.search_display import SearchDisplay
    from hebb.tuning.search import Search
    from hebb.tuning.search_settings import SearchSettings


def parser() -> Parser:
    """Return the parser of this command."""
    return search_flags.parser(__doc__ or "")


def main(argv: list[str]) -> int:
    """Run the command and return its exit code. Help and lists load nothing of a search."""
    if arguments.asks_for_list(argv):
        return listing.main(argv, "--list", parser)
    if not argv:
        return arguments.print_help(parser())
    options = parser().parse(argv)
    line = command_line("search", *argv)
    from hebb.cli import search_request
    from hebb.tuning import job_options, search_folder, studies

    if options.restore is not None:
        search, settings, catalog = search_request.restored(options, line)
        job_options.check(search, settings.launcher, settings.jobs)
        studies.check(search, settings.storage)
        if search_folder.without_runs(search.folder):
            return _over(search, settings, dry=options.dry_run)
        if options.dry_run:
            return _dry_run(search, catalog, settings, fresh=False)
        settings.home.check_writable()
        with search_folder.held(search.folder):
            return run(search, settings, catalog, fresh=False)
    catalog = arguments.load_catalog(options)
    settings = search_request.settings(options, folders.Home.find(options.data_dir), line)
    search = resolve(options, catalog)
    job_options.check(search, settings.launcher, settings.jobs)
    studies.check(search, settings.storage)
    for trial in search.trials[:: len(search.seeds)]:
        check_start(trial.config, settings.home, search.resume_from)
    if not search.trials:
        check_start(search.base, settings.home, search.resume_from)
    if options.dry_run:
        return _dry_run(search, catalog, settings, fresh=True)
    if options.estimate:
        from hebb.cli.search_display import print_estimate
        from hebb.tuning import estimate

        with pulse.during("measuring a few updates of each configuration"):
            cost = estimate.run(search, settings)
        print_estimate(cost, search)
        return 0
    if search.resume_from is not None and options.overwrite:
        from hebb.storage import checkpoints  # needs torch

        checkpoints.check_stays(search.resume_from, search.folder, "--folder-name")
    settings.home.check_writable()
    with search_folder.held(search.folder):
        search_folder.check_free(search.folder, options.overwrite)
        return run(search, settings, catalog, fresh=True)


def resolve(options: argparse.Namespace, catalog: Catalog) -> Search:
    """Return the search that the flags describe, with every trial of it checked; nothing is written."""
    from hebb.cli import search_request
    from hebb.tuning import request

    own = overrides.parse(options.changes)
    options = from_best.applied(options, catalog)
    spec = search_flags.spec(options)
    with said_as(search_flags.places(options, spec)):
        search = search_request.of_flags(options, catalog, spec).resolve(catalog)
    request.check_used(own, search)
    if not search.spec.plan.warm_start:
        return search
    from hebb.tuning import warm_start

    return warm_start.begun(search, folders.Home.find(options.data_dir), catalog)


def run(search: Search, settings: SearchSettings, catalog: Catalog, *, fresh: bool) -> int:
    """Run the trials; torch and Ray are imported here and not before."""
    from hebb.tuning import request

    request.check_installed("search", search.spec, settings.launcher)
    from hebb.cli.search_display import SearchDisplay, continuation

    ending = on_end.at_end(settings.on_end, [search.folder], "search")
    with ending as end, contextlib.closing(SearchDisplay()) as display:
        display.preparing("loading torch" + (" and Ray" if settings.launcher == Launcher.RAY else ""))
        from hebb.tuning import search_folder, stages

        try:
            result = stages.run(search, settings, catalog, display, fresh=fresh)
        except (Exception, KeyboardInterrupt) as error:
            cause, begun = cause_of(error), (search.folder / folders.SEARCH).exists()
            if not isinstance(cause, InterruptedRunError | DiskFullError) or not begun:
                raise
            raise type(cause)(f"{cause}\n{continuation(search.folder)}") from None
        _write_report(search, settings.home, display)
        end.status = on_end.FINISHED if result.succeeded else on_end.FAILED
        end.gather()
        if not settings.save_trials and result.complete:  # not by the journal alone: this session may have extended it
            search_folder.remove_runs(search.folder)
            board.renew(search.folder)
    return 0 if result.succeeded else 1


def _over(search: Search, settings: SearchSettings, *, dry: bool) -> int:
    """Say that nothing is left of a search that has removed its runs, and return its exit code."""
    from hebb.tuning import search_folder

    text = f"complete: --save false removed its runs, and {search.folder} holds their results"
    describe.console().print(text, soft_wrap=True)
    succeeded = bool(Journal.load(search.folder).succeeded)
    if not dry:
        with search_folder.held(search.folder), on_end.at_end(settings.on_end, [search.folder], "search") as end:
            search_folder.remove_runs(search.folder)  # a kill may have left some
            end.status = on_end.FINISHED if succeeded else on_end.FAILED
    return 0 if succeeded else 1


def _write_report(search: Search, home: folders.Home, display: SearchDisplay) -> None:
    """Write the page of a search that has ended, and say where; a search without a result has none."""
    from hebb.cli.search_display import commands
    from hebb.tuning import html_report

    try:
        html_report.output(search.folder, home, commands=commands).save(search.folder, overwrite=True)
    except HebbError as error:
        display.console.print(f"no report: {error}", soft_wrap=True)
        return
    display.console.print(f"report: {search.folder / html_report.NAME}.html", soft_wrap=True)


def _dry_run(search: Search, catalog: Catalog, settings: SearchSettings, *, fresh: bool) -> int:
    """Print what would be run."""
    from hebb.tuning import job_options, search_notes

    first = search.trials[0].config if search.trials else replace(search.base, seed=search.seeds[0])
    updates = [sum(phase.updates for phase in plan.phases(trial.config)) for trial in search.trials]
    limit = settings.cache_limit if settings.keep_features else None
    describe.dry_run(first, catalog, trials=search.runs, total=sum(updates) or None, cache_limit=limit)
    jobs = job_options.described(settings.launcher, settings.jobs, search)
    notes = (*search_notes.left_out(search.left_out), *search_notes.of(search, fresh=fresh))
    for line in (_summary(search), *jobs, *notes):
        describe.console().print(line, soft_wrap=True)
    return 0


def _summary(search: Search) -> str:
    """Say in a sentence what would be run."""
    spec = search.spec
    configurations = counted(spec.count() - len(search.left_out), "configuration")
    text = f"{search.runs} trials: {configurations} x seeds {' '.join(map(str, sorted(search.seeds)))}"
    if search.packs:
        text += f", in packs of up to {search.pack_seeds} seeds trained together"
    if spec.plan.model_based:
        text += f", chosen by {spec.plan.chooser}"
    if search.stops_early:
        text += f", stopped early by {spec.scheduler.name}"
    if search.final_seeds:
        seeds = " ".join(map(str, search.final_seeds))
        names = " and ".join(one.metric for one in search.objectives)
        best = "the front of" if search.several else "the best by"
        text += f"; then {best} {names} on all training images, seeds {seeds}"
    return text
