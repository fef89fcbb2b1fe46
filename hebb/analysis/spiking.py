"""What the spiking network learns in each arm: selectivity, weights, rates, and how well its spikes encode the inputs.

Shapes: E excitatory neurons of a network; the networks are seeds * arms.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hebb.analysis import style
from hebb.spiking import selectivity
from hebb.spiking.circuit import SpikingNetwork
from hebb.spiking.settings import ARMS, STRETCH, SpikingConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 50
"""Points of a curve of rates over time."""


class Quantity(StrEnum):
    """What a line of the frame holds."""

    SELECTIVITY = "selectivity"
    WEIGHT = "weight"
    RATE = "rate"
    MEAN_RATE = "mean_rate"
    INHIBITORY_RATE = "inhibitory_rate"
    R2 = "r2"


COLUMNS = ["quantity", "arm", "seed", "neuron", "population", "time", "value"]


def names(populations: int) -> list[str]:
    """Name the populations: ``constant``, ``signal 1``, ``control 1``, ..."""
    return ["constant", *(f"{('signal', 'control')[i % 2]} {i // 2 + 1}" for i in range(populations - 1))]


class _Table:
    """The lines of the frame while they are collected."""

    def __init__(self, config: SpikingConfig) -> None:
        self.networks = [(arm, seed) for seed in config.seeds for arm in config.arms]
        self.rows: list[tuple[object, ...]] = []

    def add(
        self, quantity: Quantity, values: Tensor, *, population: str | None = None, time: float | None = None
    ) -> None:
        """Add a value for every network (seeds * arms,), or for every neuron (seeds * arms, E)."""
        for (arm, seed), value in zip(self.networks, values.tolist(), strict=True):
            several = value if isinstance(value, list) else [value]
            for neuron, number in enumerate(several):
                which = neuron if isinstance(value, list) else None
                self.rows.append((quantity.value, arm, seed, which, population, time, number))


def compute(config: SpikingConfig, report: Callable[[float], None] = lambda share: None) -> pd.DataFrame:
    """Simulate, and return one line per number.

    Quantities: ``selectivity`` and ``weight`` of each neuron and population, ``rate`` in Hz of each neuron in the last
    ``measured`` seconds, ``mean_rate`` and ``inhibitory_rate`` in Hz over time, ``r2`` of each population.

    Args:
        config: the experiment.
        report: is called with the finished share after each stretch.
    """
    network, lines = SpikingNetwork(config), _Table(config)
    total = round((config.priming + config.seconds) / STRETCH)
    window, last = max(1, total // POINTS), round(config.measured / STRETCH)
    since: list[Tensor] = []
    kept: list[tuple[Tensor, Tensor]] = []
    parts = (
        part
        for seconds, learn in ((config.priming, False), (config.seconds, True))
        for part in network.run(seconds, learn=learn)
    )
    for number, part in enumerate(parts, 1):
        exc, inh = (x.unflatten(1, (-1, config.streams)) for x in (part.exc, part.inh))
        since.append(torch.stack([x.mean(dim=(0, 2, 3)) / config.dt for x in (exc, inh)]))
        if number % window == 0:
            excitatory, inhibitory = torch.stack(since).mean(dim=0)
            middle = (number - len(since) / 2) * STRETCH - config.priming
            lines.add(Quantity.MEAN_RATE, excitatory, time=middle)
            lines.add(Quantity.INHIBITORY_RATE, inhibitory, time=middle)
            since = []
        if number > total - last:
            by_population = part.inputs.unflatten(2, (config.inputs.populations, -1)).sum(dim=3).transpose(0, 1)
            kept.append((selectivity.counts(exc, config.dt), selectivity.counts(by_population, config.dt)))
        report(number / total)
    _add_activity(lines, *(torch.cat(pieces) for pieces in zip(*kept, strict=True)))
    _add_weights(lines, network.matrix(), config)
    return pd.DataFrame(lines.rows, columns=COLUMNS)


def _add_activity(lines: _Table, neurons: Tensor, inputs: Tensor) -> None:
    """Add rates and R2 from spike counts: neurons (bins, seeds * arms, streams, E), inputs (bins, sources, ...)."""
    streams, arms = neurons.shape[2], neurons.shape[1] * neurons.shape[2] // inputs.shape[1]
    lines.add(Quantity.RATE, neurons.mean(dim=(0, 2)) / selectivity.BIN)
    r2 = []
    for network in range(neurons.shape[1]):
        first = network // arms * streams  # the streams of a network one after the other
        spikes = neurons[:, network].transpose(0, 1).flatten(0, 1)
        signals = inputs[:, first : first + streams].transpose(0, 1).flatten(0, 1)
        r2.append(selectivity.reconstruction(spikes, signals))
    for name, values in zip(names(inputs.shape[2]), torch.tensor(r2).T, strict=True):
        lines.add(Quantity.R2, values, population=name)


def _add_weights(lines: _Table, weights: Tensor, config: SpikingConfig) -> None:
    """Add weights and selectivity from the weights (seeds * arms, inputs, E)."""
    means = selectivity.population_weights(weights, config.inputs.channels)
    values = selectivity.selectivity(weights, config.inputs.channels)
    for index, name in enumerate(names(config.inputs.populations)):
        lines.add(Quantity.WEIGHT, means[:, index], population=name)
        if name.startswith("signal"):
            lines.add(Quantity.SELECTIVITY, values[:, (index - 1) // 2], population=name)


def _of(frame: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    return frame[frame["quantity"] == quantity]


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one line per arm: means over neurons and seeds, and the deviation over seeds of each selectivity."""
    lines = []
    for arm, rows in frame.groupby("arm", sort=False):
        line: dict[str, object] = {"arm": arm, "seeds": rows["seed"].nunique()}
        for name, some in _of(rows, Quantity.SELECTIVITY).groupby("population", sort=False):
            means = some.groupby("seed")["value"].mean()
            line |= {f"selectivity, {name}": means.mean(), f"sd, {name}": means.std()}
        rates = _of(rows, Quantity.RATE)["value"]
        line |= {"rate (Hz)": rates.mean(), "largest rate (Hz)": rates.max()}
        for name, some in _of(rows, Quantity.R2).groupby("population", sort=False):
            line[f"R2, {name}"] = some["value"].mean()
        lines.append(line)
    return pd.DataFrame(lines)


