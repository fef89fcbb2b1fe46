"""The direction that a single neuron picks, with pull, push and both, over sigma of the unpredictable direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from hebb.analysis import replicates, style
from hebb.spiking import rate_neuron
from hebb.spiking.rate_neuron import ARMS, ToyConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def compute(config: ToyConfig) -> pd.DataFrame:
    """Return one line per rule, sigma and measure: n seeds, mean, sd and 95 % interval of alignment and response."""
    weights = rate_neuron.learn(config)
    measures = {"alignment": rate_neuron.alignment(weights), "response": rate_neuron.response(weights, config)}
    rows = [
        {"rule": arm, "sigma": sigma, "measure": name, "seed": seed, "value": float(values[i, j, k])}
        for name, values in measures.items()
        for i, arm in enumerate(config.arms)
        for j, sigma in enumerate(config.sigmas)
        for k, seed in enumerate(config.seeds)
    ]
    groups = pd.DataFrame(rows).groupby("measure", sort=False)
    keys = ["rule", "sigma", "measure"]
    lines = [replicates.statistics(group, keys, "value", str(measure)) for measure, group in groups]
    return pd.concat(lines, ignore_index=True).drop(columns="values")


@style.drawn
def draw(frame: pd.DataFrame, config: ToyConfig) -> Figure:
    """Draw alignment and response over sigma: mean and standard deviation over the seeds."""
    figure, axes = style.figure(1, 2)
    panels = (
        ("alignment", "alignment with $x$, $|w_x|/|w|$"),
        ("response", "standard deviation of $z$"),
    )
    for panel, (measure, name) in zip(axes, panels, strict=True):
        for number, arm in enumerate(config.arms):
            rows = frame[(frame["rule"] == arm) & (frame["measure"] == measure)].sort_values("sigma")
            look = {**style.line(number), "markersize": 8 - 1.5 * number}  # lines below stay visible
            panel.plot(rows["sigma"], rows["mean"], label=ARMS[arm].title, **look)
            low, high = style.spans(rows, measure)
            panel.fill_between(rows["sigma"], low, high, color=look["color"], alpha=0.2, linewidth=0)
        panel.axvline((1 + config.noise**2) ** 0.5, color=style.GREY, linestyle=":", linewidth=1)
        panel.set_xscale("log")
        style.label(panel, r"standard deviation $\sigma_y$ of the unpredictable $y$", name)
    axes[0].set_ylim(-0.03, 1.03)
    axes[1].set_yscale("symlog", linthresh=1)
    axes[1].set_ylim(-0.1, 1.5 * max(1.0, frame["mean"].max()))
    style.legend(figure, axes, style.spread(frame))
    return figure
