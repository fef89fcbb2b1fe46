"""``--from-best SEARCH``: the flags of a run or a search, started from a winner. Never imports torch."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from hebb.cli import describe
from hebb.cli.parsing import Parser, Section
from hebb.config import overrides
from hebb.storage import folders

if TYPE_CHECKING:
    from hebb.tuning import winners


def add_flag(parser: Parser) -> None:
    """Add the flag."""
    parser.section(Section.NETWORK).add_argument(
        "--from-best",
        metavar="SEARCH",
        help="start from the winner of a search, or with SEARCH:2 from point 2 of its front: its network and what else "
        "it changes; --preset and --set come on top",
    )


def applied(options: argparse.Namespace) -> argparse.Namespace:
    """Return the flags with those of the winner below them, and say what of it is replaced."""
    if options.from_best is None:
        return options
    from hebb.tuning import winners

    best = winners.read(options.from_best, folders.Home.find(options.data_dir))
    own = overrides.parse(options.changes)
    inherited = overrides.parse(best.changes)
    new = argparse.Namespace(**vars(options))
    if "preset" not in options.given:
        new.preset = best.network
        new.training_mode = best.mode if options.training_mode is None else options.training_mode
    new.changes = [f"{path}={value}" for path, value in {**inherited, **own}.items()]
    for line in _replaced(options, best, own):
        describe.console().print(line, soft_wrap=True)
    return new


def _replaced(options: argparse.Namespace, best: winners.Start, own: dict[str, str]) -> list[str]:
    """Say in lines what of the winner the user's own flags replace."""
    lines = [f"note: the start is {best.name}"]
    network = "preset" in options.given
    if network:
        lines.append(f"note: --preset replaces its network, {best.network}")
    for path, value in own.items():
        inside = overrides.of_network(path)
        if path in best.values and str(best.values[path]) != value and not (network and inside):
            lines.append(f"note: --set {path}={value} replaces its {best.values[path]}")
    return lines
