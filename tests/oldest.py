"""Print the oldest versions that ``pyproject.toml`` promises, as pins for pip; ``make oldest`` installs and tests them.

python tests/oldest.py [EXTRA...]        the dependencies, and those of the extras
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?(?:>=|==)([\w.]+)")


def pins(extras: list[str]) -> list[str]:
    """Turn every ``name>=version`` into ``name==version``."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    requirements = [*project["dependencies"]]
    for extra in extras:
        requirements += project["optional-dependencies"][extra]
    matches = [(text, REQUIREMENT.match(text)) for text in requirements]
    unbounded = [text for text, match in matches if match is None]
    if unbounded:
        raise SystemExit(f"every requirement must have a lower bound, got {', '.join(unbounded)}")
    return sorted({f"{match[1]}=={match[2]}" for _, match in matches if match})


if __name__ == "__main__":
    print("\n".join(pins(sys.argv[1:])))
