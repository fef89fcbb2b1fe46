"""What the annotation of a spec's field says about its values, read in one place.

A field holds bools, whole numbers, numbers or words (a ``StrEnum`` is made of words by the spec itself), one or a
tuple of them, or None. A field of any other type holds a spec, which checks itself.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Any

from hebb.core.errors import ConfigError
from hebb.core.values import read_number, read_switch

_NOUNS: dict[type, tuple[str, str]] = {
    bool: ("true or false", "switches"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a word", "words"),
}


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """The type of a field.

    Attributes:
        kind: bool, int, float or str; None for a spec.
        optional: whether None is legal.
        many: whether it is a tuple of any length.
    """

    kind: type | None
    optional: bool = False
    many: bool = False

    @property
    def legal(self) -> str:
        """The legal values in words, as they follow "must be"."""
        if self.kind is None:
            return "a spec"
        one, several = _NOUNS[self.kind]
        return (f"a list of {several}" if self.many else one) + (" or null" if self.optional else "")

    def read(self, value: object, where: str) -> Any:
        """Read text, as ``--set`` gives it, or a value."""
        text = str(value)
        if self.optional and (value is None or text.lower() in ("none", "null")):
            return None
        if not self.many:
            result = self._read_one(value)
            if result is None:
                raise ConfigError(where, f"must be {_NOUNS[self.kind or str][0]}, got '{text}'")
            return result
        items = value if isinstance(value, list | tuple) else text.split(",")
        read = [self._read_one(item) for item in items]
        if None in read:
            raise ConfigError(where, f"must be {_NOUNS[self.kind or str][1]} separated by commas, got '{text}'")
        return tuple(read)

    def _read_one(self, value: object) -> bool | int | float | str | None:
        if self.kind is bool:
            return read_switch(value)
        if self.kind is int or self.kind is float:
            return None if isinstance(value, bool) else read_number(str(value), self.kind)
        return str(value)

    def check(self, value: object, where: str) -> None:
        """Raise for a JSON value of another type."""
        if self.kind is None or (self.optional and value is None):
            return
        items = value if self.many and isinstance(value, list | tuple) else [value]
        if (self.many and items is not value) or not all(map(self._fits, items)):
            raise ConfigError(where, f"must be {self.legal}, got {value!r}")

    def _fits(self, value: object) -> bool:
        if isinstance(value, bool):
            return self.kind is bool
        return isinstance(value, (int, float) if self.kind is float else self.kind or object)


_READ: dict[type, dict[str, Annotation]] = {}


def annotations_of(spec: type) -> dict[str, Annotation]:
    """Return the annotations of a dataclass's fields by name, in order."""
    if spec not in _READ:
        hints = typing.get_type_hints(spec)
        _READ[spec] = {entry.name: _annotation(hints[entry.name]) for entry in dataclasses.fields(spec)}
    return _READ[spec]


def _annotation(hint: Any) -> Annotation:
    parts = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    optional = type(None) in parts
    (first, *_) = (part for part in parts if part is not type(None))
    many = typing.get_origin(first) is tuple
    kind = typing.get_args(first)[0] if many else first
    base = next((k for k in (bool, int, float, str) if isinstance(kind, type) and issubclass(kind, k)), None)
    return Annotation(kind=base, optional=optional, many=many)
