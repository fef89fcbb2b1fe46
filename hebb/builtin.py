"""Everything that comes registered: the activations, datasets and rules of the package, and installed plugins.

Whoever starts calls ``load`` before the first name is looked up: a command once its flags are read, a worker, a script.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterable

from hebb.config import plugins
from hebb.config.specs import PluginSpec

MODULES = (
    "rules.activations",
    "data.entries",
    "rules.backprop",
    "rules.hard",
    "rules.krotov",
    "rules.kwta",
    "rules.lpl",
    "rules.sphere",
    "rules.scff",
    "rules.oja",
    "rules.plain",
    "rules.bcm",
    "rules.instar",
    "energy.methods",
    "rules.soft",
)
"""Modules that register entries when they are imported, in the order in which ``--list`` shows them."""

_lock = threading.RLock()  # reentrant: a plugin may call load while it is loaded
_begun = False


def load(needed: Iterable[PluginSpec] = ()) -> None:
    """Register everything, once; then load the plugins that a run from another process needs.

    Raises:
        ConfigError: for a plugin that cannot be loaded, or is not the one the run was made with.
    """
    global _begun
    with _lock:
        if not _begun:
            _begun = True
            for name in MODULES:
                importlib.import_module(f"hebb.{name}")
            plugins.load_installed()
        plugins.require(needed, "a run from another process")
