"""Signals that end a command: what stands for an interrupt, and what must not be interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal as Python handles SIGINT.

    Raises:
        KeyboardInterrupt: always.
    """
    raise KeyboardInterrupt


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold SIGINT, SIGTERM and SIGHUP back until the end; the first one that came then takes effect.

    An error inside goes first. Without this a KeyboardInterrupt may be lost where C calls Python back, as torch does
    for each piece of a file.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals: list[int] = []
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, lambda arrived, _: signals.append(arrived))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signals:
        signal.raise_signal(signals[0])


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Make SIGTERM do what SIGINT does."""
    with handlers_kept():
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        yield


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
    """Put the handlers of signals back that are set inside and left there.

    Ray Tune leaves one that takes the next SIGINT for its own, whoever it was meant for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) != handler:  # None: C's own, which cannot be set
                signal.signal(number, handler)


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

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
