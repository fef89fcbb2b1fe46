"""What a command says while it works for long: a line wherever nothing else was printed for half a minute."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hebb.cli import describe
from hebb.cli.describe import CommandConsole

EVERY = 30.0
"""Seconds of silence after which a line is due."""
SOON = 2.0
"""Seconds after which a terminal says what it is waiting for."""
_LEAST = 0.01


class Pulse:
    """Prints what goes on, from a thread of its own, whenever a console was silent for a while.

    Args:
        state: returns the text.
    """

    def __init__(self, state: Callable[[], str]) -> None:
        self._state = state
        self._wait, self._said = EVERY, 0.0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, console: CommandConsole) -> None:
        """Watch a console, unless one is watched already."""
        if self._thread is None:
            self._wait = SOON if console.is_terminal else EVERY
            self._said = time.monotonic()
            self._over.clear()
            self._thread = threading.Thread(target=self._beat, args=(console,), name="hebb-pulse", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Print no more; it may be called twice."""
        self._over.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None

    def _beat(self, console: CommandConsole) -> None:
        while not self._over.wait(max(_LEAST, self._due(console) - time.monotonic())):
            if time.monotonic() < self._due(console):
                continue
            self._said, self._wait = time.monotonic(), EVERY
            with contextlib.suppress(OSError, ValueError):  # nobody reads, or the output is closed: the work goes on
                console.print(self._state(), soft_wrap=True)

    def _due(self, console: CommandConsole) -> float:
        return max(console.printed, self._said) + self._wait


def after(began: float, text: str) -> str:
    """Return a line that starts with the seconds since a moment on the monotonic clock."""
    return f"{time.monotonic() - began:6.1f} s  {text}"


@contextmanager
def during(text: str) -> Iterator[None]:
    """Say what goes on inside, if it takes long."""
    began = time.monotonic()
    pulse = Pulse(lambda: after(began, text))
    pulse.start(describe.console())
    try:
        yield
    finally:
        pulse.stop()
