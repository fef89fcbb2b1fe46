"""Leaky integrate-and-fire neurons with conductance synapses and a threshold that jumps.

    tau_mem dU/dt = (rest - U) + g_exc (E_exc - U) + g_inh (E_inh - U)
    g_exc = (g_ampa + g_nmda)/2,  tau_nmda dg_nmda/dt = g_ampa - g_nmda
    spike where U > threshold + offset; then U = rest, and offset = jump, which decays with tau_jump

g_ampa and g_inh jump by the weight of a synapse and decay exponentially. A step is exact for constant conductances:
U becomes U_inf + (U - U_inf) exp(-dt (1 + g_exc + g_inh)/tau_mem). The offset is set, not added
(erratum of Halvagal & Zenke 2023).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hebb.spiking.settings import NeuronSpec


class Neurons:
    """State of ``lanes`` separate groups of ``count`` neurons each.

    Attributes:
        u: membrane potential in mV (lanes, count).
        offset: rise of the threshold in mV.
        fast: conductances that jump, AMPA then inhibition (lanes, 2 count).
        nmda: NMDA conductance.
        spikes: 1 for neurons that fired in the last step, in the number type of the state.
    """

    def __init__(self, spec: NeuronSpec, u: Tensor, dt: float) -> None:
        self.spec = spec
        lanes, self.count = u.shape
        self.u = u.clone()
        self.offset, self.nmda, self.spikes = (torch.zeros_like(u) for _ in range(3))
        self.fast = u.new_zeros(lanes, 2 * self.count)
        decay = u.new_full((2 * self.count,), math.exp(-dt / spec.tau_ampa))
        decay[self.count :] = math.exp(-dt / spec.tau_inh)
        self._decay = decay
        self._slow = -math.expm1(-dt / spec.tau_nmda)
        self._offset_decay = math.exp(-dt / spec.tau_jump)
        self._rate = -dt / spec.tau_mem

    def step(self, jumps: Tensor) -> Tensor:
        """Add ``jumps`` (lanes, 2 count) to the fast conductances and advance by a step; return U before resets."""
        spec = self.spec
        ampa, inh = self.fast.mul_(self._decay).add_(jumps).split(self.count, dim=1)
        self.nmda.lerp_(ampa, self._slow)
        exc = (ampa + self.nmda).mul_(0.5)
        total = (exc + inh).add_(1)
        target = exc.mul_(spec.exc_reversal).add_(inh, alpha=spec.inh_reversal).add_(spec.rest).div_(total)
        u = torch.lerp(target, self.u, total.mul_(self._rate).exp_())
        self.offset.mul_(self._offset_decay)
        fired = u > self.offset + spec.threshold
        self.u = u.masked_fill(fired, spec.rest)
        self.offset.masked_fill_(fired, spec.jump)
        self.spikes = fired.to(u.dtype)
        return u