@style.drawn
def draw(frame: pd.DataFrame, config: SpikingConfig) -> Figure:
    """Draw six panels: selectivity, weights, reconstruction; rates at the end and over time; preferences of neurons."""
    figure, axes = style.figure(2, 3, width=3.9)
    _by_arm(axes[0, 0], frame, config, Quantity.SELECTIVITY)
    axes[0, 0].axhline(0, color=style.GREY, linewidth=0.8)
    style.label(axes[0, 0], "", "selectivity $(w_P - w_C)/(w_P + w_C)$", "signal against its shuffled control")
    _weights(axes[0, 1], frame, config)
    _reconstruction(axes[0, 2], frame, config)
    _by_arm(axes[1, 0], frame, config, Quantity.RATE)
    axes[1, 0].axhline(config.inhibition.target, color=style.GREY, linestyle="--", linewidth=1)
    style.label(axes[1, 0], "", "rate (Hz)", f"excitatory neurons, target {config.inhibition.target:g} Hz")
    _over_time(axes[1, 1], frame, config)
    _preferences(axes[1, 2], frame, config)
    seeds = frame["seed"].nunique()
    figure.suptitle(f"n = {seeds} seed{'' if seeds == 1 else 's'}, whose neurons are shown together", fontsize=10)
    return figure


def _by_arm(panel: Axes, frame: pd.DataFrame, config: SpikingConfig, quantity: Quantity) -> None:
    """Draw violins over the neurons of all seeds, one for each arm and population, with their means."""
    rows = _of(frame, quantity)
    populations = list(rows["population"].dropna().unique()) or [None]
    width = 0.8 / len(populations)
    for number, population in enumerate(populations):
        some = rows if population is None else rows[rows["population"] == population]
        values = [some[some["arm"] == arm]["value"].to_numpy() for arm in config.arms]
        places = np.arange(len(values)) + (number - (len(populations) - 1) / 2) * width
        _violins(panel, places, values, width, style.COLOURS[number], population)
    panel.set_xticks(range(len(config.arms)), [ARMS[arm].title for arm in config.arms], rotation=30, ha="right")
    if populations != [None]:
        _legend(panel)


