"""Print tab completion of the command ``hebb`` for a shell."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterable
from pathlib import Path

from hebb import builtin
from hebb.cli import listing
from hebb.cli.parsing import Parser
from hebb.config import plan, search_space
from hebb.config.catalog import load as read_catalog
from hebb.core import commands, extras

_SHELLS = ("bash", "zsh")
_DESCRIPTION = """Print tab completion of the command hebb for a shell.

bash: hebb completion bash > ~/.hebb-completion.bash
      and in ~/.bashrc: source ~/.hebb-completion.bash
zsh:  hebb completion zsh > _hebb, in a folder of $fpath; then start a new shell"""


def parser() -> Parser:
    """Return the parser of the command."""
    flags = Parser(
        _DESCRIPTION,
        prog=commands.name("completion"),
    )
    flags.add_argument("shell", choices=_SHELLS)
    return flags


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parser().parse(argv)
    extras.require("completion", "shtab", extra=extras.EXTRAS["shtab"])
    import shtab

    print(shtab.complete(_whole_command(shtab.FILE), shell=options.shell))
    return 0


def _whole_command(any_file: object) -> argparse.ArgumentParser:
    """Return one parser with all verbs below it, and the words that their flags take."""
    from hebb.cli.analysis import command as analysis
    from hebb.cli.verbs import VERBS

    whole = argparse.ArgumentParser(prog="hebb")
    verbs = whole.add_subparsers(parser_class=argparse.ArgumentParser)
    for name, verb in VERBS.items():
        if name != "analysis":
            _add(verbs, name, verb.summary, importlib.import_module(verb.module).parser())
    below = verbs.add_parser("analysis", help=VERBS["analysis"].summary).add_subparsers()
    for drawing in analysis.VERBS.values():
        _add(below, drawing.name, drawing.summary, analysis.parser(drawing))
    words = _words()
    for action in _actions(whole):
        if action.type is Path:
            action.complete = any_file  # type: ignore[attr-defined]  # read by shtab
        elif action.choices is None and action.dest in words:
            action.choices = words[action.dest]
    return whole


def _add(verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str, flags: Parser) -> None:
    verbs.add_parser(name, parents=[flags], add_help=False, help=summary)


def _actions(parser: argparse.ArgumentParser) -> Iterable[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)


def _words() -> dict[str, list[str]]:
    """Return the words that flags and arguments take, by the name under which they are parsed."""
    builtin.load()
    catalog = read_catalog(None)
    datasets = list(catalog.datasets)
    return {
        "preset": list(catalog.models),
        "dataset": datasets,
        "dataset_sup": datasets,
        "dataset_unsup": datasets,
        "protocol": list(catalog.protocols),
        "training_mode": [str(mode) for mode in plan.MODES],
        "listing": list(listing.LISTS),
        "config": list(search_space.names()),
    }
