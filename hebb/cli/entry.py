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

from hebb.core import extras, threads
from hebb.core.errors import HebbError


def run_command(main: Callable[[list[str]], int]) -> None:
    """Run ``main`` on the arguments and exit: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    os.environ.update(threads.openmp_settings())  # before torch is loaded
    signal.signal(signal.SIGTERM, _as_interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without the character is no reason to stop
    try:
        status = main(sys.argv[1:])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except (Exception, SystemExit) as error:
        fault = _fault_of_plugin(error)
        if fault is None and isinstance(error, SystemExit):
            raise  # argparse has printed a help text
        status = _explain(fault or error)
    sys.exit(status)


def _fault_of_plugin(error: BaseException) -> BaseException | None:
    """Return the error of a plugin's code, with plugin, file and line; None for other errors."""
    plugins = sys.modules.get("hebb.config.plugins")
    return None if plugins is None else plugins.explanation(error)


def _explain(error: BaseException) -> int:
    """Print what went wrong, and return the exit code."""
    if isinstance(error, ModuleNotFoundError):
        error = _extra_for(error) or error
    if isinstance(error, HebbError):
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, OSError):
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = " ".join(str(error).split())[:300]
    if isinstance(error, MemoryError) or "not enough memory" in str(error) or "out of memory" in str(error):
        print(f"error: out of memory: {text}", file=sys.stderr)
        return 1
    with tempfile.NamedTemporaryFile("w", prefix="hebb-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)  # for the report, off the user's screen
    print(f"error: unexpected {type(error).__name__}: {text}", file=sys.stderr)
    print(f"this should not happen; please report it with {file.name}", file=sys.stderr)
    return 1


def _extra_for(error: ModuleNotFoundError) -> HebbError | None:
    """Return an error that says how to install an optional package; None if the package is not optional."""
    package = (error.name or "").partition(".")[0]
    if package not in extras.EXTRAS:
        return None
    return extras.lacking("this command", package, extras.EXTRAS[package])


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
