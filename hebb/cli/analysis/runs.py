"""Verbs that read the numbers of any stored runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hebb.cli.analysis.verb import Verb, add_by, add_metric, add_selection, found, narrowed, selected

if TYPE_CHECKING:
    from hebb.analysis.output import Output

# bad input is found before pandas and matplotlib are imported


def _list(options: argparse.Namespace) -> Output:
    there = found(options)
    chosen = narrowed(there, options)

    from hebb.analysis import runs
    from hebb.analysis.output import Output

    frame = runs.frame(chosen)
    shown = frame[["run", "preset", "dataset", "seed", "train_acc", "val_acc", "test_acc", "seconds"]]
    missing = there.unfinished()
    text = shown.to_string(index=False, na_rep="-") + (f"\n{missing}" if missing else "")
    return Output(options.name, frame, text=text)


def _table_flags(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    add_metric(parser)
    add_by(parser, "a line")


def _table(options: argparse.Namespace) -> Output:
    chosen = selected(options)

    from hebb.analysis import table
    from hebb.analysis.output import Output

    made = table.compute(chosen, options.metric, options.by)
    shown = table.cells(made)
    more = {".md": table.markdown(shown), ".tex": table.latex(shown)}
    return Output(options.name, made, text=shown.to_string(index=False), more=more)


def _curves_flags(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    add_metric(parser)
    add_by(parser, "a curve")


def _curves(options: argparse.Namespace) -> Output:
    chosen = selected(options)

    from hebb.analysis import curves
    from hebb.analysis.output import Output

    made = curves.compute(chosen, options.metric, options.by)
    return Output(options.name, made, curves.draw(made))


def _compare_flags(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    add_metric(parser)
    parser.add_argument("--unpaired", action="store_true", help="Welch's test: seeds are no pairs")


def _compare(options: argparse.Namespace) -> Output:
    names = list(dict.fromkeys(options.runs))
    every = [found(argparse.Namespace(**{**vars(options), "runs": [name]})) for name in names]
    short = [Path(name).name for name in names]
    shown = short if len(set(short)) == len(short) else names
    groups = {name: narrowed(there, options) for name, there in zip(shown, every, strict=True)}

    from hebb.analysis import compare
    from hebb.analysis.output import Output

    made = compare.compute(groups, options.metric, paired=not options.unpaired)
    return Output(options.name, made, compare.draw(made), text=made.to_string(index=False, float_format="%.4g"))


VERBS = (
    Verb("runs", "every stored run: what it was and what it measured, one line each", add_selection, _list),
    Verb("table", "mean, deviation, 95 % interval and n over seeds, as CSV, Markdown, LaTeX", _table_flags, _table),
    Verb("curves", "a metric over the epochs, with a band over seeds", _curves_flags, _curves),
    Verb("compare", "searches against the first, seed by seed: difference, interval, test", _compare_flags, _compare),
)
