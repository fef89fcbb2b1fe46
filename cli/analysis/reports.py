"""Verbs that gather what others measured: the evidence of the records."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cli.analysis.verb import Verb

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


VERBS = (
    Verb(
        "evidence",
        "every published number beside ours: value, n, difference, from records/",
        _evidence_flags,
        _evidence,
    ),
)
