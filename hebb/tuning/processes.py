"""The processes that train: their environment, and signals to who starts them. Imports neither Ray nor torch."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
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


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Make SIGTERM do what SIGINT does."""
    before = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def children_uninterrupted() -> Iterator[None]:
    """Start processes inside that Ctrl-C in the terminal, which reaches them too, does not end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Raise KeyboardInterrupt at SIGTERM, also where SIGINT is ignored, as it is behind ``&`` in a script."""
    if threading.current_thread() is not threading.main_thread():
        yield  # which alone gets signals
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
