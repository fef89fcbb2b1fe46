"""The post-hoc loss over the examples seen, averaged over batches and over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hebb.analysis import groups, replicates, style
from hebb.core import files
from hebb.core.errors import ConfigError
from hebb.storage import folders

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hebb.analysis.runs import StoredRun


def moving_average(curve: np.ndarray) -> np.ndarray:
    """Average loss and accuracy over windows of max(50, n/30) batches, at most all of them.

    Args:
        curve: (n, 3): examples seen, loss, accuracy of each batch.

    Returns:
        (n - window + 1, 3): examples seen at the end of the window, mean loss, mean accuracy.
    """
    window = min(len(curve), max(50, len(curve) // 30))
    kernel = np.full(window, 1 / window)
    columns = [np.convolve(curve[:, i], kernel, mode="valid") for i in (1, 2)]
    return np.stack([curve[window - 1 :, 0], *columns], axis=1)


def read(folder: Path) -> np.ndarray:
    """Return the stored curve of a run, (n, 3)."""
    path = folder / folders.POST_HOC
    if not path.exists():
        raise ConfigError(str(folder), f"has no {folders.POST_HOC}, which only post-hoc runs write")
    return np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)


def compute(runs: Sequence[StoredRun], by: Sequence[str] | None = None) -> pd.DataFrame:
    """Return n, mean and sd of the moving average: one line per network, number of examples and metric.

    Args:
        runs: post-hoc runs.
        by: columns that make a network, as in ``table.compute``.
    """
    labels = groups.labels(runs, by)
    groups.check(runs, labels)
    curves: dict[str, list[tuple[int, np.ndarray]]] = {}
    for run, label in zip(runs, labels, strict=True):
        curves.setdefault(label, []).append((run.seed, read(run.folder)))
    return averaged(curves)


def averaged(curves: Mapping[str, Sequence[tuple[int, np.ndarray]]]) -> pd.DataFrame:
    """Return the same as ``compute``, from (seed, curve) by network."""
    lines = [
        pd.DataFrame(moving_average(curve), columns=["examples", "loss", "accuracy"]).assign(network=name, seed=seed)
        for name, pairs in curves.items()
        for seed, curve in pairs
    ]
    frame = pd.concat(lines).melt(["network", "seed", "examples"], ["loss", "accuracy"], "metric")
    return replicates.over_seeds(frame, ["network", "metric", "examples"], "value").astype({"examples": int})


@style.drawn
def draw(frame: pd.DataFrame, batches: np.ndarray | None = None) -> Figure:
    """Draw loss and accuracy, and in grey behind them those of single ``batches`` (n, 3), as ``read`` returns them."""
    figure, axes = style.figure(1, 2)
    units = {"loss": "post-hoc cross-entropy (nats)", "accuracy": "post-hoc accuracy (%)"}
    for panel, (metric, unit), column in zip(axes, units.items(), (1, 2), strict=True):
        if batches is not None:
            panel.plot(batches[:, 0], batches[:, column], color="0.85", linewidth=0.8, label="batch")
        for number, (name, line) in enumerate(frame[frame["metric"] == metric].groupby("network", sort=False)):
            style.band(panel, number, str(name), line["examples"], line, metric)
        style.label(panel, "examples seen", unit)
    axes[0].set_yscale("log")
    style.log_ticks(axes[0].yaxis, *axes[0].get_ylim())
    style.legend(figure, axes, style.spread(frame))
    return figure


def write_figure(curve: np.ndarray, folder: Path) -> None:
    """Draw the curve of a run into its folder, as PNG and SVG."""
    figure = draw(averaged({"moving average": [(0, curve)]}), batches=curve)
    kinds = ("png", "svg")
    with files.replaced(*(folder / f"post_hoc.{kind}" for kind in kinds)) as temporaries:
        for temporary, kind in zip(temporaries, kinds, strict=True):
            style.save(figure, temporary, kind)
