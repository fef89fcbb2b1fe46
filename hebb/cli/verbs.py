"""The command ``hebb`` and its verbs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple

import hebb
from hebb.cli.parsing import HELP, HELP_ALL
from hebb.core import commands
from hebb.core.errors import ConfigError


class Subcommand(NamedTuple):
    """One verb: the module with its parser, a summary, and the function that runs it."""

    module: str
    summary: str
    function: str = "main"

    def load(self) -> Callable[[list[str]], int]:
        """Import the function, and nothing that only other verbs need."""
        run: Callable[[list[str]], int] = getattr(importlib.import_module(self.module), self.function)
        return run


VERBS = {
    "train": Subcommand("hebb.cli.train", "train one network"),
    "search": Subcommand("hebb.cli.search", "train over seeds and a search space, with Ray Tune"),
    "demo": Subcommand("hebb.cli.demo", "a small search that takes a minute: SoftHebb on digits, four seeds", "digits"),
    "list": Subcommand("hebb.cli.listing", "presets, datasets, methods, protocols or search configs"),
    "evaluate": Subcommand("hebb.cli.evaluate", "measure a stored model on test images"),
    "diff": Subcommand("hebb.cli.diff", "what differs between two stored runs, or two searches"),
    "archive": Subcommand("hebb.cli.archive", "one file with what is needed to repeat a search or a run"),
    "rerun": Subcommand("hebb.cli.rerun", "repeat an archive, and say whether the numbers agree"),
    "watch": Subcommand("hebb.cli.watch", "follow a search that runs elsewhere, from its folder"),
    "resume": Subcommand("hebb.cli.resume", "continue an interrupted run, with the bits of an uninterrupted one"),
    "post-hoc": Subcommand("hebb.cli.post_hoc", "measure the post-hoc loss of a network"),
    "analysis": Subcommand("hebb.cli.analysis.command", "figures and tables from stored runs"),
    "completion": Subcommand("hebb.cli.completion", "print tab completion for bash or zsh"),
}

_FLAGS = ("--help", "--version")

_USAGE = """usage: {program} VERB [flags]

Train and compare networks that learn by local, biologically plausible rules.

verbs ({program} VERB --help lists the flags of a verb, --help-all the rare ones too):
{verbs}

{program} --version prints the version

first steps: {program} demo, then {program} list presets"""


def main(argv: list[str]) -> int:
    """Run a verb and return its exit code."""
    first = argv[0] if argv else "--help"
    if first in (*HELP, HELP_ALL, "help"):
        print(usage())
        return 0
    if first == "--version":
        print(f"hebb {hebb.__version__}")
        return 0
    if first.startswith("-"):
        raise ConfigError("command line", f"unknown flag '{first}'", given=first, choices=_FLAGS)
    if first not in VERBS:
        raise ConfigError("command line", f"unknown verb '{first}'", given=first, choices=VERBS)
    return VERBS[first].load()(argv[1:])


def usage() -> str:
    """List the verbs."""
    width = max(map(len, VERBS))
    lines = (f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return _USAGE.format(program=commands.program(), verbs="\n".join(lines))
