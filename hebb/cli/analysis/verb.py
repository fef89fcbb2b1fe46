"""A verb of ``hebb analysis``, and the flags that choose the runs it reads. Never imports torch or pandas."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hebb.cli.parsing import Distinct
from hebb.config import overrides
from hebb.config.objectives import COSTS
from hebb.core.errors import ConfigError
from hebb.storage import folders

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hebb.analysis.output import Output
    from hebb.analysis.runs import StoredRun, StoredRuns


@dataclass(frozen=True)
class Verb:
    """One analysis, as the command line sees it.

    Attributes:
        name: what the user types.
        summary: what it shows, in one line.
        flags: adds its own; every verb has ``--out``, ``--name``, ``--overwrite``, ``--data-dir`` and ``--plugin``.
        run: computes and draws; heavy packages are imported inside. ``options.name`` names the files of its output, and
            is the first part of the names where there are several outputs.
        file_name: names its files when ``--name`` is not given; None uses the name of the verb.
        looks: whether it looks into a stored network, on a device that ``--gpu-id`` and ``--device`` name.
        out: help text of ``--out``.
        folder: where its files go without ``--out``; None is ``hebb/analysis`` below the parent folder.
    """

    name: str
    summary: str
    flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Output | list[Output]]
    file_name: Callable[[argparse.Namespace], str] | None = None
    folder: Callable[[argparse.Namespace], Path] | None = None
    looks: bool = False
    out: str = "folder for its files (default: hebb/analysis)"

    def outputs(self, options: argparse.Namespace) -> list[Output]:
        """Compute and draw."""
        output = self.run(options)
        return output if isinstance(output, list) else [output]


def drawn(options: argparse.Namespace, frame: pd.DataFrame, draw: Callable[[pd.DataFrame], Figure]) -> Output:
    """Return a table and the figure that ``draw`` makes of it, under the name that the flags give."""
    from hebb.analysis.output import Output

    return Output(options.name, frame, draw(frame))


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose runs; ``selected`` reads them."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUNS",
        help="names of searches or runs, or folders: of a run, of a search, or any folder that holds some",
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
    parser.add_argument("--partial", action="store_true", help="leave out unfinished runs, and name them")


def stored(options: argparse.Namespace) -> StoredRuns:
    """Read all runs in the folders that the flags of ``add_selection`` name, unfinished ones too."""
    from hebb.analysis import runs

    home = folders.Home.find(options.data_dir)
    return runs.read([folders.stored_folder(name, home) for name in options.runs])


def selected(options: argparse.Namespace) -> tuple[StoredRun, ...]:
    """Return the finished runs that the flags of ``add_selection`` choose.

    Raises:
        ConfigError: for a name that is no run, an unfinished run without ``--partial``, or an empty selection.
    """
    return narrowed(stored(options), options)


def narrowed(everything: StoredRuns, options: argparse.Namespace) -> tuple[StoredRun, ...]:
    """Return those of the stored runs that the flags of ``add_selection`` choose."""
    if not options.partial:
        everything.check()
    elif everything.unfinished or everything.damaged:
        left_out = filter(None, (everything.describe_unfinished(), everything.describe_damaged()))
        print(f"left out: {'; '.join(left_out)}", file=sys.stderr)
    return chosen_of(everything.runs, options)


def chosen_of(finished: Sequence[StoredRun], options: argparse.Namespace) -> tuple[StoredRun, ...]:
    """Return those of the finished runs that the flags of ``add_selection`` choose."""
    from hebb.analysis import runs

    if not finished:
        raise ConfigError("runs", "none is finished")
    return runs.select(
        finished,
        presets=options.preset,
        datasets=options.dataset,
        values=overrides.parse(options.where, "--where"),
    )


def add_metric(parser: argparse.ArgumentParser, default: str = "test_acc") -> None:
    """Add the flag that says what is measured."""
    parser.add_argument(
        "--metric",
        default=default,
        metavar="NAME",
        help=f"column of metrics.jsonl, or a cost: {' '.join(COSTS)} (default: {default})",
    )


def add_selection_and_metric(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose runs, and the one that says what is measured."""
    add_selection(parser)
    add_metric(parser)


def add_by(parser: argparse.ArgumentParser, item: str, default: str = "those that differ") -> None:
    """Add the flag that says which runs are replicates; each group of them is one ``item`` of the output."""
    columns = f"preset, dataset, search, mode, trained, hidden, paths of --set (default: {default})"
    parser.add_argument("--by", action=Distinct, nargs="+", metavar="COLUMN", help=f"what makes {item}: {columns}")
