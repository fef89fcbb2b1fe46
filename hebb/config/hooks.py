"""The functions that an entry brings along: what each is called with, and which entry a function belongs to.

The table is what makes an error say "signal of TopTwo": a plugin's functions are checked against it when they are
registered, and looked up in it when one of them fails.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

from hebb.config.registry import ACTIVATIONS, DATASETS, RULES, Activation, Dataset
from hebb.config.rule import HebbianRule, LocalRule, Rule, SettlingRule
from hebb.core import user_code
from hebb.core.errors import ConfigError
from hebb.core.user_code import UserCodeError

Arguments = tuple[str, ...]
Entry = Rule | Activation | Dataset

_FUNCTIONS: dict[type, dict[str, Arguments]] = {
    Rule: {"check": ("values", "where")},
    HebbianRule: {
        "signal": ("u", "layer", "labels"),
        "softmax": ("layer",),
        "decay": ("y", "u", "weight", "layer"),
        "effective": ("weight", "layer"),
        "project": ("weight", "layer"),
        "advance": ("u", "layer", "state"),
        "initialise": ("shape", "layer", "generator"),
        "bias_step": ("y", "bias", "layer"),
    },
    LocalRule: {
        "loss": ("views", "layer", "context"),
        "module": ("fan_in", "width", "layer"),
        "projector": ("width", "layer"),
    },
    SettlingRule: {
        "check_settings": ("values", "where"),
        "tensors": ("fan_in", "width", "first", "last"),
        "network": (),
    },
    Activation: {"centre": ("u",)},
    Dataset: {"load": ("folder", "train"), "order": ("folder",), "open": ("folder", "split", "shape")},
}
"""Arguments of the functions of each kind of entry, in their order."""


def functions(entry: Entry) -> Iterator[tuple[str, Any, Arguments]]:
    """Yield the functions of an entry: name, function, and the arguments that it is called with."""
    for kind, table in _FUNCTIONS.items():
        if isinstance(entry, kind):
            yield from ((name, getattr(entry, name), _called(entry, name, table[name])) for name in table)
    for state in getattr(entry, "state", ()):
        yield f"start of the state '{state.name}'", state.start, ("shape", "layer")
    if isinstance(entry, Activation):
        yield "function", entry.function, ("u",) if entry.parameter is None else ("u", "parameter")


def _called(entry: Entry, name: str, arguments: Arguments) -> Arguments:
    """Return the arguments of a function of this entry: the signal of a rule with a state sees the state too."""
    return (*arguments, "state") if name == "signal" and isinstance(entry, HebbianRule) and entry.state else arguments


def check(entry: Entry) -> None:
    """Raise for a function of an entry that cannot be called as it will be."""
    required = {"signal", "loss", "tensors", "network", "function"}
    for name, function, arguments in functions(entry):
        if function is None and name not in required:
            continue
        what = f"{name} of {entry.name}"
        if not callable(function):
            raise ConfigError(what, f"must be a function of ({', '.join(arguments)}), got {function!r}")
        _check_arguments(what, function, arguments)


def check_mode(name: str, function: Callable[..., Any]) -> None:
    """Raise for a training mode that cannot be called with a config."""
    _check_arguments(f"mode '{name}'", function, ("config",))


def _check_arguments(what: str, function: Callable[..., Any], arguments: Arguments) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a function of C, which does not say
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        raise user_code.broken(function, what, f"must take ({', '.join(arguments)}), takes {signature}") from None


def described(code: CodeType) -> str | None:
    """Say which entry a function belongs to, as in ``signal of TopTwo``; None if it belongs to none."""
    registries: tuple[Any, ...] = (RULES, ACTIVATIONS, DATASETS)
    for registry in registries:
        for entry in registry.entries():
            for name, function, _ in functions(entry):
                if function is not None and user_code.code_of(function) is code:
                    return f"{name} of {entry.name}"
    return None


def broken(entry: Entry, name: str, problem: str) -> UserCodeError:
    """Return the error of an entry's function that ran, and did not return what it must."""
    return user_code.broken(getattr(entry, name), f"{name} of {entry.name}", problem)


def where(entry: Entry, name: str, otherwise: str) -> str:
    """Return plugin, line and function as the place of an error; ``otherwise`` for an entry of the package."""
    code = user_code.code_of(getattr(entry, name))
    if code is None or not user_code.is_user_code(code.co_filename):
        return otherwise
    return f"{user_code.place(code.co_filename, code.co_firstlineno)}: {name} of {entry.name}"
