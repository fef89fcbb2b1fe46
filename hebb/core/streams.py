"""The output streams of the process, which code of users may close."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

_NUMBERS = {"stdout": 1, "stderr": 2}


def closed(name: str) -> bool:
    """Tell whether ``sys.stdout`` or ``sys.stderr`` cannot be printed to any more."""
    return bool(getattr(getattr(sys, name), "closed", False))


def usable() -> dict[str, TextIO]:
    """Return stdout and stderr by name, those of them that can be printed to."""
    return {name: getattr(sys, name) for name in _NUMBERS if getattr(sys, name) is not None and not closed(name)}


@contextlib.contextmanager
def reopened() -> Iterator[list[str]]:
    """Open again what the body closes of stdout and stderr, and list it at the end of the body."""
    taken: list[str] = []
    before = usable()
    spares = {name: _spare(_NUMBERS[name]) for name in before}
    try:
        yield taken
    finally:
        for name, stream in before.items():
            if _reopen(name, stream, spares[name]):
                taken.append(name)


def _spare(number: int) -> int | None:
    """Return a second descriptor of a stream; None where the process was started without it."""
    try:
        return os.dup(number)
    except OSError:
        return None


def _reopen(name: str, stream: TextIO, spare: int | None) -> bool:
    """Open a stream as it was before, give its spare descriptor back, and tell whether it was closed."""
    lost = False
    if spare is not None:
        lost = not _same_file(spare, _NUMBERS[name])
        if lost:
            os.dup2(spare, _NUMBERS[name])
        os.close(spare)
    if getattr(sys, name) is None or closed(name):
        lost = True
        usable = not getattr(stream, "closed", False)
        setattr(sys, name, stream if usable else open(_NUMBERS[name], "w", errors="replace", closefd=False))  # noqa: SIM115
    return lost


def _same_file(one: int, other: int) -> bool:
    try:
        return os.path.samestat(os.fstat(one), os.fstat(other))
    except OSError:
        return False
