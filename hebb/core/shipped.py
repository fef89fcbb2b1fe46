"""Where shipped data are: presets, search configs, figure recipes, records.

In a checkout they stand beside ``hebb/`` and are read there, so that an edit takes effect at once. A wheel carries
copies inside the package.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
"""The folder of the package."""

_IS_CHECKOUT = all((PACKAGE.parent / name).is_file() for name in ("pyproject.toml", "preset.json"))
CHECKOUT = PACKAGE.parent if _IS_CHECKOUT else None
"""The root of the repository; None if the package is installed without it."""


def path(name: str) -> Path:
    """Return the path of a shipped file or folder, such as ``preset.json`` or ``search_configs``."""
    return (PACKAGE / "shipped" if CHECKOUT is None else CHECKOUT) / name
