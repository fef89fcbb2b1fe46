"""The errors a user can meet. Each carries the exit code of the command lines."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from hebb.core import temporary

_LONGEST_LINE = 600
_LONGEST_LIST = 460  # characters; of a longer list only the nearest words are shown
_NEAREST = 5
_LIKE = 0.55  # least ratio of likeness at which a word is offered in place of another
_LIKE_SHORT = 0.5  # the same for up to three letters, of which one may be wrong


class HebbError(Exception):
    """A failure that is explained by its message alone; no traceback is shown for it."""

    exit_code = 1


class ConfigError(HebbError, ValueError):
    """Bad input: names the place, the problem and what would be right.

    Args:
        where: the place, as the user wrote it (``b0 'Soft-c96-kk5'``, ``--preset``, a file).
        problem: what is wrong, quoting what was given.
        given: the offending word, from which the nearest legal choice is found.
        choices: the legal words.
        hint: a sentence that says what to do instead.
    """

    exit_code = 2

    def __init__(
        self,
        where: str,
        problem: str,
        *,
        given: str | None = None,
        choices: Iterable[str] = (),
        hint: str | None = None,
    ) -> None:
        legal = [str(choice) for choice in choices]
        first = _cut(f"{where}: {problem}")
        match = nearest(given, legal) if given is not None else None
        if match is not None:
            first += f" (did you mean '{match}'?)"
        lines = [first]
        if legal:
            lines.append("legal: " + _shorten(legal, given))
        if hint:
            lines.append(hint)
        super().__init__("\n".join(lines))
        self.place = where
        """Where it happened; ``within`` and ``said_as`` change it."""

    def __reduce__(self) -> tuple[object, ...]:
        return _with_text, (str(self), self.place)  # a worker's error travels to the driver as its text

    @property
    def explanation(self) -> str:
        """The message without the place."""
        return str(self).removeprefix(f"{self.place}: ")

    def move(self, place: str) -> None:
        """Name another place."""
        self.args, self.place = (f"{place}: {self.explanation}",), place


@contextmanager
def within(where: str) -> Iterator[None]:
    """Put the place in front of a ``ConfigError`` raised inside; a place that ``where`` ends with is said once."""
    try:
        yield
    except ConfigError as error:
        if error.place.startswith(where):
            raise
        before = where.removesuffix("'").removesuffix(error.place)
        once = len(before) < len(where) - 1 and before[-1:] in (" ", "'", ":")
        error.move(where if once else f"{where}, {error.place}")
        raise


@contextmanager
def said_as(places: Mapping[str, str]) -> Iterator[None]:
    """Name a place of a ``ConfigError`` raised inside as the user wrote it: the flag instead of the field that it sets.

    Args:
        places: what the user wrote, by the place or by the words that it begins with.
    """
    try:
        yield
    except ConfigError as error:
        for place in sorted(places, key=len, reverse=True):
            rest = error.place.removeprefix(place)
            if error.place.startswith(place) and rest[:1] in ("", " ", ","):
                error.move(places[place] + rest)
                break
        raise


def _with_text(text: str, place: str = "") -> ConfigError:
    error = ConfigError("", "")
    error.args, error.place = (text,), place
    return error


class DivergenceError(HebbError):
    """Weights or loss stopped being finite."""


class InterruptedRunError(HebbError):
    """The user stopped the run; what was finished is on disk."""

    exit_code = 130


class DiskFullError(HebbError):
    """A file could not be written because the disk, a quota or a limit on the size of files is full."""


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LITTLE = 1 << 20  # bytes; less is too little for any library


@contextmanager
def writing(path: os.PathLike[str]) -> Iterator[None]:
    """Raise what stopped the writing of a file: an interrupt, or ``DiskFullError`` with the path.

    Libraries that write archives go on to close them after an interrupt or a failed write, and then raise an error of
    their own about an archive that is not whole.
    """
    try:
        yield
    except Exception as error:
        cause = cause_of(error, path)
        if cause is error:
            raise
        raise cause from None


def cause_of(error: BaseException, path: os.PathLike[str] | None = None) -> BaseException:
    """Return the interrupt or the full disk that an error hides, else the error itself."""
    if isinstance(error, HebbError):
        return error
    chain = list(_chain(error))
    interrupt = next((one for one in chain if isinstance(one, KeyboardInterrupt)), None)
    if interrupt is not None:
        return interrupt
    full = next((one for one in chain if isinstance(one, OSError) and one.errno in _NO_SPACE), None)
    if full is None:
        return error
    place = path or full.filename
    where = f" for {place}" if place else _full_folders()
    return DiskFullError(f"no space left{where}: {os.strerror(full.errno or 0)}")


def _full_folders() -> str:
    """Name the folders without space among those in which libraries put files of their own."""
    full = []
    for folder in dict.fromkeys((str(temporary.folder()), "/dev/shm", os.curdir)):
        with suppress(OSError):
            disk = os.statvfs(folder)
            if disk.f_bavail * disk.f_frsize < _LITTLE:
                full.append(folder)
    return f" in {' and '.join(full)}" if full else ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from or during."""
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen:
        seen.append(one)
        yield one
        one = one.__cause__ or one.__context__


def nearest(given: str, choices: Iterable[str]) -> str | None:
    """Return the choice that looks most like ``given``, or None when none is close."""
    word = _plain(given)

    def likeness(choice: str) -> tuple[float, bool, str]:
        """Prefer, among equally near words, the one with the same letters: PB means BP, not PC."""
        return _ratio(choice, given), sorted(_plain(choice)) == sorted(word), choice

    best = max(choices, key=likeness, default=None)
    least = _LIKE_SHORT if len(word) <= 3 else _LIKE
    return best if best is not None and _ratio(best, given) >= least else None


def _plain(word: str) -> str:
    """Return the letters that are compared; the dashes of flags would make all flags alike."""
    return word.lower().lstrip("-")


def _ratio(choice: str, given: str) -> float:
    """Return how alike two words are, in [0, 1]; a word of three letters or more is like one that it begins."""
    words = _plain(choice), _plain(given)
    short, long = sorted(words, key=len)
    least = _LIKE if len(short) >= 3 and long.startswith(short) else 0.0
    return max(least, difflib.SequenceMatcher(None, *words).ratio())


def _cut(line: str) -> str:
    """Keep both ends of a line that quotes something very long."""
    return line if len(line) <= _LONGEST_LINE else f"{line[:250]} ... {line[-250:]}"


def _shorten(choices: list[str], given: str | None) -> str:
    """List the choices; of a long list, those that are most like ``given``."""
    if len(" ".join(choices)) <= _LONGEST_LIST:
        return " ".join(choices)
    if given is not None:
        choices = sorted(choices, key=lambda choice: -_ratio(choice, given))
    return f"{' '.join(choices[:_NEAREST])} ... ({len(choices)} in all)"
