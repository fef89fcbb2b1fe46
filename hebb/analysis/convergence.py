"""How fast weights and accuracy converge over the examples seen, for each learning-rate schedule.

Figure B.3 B of Journé et al. (2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from hebb.analysis import replicates, style
from hebb.analysis import runs as stored
from hebb.config import plan
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hebb.analysis.runs import StoredRun

METRICS = ("convergence", "R1", "train_loss", "test_acc")


def compute(runs: Sequence[StoredRun], metrics: Sequence[str] = METRICS, *, window: int = 1) -> pd.DataFrame:
    """Return one line per schedule, number of examples and metric: n, mean, sd over seeds.

    There is one value per epoch. The values of each seed are averaged over ``window`` successive epochs, and the mean
    stands at the last of them; epochs that were not evaluated do not count.

    Args:
        runs: finished runs; those of one schedule differ only in their seed.
        metrics: names from ``runs.METRICS``.
        window: epochs of the moving average.
    """
    for metric in metrics:
        stored.check_metric(metric)
    if window < 1:
        raise ConfigError("--window", f"must be >= 1, got {window}")
    lines = pd.DataFrame(
        [
            {"schedule": stored.schedule(run), "seed": run.seed, "metric": m, "examples": at, "value": row[m]}
            for run in runs
            for at, row in zip(examples(run), run.rows, strict=True)
            if row["kind"] in ("hebbian", "joint")
            for m in metrics
            if row[m] is not None
        ]
    )
    if lines.empty:
        raise ConfigError("--metric", f"no Hebbian epoch of these runs measured {', '.join(metrics)}")
    each = lines.groupby(["schedule", "metric", "seed"], sort=False)["value"]
    lines["value"] = each.transform(lambda values: values.rolling(window).mean())
    lines = lines.dropna(subset="value")
    if lines.empty:
        raise ConfigError("--window", f"must be at most the epochs of a run, got {window}")
    return replicates.over_seeds(lines, ["schedule", "metric", "examples"], "value", "--where")


def examples(run: StoredRun) -> list[int]:
    """Return for each row the examples seen from the start of the run to the end of its epoch."""
    phases = plan.phases(run.config)
    specs = {"sup": run.config.dataset_sup, "unsup": run.config.dataset_unsup}
    images = [specs[phase.data].train_samples() for phase in phases]
    ended = [max((row["epoch"] for row in run.rows if row["phase"] == i), default=0) for i in range(len(phases))]
    before = [sum(n * e for n, e in zip(images[:i], ended[:i], strict=True)) for i in range(len(phases))]
    return [before[row["phase"]] + images[row["phase"]] * row["epoch"] for row in run.rows]


@style.drawn
def draw(frame: pd.DataFrame) -> Figure:
    """Draw a panel per metric over the examples seen, with a band of one standard deviation."""
    metrics, names = (list(dict.fromkeys(frame[column])) for column in ("metric", "schedule"))
    columns = min(2, len(metrics))
    figure, axes = style.figure(-(-len(metrics) // columns), columns, squeeze=False)
    for panel in axes.flat[len(metrics) :]:
        panel.remove()
    for panel, metric in zip(axes.flat, metrics, strict=False):
        for number, name in enumerate(names):
            line = frame[(frame["metric"] == metric) & (frame["schedule"] == name)].sort_values("examples")
            style.band(panel, number, name, line["examples"], line, metric)
        style.fit(panel, metric, frame[frame["metric"] == metric]["mean"])
        style.label(panel, "training examples seen", style.unit(metric))
    style.legend(figure, axes.flat[: len(metrics)], style.spread(frame))
    return figure
