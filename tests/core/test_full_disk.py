"""A full disk is named: by the file that was written, or by the folders of libraries that have no space."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from hebb.core.errors import DiskFullError, cause_of


def _disks(monkeypatch: pytest.MonkeyPatch, full: set[str]) -> None:
    monkeypatch.setenv("TMPDIR", "/small")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(
        os, "statvfs", lambda path: SimpleNamespace(f_bavail=0 if path in full else 1 << 20, f_frsize=4096)
    )


@pytest.mark.parametrize(
    ("error", "full", "message"),
    [
        (OSError(errno.ENOSPC, "x", "/data/rows"), {"/small"}, "no space left for /data/rows: No space"),
        (OSError(errno.ENOSPC, "x"), {"/small"}, "no space left in /small: No space"),
        (OSError(errno.ENOSPC, "x"), {"/small", "/dev/shm"}, "no space left in /small and /dev/shm: No space"),
        (OSError(errno.EFBIG, "x"), set(), "no space left: File too large"),
    ],
)
def test_the_place_without_space_is_named(
    error: OSError, full: set[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _disks(monkeypatch, full)
    cause = cause_of(error)
    assert isinstance(cause, DiskFullError)
    assert str(cause).startswith(message)


def test_a_folder_that_does_not_exist_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere/at/all")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    assert "nowhere" not in str(cause_of(OSError(errno.ENOSPC, "x")))
