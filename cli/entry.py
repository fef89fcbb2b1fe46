"""Start and end of every command: exit codes, messages instead of tracebacks."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from hebb.errors import HebbError


def run_command(main: Callable[[list[str]], int]) -> None:
    """Run ``main`` on the arguments and exit: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        status = main(sys.argv[1:])
    except HebbError as error:
        print(f"error: {error}", file=sys.stderr)
        status = error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    sys.exit(status)


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
