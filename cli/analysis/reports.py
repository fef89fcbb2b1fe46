"""Verbs that gather what others measured: the report of a search, the evidence of the records."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cli.analysis.verb import Verb, place
from hebb import folders

if TYPE_CHECKING:
    from hebb.analysis.output import Output


def _evidence_flags(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(overwrite=True)  # nothing is lost: the records say the same again
    parser.add_argument(
        "records", nargs="?", type=Path, metavar="RECORDS", help="folder of the records (default: records/)"
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the table between the marks of this page too")


def _evidence(options: argparse.Namespace) -> Output:
    from hebb.analysis import evidence
    from hebb.analysis.output import Output

    found = evidence.table(evidence.read(options.records or evidence.FOLDER))
    text = evidence.markdown(found)
    if options.page is not None:
        evidence.insert(options.page, text)
    return Output(options.name, found, text=text, more={".md": text})


def _report_flags(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(overwrite=True)  # the page says the same again, and more of what has finished since
    parser.add_argument("search", metavar="SEARCH", help="folder or name of a search; the page goes into its folder")


def _its_folder(options: argparse.Namespace) -> Path:
    return place(options.search, folders.Home.find(options.data_dir))


def _report(options: argparse.Namespace) -> Output:
    folder = _its_folder(options)

    from search import report

    return report.output(folder, options.name)


VERBS = (
    Verb(
        "report",
        "one page of a search: table, curves, importance, filters, commands",
        _report_flags,
        _report,
        folder=_its_folder,
    ),
    Verb(
        "evidence",
        "every published number beside ours: value, n, difference, from records/",
        _evidence_flags,
        _evidence,
    ),
)
