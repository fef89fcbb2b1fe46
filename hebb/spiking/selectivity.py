"""Measures of what a spiking network has learnt: selectivity, rates, and the information of its spikes on the inputs.

Shapes: E excitatory neurons, T steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BIN = 0.025
"""Bin in seconds of the spike counts for the reconstruction."""
PENALTY, HELD = 0.1, 0.05
"""Reconstruction: the lasso's penalty, and the share of the time, at the end, on which it is tested."""


def population_weights(weights: Tensor, channels: int) -> Tensor:
    """Return the mean weight (..., populations, E) over all channels of a population, absent synapses too."""
    means: Tensor = weights.unflatten(-2, (-1, channels)).mean(dim=-2)
    return means


def selectivity(weights: Tensor, channels: int) -> Tensor:
    """Return (w_P - w_C)/(w_P + w_C) of each neuron, for each signal P and its shuffled control C (..., signals, E).

    It runs from -1 (the control alone) over 0 (no difference) to 1 (the signal alone): whether a neuron prefers an
    input because it is predictable, all else being equal.
    """
    by_population = population_weights(weights, channels)
    signal, control = by_population[..., 1::2, :], by_population[..., 2::2, :]
    return (signal - control) / (signal + control + 1e-9)


def counts(spikes: Tensor, dt: float) -> Tensor:
    """Return the spikes (T, ...) counted in bins of 25 ms; a partial bin at the end is dropped."""
    length = round(BIN / dt)
    bins: Tensor = spikes[: len(spikes) // length * length].unflatten(0, (-1, length)).sum(dim=1)
    return bins


def reconstruction(neurons: Tensor, inputs: Tensor) -> list[float]:
    """Return R^2 of each population's spike count, predicted linearly from the neurons' counts in the same bin.

    A lasso is fitted on all but the last 5 % of the bins and tested on those. R^2 is 0 for the mean of the tested
    bins, negative for a worse prediction, and NaN where these do not vary.

    Args:
        neurons: counts (bins, E).
        inputs: counts (bins, populations).
    """
    from sklearn.linear_model import Lasso

    first = math.floor(len(neurons) * (1 - HELD))
    x, y = neurons.double().numpy(), inputs.double().numpy()
    fitted = Lasso(alpha=PENALTY, max_iter=10000).fit(x[:first], y[:first])
    missed = torch.from_numpy(y[first:] - fitted.predict(x[first:]).reshape(len(x) - first, -1)).square().sum(dim=0)
    total = torch.from_numpy(y[first:] - y[first:].mean(axis=0)).square().sum(dim=0)
    return (1 - missed / total.where(total > 0, math.nan)).tolist()
