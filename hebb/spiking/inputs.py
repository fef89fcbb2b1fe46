"""Poisson inputs: two predictable signals, the same signals shuffled in time, and a constant rate.

A signal is periodic, s(t) = sum_i r_i falloff^-i sin(2 pi i (t + b_i)/period) for i below ``terms`` with r_i, b_i
uniform in [0, 1], normalised to mean 0 and deviation 1 over its period; a population fires at max(floor, rate + depth
s) Hz. Its control has the same samples in random order: the same rates, but unpredictable.
Populations, in order: constant, signal 1, control 1, signal 2, control 2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hebb.core import seeds
from hebb.spiking.settings import InputSpec

REPEATS = 11
"""Periods after which the shuffled samples repeat."""


def signal(spec: InputSpec, period: float, generator: torch.Generator) -> Tensor:
    """Return the rates in Hz of one signal, one for each sample of ``REPEATS`` periods."""
    count = round(period * REPEATS / spec.sample)
    strength, shift = torch.rand(2, spec.terms, generator=generator, dtype=torch.float64)
    i = torch.arange(spec.terms, dtype=torch.float64)
    time = torch.arange(count, dtype=torch.float64)[:, None] * spec.sample
    s: Tensor = (strength * spec.falloff**-i * torch.sin(2 * math.pi * i * (time + shift) / period)).sum(dim=1)
    s = (s - s.mean()) / s.std()
    return (spec.rate + spec.depth * s).clamp(min=spec.floor)


class PoissonInputs:
    """Rates and spikes of all populations for one seed.

    Args:
        spec: constants.
        seed: seed of signals and spikes.
        stream: streams of a seed start the same signals at different times and have other spikes.
    """

    def __init__(self, spec: InputSpec, seed: int, stream: int = 0) -> None:
        self.spec, self.seed, self.stream = spec, seed, stream
        self._begin = stream * sum(spec.periods) / len(spec.periods) * (math.sqrt(5) - 1) / 2  # no two alike
        generator = seeds.generator(seed, "spiking signals")
        self.tables = [torch.full((1,), spec.rate, dtype=torch.float64)]
        for period in spec.periods:
            rates = signal(spec, period, generator)
            self.tables += [rates, rates[torch.randperm(len(rates), generator=generator)]]

    def rates(self, time: Tensor) -> Tensor:
        """Return the rate in Hz of each population at the given times (T,): (T, populations)."""
        index = (time / self.spec.sample + 1e-6).floor().long()
        return torch.stack([table[index % len(table)] for table in self.tables], dim=1)

    def spikes(self, stretch: int, steps: int, dt: float, dtype: torch.dtype) -> Tensor:
        """Return the spikes (T, populations * channels) of a stretch: 1 with probability rate * dt."""
        time = (torch.arange(steps, dtype=torch.float64) + stretch * steps) * dt + self._begin
        chance = (self.rates(time) * dt).to(torch.float32)
        generator = seeds.generator(self.seed, "spiking inputs", block=self.stream, epoch=stretch)
        drawn = torch.rand(steps, chance.shape[1], self.spec.channels, generator=generator)
        return (drawn < chance[:, :, None]).flatten(1).to(dtype)
