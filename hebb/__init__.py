"""Local, biologically plausible learning: rules, networks, training, searches and analyses.

Importing this package is instant: it changes no environment variable and no setting of torch, and the public names
below load their modules when they are first used.
"""

from __future__ import annotations

import importlib
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hebb.config.registry import RULES, Field, Rule
    from hebb.core.errors import ConfigError, HebbError

    register = RULES.register

__version__ = "0.1.0"

__all__ = ["ConfigError", "Field", "HebbError", "Rule", "__version__", "register"]

_HOMES = {
    "ConfigError": "hebb.core.errors",
    "Field": "hebb.config.registry",
    "HebbError": "hebb.core.errors",
    "Rule": "hebb.config.registry",
    "register": "hebb.config.registry:RULES.register",
}
"""Where the public names come from: MODULE, or MODULE:ATTRIBUTE where the name differs."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'hebb' has no attribute '{name}'")
    module, _, attribute = _HOMES[name].partition(":")
    return attrgetter(attribute or name)(importlib.import_module(module))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
