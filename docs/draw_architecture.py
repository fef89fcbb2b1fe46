"""Draw docs/images/architecture.svg: the floors of the package and the imports between them, read from the code.

python docs/draw_architecture.py

Floors and imports are those that ``tests/test_architecture.py`` checks, and a test compares the picture with the code.
"""

from __future__ import annotations

import re
import sys
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import test_architecture as house  # noqa: E402

PAGE = HERE / "images" / "architecture.svg"
RUN = ("cli", "config", "training", "nn", "rules")
"""The floors that a run crosses on its way down, in their order."""

ROW, TOP, LEFT, TEXT, GRID, CELL, GAP = 30, 92, 16, 126, 500, 24, 28
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .name { font: 600 13px ui-monospace, monospace; }
  .small { font-size: 11px; fill: #57606a; }
  .page { fill: #ffffff; stroke: #d0d7de; }
  .floor { fill: #f3f5f8; }
  .import { fill: #2a6fb5; }
  .own { fill: #d8dee6; }
  .way { fill: #b5482a; }
  .number { font: 600 11px system-ui, sans-serif; fill: #ffffff; text-anchor: middle; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .small { fill: #9aa4ae; } .page { fill: #161b22; stroke: #30363d; }
    .floor { fill: #21262d; } .import { fill: #5aa2e8; } .own { fill: #3a424b; } .way { fill: #d9653f; }
  }
"""


def floors() -> dict[str, str]:
    """Return what each floor holds, from the top down, as the table of the architecture test says it."""
    text = Path(house.__file__).read_text(encoding="utf-8")
    meanings = dict(
        re.findall(r'^    "(\w+)",(?:  # (.*))?$', text.partition("FLOORS = (")[2].partition("\n)")[0], re.M)
    )
    return {name: meanings[name] or "the command hebb" for name in reversed(house.FLOORS)}


def imports() -> set[tuple[str, str]]:
    """Return the pairs of floors of which the first imports from the second."""
    pairs: set[tuple[str, str]] = set()
    for name in house.MODULES:
        targets = {full.removeprefix("hebb.") for full in house.imports(name) if full.startswith("hebb.")}
        pairs |= {(name.partition(".")[0], target.partition(".")[0]) for target in targets & set(house.MODULES)}
    return pairs


def picture() -> str:
    """Return the picture: a row for each floor, and a column for each floor that it imports from."""
    meanings, pairs = floors(), imports()
    names = list(meanings)
    width, height = GRID + CELL * len(names) + GAP, TOP + ROW * len(names) + 52
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="the floors of hebb, and which floor imports from which">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
        f'<text x="{LEFT}" y="28" class="name">hebb/</text>',
        f'<text x="{LEFT}" y="48" class="small">A folder is a floor.</text>',
        f'<text x="{LEFT}" y="66" class="small">A dot: the floor of its row imports from that of its column.</text>',
        f'<text x="{LEFT}" y="84" class="small">All dots lie right of the diagonal: no import goes up.</text>',
    ]
    for row, name in enumerate(names):
        parts += _floor(row, name, meanings[name], len(names))
        for column, other in enumerate(names):
            parts += _dot(row, column, (name, other) in pairs)
    parts += [_heading(column, name) for column, name in enumerate(names)]
    parts += _legend(TOP + ROW * len(names) + 26)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _floor(row: int, name: str, meaning: str, columns: int) -> list[str]:
    y = TOP + ROW * row
    parts = [
        f'<rect class="floor" x="{LEFT}" y="{y}" width="{GRID + CELL * columns - LEFT}" height="{ROW - 4}" rx="4"/>',
        f'<text x="{LEFT + 34}" y="{y + 18}" class="name">{name}</text>',
        f'<text x="{TEXT}" y="{y + 18}">{escape(meaning)}</text>',
    ]
    return [*parts, *_step(LEFT + 17, y + 13, RUN.index(name) + 1)] if name in RUN else parts


def _heading(column: int, name: str) -> str:
    x, y = GRID + CELL * column + CELL // 2 + 3, TOP - 8
    return f'<text class="small" x="{x}" y="{y}" transform="rotate(-60 {x} {y})">{name}</text>'


def _step(x: int, y: int, number: int) -> list[str]:
    return [
        f'<circle class="way" cx="{x}" cy="{y}" r="9"/>',
        f'<text class="number" x="{x}" y="{y + 4}">{number}</text>',
    ]


def _dot(row: int, column: int, imported: bool) -> list[str]:
    x, y = GRID + CELL * column + CELL // 2, TOP + ROW * row + 13
    if row == column:
        return [f'<circle class="own" cx="{x}" cy="{y}" r="4"/>']
    return [f'<circle class="import" cx="{x}" cy="{y}" r="6"/>'] if imported else []


def _legend(y: int) -> list[str]:
    way = (
        "flags become a RunConfig",
        "the plan of its phases",
        "epochs and batches",
        "the layer's step",
        "the rule's signal y",
    )
    parts, x = [f'<text x="{LEFT}" y="{y}" class="small">the way of a run:</text>'], LEFT + 100
    for number, text in enumerate(way, 1):
        parts += [*_step(x + 9, y - 4, number), f'<text x="{x + 24}" y="{y}" class="small">{escape(text)}</text>']
        x += 40 + 6 * len(text)
    return parts


def main(path: Path = PAGE) -> None:
    """Write the picture."""
    path.write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
