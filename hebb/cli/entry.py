"""Start and end of every command: exit codes, messages instead of tracebacks."""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from types import FrameType

from hebb.core.errors import HebbError


def run_command(main: Callable[[list[str]], int]) -> None:
    """Run ``main`` on the arguments and exit: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without the character is no reason to stop
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
    except MemoryError as error:
        print(f"error: out of memory: {error}", file=sys.stderr)
        status = 1
    except Exception as error:  # a defect of ours: keep the traceback for the report, off the user's screen
        if "not enough memory" in str(error) or "out of memory" in str(error):  # torch's own, a RuntimeError
            print(f"error: out of memory: {' '.join(str(error).split())[:300]}", file=sys.stderr)
            sys.exit(1)
        with tempfile.NamedTemporaryFile("w", prefix="hebb-", suffix=".txt", delete=False) as file:
            traceback.print_exc(file=file)
        print(f"error: unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}", file=sys.stderr)
        print(f"this should not happen; please report it with {file.name}", file=sys.stderr)
        status = 1
    sys.exit(status)


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
