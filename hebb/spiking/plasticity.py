"""The spiking LPL rule, and inhibitory plasticity that keeps a neuron at its target rate.

    dw_ij/dt = eta e_ij E_i
    e_ij = alpha * (psp_j f'(U_i))                                        how much the synapse could have contributed
    E_i  = alpha * (-pull (S_i(t) - S_i(t - lag)) + push (S_i - m_i)/(v_i + xi) + delta)          whether it should

with S a spike train in Hz, m its running mean and v the running variance of the spike count per second (m for a
Poisson train), psp the input spikes filtered by synapse and membrane, alpha a low-pass of rise and fall, and the
surrogate derivative f'(U) = beta/(1 + beta |U - centre|)^2. Halvagal & Zenke 2023 (Nat. Neurosci. 26:1906), eq. 18
with its erratum: delta stands inside the bracket; their v, push and xi are these times their step of 1e-4 s. Zenke &
Ganguli 2018 for f'.

Inhibitory synapses: dw_ij = zeta (x_i - 2 target tau) at a spike of j, zeta x_j at a spike of i, x the traces of tau.
With independent spikes their mean drift is 2 zeta tau r_j (r_i - target): 0 at the target rate (Vogels et al. 2011;
sign as in the erratum).
"""

from __future__ import annotations

import torch
from torch import Tensor

from hebb.spiking.settings import InhibitionSpec, RuleSpec
from hebb.spiking.traces import Trace


def surrogate(u: Tensor, beta: float, centre: float) -> Tensor:
    """Return f'(U) = beta/(1 + beta |U - centre|)^2 in 1/mV, for beta in 1/mV.

    The published rule sets it to 0 below -80 mV, where inhibition reverses: no potential of the network lies there.
    """
    return beta / (u - centre).abs().mul_(beta).add_(1).square_()


class ErrorSignal:
    """E_i of neurons, stretch by stretch.

    Attributes:
        mean: m at the end of the last stretch, in Hz, of the shape of ``pull`` times neurons.
        variance: v, likewise.

    Args:
        spec: constants; its ``pull`` and ``push`` are not read.
        pull: coefficient of the predictive term for each lane (lanes, 1).
        push: coefficient of the Hebbian term, likewise.
        mean: m at the start (lanes, neurons).
        variance: v at the start.
        dt: step in s.
        steps: length of a stretch.
    """

    def __init__(
        self, spec: RuleSpec, *, pull: Tensor, push: Tensor, mean: Tensor, variance: Tensor, dt: float, steps: int
    ) -> None:
        self.spec, self.dt = spec, dt
        self.mean, self.variance = mean, variance
        self._pull, self._push = pull, push
        self._past = mean.new_zeros(round(spec.lag / dt), *mean.shape)  # S(t - lag) of the next steps
        self._rising, self._falling = torch.zeros_like(mean), torch.zeros_like(mean)

        def low_pass(tau: float) -> Trace:
            return Trace(tau, dt, steps, dtype=mean.dtype)

        self._of_mean, self._of_variance = low_pass(spec.tau_mean), low_pass(spec.tau_variance)
        self._rise, self._fall = low_pass(spec.tau_rise), low_pass(spec.tau_fall)

    def __call__(self, spikes: Tensor) -> Tensor:
        """Return E (T, lanes, neurons) in Hz for spikes, 0 or 1, of that shape; m and v are those before each step."""
        rate = spikes / self.dt
        means = self._of_mean(rate, self.mean)
        deviation = rate - torch.cat([self.mean[None], means[:-1]])
        variances = self._of_variance(deviation.square() * self.dt, self.variance)
        variance = torch.cat([self.variance[None], variances[:-1]])
        history = torch.cat([self._past, rate])
        change = rate - history[: len(rate)]
        self.mean, self.variance, self._past = means[-1], variances[-1], history[len(rate) :]
        raw = self._push * deviation / (variance + self.spec.xi) - self._pull * change + self.spec.delta
        rising = self._rise(raw, self._rising)
        error = self._fall(rising, self._falling)
        self._rising, self._falling = rising[-1], error[-1]
        return error


