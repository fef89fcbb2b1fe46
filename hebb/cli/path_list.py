"""The list of the paths of ``--set``: legal values, default and meaning of each."""

from __future__ import annotations

from collections.abc import Collection

from hebb.cli.describe import LIST_WIDTH, console, table
from hebb.config import paths
from hebb.config.catalog import Catalog


def names(_: Catalog) -> list[str]:
    """Return the paths as they are listed."""
    return [path.name for group in paths.paths().values() for path in group]


def show(_: Catalog, shown: Collection[str]) -> None:
    """Print the chosen paths, by what they belong to."""
    out = console(LIST_WIDTH)
    for title, group in paths.paths().items():
        chosen = [path for path in group if path.name in shown]
        if not chosen:
            continue
        rows = table(f"\n{title}", ("path", "legal", "default", "meaning"))
        for path in chosen:
            rows.add_row(path.name, path.legal, path.default, path.meaning)
        out.print(rows)
