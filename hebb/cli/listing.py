"""List presets, datasets, methods, protocols or search configs."""

from __future__ import annotations

from hebb.cli import arguments, describe, train_flags
from hebb.cli.arguments import Exclusive, Parser
from hebb.core import commands

_VERB = "list"


def parser(flag: str = _VERB) -> Parser:
    """Return the parser of the command, in which the list follows the verb or the flag ``--list``."""
    made = Parser(
        "List what can be named on a command line.",
        prog=commands.name(_VERB),
        exclusive=Exclusive(flag, "only prints a list", train_flags.parser),
    )
    made.add_subject(flag, _VERB, dest="listing", metavar="WHAT", help=" | ".join(describe.LISTS))
    arguments.add_catalog_flags(made)
    return made


def main(argv: list[str], flag: str = _VERB) -> int:
    """Run the command and return its exit code."""
    options = parser(flag).parse(argv)
    describe.listing(options.listing, arguments.load_catalog(options), flag)
    return 0
