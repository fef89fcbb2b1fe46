"""Local, biologically plausible learning: rules, networks, training, searches and analyses.

Importing this package is instant: it changes no environment variable and no setting of torch, and the public names
below load their modules when they are first used.
"""

from __future__ import annotations

import importlib
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hebb.analysis.difference import Difference
    from hebb.api.differences import diff
    from hebb.api.estimators import HebbClassifier, HebbFeatures
    from hebb.api.layers import HebbConv2d, HebbLinear
    from hebb.api.networks import network
    from hebb.api.runs import TrainedRun, train
    from hebb.api.searches import FinishedSearch, load, search
    from hebb.config.fields import Field
    from hebb.config.registry import RULES
    from hebb.config.rule import BackpropRule, HebbianRule, LocalRule, SettlingRule
    from hebb.core.errors import ConfigError, HebbError

    register = RULES.register

__version__ = "0.1.0"

__all__ = [
    "BackpropRule",
    "ConfigError",
    "Difference",
    "Field",
    "FinishedSearch",
    "HebbClassifier",
    "HebbConv2d",
    "HebbError",
    "HebbFeatures",
    "HebbLinear",
    "HebbianRule",
    "LocalRule",
    "SettlingRule",
    "TrainedRun",
    "__version__",
    "diff",
    "load",
    "network",
    "register",
    "search",
    "train",
]

_HOMES = {
    "BackpropRule": "hebb.config.rule",
    "ConfigError": "hebb.core.errors",
    "Difference": "hebb.analysis.difference",
    "Field": "hebb.config.fields",
    "HebbError": "hebb.core.errors",
    "HebbianRule": "hebb.config.rule",
    "LocalRule": "hebb.config.rule",
    "SettlingRule": "hebb.config.rule",
    "FinishedSearch": "hebb.api.searches",
    "HebbClassifier": "hebb.api.estimators",
    "HebbConv2d": "hebb.api.layers",
    "HebbFeatures": "hebb.api.estimators",
    "HebbLinear": "hebb.api.layers",
    "TrainedRun": "hebb.api.runs",
    "diff": "hebb.api.differences",
    "load": "hebb.api.searches",
    "search": "hebb.api.searches",
    "network": "hebb.api.networks",
    "train": "hebb.api.runs",
    "register": "hebb.config.registry:RULES.register",
}
"""Where the public names come from: MODULE, or MODULE:ATTRIBUTE if it has another name there."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'hebb' has no attribute '{name}'")
    module, _, attribute = _HOMES[name].partition(":")
    return attrgetter(attribute or name)(importlib.import_module(module))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
