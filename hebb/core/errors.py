"""The errors a user can meet. Each carries the exit code of the command lines."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_LONGEST_LINE = 600
_LONGEST_LIST = 400  # characters; a message must stay within three lines of a terminal


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
            lines.append("legal: " + _shorten(legal, match))
        if hint:
            lines.append(hint)
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        return _with_text, (str(self),)  # a worker's error travels to the driver as its text


@contextmanager
def within(where: str) -> Iterator[None]:
    """Put the place in front of a ``ConfigError`` raised inside; a place that ``where`` ends with is said once."""
    try:
        yield
    except ConfigError as error:
        if str(error).startswith(where):
            raise
        place, _, problem = str(error).partition(": ")
        text = f"{where}: {problem}" if where.endswith(f" {place}") else f"{where}, {error}"
        raise _with_text(text) from None


def _with_text(text: str) -> ConfigError:
    error = ConfigError("", "")
    error.args = (text,)
    return error


class DivergenceError(HebbError):
    """Weights or loss stopped being finite."""


class InterruptedRunError(HebbError):
    """The user stopped the run; what was finished is on disk."""

    exit_code = 130


def nearest(given: str, choices: Iterable[str]) -> str | None:
    """Return the choice that looks most like ``given``, or None when none does."""
    by_lower = {choice.lower(): choice for choice in choices}
    word = given.lower()
    matches = difflib.get_close_matches(word, by_lower, n=max(len(by_lower), 1), cutoff=0.5)

    def likeness(choice: str) -> tuple[float, bool, str]:
        """Prefer, among equally near words, the one with the same letters: PB means BP, not PC."""
        return difflib.SequenceMatcher(None, choice, word).ratio(), sorted(choice) == sorted(word), choice

    return by_lower[max(matches, key=likeness)] if matches else None


def _cut(line: str) -> str:
    """Keep both ends of a line that quotes something very long."""
    return line if len(line) <= _LONGEST_LINE else f"{line[:250]} ... {line[-250:]}"


def _shorten(choices: list[str], match: str | None) -> str:
    """List the choices within the length of a message, those like the nearest match first."""
    if len(" ".join(choices)) <= _LONGEST_LIST:
        return " ".join(choices)
    if match is not None:
        choices = sorted(choices, key=lambda c: -difflib.SequenceMatcher(None, match, c).ratio())
    shown: list[str] = []
    for choice in choices:
        if len(" ".join([*shown, choice])) > _LONGEST_LIST - 20:
            break
        shown.append(choice)
    return " ".join(shown) + f" ... ({len(choices)} in all)"
