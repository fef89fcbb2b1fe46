"""What a verb of ``analysis.py`` is, and how it is told which runs to read. Never imports torch or pandas."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hebb.config import overrides
from hebb.core.errors import ConfigError
from hebb.storage import folders

if TYPE_CHECKING:
    from hebb.analysis.output import Output
    from hebb.analysis.runs import StoredRun, StoredRuns


@dataclass(frozen=True)
class Verb:
    """One analysis, as the command line sees it.

    Attributes:
        name: what the user types.
        summary: what it shows, in a line.
        flags: adds its flags; ``--out``, ``--name``, ``--overwrite``, ``--data-dir`` and ``--plugin`` are there.
        run: computes and draws; heavy packages are imported inside. ``options.name`` is the name of its files, or how
            the names of several outputs begin.
        file_name: names its files where ``--name`` does not; None: after the verb.
        folder: where its files go without ``--out``; None: ``hebb/analysis`` below the parent folder.
    """

    name: str
    summary: str
    flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Output | list[Output]]
    file_name: Callable[[argparse.Namespace], str] | None = None
    folder: Callable[[argparse.Namespace], Path] | None = None

    def outputs(self, options: argparse.Namespace) -> list[Output]:
        """Compute and draw."""
        made = self.run(options)
        return made if isinstance(made, list) else [made]


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Flags that choose runs; ``selected`` reads them."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUNS",
        help="names of searches or of single runs, or folders: of a run, of a search, or any that holds such",
    )
    parser.add_argument("--preset", nargs="+", default=[], metavar="NAME", help="only runs of these networks")
    parser.add_argument("--dataset", nargs="+", default=[], metavar="NAME", help="only runs on these datasets")
    parser.add_argument(
        "--where",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH=VALUE",
        help="only runs with these values, by the paths of --set (b0.layer.lr=0.05)",
    )
    parser.add_argument("--partial", action="store_true", help="leave out, and name, runs that are not finished")


def found(options: argparse.Namespace) -> StoredRuns:
    """Read what the flags of ``add_selection`` name, unfinished runs too."""
    from hebb.analysis import runs

    home = folders.Home.find(options.data_dir)
    return runs.read([place(name, home) for name in options.runs])


def selected(options: argparse.Namespace) -> tuple[StoredRun, ...]:
    """Return the finished runs that the flags of ``add_selection`` choose.

    Raises:
        ConfigError: for a name that is no run, an unfinished run without ``--partial``, or when nothing is left.
    """
    return narrowed(found(options), options)


def narrowed(there: StoredRuns, options: argparse.Namespace) -> tuple[StoredRun, ...]:
    """Return the finished runs of what was found, by the flags of ``add_selection``."""
    from hebb.analysis import runs

    if not options.partial:
        there.check()
    elif there.missing:
        print(f"left out: {there.unfinished()}", file=sys.stderr)
    if not there.runs:
        raise ConfigError("runs", "none is finished")
    return runs.select(
        there.runs,
        presets=options.preset,
        datasets=options.dataset,
        values=overrides.parse(options.where, "--where"),
    )


def place(name: str, home: folders.Home) -> Path:
    """Return the folder of a run or a search, given as a folder or by its name."""
    folder = Path(name)
    if folder.is_dir():
        return folder
    above = (home.parent / "hebb" / "search", home.networks)
    for candidate in above:
        if name and Path(name).name == name and (candidate / name).is_dir():
            return candidate / name
    known = sorted(p.name for parent in above if parent.is_dir() for p in parent.iterdir() if p.is_dir())
    problem = f"'{name}' is no folder, and no search or run of that name is below {home.parent}"
    raise ConfigError("runs", problem, given=name, choices=known)


def add_metric(parser: argparse.ArgumentParser, default: str = "test_acc") -> None:
    """The flag that says what is measured."""
    parser.add_argument(
        "--metric", default=default, metavar="NAME", help=f"column of metrics.jsonl (default: {default})"
    )


def add_by(parser: argparse.ArgumentParser, what: str) -> None:
    """The flag that says which runs are replicates."""
    columns = "preset, dataset, search, mode, trained, hidden, paths of --set (default: what differs)"
    parser.add_argument("--by", nargs="+", metavar="COLUMN", help=f"what makes {what}: {columns}")
