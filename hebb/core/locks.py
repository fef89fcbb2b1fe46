"""Locks between processes: a file that one process at a time holds, on one machine or on several that share a disk.

The kernel releases the lock of a process that dies, however it dies. Some file systems have no such locks (Lustre
without its mount option); there the existence of a second file is the lock, and one whose process has gone is removed.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from hebb.core.errors import ConfigError

_ATTEMPTS = 10_000  # whoever releases the lock removes the file, and all who wait try again
_PAUSE = 0.2  # seconds between two looks at a lock that the kernel does not watch
_HELD: set[tuple[Path, int, int]] = set()
"""Locks of this process: file, process, thread."""


class _BusyError(Exception):
    """Another process holds the lock; the message names it."""


@contextlib.contextmanager
def held(path: Path, *, where: str = "", busy: str | None = None, hint: str | None = None) -> Iterator[None]:
    """Hold a lock file, which is removed at the end; a thread that holds it already may take it again.

    Args:
        path: the file; folders that are absent are made, and removed if they are empty at the end.
        where: the place an error names.
        busy: what the other process is doing, for the error when one holds it; None waits for that process.
        hint: what to do then.

    Raises:
        ConfigError: when another process holds it; names the process and its machine.
    """
    path = path.absolute()
    key = path.parent.resolve() / path.name, os.getpid(), threading.get_ident()
    if key in _HELD:
        yield
        return
    new_folders = [folder for folder in (path.parent, *path.parent.parents) if not os.path.lexists(folder)]
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_empty, new_folders)
        try:
            stack.enter_context(_acquired(path, wait=busy is None))
        except _BusyError as error:
            raise ConfigError(where, f"{busy} by {error}", hint=hint) from None
        stack.callback(_HELD.discard, key)
        _HELD.add(key)
        yield


def holder(path: Path) -> str | None:
    """Name the process that holds a lock file; None where none does. Nothing is written."""
    try:
        file = open(path, encoding="utf-8", errors="replace")  # noqa: SIM115  (closed below)
    except FileNotFoundError:
        return None
    with file:
        try:
            if _flock(file, wait=False, shared=True):
                return None  # left behind by a process that was killed
        except _BusyError as error:
            return str(error)
    owner = _content(path.with_name(f"{path.name}.pid"))
    return _described(owner) if owner and _may_live(owner, wait=False) else None


def _remove_empty(folders: list[Path]) -> None:
    with contextlib.suppress(OSError):  # not empty
        for folder in folders:
            folder.rmdir()


def _acquired(path: Path, *, wait: bool) -> contextlib.AbstractContextManager[None]:
    """Take the lock and return the context that releases it."""
    for _ in range(_ATTEMPTS):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = open(path, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115  (closed by _released)
        except FileNotFoundError:
            continue  # another process has removed the folder, which it had made
        try:
            if not _flock(file, wait=wait):
                file.close()
                return _exclusive(path, wait=wait)
            if _is_at(file, path):
                file.truncate(0)
                file.write(_own_name())
                file.flush()
                return _released(file, path)
        except BaseException:
            file.close()
            raise
        file.close()  # its last holder has removed it
    raise OSError(f"cannot hold the lock {path}")


def _flock(file: IO[str], *, wait: bool, shared: bool = False) -> bool:
    """Lock an open file, ``shared`` with others who only look; return False where there are no such locks."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.seek(0)
        raise _BusyError(_described(file.read())) from None
    except OSError:
        return False
    return True


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _released(file: IO[str], path: Path) -> Iterator[None]:
    """Remove the file at the end, while it is held: who waits for it notices, and makes another."""
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _exclusive(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock by a second file that only one process can make."""
    mark, own = path.with_name(f"{path.name}.pid"), path.with_name(f"{path.name}.{os.getpid()}-{os.uname().nodename}")
    own.write_text(_own_name(), encoding="utf-8")
    try:
        while not _linked(own, mark):
            owner = _content(mark)
            if owner and not _may_live(owner, wait=wait):
                mark.unlink(missing_ok=True)
            elif wait:
                time.sleep(_PAUSE)
            else:
                raise _BusyError(f"{_described(owner)}, if that still runs; else remove {mark}")
    finally:
        own.unlink()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def _linked(own: Path, mark: Path) -> bool:
    """Give a file, written whole, a second name; return False when that name is taken."""
    try:
        os.link(own, mark)
    except FileExistsError:
        return False
    return True


def _may_live(owner: str, *, wait: bool) -> bool:
    """Whether the process may be alive; one of another machine is taken for dead only by those that would wait."""
    number, _, host = owner.strip().partition(" ")
    if host != os.uname().nodename:
        return not wait
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass  # the process of another user
    return True


def _own_name() -> str:
    return f"{os.getpid()} {os.uname().nodename}\n"


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _described(owner: str) -> str:
    number, _, host = owner.strip().partition(" ")
    return f"process {number} on {host}" if number and host else "another process"
