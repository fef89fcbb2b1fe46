"""The folder in which Ray and other libraries put files of their own while they work."""

from __future__ import annotations

import os
from pathlib import Path


def variable() -> str | None:
    """Return the environment variable that names the folder: Ray's own, else the system's; None if neither is set."""
    return next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)


def folder() -> Path:
    """Return the folder."""
    name = variable()
    return Path(os.environ[name]) if name else Path("/tmp")