class Eligibility:
    """Integrals of e_ij E_i over stretches, without a trace for every synapse and step.

    Over a stretch e = A x + p c1 + q c2 with x_t = psp_j f'(U_i) at step t, A the matrix of the two low-passes of
    alpha, and c1, c2 their values before it. So sum_t e_t E_t = psp^T (f' A^T E) + c1 p^T E + c2 q^T E: products of
    matrices over time, equal to the loop over steps up to rounding.

    Args:
        spec: constants.
        sources: index of the input of each synapse (sets of inputs, neurons, synapses of a neuron).
        inputs: inputs of a set.
        lanes: lanes of neurons per set.
        dt: step in s.
        steps: length of a stretch.
        dtype: number type.
    """

    def __init__(
        self,
        spec: RuleSpec,
        sources: Tensor,
        *,
        inputs: int,
        lanes: int,
        dt: float,
        steps: int,
        dtype: torch.dtype,
    ) -> None:
        self.spec, self.dt, self._sources, self._lanes = spec, dt, sources, lanes
        self._synapse = Trace(spec.tau_syn, dt, steps, gain=1.0, dtype=dtype)
        self._membrane = Trace(spec.tau_psp, dt, steps, dtype=dtype)
        rise, fall = (Trace(tau, dt, steps, dtype=dtype) for tau in (spec.tau_rise, spec.tau_fall))
        self._both = fall.matrix @ rise.matrix  # (T, T): A
        self._carried = torch.stack([fall.matrix @ rise.fading, fall.fading])  # (2, T): p, q
        self._at_end = torch.stack([rise.matrix[-1], self._both[-1]])  # (2, T): c1 and c2 from x
        self._rise_fading = rise.fading[-1]
        self._current = torch.zeros(len(sources), inputs, dtype=dtype)
        self._psp = torch.zeros_like(self._current)
        self._first, self._second = torch.zeros(2, *sources.shape, lanes, dtype=dtype)  # c1, c2

    def __call__(self, spikes: Tensor, u: Tensor, error: Tensor) -> Tensor:
        """Return the integral of e E (sets, neurons, synapses, lanes).

        Args:
            spikes: of the inputs (sets, T, inputs), 0 or 1.
            u: membrane potential in mV (T, sets * lanes, neurons).
            error: E in Hz, of that shape.
        """
        sets, neurons, synapses = self._sources.shape
        current = self._synapse(spikes.transpose(0, 1), self._current)
        psp = self._membrane(current, self._psp)  # (T, sets, inputs)
        self._current, self._psp = current[-1], psp[-1]
        slope, flat = surrogate(u, self.spec.beta, self.spec.centre).flatten(1), error.flatten(1)
        factors = torch.stack([self._both.T @ flat, *(row[:, None].expand_as(flat) for row in self._at_end)]) * slope
        factors = factors.view(3, len(u), sets, self._lanes, neurons).permute(2, 4, 1, 0, 3)
        sums = torch.matmul(_gather(psp.permute(1, 2, 0), self._sources), factors.flatten(3))
        sums = sums.view(sets, neurons, synapses, 3, self._lanes)
        along = (self._carried @ flat).view(2, sets, self._lanes, neurons).permute(0, 1, 3, 2)
        p, q = along[:, :, :, None]  # (sets, neurons, 1, lanes)
        integral: Tensor = sums[..., 0, :] + p * self._first + q * self._second
        self._second = sums[..., 2, :] + self._carried[0, -1] * self._first + self._carried[1, -1] * self._second
        self._first = sums[..., 1, :] + self._rise_fading * self._first
        return integral.mul_(self.dt)


def _gather(x: Tensor, sources: Tensor) -> Tensor:
    """Return x (sets, inputs, T) at the input of each synapse (sets, neurons, K): (sets, neurons, K, T)."""
    return torch.stack([one[which] for one, which in zip(x.contiguous(), sources, strict=True)])


class Balance:
    """Changes of inhibitory weights, stretch by stretch.

    Args:
        spec: constants.
        lanes: groups of neurons.
        pre: inhibitory neurons of a lane.
        post: neurons that they inhibit.
        dt: step in s.
        steps: length of a stretch.
        dtype: number type.
    """

    def __init__(
        self, spec: InhibitionSpec, *, lanes: int, pre: int, post: int, dt: float, steps: int, dtype: torch.dtype
    ) -> None:
        self.spec = spec
        self._trace = Trace(spec.tau, dt, steps, gain=1.0, dtype=dtype)
        self._pre, self._post = (torch.zeros(lanes, count, dtype=dtype) for count in (pre, post))

    def __call__(self, pre: Tensor, post: Tensor) -> Tensor:
        """Return the change (lanes, pre, post) for spikes (T, lanes, pre) and (T, lanes, post)."""
        x_pre, x_post = self._trace(pre, self._pre), self._trace(post, self._post)
        self._pre, self._post = x_pre[-1], x_post[-1]
        excess = x_post - 2 * self.spec.target * self.spec.tau
        of_pre, of_post = (
            torch.bmm(left.permute(1, 2, 0), right.transpose(0, 1)) for left, right in ((pre, excess), (x_pre, post))
        )
        return (of_pre + of_post).mul_(self.spec.zeta)
