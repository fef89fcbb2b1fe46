"""Verbs that read the numbers of any stored runs.

Each finds bad input before it imports pandas and matplotlib.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hebb.cli.analysis.verb import (
    Verb,
    add_by,
    add_selection,
    add_selection_and_metric,
    chosen_of,
    drawn,
    narrowed,
    selected,
    stored,
)
from hebb.cli.parsing import Distinct, count, whole_number
from hebb.config.objectives import COSTS
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from hebb.analysis.output import Output
    from hebb.analysis.runs import StoredRun


def _list(options: argparse.Namespace) -> Output:
    everything = stored(options)
    chosen = chosen_of(everything.runs, options)

    from hebb.analysis import runs, table
    from hebb.analysis.output import Output

    frame = runs.frame(chosen)
    others = f"\n{everything.tally.sentence()}\n{everything.describe_unfinished()}" if everything.unfinished else ""
    damaged = f"\n{everything.describe_damaged()}" if everything.damaged else ""
    return Output(options.name, frame, text=table.listing(chosen) + others + damaged)


def _table_flags(parser: argparse.ArgumentParser) -> None:
    add_selection_and_metric(parser)
    add_by(parser, "a line")
    parser.add_argument(
        "--with",
        dest="beside",
        nargs="+",
        default=[],
        metavar="NAME",
        help=f"means of further metrics or costs as columns: {' '.join(COSTS)}, columns of metrics.jsonl",
    )


def _table(options: argparse.Namespace) -> Output:
    runs = selected(options)

    from hebb.analysis import table
    from hebb.analysis.output import Output

    frame = table.compute(runs, options.metric, options.by, options.beside)
    shown = table.cells(frame)
    more = {".md": table.markdown(shown), ".tex": table.latex(shown)}
    text = _with_unsaid(shown.to_string(index=False), runs, options.by)
    return Output(options.name, frame, text=text, more=more)


def _with_unsaid(text: str, runs: Sequence[StoredRun], by: Sequence[str] | None) -> str:
    """Add to a text in what groups of runs differ beside the columns that make them."""
    from hebb.analysis import groups

    unsaid = groups.unsaid(runs, groups.columns(runs) if by is None else by)
    return f"{text}\n{unsaid}" if unsaid else text


def _curves_flags(parser: argparse.ArgumentParser) -> None:
    add_selection_and_metric(parser)
    add_by(parser, "a curve")
    parser.add_argument("--most", type=count, default=12, metavar="N", help="the best N curves (default: 12)")


def _curves(options: argparse.Namespace) -> Output:
    runs = selected(options)

    from hebb.analysis import curves

    frame, note = curves.best(curves.compute(runs, options.metric, options.by), options.most)
    more = f"{note}; --most N draws more" if note else ""
    return replace(drawn(options, frame, partial(curves.draw, title=note)), text=more)


def _compare_flags(parser: argparse.ArgumentParser) -> None:
    add_selection_and_metric(parser)
    add_by(parser, "a side, within the runs of all RUNS", default="each of RUNS is a side")
    parser.add_argument(
        "--baseline",
        nargs="+",
        metavar="VALUE",
        help="the side that the others are compared with: its value for each column of --by, or its name among RUNS "
        "(default: the first)",
    )
    parser.add_argument("--unpaired", action="store_true", help="Welch's test: do not pair runs of the same seed")


def _compare(options: argparse.Namespace) -> Output:
    if options.by and options.baseline and len(options.baseline) != len(options.by):
        problem = f"must be one value for each of {' '.join(options.by)}, got {' '.join(options.baseline)}"
        raise ConfigError("--baseline", problem)
    sides = _named_sides(options) if options.by is None else _sides_by_value(options)

    from hebb.analysis import compare, groups
    from hebb.analysis.output import Output

    frame = compare.compute(sides, options.metric, paired=not options.unpaired)
    left_out = "" if options.unpaired else compare.unpaired(sides)
    unsaid = groups.unsaid([run for side in sides.values() for run in side], options.by or [])
    text = "\n".join(filter(None, (compare.text(frame), left_out, unsaid)))
    return Output(options.name, frame, compare.draw(frame), text=text)


def _named_sides(options: argparse.Namespace) -> dict[str, tuple[StoredRun, ...]]:
    """Return the runs of each folder or search by its name, the baseline first."""
    names = list(dict.fromkeys(options.runs))
    searches = [stored(argparse.Namespace(**{**vars(options), "runs": [name]})) for name in names]
    short = [Path(name).name for name in names]
    labels = short if len(set(short)) == len(short) else names
    groups = {label: narrowed(search, options) for label, search in zip(labels, searches, strict=True)}
    if options.baseline is None:
        return groups
    baseline = " ".join(options.baseline)
    if baseline not in groups:
        raise ConfigError("--baseline", f"is none of RUNS: '{baseline}'", given=baseline, choices=list(groups))
    return {baseline: groups[baseline], **groups}


def _sides_by_value(options: argparse.Namespace) -> dict[str, tuple[StoredRun, ...]]:
    """Return the runs of all RUNS by their values in the columns of ``--by``, the baseline first."""
    chosen = selected(options)

    from hebb.analysis import compare

    return compare.by_value(chosen, options.by, options.baseline)


def _aggregate_flags(parser: argparse.ArgumentParser) -> None:
    add_selection_and_metric(parser)
    add_by(parser, "a method", default="preset")
    parser.add_argument(
        "--tasks", action=Distinct, nargs="+", metavar="COLUMN", help="what makes a task (default: dataset)"
    )
    parser.add_argument("--baseline", metavar="NAME", help="the method that the others are compared with")
    parser.add_argument(
        "--repeats", type=whole_number(100), metavar="N", help="draws of the bootstrap, 100 at least (default: 2000)"
    )


def _aggregate(options: argparse.Namespace) -> list[Output]:
    runs = selected(options)

    from hebb.analysis import aggregate
    from hebb.analysis.output import Output

    by, tasks = options.by or ["preset"], options.tasks or ["dataset"]
    methods = aggregate.scores(runs, options.metric, by, tasks, options.baseline)
    repeats = options.repeats or aggregate.REPEATS
    frame = aggregate.compute(methods, options.metric, repeats=repeats)
    text = _with_unsaid(aggregate.text(frame), runs, [*by, *tasks])
    shares = aggregate.profiles(methods, options.metric, repeats=repeats)
    return [
        Output(options.name, frame, aggregate.draw(frame), text=text),
        Output(f"{options.name}-profiles", shares, aggregate.draw_profiles(shares)),
    ]


VERBS = (
    Verb("runs", "every stored run, one line each: what it was and what it measured", add_selection, _list),
    Verb("table", "mean, deviation, 95 % interval and n over seeds, as CSV, Markdown, LaTeX", _table_flags, _table),
    Verb("curves", "a metric over the epochs, with a band over seeds", _curves_flags, _curves),
    Verb(
        "compare",
        "searches, or values within one, against a first, by seeds: difference, interval, test",
        _compare_flags,
        _compare,
    ),
    Verb(
        "aggregate",
        "methods over several tasks: interquartile mean, probability of improvement, performance profiles",
        _aggregate_flags,
        _aggregate,
    ),
)
