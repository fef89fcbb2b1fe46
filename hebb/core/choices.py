"""Closed sets of words, as users write them."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from hebb.core.errors import ConfigError

Member = TypeVar("Member", bound=StrEnum)


def choose(kind: type[Member], word: str, where: str) -> Member:
    """Return the member of ``kind`` that ``word`` names.

    Raises:
        ConfigError: for any other word, with the nearest member.
    """
    try:
        return kind(word)
    except ValueError:
        raise ConfigError(where, f"unknown '{word}'", given=word, choices=kind) from None
