"""How fast weights and accuracy converge over the examples seen, for each learning-rate schedule.

Figure B.3 B of Journé et al. (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from hebb.analysis import groups, replicates, style
from hebb.analysis import runs as stored
from hebb.config import plan
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hebb.analysis.runs import StoredRun

METRICS = ("convergence", "R1", "radius_mean", "weight_change", "winner_share", "train_loss", "test_acc")
INSIDE = ("radius_mean", "weight_change", "winner_share", "winners")
"""What is measured inside the epochs and not at their ends (``hebb.training.curves``)."""
_POINTS = {"convergence": "convergence", "R1": "R1", **{name: name for name in INSIDE}, "train_loss": "recent_loss"}
"""Metrics that are measured inside the epochs, and what they are called there."""
_KINDS = ("hebbian", "joint")
_PHASE = ("phase", "blocks")
"""Columns that name a phase."""


def compute(runs: Sequence[StoredRun], metrics: Sequence[str] = METRICS, *, window: int = 1) -> pd.DataFrame:
    """Return one line per schedule, phase, number of examples and metric: n, mean, sd over seeds.

    A phase has the points of its learning curves, and one value per epoch of what only the epochs have. With a
    ``window``, the values at the ends of so many successive epochs are averaged, and the mean stands at the last of
    them; epochs that were not evaluated do not count.

    Args:
        runs: finished runs; those of one schedule differ only in their seed.
        metrics: names from ``runs.METRICS`` and ``INSIDE``.
        window: epochs of the moving average.
    """
    for metric in metrics:
        stored.check_metric(metric, INSIDE)
    if window < 1:
        raise ConfigError("--window", f"must be >= 1, got {window}")
    schedules = [stored.schedule(run) for run in runs]
    groups.check(runs, schedules, "--where")
    lines = pd.DataFrame(
        [
            {"schedule": schedule, "seed": run.seed, "metric": metric, **line}
            for run, schedule in zip(runs, schedules, strict=True)
            for metric in metrics
            for line in _values(run, metric, inside=window == 1)
        ]
    )
    if lines.empty:
        raise ConfigError("--metric", f"no Hebbian epoch of these runs measured {', '.join(metrics)}")
    each = lines.groupby(["schedule", "metric", *_PHASE, "seed"], sort=False)["value"]
    lines["value"] = each.transform(lambda values: values.rolling(window).mean())
    lines = lines.dropna(subset="value")
    if lines.empty:
        raise ConfigError("--window", f"must be at most the epochs of a run, got {window}")
    return replicates.over_seeds(lines, ["schedule", "metric", *_PHASE, "examples"], "value")


def _values(run: StoredRun, metric: str, *, inside: bool) -> list[dict[str, Any]]:
    """Return the values of a metric in the Hebbian phases, with phase, blocks and number of examples.

    Args:
        run: the run.
        metric: what is measured.
        inside: take the points inside the epochs where there are some, else the ends of the epochs.
    """
    rows = [(row, at) for row, at in zip(run.rows, examples(run), strict=True) if row["kind"] in _KINDS]
    ends = {row["step"] for row, _ in rows}
    if metric in INSIDE or (inside and metric in _POINTS):
        points = [(point, point.value(_POINTS[metric])) for point in run.points if point.kind in _KINDS]
        seen = examples_at(run)
        values = [
            {"phase": p.phase, "blocks": " ".join(p.blocks), "examples": seen(p.phase, p.update), "value": value}
            for p, value in points
            if value is not None and (inside or (p.epoch and p.update in ends))
        ]
        if values:
            return values
    return [
        {"phase": row["phase"], "blocks": row["blocks"], "examples": at, "value": row[metric]}
        for row, at in rows
        if row.get(metric) is not None
    ]


def examples_at(run: StoredRun) -> Callable[[int, int], int]:
    """Return a function of a phase and a number of updates of the run: the examples seen by then.

    An epoch has as many updates as its row says, and the last of them may have seen fewer images than a batch.
    """
    phases = plan.phases(run.config)
    ends = [(row["phase"], row["step"], at) for row, at in zip(run.rows, examples(run), strict=True)]

    def seen(phase: int, update: int) -> int:
        earlier = [(at, step) for p, step, at in ends if p < phase or (p == phase and step <= update)]
        before, begun = earlier[-1] if earlier else (0, 0)
        after = next((at for p, step, at in ends if p == phase and step >= update), before)
        return min(after, before + (update - begun) * phases[phase].batch_size)

    return seen


def examples(run: StoredRun) -> list[int]:
    """Return for each row the examples seen from the start of the run to the end of its epoch."""
    phases = plan.phases(run.config)
    images = [run.config.datasets[phase.data].train_samples() for phase in phases]
    ended = [max((row["epoch"] for row in run.rows if row["phase"] == i), default=0) for i in range(len(phases))]
    before = [sum(n * e for n, e in zip(images[:i], ended[:i], strict=True)) for i in range(len(phases))]
    return [before[row["phase"]] + images[row["phase"]] * row["epoch"] for row in run.rows]


@style.drawn
def draw(frame: pd.DataFrame) -> Figure:
    """Draw a panel per metric over the examples seen, a line per phase, with a band of one standard deviation.

    Where there are several phases, a dotted line stands where each begins, with the blocks that learn in it.
    """
    metrics, names = (list(dict.fromkeys(frame[column])) for column in ("metric", "schedule"))
    columns = min(2, len(metrics))
    figure, axes = style.figure(-(-len(metrics) // columns), columns, squeeze=False)
    for panel in axes.flat[len(metrics) :]:
        panel.remove()
    for panel, metric in zip(axes.flat, metrics, strict=False):
        of_metric = frame[frame["metric"] == metric]
        for number, name in enumerate(names):
            lines = of_metric[of_metric["schedule"] == name]
            for _, line in lines.sort_values("examples").groupby("phase"):
                style.band(panel, number, name, line["examples"], line, metric)
        _mark_phases(panel, frame)
        style.fit(panel, metric, of_metric["mean"])
        style.label(panel, "training examples seen", style.unit(metric))
    style.legend(figure, axes.flat[: len(metrics)], style.spread(frame))
    return figure


def _mark_phases(panel: Axes, frame: pd.DataFrame) -> None:
    """Give all panels the same range of examples, and mark the phases."""
    first, last = frame["examples"].min(), frame["examples"].max()
    margin = 0.05 * max(last - first, 1)
    panel.set_xlim(first - margin, last + margin)
    phases = frame.groupby(["phase", "blocks"], sort=False)["examples"].min()
    if len(phases) < 2:
        return
    for (_, blocks), begin in phases.items():
        panel.axvline(begin, color=style.GREY, linewidth=0.8, linestyle=":")
        panel.annotate(
            blocks,
            (begin, 1),
            (2, 1),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            color=style.GREY,
            fontsize="small",
        )
