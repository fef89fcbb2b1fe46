"""Verbs that gather finished results: the report of a search, a record of runs, the evidence of all records."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hebb.cli.analysis.verb import Verb, add_selection_and_metric, selected
from hebb.cli.parsing import count, real, real_number
from hebb.cli.search_display import commands
from hebb.core import commands as core
from hebb.core.errors import ConfigError
from hebb.core.words import counted
from hebb.storage import folders

if TYPE_CHECKING:
    from hebb.analysis.evidence import Record
    from hebb.analysis.output import Output
    from hebb.analysis.record_metric import Epochs


def _evidence_flags(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(overwrite=True)  # nothing is lost: the table is made of the records alone
    parser.add_argument(
        "records", nargs="?", type=Path, metavar="RECORDS", help="folder of the records (default: records/)"
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the table between the marks of this page too")
    parser.add_argument("--headlines", action="store_true", help="only the claims of the README")


def _evidence(options: argparse.Namespace) -> Output:
    from hebb.analysis import evidence, evidence_figure
    from hebb.analysis.output import Output

    folder = options.records or evidence.default_folder()
    frame = evidence.table(evidence.read(folder))
    if frame.empty:
        raise ConfigError(str(folder), "no record here claims a number", hint="the key 'claims' of record.yaml")
    if options.headlines:
        frame = evidence.headlines(frame)
        figure = evidence_figure.draw(frame)
    elif frame["unit"].eq("%").any():
        figure = evidence_figure.draw_all(frame)
    else:
        figure = None
    text = evidence.markdown(frame)
    if options.page is not None:
        beside = os.path.relpath(folder, options.page.parent)
        evidence.insert(options.page, evidence.markdown(frame, Path(beside).as_posix()))
    return Output(options.name, frame, figure, text=text, more={".md": text})


def _record_flags(parser: argparse.ArgumentParser) -> None:
    add_selection_and_metric(parser)
    parser.add_argument(
        "--title", metavar="TEXT", help="what was run (default: that of the record, or network and dataset)"
    )
    parser.add_argument(
        "--epochs",
        nargs="+",
        metavar="E",
        help="take the metric after these epochs of the last phase; 11-20 is the mean of epochs 11 to 20",
    )
    parser.add_argument(
        "--published",
        type=real,
        nargs="+",
        metavar="X",
        help="the published value, one for each of --epochs (default: those that the record has for these files)",
    )
    parser.add_argument("--source", metavar="TEXT", help="where it was published")
    parser.add_argument("--sd", type=real_number(0), nargs="+", metavar="X", help="its published standard deviation")
    parser.add_argument("--n", type=count, metavar="N", help="the number of runs behind it")
    parser.add_argument("--what", metavar="TEXT", help="the quantity in words (default: network, dataset, metric)")
    parser.add_argument("--unit", metavar="TEXT", help="its unit (default: that of the metric)")
    parser.add_argument(
        "--why", metavar="TEXT", help="why ours differs by more than that deviation, where the record does not say yet"
    )


def _check_record(options: argparse.Namespace) -> tuple[list[Epochs | None], Record | None]:
    """Return the epochs of each number, and the record whose claims of these files stay.

    Raises:
        ConfigError: for flags that do not go together.
    """
    from hebb.analysis import evidence

    if options.out is None:
        raise ConfigError("--out", "must name the folder of the record", hint="as in --out records/2026-11-22-mine")
    if options.published is not None and options.source is None:
        raise ConfigError("--published", "needs --source", hint="--source 'Journe et al. 2023, figure 1'")
    epochs = _epochs(options.epochs or [], options.metric)
    for flag, numbers in (("--published", options.published), ("--sd", options.sd)):
        if numbers is not None and len(numbers) != len(epochs):
            each = f"one number for each of the {len(epochs)} --epochs" if options.epochs else "one number"
            raise ConfigError(flag, f"must be {each}, got {len(numbers)}")
    if options.published is not None:
        return epochs, None
    before = evidence.read_one(options.out) if (options.out / evidence.RECORD).exists() else None
    claims = [] if before is None else before.claims_of(f"{options.name}.csv")
    free = ({"metric"} if options.epochs else set()) | ({"why"} if claims else set())
    about = ("metric", "source", "sd", "n", "what", "unit", "why")
    wrong = next((name for name in about if name in options.given and name not in free), None)
    if wrong is not None and claims:
        raise ConfigError(f"--{wrong}", "changes what the record claims", hint="--published X makes its claims anew")
    if wrong is not None:
        raise ConfigError(f"--{wrong}", "describes a published number, and there is none", hint="--published X")
    return epochs, before if claims else None


def _epochs(words: Sequence[str], metric: str) -> list[Epochs | None]:
    """Read ``--epochs``; without them there is one number, that of the end."""
    from hebb.analysis.record_metric import Epochs, RecordMetric

    epochs = [Epochs.read(word) for word in words]
    if None in epochs:
        word = words[epochs.index(None)]
        raise ConfigError(
            "--epochs", f"must be epochs from 1 on, or a range of them, got '{word}'", hint="as in --epochs 1 50 11-20"
        )
    if len(set(epochs)) < len(epochs):
        raise ConfigError("--epochs", "names an epoch twice")
    if not all(RecordMetric(metric, each).measured for each in epochs):
        raise ConfigError("--metric", f"{metric} is not measured after every epoch", hint="leave out --epochs")
    return [*epochs] or [None]


def _record(options: argparse.Namespace) -> Output:
    """Write a set of runs, with new claims or with those that the record has for it."""
    epochs, before = _check_record(options)
    runs = selected(options)

    from hebb.analysis import evidence, more_seeds, record, record_metric, style
    from hebb.analysis.output import Output

    first, frame = runs[0], record.lines(runs)
    metrics = [record_metric.RecordMetric(options.metric, each) for each in epochs]
    path = options.out / f"{options.name}.csv"
    if options.published is None and path.exists():
        metrics += more_seeds.metrics(path, frame)
    frame = record_metric.joined(frame, runs, metrics)
    if options.published is None and path.exists():
        frame = more_seeds.with_kept(frame, path)
    if options.published is None:
        old = [] if before is None else before.claims_of(path.name)
        claims = more_seeds.claims(frame, options.name, old, options.out, first, options.why)
    else:
        what = options.what or f"{record.subject(first)}, {options.metric}"
        claims = [
            record.claim(
                frame,
                options.name,
                what if each.epochs is None else f"{what}{each.epochs.words()}",
                options.unit or style.unit_alone(options.metric),
                each.column,
                evidence.Published(value=value, source=options.source, sd=sd, n=options.n),
                options.why,
            )
            for each, value, sd in zip(metrics, options.published, options.sd or [None] * len(metrics), strict=True)
        ]
    counts = f"{counted(len(claims), 'claim')} of {path.name}, {counted(len(frame), 'seed')}"
    text = f"{frame.to_string(index=False, na_rep='-')}\n{counts}"
    title = options.title or (None if before is None else before.title)
    page = record.page(runs, title, claims, options.name, options.out, alone=len(frame) == len(runs))
    return Output(
        options.name, frame, text=text, more={record.CONFIG: record.config(first)}, shared={evidence.RECORD: page}
    )


def _report_flags(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(overwrite=True)  # a new page holds all of the old one, and what has finished since
    parser.add_argument(
        "search",
        nargs="+",
        metavar="SEARCH",
        help="folder or name of a search; the page goes into its folder. Of several, a page that compares their best "
        "configurations with that of the first goes into hebb/analysis",
    )


def _search_folders(options: argparse.Namespace) -> list[Path]:
    """Return the folders of the searches, each once; raise for that of a single run."""
    home = folders.Home.find(options.data_dir)
    places = {name: folders.stored_folder(name, home) for name in dict.fromkeys(options.search)}
    for name, folder in places.items():
        if (folder / folders.CONFIG).is_file():
            curves = core.line("analysis", "curves", name)
            raise ConfigError(
                "report", f"{name} is a single run, and report needs a search", hint=f"{curves} draws a run"
            )
    return list({folder.absolute(): folder for folder in places.values()}.values())


def _report_folder(options: argparse.Namespace) -> Path:
    """Return the folder of a page: that of its search, or of several the one of the analyses."""
    places = _search_folders(options)
    return places[0] if len(places) == 1 else folders.Home.find(options.data_dir).analysis


def _report(options: argparse.Namespace) -> Output:
    places = _search_folders(options)

    from hebb.tuning import comparison, html_report

    if len(places) == 1:
        return html_report.output(places[0], folders.Home.find(options.data_dir), options.name, commands=commands)
    typed = {
        "this page": [core.line("analysis", "report", *(place.absolute() for place in places))],
        "the page of each search": [core.line("analysis", "report", place.absolute()) for place in places],
    }
    return comparison.output(places, options.name, typed)


def _checklist_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("search", nargs="+", metavar="SEARCH", help="folders or names of searches")


def _checklist(options: argparse.Namespace) -> Output:
    from hebb.analysis import checklist
    from hebb.analysis.output import Output

    home = folders.Home.find(options.data_dir)
    frame = checklist.compute(folders.stored_folder(name, home, "checklist") for name in options.search)
    text = checklist.markdown(frame)
    return Output(options.name, frame, text=text, more={".md": text})


VERBS = (
    Verb(
        "report",
        "one page about a search: table, curves, importance, filters, commands",
        _report_flags,
        _report,
        folder=_report_folder,
        out="folder for its files (default: that of the search; of several, hebb/analysis)",
    ),
    Verb(
        "checklist",
        "what conferences ask: seeds, selection, splits, space, hardware, hours",
        _checklist_flags,
        _checklist,
    ),
    Verb(
        "evidence",
        "every published number beside ours: value, n, difference, from records/",
        _evidence_flags,
        _evidence,
    ),
    Verb(
        "record",
        "a folder for records/: one line a seed, the config, a published number",
        _record_flags,
        _record,
        out="folder of the record, such as records/2026-11-22-mine (required)",
    ),
)
