"""Code of users: the files it comes from, the line at which it is wrong, and its traceback.

A message that names the user's own file and line is all that helps; the frames of the package around it do not.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import linecache
import os
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from hebb.core.errors import ConfigError, HebbError

TRACEBACK = "traceback.txt"
"""File of a run folder with the traceback of the error that ended the run."""
_LONGEST = 300  # characters of an error's text
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_NETWORK = {"urllib", "http", "ssl", "socket", "requests"}  # modules whose errors mean that the network failed
_SOURCES: dict[Path, str] = {}
"""Files and package folders of plugins, and the names by which the plugins are loaded."""

Describe = Callable[[CodeType], str | None]
"""Says what a function is for, as in ``signal of TopTwo``; None for a function that only helps."""


class UserCodeError(ConfigError):
    """An error in the code of a user; names the file, the line, and what would be right.

    Attributes:
        trace: the traceback of the user's frames; kept in a file, off the user's screen.
        problem: what is wrong, without its place.
        line: file and line; None for a function of C.
    """

    def __init__(self, where: str, problem: str, trace: str, line: tuple[str, int] | None = None) -> None:
        super().__init__(where, problem)
        self.trace, self.problem, self.line = trace, problem, line

    def kept(self, folders: Iterable[Path]) -> UserCodeError:
        """Write the traceback into run folders, or without one into a temporary file, and say where it is."""
        path = write_tracebacks(f"{self.trace}\n{self}\n", folders)
        self.args = (f"{self}\ntraceback: {path}",)
        self.trace = ""
        return self


def add(source: Path, name: str) -> None:
    """Note that a file, or a package folder, holds the code of a plugin."""
    _SOURCES[Path(os.path.realpath(source))] = name


def is_user_code(file: str) -> bool:
    """Tell whether a file belongs to a plugin."""
    return _source(file) is not None


def _source(file: str) -> Path | None:
    path = Path(os.path.realpath(file))
    return next((source for source in (path, *path.parents) if source in _SOURCES), None)


def place(file: str, line: int | None) -> str:
    """Write a line of a user's file as the place of an error, with the plugin it belongs to."""
    source = _source(file)
    text = file if line is None else f"{file}, line {line}"
    if source is None:
        return text
    name = _SOURCES[source]
    return (
        f"plugin {text}" if Path(os.path.realpath(name)) == Path(os.path.realpath(file)) else f"plugin {name}, {text}"
    )


def code_of(function: object) -> CodeType | None:
    """Return the code that a function, a method, a partial or a callable object runs; None for one of C."""
    while isinstance(function, functools.partial):
        function = function.func
    unwrapped: Any = inspect.unwrap(function) if callable(function) else function
    for candidate in (unwrapped, getattr(unwrapped, "__func__", None), getattr(type(unwrapped), "__call__", None)):  # noqa: B004
        code = getattr(candidate, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None


def broken(function: object, what: str, problem: str) -> UserCodeError:
    """Return the error of a function that ran, and did not do what it must.

    Args:
        function: a function of a user.
        what: what it is for, ``signal of TopTwo``.
        problem: what it must do and what it did, ``must return (M, C) like u, got None``.
    """
    code = code_of(function)
    if code is None:
        return UserCodeError(what, problem, f"  {function!r}")
    line = linecache.getline(code.co_filename, code.co_firstlineno)
    trace = traceback.format_list([(code.co_filename, code.co_firstlineno, code.co_name, line)])
    start = code.co_filename, code.co_firstlineno
    return UserCodeError(place(*start), f"{what} {problem}", "".join(trace).rstrip(), start)


def fault_in(error: BaseException, describe: Describe) -> UserCodeError | None:
    """Return what is wrong in a user's code if the error was raised there; None for others and for machine trouble.

    Args:
        error: any error.
        describe: says what a function is for.
    """
    if isinstance(error, HebbError) or _of_the_machine(error):
        return None
    frames = _frames(error)
    if not frames:
        return None
    entry, (frame, line) = frames[0][0].f_code, frames[-1]
    what = describe(entry) or entry.co_qualname
    trace = _trace(error, frames[0][0])
    return UserCodeError(place(frame.f_code.co_filename, line), f"{what} raised {summary(error)}", trace)


def line_of(error: BaseException) -> tuple[str, int] | None:
    """Return file and line of the user's code at which an error was raised while it was imported."""
    if isinstance(error, UserCodeError):
        return error.line
    if isinstance(error, SyntaxError) and error.filename and error.lineno and is_user_code(error.filename):
        return error.filename, error.lineno
    frames = _frames(error)
    return None if not frames else (frames[-1][0].f_code.co_filename, frames[-1][1])


def summary(error: BaseException) -> str:
    """Return type and text of an error in one line."""
    text = " ".join(str(error).split())
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def write_tracebacks(text: str, folders: Iterable[Path]) -> Path:
    """Write a traceback into run folders, and return the first file; into a temporary one where none can be written."""
    written = []
    for folder in folders:
        path = folder / TRACEBACK
        with contextlib.suppress(OSError):
            path.write_text(text, encoding="utf-8")
            written.append(path)
    if written:
        return written[0]
    import tempfile

    with tempfile.NamedTemporaryFile("w", prefix="hebb-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write(text)
    return Path(file.name)


def explanation(error: BaseException, describe: Describe, folders: Iterable[Path] = ()) -> UserCodeError | None:
    """Return what is wrong in a user's code, once its traceback is in a file; None for an error of another origin.

    Args:
        error: any error.
        describe: says what a function is for.
        folders: run folders that keep the traceback; without any a temporary file does.
    """
    fault = error if isinstance(error, UserCodeError) else fault_in(error, describe)
    return fault.kept(folders) if fault is not None and fault.trace else fault


def _frames(error: BaseException) -> list[tuple[FrameType, int]]:
    """Return the frames of users' files with their lines, from the outermost."""
    walked: list[tuple[FrameType, int]] = list(traceback.walk_tb(error.__traceback__))
    return [(frame, line) for frame, line in walked if is_user_code(frame.f_code.co_filename)]


def _trace(error: BaseException, first: FrameType) -> str:
    """Format the traceback from the first of the user's frames on."""
    tb: Any = error.__traceback__
    while tb is not None and tb.tb_frame is not first:
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(error), error, tb)).rstrip()


def _of_the_machine(error: BaseException) -> bool:
    """Tell whether the machine failed, and not the code: no memory, no space, no network."""
    if isinstance(error, MemoryError | ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError):
        origins = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
        return error.errno in _MACHINE or not origins.isdisjoint(_NETWORK)
    return "out of memory" in str(error) or "not enough memory" in str(error)
