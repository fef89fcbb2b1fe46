"""Packages that only some features need; each comes with an extra of the distribution."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder

from hebb.core.errors import ConfigError

EXTRAS = {
    "cmaes": "cmaes",
    "h5py": "shapes3d",
    "hyperopt": "hyperopt",
    "jinja2": "search",
    "matplotlib": "analysis",
    "optuna": "search",
    "pandas": "analysis",
    "ray": "search",
    "scipy": "analysis",
    "shtab": "completion",
    "submitit": "slurm",
    "umap": "umap",
}
"""The extra that installs each optional package, by the name in an import statement."""


SEARCH = ("ray", "optuna", "pandas", "matplotlib", "jinja2")
"""What every search needs."""


def require(feature: str, *modules: str, extra: str) -> None:
    """Raise when a module that a feature needs is not installed; nothing is imported.

    Args:
        feature: what needs it, as the user asked for it (``--method umap``).
        modules: names as in an import statement.
        extra: the extra that installs them.

    Raises:
        ConfigError: with the command that installs the extra.
    """
    missing = [name for name in modules if not _installed(name)]
    if missing:
        raise lacking(feature, " and ".join(missing), extra)


def _installed(module: str) -> bool:
    """Look for a module in ``sys.path``, without the import hooks that ask for it."""
    if module in sys.modules:
        return sys.modules[module] is not None
    return PathFinder.find_spec(module) is not None


def lacking(feature: str, packages: str, extra: str) -> ConfigError:
    """Return the error for a feature whose packages are not installed."""
    hint = f"pip install 'hebb-learning[{extra}]'"
    return ConfigError(
        feature, f"needs {packages}, which {'are' if ' and ' in packages else 'is'} not installed", hint=hint
    )


def version(distribution: str) -> str | None:
    """Return the installed version of a distribution; None where there is none. Nothing is imported."""
    from importlib import metadata  # some 20 ms, which --help does without

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
