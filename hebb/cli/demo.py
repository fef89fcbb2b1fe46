"""The two demonstrations: ``demo.py`` on CIFAR-10, and ``hebb demo``, a search on digits that takes a minute."""

from __future__ import annotations

from hebb.cli import train
from hebb.cli.arguments import Parser

_CIFAR10 = {
    "--preset": "4SoftHebbCnnCIFAR",
    "--training-mode": "consecutive",
    "--dataset-unsup": "CIFAR10_1",
    "--dataset-sup": "CIFAR10_50",
    "--model-name": "demo",
}
_DIGITS = {"--preset": "2SoftHebbCnnDigits", "--dataset-unsup": "Digits_1", "--dataset-sup": "Digits_50"}


def main(argv: list[str]) -> int:
    """Train SoftHebb with three hidden layers on CIFAR-10; every flag of ``multi_layer.py`` works here too and wins."""
    return train.main(with_flags(argv))


def parser() -> Parser:
    """Return the parser of ``hebb demo``."""
    from hebb.cli import search

    return search.parser()


def digits(argv: list[str]) -> int:
    """Search over four seeds of a small SoftHebb network; every flag of ``hebb search`` works here too and wins."""
    from hebb.cli import search

    return search.main([*_before(_DIGITS, argv), "--folder-name", "demo", "--overwrite", *argv])


def with_flags(argv: list[str]) -> list[str]:
    """Put the flags of ``demo.py`` in front, unless a flag asks for another use of the command."""
    if {word.partition("=")[0] for word in argv} & set(train.OTHER_USES):
        return argv
    return [*_before(_CIFAR10, argv), *argv]


def _before(defaults: dict[str, str], argv: list[str]) -> list[str]:
    """Return the default flags as words; ``--dataset`` in ``argv`` replaces both datasets."""
    both = any(word.partition("=")[0] == "--dataset" for word in argv)
    pairs = [pair for pair in defaults.items() if not (both and pair[0].startswith("--dataset"))]
    return [word for pair in pairs for word in pair]
