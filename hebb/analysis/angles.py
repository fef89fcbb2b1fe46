"""The angle between forward and feedback weights while a settling network learns.

0 degrees means symmetric weights, 90 degrees independent ones (Bozkurt et al., NeurIPS 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from hebb.analysis import groups, replicates, style
from hebb.core.errors import ConfigError
from hebb.storage import curves as learning_curves
from hebb.storage import folders

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hebb.analysis.runs import StoredRun


def compute(runs: Sequence[StoredRun], by: Sequence[str] | None = None, *, number: str = "angle") -> pd.DataFrame:
    """Return one line per network, block and update: n, mean, sd over seeds.

    Args:
        runs: finished runs of settling networks with feedback weights.
        by: columns that make a network, as in ``table.compute``.
        number: a number that ``blocks.jsonl`` holds for each block: ``angle`` in degrees, ``sparsity`` in percent,
            ``activity``, ``correlation``, ``weight_norm``.
    """
    labels = groups.labels(runs, by)
    groups.check(runs, labels)
    lines, measured = [], dict[str, None]()
    for run, label in zip(runs, labels, strict=True):
        path = run.folder / folders.LOOKS
        looks = (
            [line for line in folders.read_rows(path) if not learning_curves.is_point(line)] if path.exists() else []
        )
        if not looks:
            raise ConfigError(str(run.folder), "has no measurements of a settling network in blocks.jsonl")
        for look in looks:
            for block, numbers in look["blocks"].items():
                measured |= dict.fromkeys(numbers)
                if numbers.get(number) is not None:
                    at = {"network": label, "block": block, "update": look["update"], "seed": run.seed}
                    lines.append({**at, number: numbers[number]})
    if not lines:
        raise ConfigError("--number", f"these networks have no '{number}'", given=number, choices=measured)
    frame = replicates.over_seeds(pd.DataFrame(lines), ["network", "block", "update"], number)
    return frame.assign(number=number)


@style.drawn
def draw(frame: pd.DataFrame) -> Figure:
    """Draw a line per network and block over the updates."""
    figure, axes = style.figure(width=5.0)
    several, quantity = frame["network"].nunique() > 1, str(frame["number"].iloc[0])
    for number, ((network, block), line) in enumerate(frame.groupby(["network", "block"], sort=False)):
        name = f"{network}, {block}" if several else str(block)
        style.band(axes, number, name, line["update"], line, quantity)
    units = {"angle": "angle to feedback weights (°)", "sparsity": "silent neurons (%)"}
    style.whole(axes.xaxis, frame["update"])
    style.label(axes, "updates", units.get(quantity, quantity.replace("_", " ")))
    if quantity == "angle":
        axes.axhline(90, color=style.GREY, linewidth=0.8, linestyle=":")
    style.legend(figure, axes, style.spread(frame))
    return figure
