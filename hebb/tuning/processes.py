"""The environment of the processes that train. Imports neither Ray nor torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from hebb.core.threads import openmp_settings


def worker_environment() -> dict[str, str]:
    """Return the environment variables that every worker needs from its start, before it loads torch.

    Workers run each trial in a new thread, and the C library gives new threads heaps of their own, up to 8 per core,
    each of which would keep what one trial freed. One heap serves them all, the one that ``hebb.core.machine`` lays out
    in huge pages.
    """
    policy = {name: os.environ[name] for name in ("OMP_WAIT_POLICY",) if name in os.environ}
    return {"MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "1"), **openmp_settings(), **policy}


@contextlib.contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables inside, and restore them after."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
