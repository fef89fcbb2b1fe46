"""Arguments of public functions have the types that their annotations name, or are refused before anything is done."""

from __future__ import annotations

import functools
import inspect
import numbers
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from hebb.core.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")

_LISTS = (Iterable, Sequence)
_NOUNS: dict[Any, tuple[str, str]] = {
    str: ("a text", "texts"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("True or False", "truth values"),
    Path: ("a path", "paths"),
    None: ("None", ""),
}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function refuse arguments of other types than its annotations name.

    Numbers of numpy become Python's, so that they can be written down; a single text stands for a list of one.
    Annotations that no rule below knows are left to the function.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # Python's own error names the function
        hints = _hints(function)
        for name, value in bound.arguments.items():
            bound.arguments[name] = _argument(name, value, hints.get(name, Any))
        return function(*bound.args, **bound.kwargs)

    return call


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(function)


def _argument(name: str, value: Any, hint: Any) -> Any:
    """Return the value of an argument, or raise if it is of none of the types of its annotation."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if not all(_noun(kind) for kind in kinds):
        return value
    for kind in kinds:
        fits, converted = _fitted(value, kind)
        if fits:
            return converted
    raise ConfigError(name, f"must be {' or '.join(map(_noun, kinds))}, got {value!r}")


def _noun(kind: Any) -> str:
    """Return what an annotation asks for; empty for one that is not checked here."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in _LISTS and inner[0] in _NOUNS:
        return f"a list of {_NOUNS[inner[0]][1]}"
    if origin is Mapping:
        return "a dict with texts as keys"
    return _NOUNS[kind][0] if isinstance(kind, type) and kind in _NOUNS else ""


def _fitted(value: Any, kind: Any) -> tuple[bool, Any]:
    """Return whether a value is of a kind, and the value as Python's own type."""
    origin = typing.get_origin(kind)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(isinstance(key, str) for key in value), value
    if origin in _LISTS:
        return _fitted_list(value, typing.get_args(kind)[0])
    if kind is bool:
        return isinstance(value, bool), value
    if kind is int:
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        return whole, int(value) if whole else value
    if kind is float:
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return number, value if isinstance(value, int) or not number else float(value)
    return isinstance(value, kind), value


def _fitted_list(values: Any, kind: Any) -> tuple[bool, Any]:
    if isinstance(values, str):
        return kind is str, (values,)
    if not isinstance(values, Iterable) or isinstance(values, Mapping):
        return False, values
    pairs = [_fitted(value, kind) for value in values]
    return all(fits for fits, _ in pairs), tuple(converted for _, converted in pairs)
