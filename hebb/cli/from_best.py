"""``--from-best SEARCH``: the flags of a run or a search, started from a winner. Never imports torch."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hebb.cli import describe
from hebb.cli.parsing import Parser, Section
from hebb.config import overrides
from hebb.config.catalog import Catalog
from hebb.config.classifier import READERS
from hebb.core.errors import within
from hebb.core.values import read_number, read_switch
from hebb.storage import folders

if TYPE_CHECKING:
    from hebb.tuning import winners


def add_flag(parser: Parser) -> None:
    """Add the flag."""
    parser.section(Section.NETWORK).add_argument(
        "--from-best",
        metavar="SEARCH",
        help="start from the winner of a search, or with SEARCH:2 from point 2 of its front: its network and what else "
        "it changes; --preset, --protocol and --set come on top",
    )


def applied(options: argparse.Namespace, catalog: Catalog) -> argparse.Namespace:
    """Return the flags with those of the winner below them, and say what of it is replaced."""
    if options.from_best is None:
        return options
    from hebb.tuning import winners

    best = winners.read(options.from_best, folders.Home.find(options.data_dir))
    own = overrides.parse(options.changes)
    typed = {**catalog.protocol(options.protocol), **own}
    inherited = overrides.parse(best.changes)
    new = argparse.Namespace(**vars(options))
    if "preset" not in options.given:
        new.preset = best.network
        new.training_mode = best.mode if options.training_mode is None else options.training_mode
    left = {path: value for path, value in inherited.items() if path not in typed and _read(path, typed)}
    new.changes = [f"{path}={value}" for path, value in {**left, **own}.items()]
    for line in _replaced(options, best, own, catalog):
        describe.console().print(line, soft_wrap=True)
    return new


def _read(path: str, typed: Mapping[str, object]) -> bool:
    """Tell whether what the user typed leaves a value a reader: momentum has none once the optimiser is adam."""
    for name, key, reader in READERS:
        if path == f"classifier.{name}":
            return str(typed.get(f"classifier.{key}", reader)) == reader
    return True


def _replaced(options: argparse.Namespace, best: winners.Start, own: dict[str, str], catalog: Catalog) -> list[str]:
    """Say in lines what of the winner the user's own flags replace."""
    lines = [f"note: the start is {best.name}"]
    if "preset" in options.given:
        lines.append(f"note: --preset replaces its network, {best.network}")
        values = {path: value for path, value in best.values.items() if not overrides.of_network(path)}
        return lines + _differences(options, own, {path: [path] for path in own}, values, catalog)
    with within("--from-best"):
        network = catalog.network(best.network)
    shared_first = sorted(best.values, key=lambda path: not path.startswith("b*"))
    values = {name: best.values[path] for path in shared_first for name in overrides.single(path, network)}
    names = {path: overrides.single(path, network) for path in own}
    return lines + _differences(options, own, names, values, catalog)


def _differences(
    options: argparse.Namespace,
    own: Mapping[str, str],
    names: Mapping[str, list[str]],
    values: Mapping[str, object],
    catalog: Catalog,
) -> list[str]:
    """Say in lines which values of the winner have others now.

    Args:
        options: the flags.
        own: the user's own changes.
        names: the paths of single blocks that each of them means.
        values: those of the winner, by paths of single blocks.
        catalog: has the protocols.
    """
    lines = []
    for word in options.protocol:
        for path, value in catalog.protocol([word]).items():
            if path in values and path not in own and not _same(str(value), values[path]):
                lines.append(f"note: --protocol {word} replaces its {path}={values[path]}")
    for path, text in own.items():
        single = [name for name in names[path] if name in values and (name == path or name not in own)]
        before = dict.fromkeys(str(values[name]) for name in single if not _same(text, values[name]))
        if before:
            lines.append(f"note: --set {path}={text} replaces its {', '.join(before)}")
    return lines


def _same(text: str, value: object) -> bool:
    """Tell whether a text of ``--set`` means a value."""
    if isinstance(value, bool):
        return read_switch(text) == value
    if isinstance(value, int | float):
        return read_number(text, float) == value
    return text == str(value) or (value is None and text.lower() in ("none", "null"))
