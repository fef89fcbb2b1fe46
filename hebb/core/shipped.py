"""Where shipped data lie: presets, search configs, figure recipes, records.

In a checkout they are folders beside ``hebb/`` and are read there, so that an edit takes effect at once. A wheel
carries copies of them inside the package.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
"""The folder of the package."""

CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None
"""The root of the repository; None where the package is installed without it."""


def path(name: str) -> Path:
    """Return the path of a shipped file or folder, such as ``preset.json`` or ``search_configs``."""
    return (PACKAGE / "shipped" if CHECKOUT is None else CHECKOUT) / name
