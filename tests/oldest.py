"""Print the oldest versions that ``pyproject.toml`` promises, as pins for pip; ``make oldest`` installs and tests them.

python tests/oldest.py [EXTRA...]        the dependencies, and those of the extras
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?(?:>=|==)([\w.]+)")


def pins(extras: list[str]) -> list[str]:
    """Turn every ``name>=version`` into ``name==version``."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    requirements = [*project["dependencies"]]
    for extra in extras:
        requirements += _of_extra(project, extra)
    matches = [(text, REQUIREMENT.match(text)) for text in requirements]
    unbounded = [text for text, match in matches if match is None]
    if unbounded:
        raise SystemExit(f"every requirement must have a lower bound, got {', '.join(unbounded)}")
    return sorted({f"{match[1]}=={match[2]}" for _, match in matches if match})


def _of_extra(project: dict[str, Any], extra: str) -> list[str]:
    """Return the requirements of an extra, with those of the extras that it includes."""
    requirements = []
    for text in project["optional-dependencies"][extra]:
        included = re.fullmatch(rf"{project.get('name')}\[([\w-]+)\]", text)
        requirements += [text] if included is None else _of_extra(project, included[1])
    return requirements


if __name__ == "__main__":
    print("\n".join(pins(sys.argv[1:])))
