"""Packages that only some features need; each comes with an extra of the distribution."""

from __future__ import annotations

import importlib.util

from hebb.core.errors import ConfigError


def require(feature: str, *modules: str, extra: str) -> None:
    """Raise when a module that a feature needs is not installed; nothing is imported.

    Args:
        feature: what needs it, as the user asked for it (``--method umap``).
        modules: names as in an import statement.
        extra: the extra that installs them.

    Raises:
        ConfigError: with the command that installs the extra.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        hint = f"pip install 'hebb-learning[{extra}]'"
        raise ConfigError(feature, f"needs {' and '.join(missing)}, not installed here", hint=hint)
