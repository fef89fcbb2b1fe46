"""The network of figure 5: Poisson inputs, excitatory neurons that learn, inhibitory neurons that hold their rate.

All arms of all seeds are simulated at once; the arms of a seed share inputs, connections and initial potentials. Every
``rule.every`` seconds the input weights change by eta times the integral of e E over that time; inhibitory weights
change after every stretch.

Shapes: T steps of a stretch, E excitatory and I inhibitory neurons, K synapses of a neuron.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hebb.core import seeds
from hebb.core.errors import DivergenceError
from hebb.spiking.inputs import PoissonInputs
from hebb.spiking.membrane import Neurons
from hebb.spiking.plasticity import Balance, Eligibility, ErrorSignal
from hebb.spiking.settings import ARMS, STRETCH, SpikingConfig


@dataclass(frozen=True)
class Stretch:
    """Spikes of a stretch, 0 or 1: inputs (sources, T, inputs), excitatory (T, lanes, E), inhibitory (T, lanes, I)."""

    inputs: Tensor
    exc: Tensor
    inh: Tensor


def wire(config: SpikingConfig, seed: int) -> dict[str, Tensor]:
    """Draw the connections of one seed, 0 or 1 (pre, post), and the initial potentials in mV."""
    generator = seeds.generator(seed, "spiking connections")
    wiring, exc, inh = config.wiring, config.excitatory, config.inhibitory
    inputs = config.inputs.channels * config.inputs.populations
    distance = torch.arange(exc)[:, None] - torch.linspace(0, exc, inh)
    chances = {
        "input_exc": torch.full((inputs, exc), wiring.input_share),
        "exc_inh": torch.exp(-(distance / wiring.spread).square()),
        "inh_exc": torch.full((inh, exc), wiring.inh_exc_share),
        "inh_inh": torch.full((inh, inh), wiring.inh_inh_share),
    }
    connections = {name: (torch.rand(p.shape, generator=generator) < p).float() for name, p in chances.items()}
    middle = (config.neuron.rest + config.neuron.threshold) / 2
    width = (config.neuron.threshold - config.neuron.rest) / 4
    return {**connections, "u": middle + width * torch.randn(exc + inh, generator=generator)}


class SpikingNetwork:
    """The networks of all seeds and arms, each in ``streams`` copies; lane = (seed * arms + arm) * streams + stream.

    Copies share one set of weights and have different input spikes; the weights change by the mean over the copies.

    Each neuron has a list of K input synapses; shorter lists are padded with absent synapses.

    Attributes:
        sources: index of the input of each synapse (seeds, E, K).
        present: 1 for a synapse, 0 for padding, of that shape.
        weights: input weights (seeds * arms, E, K).
        inhibition: inhibitory weights (seeds * arms, I, E).

    Args:
        config: the experiment.
    """

    def __init__(self, config: SpikingConfig) -> None:
        self.config = config
        self.steps = round(STRETCH / config.dt)
        self._dtype: torch.dtype = getattr(torch, config.dtype)
        self._arms = [ARMS[name] for name in config.arms] * len(config.seeds)
        self._streams_of = [
            PoissonInputs(config.inputs, seed, stream) for seed in config.seeds for stream in range(config.streams)
        ]
        wired = [wire(config, seed) for seed in config.seeds]

        def each_arm(name: str) -> Tensor:
            """Repeat what a seed drew for each of its arms."""
            return torch.stack([one[name] for one in wired]).repeat_interleave(len(config.arms), 0).to(self._dtype)

        wiring, exc = config.wiring, config.excitatory
        inhibited = self._each("inhibited")[..., None]
        there = torch.stack([one["input_exc"] for one in wired]).mT  # (seeds, E, inputs)
        most = max(1, int(there.sum(dim=2).max()))
        self.sources = there.argsort(dim=2, descending=True, stable=True)[..., :most]
        self.present = there.gather(2, self.sources).to(self._dtype)
        self.weights = self.present.repeat_interleave(len(config.arms), 0) * wiring.input_exc
        self._inhibits = each_arm("inh_exc") * inhibited
        self.inhibition = self._inhibits * wiring.inh_exc
        self._exc_inh = each_arm("exc_inh") * inhibited * wiring.exc_inh
        self._inh_inh = each_arm("inh_inh") * wiring.inh_inh
        self._neurons = Neurons(config.neuron, each_arm("u").repeat_interleave(config.streams, 0), config.dt)
        lanes = len(self._arms) * config.streams
        dt, steps = config.dt, self.steps
        self._balance = Balance(
            config.inhibition, lanes=lanes, pre=config.inhibitory, post=exc, dtype=self._dtype, dt=dt, steps=steps
        )
        zeros = torch.zeros(lanes, exc, dtype=self._dtype)
        pull, push = (self._each(name).repeat_interleave(config.streams, 0) for name in ("pull", "push"))
        self._error = ErrorSignal(
            config.rule,
            pull=pull * config.rule.pull,
            push=push * config.rule.push,
            mean=zeros,
            variance=zeros.clone(),
            dt=dt,
            steps=steps,
        )
        self._each_source = self.sources.repeat_interleave(config.streams, 0)  # (seeds * streams, E, K)
        inputs = there.shape[2]
        arms = len(config.arms)
        self._eligibility = Eligibility(
            config.rule, self._each_source, inputs=inputs, lanes=arms, dtype=self._dtype, dt=dt, steps=steps
        )
        self._gathered = torch.zeros(*self._each_source.shape, arms, dtype=self._dtype)
        self._dense = self._by_seed()
        self._stretch = 0

    def _each(self, name: str) -> Tensor:
        """Return one value of the arm of every network (seeds * arms, 1)."""
        return torch.tensor([[float(getattr(arm, name))] for arm in self._arms], dtype=self._dtype)

    def _by_source(self, x: Tensor) -> Tensor:
        """Reorder lanes (T, seeds * arms * streams, ...) as the sources: (T, seeds * streams * arms, ...)."""
        seeds, arms, streams = len(self.config.seeds), len(self.config.arms), self.config.streams
        reordered: Tensor = x.unflatten(1, (seeds, arms, streams)).transpose(2, 3).flatten(1, 3)
        return reordered

    def matrix(self) -> Tensor:
        """Return the input weights as a matrix (seeds * arms, inputs, E), 0 without a synapse."""
        inputs = self.config.inputs.channels * self.config.inputs.populations
        dense = torch.zeros(len(self._arms), self.config.excitatory, inputs, dtype=self._dtype)
        return dense.scatter_add_(2, self.sources.repeat_interleave(len(self.config.arms), 0), self.weights).mT

    @property
    def rates(self) -> Tensor:
        """Running mean rate in Hz of the excitatory neurons (seeds * arms, E)."""
        rates: Tensor = self._error.mean.unflatten(0, (-1, self.config.streams)).mean(dim=1)
        return rates

    def run(self, seconds: float, *, learn: bool) -> Iterator[Stretch]:
        """Simulate, and yield the spikes of each stretch; ``learn`` lets the input weights change.

        Raises:
            DivergenceError: when a potential is not finite.
        """
        every = round(self.config.rule.every / STRETCH)
        for _ in range(round(seconds / STRETCH)):
            with torch.inference_mode():
                spikes = self._advance()
                self._stretch += 1
                if self._stretch % every == 0:
                    if learn:
                        self._change()
                    self._gathered.zero_()
            yield spikes

    def _advance(self) -> Stretch:
        inputs = torch.stack(
            [one.spikes(self._stretch, self.steps, self.config.dt, self._dtype) for one in self._streams_of]
        )
        u, spikes = self._simulate(inputs)
        if not bool(u[-1].isfinite().all()):
            raise DivergenceError(f"a membrane potential is not finite after {self._stretch * STRETCH:g} s")
        exc, inh = spikes.split([self.config.excitatory, self.config.inhibitory], dim=2)
        self._gathered += self._eligibility(inputs, self._by_source(u), self._by_source(self._error(exc)))
        change = self._balance(inh, exc).unflatten(0, (-1, self.config.streams)).mean(dim=1)
        change = change * self._inhibits * self._each("balances")[..., None]
        self.inhibition = (self.inhibition + change).clamp_(0, self.config.inhibition.largest)
        return Stretch(inputs, exc, inh)

    def _simulate(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the potentials of the excitatory neurons (T, lanes, E), and the spikes of all (T, lanes, E + I)."""
        config, exc, count = self.config, self.config.excitatory, self._neurons.count
        seeds, arms, streams = len(config.seeds), len(config.arms), config.streams
        driven = torch.zeros(seeds * streams, self.steps, arms * exc, dtype=self._dtype)
        for number, (one, into) in enumerate(zip(inputs, driven, strict=True)):
            time, source = one.nonzero(as_tuple=True)  # with one spike in 200 this is faster than a matrix product
            into.index_add_(0, time, self._dense[number // streams][source])
        driven = driven.view(seeds, streams, self.steps, arms, exc).permute(2, 0, 3, 1, 4).flatten(1, 3)
        jumps = inputs.new_zeros(self.steps, driven.shape[1], 2 * count)  # fast excitation, then inhibition
        jumps[:, :, :exc] = driven
        outward = torch.cat([self.inhibition, self._inh_inh], dim=2)  # from inhibitory neurons to all
        potentials, fired = [], []
        for jump in jumps:
            outer, inner = self._neurons.spikes.view(-1, streams, count).split([exc, config.inhibitory], dim=2)
            jump[:, exc:count] = torch.bmm(outer, self._exc_inh).flatten(0, 1)
            jump[:, count:] = torch.bmm(inner, outward).flatten(0, 1)
            potentials.append(self._neurons.step(jump)[:, :exc])
            fired.append(self._neurons.spikes)
        return torch.stack(potentials), torch.stack(fired)

    def _change(self) -> None:
        """Change the input weights by the gathered integrals."""
        seeds, streams = len(self.config.seeds), self.config.streams
        step = self._gathered.unflatten(0, (seeds, streams)).mean(dim=1) * self.present[..., None]
        step = step.permute(0, 3, 1, 2).flatten(0, 1) * self._each("learns")[..., None]
        self.weights = (self.weights + self.config.rule.eta * step).clamp_(0, self.config.rule.largest)
        self._dense = self._by_seed()

    def _by_seed(self) -> Tensor:
        """Return the weights of all arms of a seed side by side (seeds, inputs, arms * E)."""
        side_by_side: Tensor = self.matrix().unflatten(0, (len(self.config.seeds), -1)).transpose(1, 2).flatten(2)
        return side_by_side