def _violins(
    panel: Axes, places: np.ndarray, values: list[np.ndarray], width: float, colour: str, label: str | None = None
) -> None:
    for place, some in zip(places, values, strict=True):
        if np.ptp(some) > 0:  # a violin of equal values has no density
            drawn: Any = panel.violinplot(some, [place], widths=0.9 * width, showextrema=False)
            drawn["bodies"][0].set(facecolor=colour, alpha=0.4, linewidth=0)
    means = [some.mean() for some in values]
    panel.plot(places, means, linestyle="", marker="o", color=colour, label=label)


def _weights(panel: Axes, frame: pd.DataFrame, config: SpikingConfig) -> None:
    arms: list[str] = [arm for arm in ("lpl", "pull_off", "untrained") if arm in config.arms] or list(config.arms[:1])
    rows = _of(frame, Quantity.WEIGHT)
    width = 0.8 / len(arms)
    for number, arm in enumerate(arms):
        some = rows[rows["arm"] == arm]
        values = [some[some["population"] == name]["value"].to_numpy() for name in names(config.inputs.populations)]
        places = np.arange(len(values)) + (number - (len(arms) - 1) / 2) * width
        _violins(panel, places, values, width, style.COLOURS[number], ARMS[arm].title)
    _populations(panel, config)
    style.label(panel, "", "mean weight of a population", "weights of each neuron")
    _legend(panel)


def _reconstruction(panel: Axes, frame: pd.DataFrame, config: SpikingConfig) -> None:
    rows = _of(frame, Quantity.R2)
    for number, arm in enumerate(config.arms):
        means = rows[rows["arm"] == arm].groupby("population", sort=False)["value"].mean()
        look = {**style.line(number), "linestyle": ""}
        shift = (number - (len(config.arms) - 1) / 2) * 0.12
        panel.plot(np.arange(len(means)) + shift, means, label=ARMS[arm].title, **look)
    panel.axhline(0, color=style.GREY, linewidth=0.8)
    _populations(panel, config)
    style.label(panel, "", "$R^2$ of the reconstruction", "inputs reconstructed from the spikes")
    _legend(panel)


def _populations(panel: Axes, config: SpikingConfig) -> None:
    panel.set_xticks(range(config.inputs.populations), names(config.inputs.populations), rotation=30, ha="right")


def _over_time(panel: Axes, frame: pd.DataFrame, config: SpikingConfig) -> None:
    rows = _of(frame, Quantity.MEAN_RATE)
    for number, arm in enumerate(config.arms):
        means = rows[rows["arm"] == arm].groupby("time")["value"].mean()
        panel.plot(means.index, means, label=ARMS[arm].title, **{**style.line(number), "marker": ""})
    panel.axvline(0, color=style.GREY, linestyle=":", linewidth=1)
    style.label(panel, "time since learning began (s)", "mean rate (Hz)", "excitatory neurons")
    _legend(panel)


def _preferences(panel: Axes, frame: pd.DataFrame, config: SpikingConfig) -> None:
    """Draw one point per neuron: weights from the first two signals, or from signal and control if there is one."""
    x, y = ("signal 1", "signal 2") if len(config.inputs.periods) > 1 else ("signal 1", "control 1")
    rows = _of(frame, Quantity.WEIGHT)
    for number, arm in enumerate(arm for arm in ("lpl", "inhibition_off", "pull_off") if arm in config.arms):
        some = rows[rows["arm"] == arm]
        both = [some[some["population"] == name]["value"] for name in (x, y)]
        look = {**style.line(number), "linestyle": "", "alpha": 0.5}
        panel.plot(*both, label=ARMS[arm].title, **look)
    style.label(panel, f"mean weight of {x}", f"mean weight of {y}", "preferences of the neurons")
    _legend(panel)


def _legend(panel: Axes) -> None:
    """Put the legend above the data, and make room for it."""
    low, high = panel.get_ylim()
    panel.set_ylim(low, high + 0.3 * (high - low))
    panel.legend(loc="upper center", ncols=3, fontsize=7, columnspacing=1)
