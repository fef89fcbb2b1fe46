"""Verbs that read the numbers of stored runs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cli.analysis.verb import Verb, add_metric, add_selection, found, selected

if TYPE_CHECKING:
    from hebb.analysis.output import Output


def _list(options: argparse.Namespace) -> Output:
    chosen = selected(options)

    from hebb.analysis import runs
    from hebb.analysis.output import Output

    frame = runs.frame(chosen)
    shown = frame[["run", "preset", "dataset", "seed", "train_acc", "val_acc", "test_acc", "seconds"]]
    missing = found(options).unfinished()
    text = shown.to_string(index=False, na_rep="-") + (f"\n{missing}" if missing else "")
    return Output(options.name, frame, text=text)


def _table_flags(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    add_metric(parser)
    parser.add_argument(
        "--by",
        nargs="+",
        metavar="COLUMN",
        help="what makes a line: preset, dataset, search, mode, hidden, paths of --set (default: what differs)",
    )


def _table(options: argparse.Namespace) -> Output:
    chosen = selected(options)  # bad input is found before pandas is imported

    from hebb.analysis import table
    from hebb.analysis.output import Output

    made = table.compute(chosen, options.metric, options.by)
    shown = table.cells(made)
    more = {".md": table.markdown(shown), ".tex": table.latex(shown)}
    return Output(options.name, made, text=shown.to_string(index=False), more=more)


VERBS = (
    Verb("runs", "every stored run: what it was and what it measured, one line each", add_selection, _list),
    Verb("table", "mean, deviation, 95 % interval and n over seeds, as CSV, Markdown, LaTeX", _table_flags, _table),
)
