"""The two demonstrations: ``demo.py`` on CIFAR-10, and ``hebb demo``, a search on digits that takes a minute."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from hebb.cli import train
from hebb.cli.parsing import HELP, HELP_ALL, Parser
from hebb.config import serialise
from hebb.core import commands
from hebb.core.errors import ConfigError
from hebb.storage import folders

_CIFAR10 = {
    "--preset": "4SoftHebbCnnCIFAR",
    "--training-mode": "consecutive",
    "--dataset-unsup": "CIFAR10_1",
    "--dataset-sup": "CIFAR10_50",
    "--model-name": "demo",
}
_DIGITS = {
    "--preset": "2SoftHebbCnnDigits",
    "--dataset-unsup": "Digits_1",
    "--dataset-sup": "Digits_50",
    "--folder-name": "demo",
}
_DIGITS_HELP = """usage: {demo} [flags]

Train 2SoftHebbCnnDigits on scikit-learn's digits with seeds 0 to 3, as the search 'demo'.
It takes less than a minute.
Every flag of {search} works here too and wins;
{search} --help-all lists them.
The other demo, python demo.py, trains the published network 4SoftHebbCnnCIFAR on CIFAR-10."""
_CIFAR10_HELP = """usage: demo.py [flags]

Train the published network 4SoftHebbCnnCIFAR, with three hidden SoftHebb layers, on CIFAR-10
as the run 'demo'.
Every flag of multi_layer.py works here too and wins; python multi_layer.py --help-all lists them.
The other demo, hebb demo, is a small search on digits that takes a minute."""
_HELP = {*HELP, HELP_ALL}


def main(argv: list[str]) -> int:
    """Train SoftHebb with three hidden layers on CIFAR-10; every flag of ``multi_layer.py`` works here too and wins."""
    if not _HELP.isdisjoint(argv):
        print(_CIFAR10_HELP)
        return 0
    return train.main(with_flags(argv))


def parser() -> Parser:
    """Return the parser of ``hebb demo``."""
    from hebb.cli import search

    return search.parser()


def digits(argv: list[str]) -> int:
    """Search over four seeds of a small SoftHebb network; every flag of ``hebb search`` works here too and wins.

    The search of an earlier demo is replaced; any other is kept.
    """
    from hebb.cli import search

    if not _HELP.isdisjoint(argv):
        print(_DIGITS_HELP.format(demo=commands.name("demo"), search=commands.name("search")))
        return 0
    if {word.partition("=")[0] for word in argv} & {"--restore", "--list"}:
        return search.main(argv)
    words = [*_before(_DIGITS, argv, parser()), *argv]
    options = parser().parse(words)
    if not (options.dry_run or options.estimate or options.overwrite) and _replaces(options):
        words.append("--overwrite")
    return search.main(words)


def _replaces(options: argparse.Namespace) -> bool:
    """Return whether the folder holds this very search, from an earlier demo; raise where it holds another one."""
    from hebb.cli import arguments, search
    from hebb.tuning import search_folder

    folder = folders.Home.find(options.data_dir).search(options.folder_name)
    if not (folder / folders.SEARCH).is_file():
        return False
    stored = search_folder.read(folder)
    demo = search.resolve(options, arguments.load_catalog(options))
    now = {"config": demo.spec.name, "spec": search_folder.to_data(demo.spec), "base": serialise.to_json(demo.base)}
    if _identity(stored) == _identity(now):
        return True
    raise ConfigError(
        str(folder),
        "holds a search that is not the demo",
        hint="another --folder-name keeps both; --overwrite replaces it",
    )


def _identity(search: Mapping[str, Any]) -> object:
    """Return what makes two searches the same one, read from the content of ``search.json``."""
    base = {key: search["base"][key] for key in ("network", "mode", "dataset_sup", "dataset_unsup")}
    return json.loads(json.dumps([search["config"], search["spec"], base]))


def with_flags(argv: list[str]) -> list[str]:
    """Put the flags of ``demo.py`` in front, unless a flag asks for another use of the command."""
    if {word.partition("=")[0] for word in argv} & set(train.OTHER_USES):
        return argv
    return [*_before(_CIFAR10, argv, train.parser()), *argv]


def _before(defaults: dict[str, str], argv: list[str], parser: Parser) -> list[str]:
    """Return the default flags that ``argv`` does not give as words; ``--dataset`` replaces both datasets."""
    typed = parser.given(argv)
    replaced = {"--dataset-sup", "--dataset-unsup"} if "dataset" in typed else set()
    kept = [flag for flag in defaults if flag not in replaced and not typed & parser.given([flag])]
    return [word for flag in kept for word in (flag, defaults[flag])]
