"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from hebb.core.errors import writing

SUFFIX = ".tmp"
"""Ending of a file that is not whole; a process that is killed leaves it behind."""


@contextlib.contextmanager
def replaced(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Yield temporary files that take the place of ``paths`` at the end, all of them or none.

    They lie in the same folders. Their names differ between processes and machines. What they hold is on the disk
    before they get their names: else a machine that loses its power could leave an empty file under a whole one's name.

    Raises:
        DiskFullError: when there is no space left.
    """
    token = secrets.token_hex(6)
    temporaries = tuple(path.with_name(f".{token}-{i}{SUFFIX}") for i, path in enumerate(paths))
    try:
        with writing(paths[0]):
            yield temporaries
            for temporary in temporaries:
                to_disk(temporary)
            for temporary, path in zip(temporaries, paths, strict=True):
                os.replace(temporary, path)
        with contextlib.suppress(OSError):  # some network file systems know no such call for folders
            for folder in {path.parent for path in paths}:
                to_disk(folder)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


def is_torn(path: Path) -> bool:
    """Tell whether a file is one that a killed process has left behind."""
    return path.name.startswith(".") and path.name.endswith(SUFFIX)


def to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive the loss of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8; a byte of a path that is not UTF-8 becomes a question mark."""
    with replaced(path) as (temporary,):
        temporary.write_text(text, encoding="utf-8", errors="replace")
