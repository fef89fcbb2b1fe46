"""Numbers and switches as people write them, in flags, presets and files alike."""

from __future__ import annotations

import re

_BARE = re.compile(r"[+-]?\.?[0-9]")
"""How a number begins where words are legal too: ``inf`` and ``nan`` are words there."""
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(_[0-9]{3})+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
_SWITCHES = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def read_switch(text: object) -> bool | None:
    """Read 0, 1, true, false, yes, no, on or off; None for anything else."""
    return _SWITCHES.get(str(text).lower())


def read_number(text: str, kind: type) -> int | float | None:
    """Read an int or a float as a person writes it; None for anything else, NaN included.

    Python's own ``float`` also takes ``1_0``, and reads a long whole number inexactly. Here ``_`` sets groups of
    three digits apart, ``1_000``.
    """
    if not text.isascii():
        return None
    if "_" in text:
        text = text.replace("_", "") if _GROUPED.fullmatch(text.strip()) else ""
    try:
        if kind is int:
            exact = re.fullmatch(r"[+-]?\d+", text.strip())
            return int(text) if exact else _whole(float(text))
        number = float(text)
    except (ValueError, OverflowError):
        return None
    return None if number != number else number


def _whole(number: float) -> int | None:
    return int(number) if number.is_integer() else None


def number_or_none(text: str) -> int | float | None:
    """Read text that may be a number or a word: ``1e-3``, ``.5``, ``010`` and ``1_000`` are numbers, ``0x10`` is none.

    It is whole where it is written without point and exponent.
    """
    if not _BARE.match(text) or text != text.strip():
        return None
    return read_number(text, int if re.fullmatch(r"[+-]?[0-9_]+", text) else float)
