"""Follow a search that runs elsewhere, from its folder; nothing is written.

In a terminal a table is drawn anew, on a pipe every change is a line. It ends when the search ends: with exit code 0
where it has finished, and 1 where runs failed or it was interrupted.
"""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.table import Table

from hebb.analysis import replicates
from hebb.analysis.progress import Follower, RunProgress, RunStatus, SearchProgress, SearchState
from hebb.cli import arguments, describe
from hebb.cli.parsing import Parser, count
from hebb.core import commands
from hebb.core.words import counted
from hebb.storage import folders

_VERB = "watch"
_ENDED = 8  # ended runs that stay in the table
_OVER = (RunStatus.FINISHED, RunStatus.STOPPED, RunStatus.FAILED, RunStatus.INTERRUPTED)


def parser() -> Parser:
    """Return the parser of the command."""
    flags = Parser(__doc__ or "", prog=commands.name(_VERB))
    flags.add_argument("search", metavar="SEARCH", help="a search: its name, or its folder")
    flags.add_argument("--once", action="store_true", help="print how far it is now, then stop")
    flags.add_argument("--every", type=count, default=2, metavar="N", help="seconds between two looks (default: 2)")
    flags.add_argument(
        "--quiet-after",
        type=count,
        default=10,
        metavar="N",
        help="minutes without a change of its records after which it is said to make no progress (default: 10)",
    )
    arguments.add_home_flag(flags)
    return flags


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parser().parse(argv)
    folder = folders.stored_folder(options.search, folders.Home.find(options.data_dir), _VERB)
    folders.check_search(folder, _VERB)
    follower, still = Follower(folder), 60 * options.quiet_after
    out = describe.console()
    if options.once:
        progress = follower.look()
        out.print(_table(progress))
        _print_end(progress, folder, still)
    elif out.is_terminal:
        progress = _live(follower, options.every, still)
    else:
        progress = _lines(follower, options.every, still)
    return 0 if progress.state in (SearchState.RUNNING, SearchState.FINISHED) else 1


def _live(follower: Follower, every: int, still: int) -> SearchProgress:
    """Draw the table anew until the search ends, and leave the last one."""
    out, progress = describe.console(), follower.look()
    with Live(console=out, auto_refresh=False) as live:
        while True:
            front = [_front(progress)] if progress.several else []
            live.update(Group(_table(progress), *front, sentence(progress, follower.folder, still)), refresh=True)
            if progress.state != SearchState.RUNNING:
                return progress
            time.sleep(every)
            progress = follower.look()


def _lines(follower: Follower, every: int, still: int) -> SearchProgress:
    """Print a line for every run that has changed, until the search ends."""
    out, before, quiet = describe.console(), dict[str, RunProgress](), False
    while True:
        progress = follower.look()
        for run in (*progress.runs, *progress.final):
            if run != before.get(run.name) and run.state != RunStatus.WAITING:
                out.print(_line(run, progress), soft_wrap=True)
            before[run.name] = run
        if progress.state != SearchState.RUNNING:
            _print_end(progress, follower.folder, still)
            return progress
        if (progress.quiet > still) != quiet:
            quiet = not quiet
            out.print(sentence(progress, follower.folder, still) if quiet else "it goes on", soft_wrap=True)
        time.sleep(every)


def _print_end(progress: SearchProgress, folder: Path, still: int) -> None:
    """Print the front of a search by several metrics, and how far the search is."""
    out = describe.console()
    if progress.several:
        out.print(_front(progress))
    out.print(sentence(progress, folder, still), soft_wrap=True)


def _front(progress: SearchProgress) -> Table:
    """Lay out the configurations that no other beats so far, with the means of everything that is compared."""
    names = [one.metric for one in progress.objectives]
    columns = [f"{one.metric} ({one.mode})" for one in progress.objectives]
    table = describe.table(
        "front so far" if progress.state == SearchState.RUNNING else "front",
        ("point", "configuration", *columns),
        columns,
    )
    for number, point in enumerate(progress.front, 1):
        table.add_row(str(number), point.label, *(_text(point.means[name], name) for name in names))
    return table


def sentence(progress: SearchProgress, folder: Path, still: int) -> str:
    """Say how far a search is, or how it ended; ``still``: seconds after which it makes no progress."""
    tally = progress.tally
    text = f"{tally.finished} of {counted(tally.total, 'run')} finished"
    everything = (*progress.runs, *progress.final)
    running = sum(run.state == RunStatus.RUNNING for run in everything)
    others = tally.others()
    if progress.state == SearchState.RUNNING:
        others = f"{running} running" if running else "none running"
        failed = sum(run.state == RunStatus.FAILED for run in everything)
        others += f", {failed} failed" if failed else ""
    best = progress.leading
    text += f", {others}" if others else ""
    if progress.several:
        text += f"; {counted(len(progress.front), 'configuration')} on the front"
    elif best:
        text += f"; best run: {best.label} seed {best.seed}, {_value(best, progress.metric)}"
    if progress.state == SearchState.INTERRUPTED:
        return f"interrupted: {text}\n{commands.line('search', '--restore', folder)} continues it"
    if progress.state != SearchState.RUNNING:
        return f"{progress.state}: {text}"
    if progress.quiet > still:
        quiet = describe.duration(progress.quiet)
        return f"no progress for {quiet}: {text}; {progress.holder} holds the search"
    return f"running, by {progress.holder}: {text}"


def _table(progress: SearchProgress) -> Table:
    """Lay out the runs that go on, and the last ones that ended."""
    metrics = [one.metric for one in progress.objectives]
    columns = ("run", "configuration", "seed", "phase", "epoch", *metrics, "state")
    table = describe.table("", columns, ("seed", "epoch", *metrics))
    everything = (*progress.runs, *progress.final)
    over = [run for run in everything if run.state in _OVER]
    for run in [*over[-_ENDED:], *(run for run in everything if run.state == RunStatus.RUNNING)]:
        values = [_value(run, _metric(run, progress))]
        values += [_text(run.beside[name], name) if name in run.beside else "" for name in metrics[1:]]
        table.add_row(run.name, run.label, str(run.seed), run.phase, run.epoch, *values, run.state.value)
    return table


def _line(run: RunProgress, progress: SearchProgress) -> str:
    place = f"  phase {run.phase} epoch {run.epoch}" if run.phase and run.state == RunStatus.RUNNING else ""
    metric = _metric(run, progress)
    value = _value(run, metric)
    others = [
        f"  {one.metric} {_text(run.beside[one.metric], one.metric)}"
        for one in progress.objectives[1:]
        if one.metric in run.beside
    ]
    return (
        f"{run.label} seed {run.seed}  {run.state}{place}" + (f"  {metric} {value}" if value else "") + "".join(others)
    )


def _metric(run: RunProgress, progress: SearchProgress) -> str:
    return "test_acc" if run in progress.final else progress.metric


def _value(run: RunProgress, metric: str) -> str:
    return "" if run.value is None else _text(run.value, metric)


def _text(value: float, metric: str) -> str:
    return replicates.with_unit(value, metric)
