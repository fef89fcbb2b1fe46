"""The pairing protocol of figure 6: the change of a synapse by the interval between its spike and the neuron's.

One neuron with a clamped membrane fires ``pairings`` times at a fixed rate; each input fires at its own interval before
or after every one of these spikes. Mean and variance of the neuron start at set values and then run freely, so that the
same pairings give the window of a neuron whose rate has varied little, or much.

The published program sets the potential V at the end of a step, and the rule reads it at the end of the next,

    U = V + dt/tau_mem ((rest - V) + g (E_exc - V)),   g = (g_ampa + g_nmda)/2 of all inputs

With 100 inputs of weight 0.5 that spike 10 times a second, g = 2.5 and U = -50.46 mV for V = -51 mV. There f' is 1.87
times as large, and so is every change of a weight.

Shapes: T steps of a stretch, V variances.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hebb.spiking.plasticity import Eligibility, ErrorSignal
from hebb.spiking.settings import STRETCH, StdpConfig
from hebb.spiking.traces import Trace

TAIL = 0.3
"""Seconds after the last pairing in which the traces fade."""


def intervals(config: StdpConfig) -> Tensor:
    """Return t_post - t_pre of each input in s: negative where the input comes after the neuron's spike."""
    steps = torch.linspace(-config.width, config.width, config.inputs, dtype=torch.float64) / config.dt
    return steps.round() * config.dt


def trains(config: StdpConfig) -> tuple[Tensor, Tensor]:
    """Return the steps of the spikes: of the neuron (pairings,) and of the inputs (inputs, pairings)."""
    first = config.width + 2 * config.rule.lag
    times = first + torch.arange(config.pairings, dtype=torch.float64) / config.rate
    post = (times / config.dt).round().long()
    return post, post - (intervals(config)[:, None] / config.dt).round().long()


@torch.inference_mode()
def window(config: StdpConfig) -> Tensor:
    """Return the relative change of the weight, (w - start)/start: (variances, inputs)."""
    rule, lanes = config.rule, len(config.variances)
    dtype: torch.dtype = getattr(torch, config.dtype)
    steps, every = round(STRETCH / config.dt), round(rule.every / STRETCH)
    post, pre = trains(config)
    total = int(max(post.max(), pre.max())) + round(TAIL / config.dt)
    windows = -(-total // (steps * every))
    error = ErrorSignal(
        rule,
        pull=torch.full((lanes, 1), rule.pull, dtype=dtype),
        push=torch.full((lanes, 1), rule.push, dtype=dtype),
        mean=torch.full((lanes, 1), config.mean, dtype=dtype),
        variance=torch.tensor(config.variances, dtype=dtype)[:, None],
        dt=config.dt,
        steps=steps,
    )
    sources = torch.arange(config.inputs).view(1, 1, -1)
    eligibility = Eligibility(rule, sources, inputs=config.inputs, lanes=lanes, dt=config.dt, steps=steps, dtype=dtype)
    membrane = _Membrane(config, steps, lanes, dtype)
    weights = torch.full((config.inputs, lanes), config.start, dtype=dtype)
    for change in range(windows):
        gathered = torch.zeros_like(weights)
        for stretch in range(change * every, (change + 1) * every):
            begin = stretch * steps
            of_neuron = _counts(post[None], begin, steps, dtype)  # (T, 1)
            of_inputs = _counts(pre, begin, steps, dtype)  # (T, inputs)
            signal = error(of_neuron[:, None].expand(-1, lanes, -1))
            gathered += eligibility(of_inputs[None], membrane(of_inputs, weights), signal)[0, 0]
        weights = (weights + rule.eta * gathered).clamp_(0, rule.largest)
    return ((weights - config.start) / config.start).T


class _Membrane:
    """The potential that the rule reads, stretch by stretch."""

    def __init__(self, config: StdpConfig, steps: int, lanes: int, dtype: torch.dtype) -> None:
        neuron = config.neuron
        self._config = config
        self._clamped = torch.full((steps, lanes, 1), config.potential, dtype=dtype)
        self._fast = Trace(neuron.tau_ampa, config.dt, steps, gain=1.0, dtype=dtype)
        self._slow = Trace(neuron.tau_nmda, config.dt, steps, dtype=dtype)
        self._ampa, self._nmda = torch.zeros(lanes, dtype=dtype), torch.zeros(lanes, dtype=dtype)

    def __call__(self, spikes: Tensor, weights: Tensor) -> Tensor:
        """Return U (T, V, 1) for spikes (T, inputs) and weights (inputs, V)."""
        if self._config.clamp == "exact":
            return self._clamped
        neuron, clamped = self._config.neuron, self._config.potential
        ampa = self._fast(spikes @ weights, self._ampa)
        nmda = self._slow(ampa, self._nmda)
        self._ampa, self._nmda = ampa[-1], nmda[-1]
        drive = (neuron.rest - clamped) + (ampa + nmda) / 2 * (neuron.exc_reversal - clamped)
        return clamped + (self._config.dt / neuron.tau_mem * drive)[..., None]


def _counts(spikes: Tensor, begin: int, steps: int, dtype: torch.dtype) -> Tensor:
    """Return the spike counts (T, trains) of a stretch from the steps of the spikes (trains, spikes)."""
    row, column = ((spikes >= begin) & (spikes < begin + steps)).nonzero(as_tuple=True)
    counts = torch.zeros(steps, len(spikes), dtype=dtype)
    counts.index_put_((spikes[row, column] - begin, row), torch.ones(len(row), dtype=dtype), accumulate=True)
    return counts
