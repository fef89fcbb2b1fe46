"""Start and end of every command: exit codes, messages instead of tracebacks."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable

from hebb.core import extras, interrupts, streams, threads, user_code
from hebb.core.errors import ConfigError, HebbError, cause_of

_LONGEST = 400  # characters of an error that names a path


def run_command(main: Callable[[list[str]], int]) -> None:
    """Run ``main`` on the arguments and exit: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    os.environ.update(threads.openmp_settings())  # before torch is loaded
    signal.signal(signal.SIGTERM, interrupts.interrupt)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # a closed terminal; nohup ignores it
        signal.signal(signal.SIGHUP, interrupts.interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without the character is no reason to stop
    threading.excepthook = _in_thread
    warnings.filterwarnings("ignore", "Image size")  # of Pillow, for an image that is large and legal
    status = _status(main)
    try:
        for stream in streams.usable().values():
            stream.flush()  # here and not while Python exits, where an error has another exit code
    except OSError as error:
        _discard_output()
        status = status or _explain(error)
    sys.exit(status)


def _status(main: Callable[[list[str]], int]) -> int:
    """Run ``main``, explain what stopped it, and return the exit code."""
    try:
        return main(sys.argv[1:])
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        cause = cause_of(error)
        fault = _fault_of_plugin(error) if cause is error else None
        if fault is None and isinstance(cause, SystemExit):
            raise  # argparse has printed a help text
        return _explain(fault or cause)


def _fault_of_plugin(error: BaseException) -> BaseException | None:
    """Return the error of a plugin's code, with plugin, file and line; None for other errors."""
    plugins = sys.modules.get("hebb.config.plugins")
    return None if plugins is None else plugins.explanation(error)


def _explain(error: BaseException) -> int:
    """Print what went wrong, and return the exit code."""
    if isinstance(error, ModuleNotFoundError):
        error = _extra_for(error) or error
    if isinstance(error, KeyboardInterrupt):
        return _say("interrupted", 130)
    if isinstance(error, HebbError):
        return _say(f"error: {error}", error.exit_code)
    if isinstance(error, BrokenPipeError):  # the reader of our output (head, less) has gone
        _discard_output()
        return 0
    if isinstance(error, OSError):
        too_long = error.errno == errno.ENAMETOOLONG
        return _say(f"error: {_shortened(str(error))}", ConfigError.exit_code if too_long else 1)
    lost = [name for name in ("stdout", "stderr") if streams.closed(name)]
    if isinstance(error, ValueError) and lost:
        return _say(f"error: sys.{lost[0]} was closed while the command ran; a plugin must leave it open", 1)
    text = " ".join(str(error).split())[:300]
    if isinstance(error, MemoryError) or "not enough memory" in str(error) or "out of memory" in str(error):
        return _say(f"error: out of memory: {text}", 1)
    return _say(f"error: unexpected {type(error).__name__}: {text}\n{_reported(error)}", 1)


def _say(message: str, status: int) -> int:
    """Print a message on the error stream, or on the other where it was closed, and return the exit code."""
    stream = sys.stdout if streams.closed("stderr") else sys.stderr
    try:
        if stream is not None and not stream.closed:
            print(message, file=stream, flush=True)
    except OSError:
        _discard_output()
    return status


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:100]} ... {text[-100:]}"


def _reported(error: BaseException) -> str:
    """Write the traceback to a file, off the user's screen, and return a line that asks for it."""
    try:
        path = user_code.write_tracebacks("".join(traceback.format_exception(error)), ())
    except OSError:
        return "this should not happen; please report it with the command (its traceback could not be written)"
    return f"this should not happen; please report it with {path}"


def _discard_output() -> None:
    """Send what is still to be printed nowhere, where the reader has gone or the disk is full."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams.usable().values():
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())


def _in_thread(failure: threading.ExceptHookArgs) -> None:
    """Print nothing of an error in a thread that writes files: it is raised again by whoever waits for the thread."""
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


def _extra_for(error: ModuleNotFoundError) -> HebbError | None:
    """Return an error that says how to install an optional package; None if the package is not optional."""
    package = (error.name or "").partition(".")[0]
    if package not in extras.EXTRAS:
        return None
    return extras.lacking("this command", package, extras.EXTRAS[package])
