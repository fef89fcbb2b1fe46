"""The settings of experiments with spiking neurons. Never imports torch.

Seconds, millivolts and hertz; conductances are in units of the leak. The defaults are those of Halvagal & Zenke 2023,
from their code and erratum; those changed to fit into an hour say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hebb.config.experiment import check, check_seeds, check_words
from hebb.core.errors import ConfigError

_DTYPES = ("float32", "float64")
STRETCH = 0.1
"""Seconds simulated between two changes of inhibitory weights, and filtered at once."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One condition of the experiment; arms of a seed share inputs, connections and initial state.

    Attributes:
        title: its title in a figure.
        pull: factor of the predictive term.
        push: factor of the Hebbian term.
        learns: whether input synapses change.
        inhibited: whether there is inhibition.
        balances: whether inhibitory synapses change.
    """

    title: str
    pull: float = 1.0
    push: float = 1.0
    learns: bool = True
    inhibited: bool = True
    balances: bool = True


ARMS: Mapping[str, Arm] = {
    "lpl": Arm(title="LPL"),
    "pull_off": Arm(title="pull off", pull=0.0),
    "push_off": Arm(title="push off", push=0.0),
    "inhibition_off": Arm(title="inhib. off", inhibited=False, balances=False),
    "inhibition_fixed": Arm(title="inhib. fixed", balances=False),
    "untrained": Arm(title="untrained", learns=False),
}


@dataclass(frozen=True, kw_only=True)
class NeuronSpec:
    """Constants of a leaky integrate-and-fire neuron (``hebb/spiking/membrane.py``).

    Attributes:
        tau_mem: membrane time constant in s.
        rest: resting and reset potential in mV.
        threshold: firing threshold at rest in mV.
        jump: rise of the threshold right after a spike, in mV.
        tau_jump: time constant in s of its decay.
        tau_ampa: decay of the fast excitatory conductance in s.
        tau_nmda: time constant in s of the slow excitatory conductance, which follows the fast one.
        tau_inh: decay of the inhibitory conductance in s.
        exc_reversal: reversal potential of excitation in mV.
        inh_reversal: reversal potential of inhibition in mV.
    """

    tau_mem: float = 0.020
    rest: float = -70.0
    threshold: float = -50.0
    jump: float = 100.0
    tau_jump: float = 0.005
    tau_ampa: float = 0.005
    tau_nmda: float = 0.100
    tau_inh: float = 0.010
    exc_reversal: float = 0.0
    inh_reversal: float = -80.0

    def __post_init__(self) -> None:
        check(self, 0, 1e3, "tau_mem", "tau_jump", "tau_ampa", "tau_nmda", "tau_inh", above=True)
        check(self, -1e3, 1e3, "rest", "threshold", "exc_reversal", "inh_reversal")
        check(self, 0, 1e4, "jump")
        if self.rest >= self.threshold:
            raise ConfigError("rest", f"must be below the threshold ({self.threshold:g} mV), got {self.rest:g} mV")


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """Poisson inputs (``hebb/spiking/inputs.py``): a constant population, then each signal and its control.

    Attributes:
        channels: inputs of each population.
        rate: mean rate in Hz.
        depth: deviation of the rate in Hz, before the floor is applied.
        floor: lowest rate in Hz.
        periods: period of each signal in s.
        terms: Fourier terms of a signal.
        falloff: amplitude of a term divided by that of the next one.
        sample: time in s for which a rate holds.
    """

    channels: int = 100
    rate: float = 5.0
    depth: float = 4.0
    floor: float = 0.1
    periods: tuple[float, ...] = (3.0, 3.0 + 1 / 13)
    terms: int = 128
    falloff: float = 1.1
    sample: float = 0.010

    def __post_init__(self) -> None:
        check(self, 1, 1e5, "channels")
        check(self, 2, 1e5, "terms")  # the first one is constant
        check(self, 0, 1e3, "rate", "depth", "floor")
        check(self, 0, 1e4, "periods", "sample", above=True)
        check(self, 1, 1e3, "falloff")
        if not self.periods or min(self.periods) < 2 * self.sample:
            raise ConfigError(
                "periods",
                f"must be one or more periods >= {2 * self.sample:g} s (two samples), got {list(self.periods)}",
            )

    @property
    def populations(self) -> int:
        """Number of populations."""
        return 1 + 2 * len(self.periods)


@dataclass(frozen=True, kw_only=True)
class RuleSpec:
    """Constants of the spiking LPL rule (``hebb/spiking/plasticity.py``).

    Attributes:
        eta: learning rate per s, for E in Hz and f' in 1/mV. The published 0.01, in the published code's units
            (a step of 0.5 s by the mean gradient, a rise of the eligibility without its 1/tau), is 0.04 in these.
        pull: coefficient phi of the predictive term.
        push: coefficient lambda of the Hebbian term, in Hz.
        delta: transmitter-triggered growth in Hz; the published 1e-5 per step of 0.1 ms.
        xi: added to the variance, in Hz.
        lag: how far back the predicting rate lies, in s.
        beta: steepness of the surrogate derivative per mV.
        centre: potential in mV where it is largest.
        tau_syn: decay in s of what an input spike gives to a synapse.
        tau_psp: time constant in s with which the membrane follows that.
        tau_rise: rise in s of the filter alpha of eligibility and error.
        tau_fall: its fall in s.
        tau_mean: time constant in s of the running mean.
        tau_variance: time constant in s of the running variance.
        largest: upper bound of a weight; the lower bound is 0.
        every: time in s between two weight changes.
    """

    eta: float = 0.04
    pull: float = 1.0
    push: float = 1.0
    delta: float = 0.1
    xi: float = 1e-3
    lag: float = 0.020
    beta: float = 1.0
    centre: float = -50.0
    tau_syn: float = 0.005
    tau_psp: float = 0.020
    tau_rise: float = 0.002
    tau_fall: float = 0.010
    tau_mean: float = 600.0
    tau_variance: float = 30.0
    largest: float = 1.0
    every: float = 0.5

    def __post_init__(self) -> None:
        check(self, 0, 1e6, "eta", "pull", "push", "delta")
        check(self, 0, 1e6, "xi", "beta", "largest", above=True)
        times = ("lag", "tau_syn", "tau_psp", "tau_rise", "tau_fall", "tau_mean", "tau_variance", "every")
        check(self, 0, 1e6, *times, above=True)


@dataclass(frozen=True, kw_only=True)
class InhibitionSpec:
    """Constants of inhibitory plasticity (``hebb/spiking/plasticity.py``).

    Attributes:
        zeta: learning rate: change of a weight per pair of spikes.
        target: rate in Hz at which a neuron's inhibition is at rest.
        tau: time constant of the spike traces in s.
        largest: upper bound of a weight; the lower bound is 0.
    """

    zeta: float = 1e-3
    target: float = 10.0
    tau: float = 0.020
    largest: float = 1.0

    def __post_init__(self) -> None:
        check(self, 0, 1e3, "zeta", "target")
        check(self, 0, 1e3, "tau", "largest", above=True)


@dataclass(frozen=True, kw_only=True)
class WiringSpec:
    """The connections and their initial strength.

    Attributes:
        input_exc: weight from an input to an excitatory neuron.
        input_share: probability of such a synapse.
        exc_inh: weight from an excitatory neuron to an inhibitory one.
        spread: width w of the probability exp(-(i - c)^2/w^2) of that synapse, in neurons; the centres c of the
            inhibitory neurons are spread evenly over the excitatory ones.
        inh_exc: weight from an inhibitory neuron to an excitatory one.
        inh_exc_share: probability of such a synapse.
        inh_inh: weight among inhibitory neurons.
        inh_inh_share: probability of such a synapse.
    """

    input_exc: float = 0.15
    input_share: float = 0.1
    exc_inh: float = 0.5
    spread: float = 20.0
    inh_exc: float = 0.5
    inh_exc_share: float = 0.5
    inh_inh: float = 0.4
    inh_inh_share: float = 0.1

    def __post_init__(self) -> None:
        check(self, 0, 1e3, "input_exc", "exc_inh", "inh_exc", "inh_inh")
        check(self, 0, 1, "input_share", "inh_exc_share", "inh_inh_share")
        check(self, 0, 1e6, "spread", above=True)


@dataclass(frozen=True, kw_only=True)
class SpikingConfig:
    """The experiment of figure 5.

    Attributes:
        neuron: constants of the neurons.
        inputs: constants of the inputs.
        rule: constants of the learning rule; it and its statistics are 12.5 times as fast as published.
        inhibition: constants of inhibitory plasticity.
        wiring: connections.
        excitatory: number of excitatory neurons.
        inhibitory: number of inhibitory neurons.
        arms: conditions, from ``ARMS``.
        seeds: each arm gets one network per seed.
        streams: copies of each network with the same weights and other input spikes; weight changes are averaged over
            them, as over a batch; published: 1.
        priming: time in s in which running mean and variance settle, without learning of the input weights.
        seconds: time in s of learning after it; published: 100,000.
        measured: time in s at the end of priming and of learning in which activity is recorded.
        dt: step in s; published: 1e-4.
        dtype: number type.
    """

    neuron: NeuronSpec = field(default_factory=NeuronSpec)
    inputs: InputSpec = field(default_factory=InputSpec)
    rule: RuleSpec = field(default_factory=lambda: RuleSpec(eta=0.5, tau_mean=48.0, tau_variance=2.5))
    inhibition: InhibitionSpec = field(default_factory=InhibitionSpec)
    wiring: WiringSpec = field(default_factory=WiringSpec)
    excitatory: int = 100
    inhibitory: int = 25
    arms: tuple[str, ...] = tuple(ARMS)
    seeds: tuple[int, ...] = (0,)
    streams: int = 4
    priming: float = 60.0
    seconds: float = 6000.0
    measured: float = 30.0
    dt: float = 1e-3
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check(self, 1, 1e5, "excitatory", "inhibitory", "streams")
        check(self, 0, 1e7, "priming", "seconds", "measured", above=True)
        check(self, 1e-5, 2e-3, "dt")
        check_words("arms", self.arms, ARMS)
        check_words("dtype", (self.dtype,), _DTYPES)
        check_seeds(self.seeds)
        for name, value in (("rule.every", self.rule.every), ("measured", self.measured)):
            _multiple(name, value, STRETCH)
        for name, value in (("priming", self.priming), ("seconds", self.seconds)):
            _multiple(name, value, self.rule.every)  # learning begins with a whole interval of its own
        _multiple("dt", STRETCH, self.dt, f"must divide {STRETCH:g} s, got {self.dt:g} s")
        _multiple("rule.lag", self.rule.lag, self.dt)
        if self.measured > min(self.priming, self.seconds):
            raise ConfigError("measured", f"must be no longer than priming and learning, got {self.measured:g} s")
        fastest = max(self.inputs.floor, self.inputs.rate + 6 * self.inputs.depth)
        if fastest * self.dt > 1:
            raise ConfigError("inputs.rate", f"rates up to {fastest:g} Hz need dt < {1 / fastest:g} s")


CLAMPS = ("loose", "exact")


@dataclass(frozen=True, kw_only=True)
class StdpConfig:
    """The experiment of figure 6: a neuron with a clamped membrane, paired with inputs before and after its spikes.

    Attributes:
        rule: constants of the learning rule; the published programs' eta 0.005 is 0.02 here, their tau_variance 300 s.
        clamp: ``loose``: the potential is set after each step, and the rule reads it after the next one, in which leak
            and synapses move it, as in the published program; ``exact``: the rule reads the clamped potential.
        neuron: constants of the membrane, read by a loose clamp.
        potential: potential of the clamped membrane in mV.
        start: initial weight.
        pairings: number of pairings.
        width: largest interval between input spike and the neuron's, in s, of the windows.
        inputs: number of intervals, evenly from -width to width.
        variances: running variances in Hz at the start, one window each; published figures give them times 1e-4.
        mean: running mean in Hz at the start, of the windows.
        rate: pairings per second, of the windows.
        rates: pairings per second, of the rate dependence.
        rate_width: largest interval in s of the rate dependence.
        rate_interval: interval in s at which it is read, after and before.
        rate_mean: running mean in Hz at its start.
        rate_variance: running variance in Hz at its start.
        dt: step in s.
        dtype: number type.
    """

    rule: RuleSpec = field(default_factory=lambda: RuleSpec(eta=0.02, delta=0.0, tau_variance=300.0))
    clamp: str = "loose"
    neuron: NeuronSpec = field(default_factory=NeuronSpec)
    potential: float = -51.0
    start: float = 0.5
    pairings: int = 100
    width: float = 0.050
    inputs: int = 100
    variances: tuple[float, ...] = (0.1, 1.0, 100.0)
    mean: float = 10.0
    rate: float = 10.0
    rates: tuple[float, ...] = (1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0)
    rate_width: float = 0.020
    rate_interval: float = 0.010
    rate_mean: float = 20.0
    rate_variance: float = 0.1
    dt: float = 1e-4
    dtype: str = "float64"

    def __post_init__(self) -> None:
        check(self, 1, 1e6, "pairings")
        check_words("clamp", (self.clamp,), CLAMPS)
        check(self, 2, 1e5, "inputs")
        check(self, 0, self.rule.largest, "start", above=True)
        check(self, 0, 1e6, "variances", "mean", "rate_mean", "rate_variance")
        check(self, 0, 1e3, "rate", "rates", above=True)
        check(self, 0, 1, "width", "rate_width", "rate_interval", above=True)
        check(self, -1e3, 1e3, "potential")
        check(self, 1e-5, 2e-3, "dt")
        check_words("dtype", (self.dtype,), _DTYPES)
        _multiple("dt", STRETCH, self.dt, f"must divide {STRETCH:g} s, got {self.dt:g} s")
        _multiple("rule.every", self.rule.every, STRETCH)
        _multiple("rule.lag", self.rule.lag, self.dt)
        if self.rate_interval > self.rate_width:
            problem = f"must be <= rate_width, {self.rate_width:g} s, got {self.rate_interval:g} s"
            raise ConfigError("rate_interval", problem)
        if not self.variances or not self.rates:
            raise ConfigError("variances" if not self.variances else "rates", "must name at least one value, got none")

    def rate_dependence(self, rate: float) -> StdpConfig:
        """Return the protocol of one rate of the rate dependence."""
        return replace(self, rate=rate, width=self.rate_width, mean=self.rate_mean, variances=(self.rate_variance,))


def _multiple(name: str, value: float, unit: float, problem: str | None = None) -> None:
    """Raise unless a time is a whole number of units, at least one."""
    count = value / unit
    if round(count) < 1 or abs(count - round(count)) > 1e-6 * count:
        raise ConfigError(name, problem or f"must be a multiple of {unit:g} s, got {value:g} s")
