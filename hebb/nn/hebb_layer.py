"""What a Hebbian layer does, whatever its synapses are; the spec injects the rule.

It computes, for input x, weights w (one row per neuron) and bias b,

    u  = x * sign(w)|w|^(p-1) + b                      pre-activation
    y  = signal(u, ...)                                plastic gate, from the rule
    dw = sum_b y x - (sum_b y u) w                     b: samples and output pixels
    w <- w + rate_i dw / (max |dw| + floor)            one maximum per layer (per group of a convolution)

with rate_i = eta |r_i - 1|^q (``adaptive``) or a schedule, r_i = |w_i|_p. A step is at most eta per weight
and does not depend on the batch size. A rule may replace decay, maximum (``normaliser``), start and effective weight,
compare by a cosine (``response``), filter u (``surround``), project the weights after a step, and keep a state.
Sources: Moraitis et al. 2022; Journe et al. 2023.

Weights are buffers, not parameters: no gradient reaches them, and ``parameters()`` of a network lists what
back-prop trains.

Shapes: B batch, C channels or neurons of the layer, H height, W width, N inputs of a linear layer, M rows that compete
(samples x output pixels), k side of a filter.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from hebb.config.rule import HebbianRule
from hebb.config.specs import LayerSpec
from hebb.config.vocabulary import Normaliser, Response, WeightInit
from hebb.core import initial
from hebb.kernels import loops
from hebb.kernels.competition import Competed
from hebb.kernels.private_torch import add_product
from hebb.nn import contracts, response
from hebb.nn.radii import Radii
from hebb.nn.state import RuleState

FUNCTIONS = ("signal", "softmax", "decay", "bias_step", "effective", "project")
"""Functions of a rule that a layer checks in full when it first calls them."""


class HebbLayer(Radii):
    """The common part of linear and convolutional layer. Subclasses supply the synapse operators.

    Attributes:
        weight: (C, ...) buffer; a row is the flattened fan-in of a neuron.
        bias: (C,) buffer, or None.
        state: what the rule keeps from update to update, or None.
        gate_mass: (C,) positive gate mass of each neuron since ``reset_statistics``.
        finite_updates: number of updates whose change was finite, counted on the device.
        unchecked: functions of the rule that were not called yet.
        product_dtype: number type of the products with the synapses; None leaves that of the input.
    """

    bias: Tensor | None
    gate_mass: Tensor
    finite_updates: Tensor
    bias_scale = 1.0
    channels_last = False

    def __init__(self, spec: LayerSpec, shape: tuple[int, ...], behind_norm: bool) -> None:
        super().__init__()
        if not isinstance(spec.rule, HebbianRule):
            raise TypeError(f"the rule of a Hebbian layer must be a HebbianRule, got {spec.method}")
        self.spec, self.rule = spec, spec.rule
        self.groups = spec.groups
        self.behind_norm = behind_norm
        self.register_buffer("weight", torch.zeros(shape))
        bias = torch.zeros(shape[0]) if spec.add_bias else None
        self.register_buffer("bias", bias)
        self.register_buffer("gate_mass", torch.zeros(shape[0]), persistent=False)
        self.register_buffer("finite_updates", torch.zeros((), dtype=torch.int64), persistent=False)
        self.update_count = 0
        self.unchecked = set(FUNCTIONS)
        self.state = RuleState(self.rule, spec, shape[0]) if self.rule.state else None
        self.product_dtype: torch.dtype | None = None

    # -- synapse operators ------------------------------------------------------------------------------

    def currents(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return x * weight, (B, C) or (B, C, H, W)."""
        raise NotImplementedError

    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        """Return sum_b y x in the shape of the weights."""
        raise NotImplementedError

    def squares(self, x: Tensor) -> Tensor:
        """Return the sum of the squares of what each neuron sees, in a shape that broadcasts with u."""
        raise NotImplementedError

    @property
    def linear(self) -> bool:
        """Whether u = x * effective weight, with nothing between the synapses and the competition."""
        return self.spec.response == Response.DOT

    def prepare(self, x: Tensor) -> Tensor:
        """Return the input as the synapses see it: in their number type and, for a convolution, padded."""
        return x if self.product_dtype is None else x.to(self.product_dtype)

    def pre_gate(self, u: Tensor) -> Tensor:
        """Return u as the competition and the output see it."""
        return u

    # -- forward and plasticity ---------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Return the pre-activation u; nothing is learnt."""
        return self.respond(self.prepare(x))

    def learn(
        self,
        x: Tensor,
        rate: Tensor | float | None = None,
        labels: Tensor | None = None,
        *,
        unread: bool = False,
    ) -> Tensor:
        """Return the pre-activation u of this batch and make one Hebbian update.

        Gradients flow from u to x through the weights before the update; the update itself has none.

        Args:
            x: (B, N) or (B, C, H, W).
            rate: rate of this update when the layer is not adaptive; a tensor () on the device gives the bits of its
                number.
            labels: (B,) int64, for rules that read them.
            unread: nobody reads u, which may then be of no images.
        """
        self.update_count += 1
        return self.update(x, rate, labels, unread=unread)

    def update(
        self,
        x: Tensor,
        rate: Tensor | float | None = None,
        labels: Tensor | None = None,
        *,
        unread: bool = False,
    ) -> Tensor:
        """Do the work of ``learn`` by tensor operations alone, which may be compiled."""
        x = self.prepare(x)
        competed = self._compete(x, unread=unread)
        if competed is None:
            with self._one_batch():
                u = self.respond(x)
                dw, size, db, radius = self.plastic(x, u, labels)
        else:
            u, db = competed.u, None
            self.gate_mass.add_(competed.mass)
            dw, size, radius = self._divided(*self._decayed(competed.change, None, step=True), competed.pixels)
        self.step(dw, db, rate, size, radius)
        return u

    def _one_batch(self) -> AbstractContextManager[None]:
        """Let the products of a batch share what they can."""
        return nullcontext()

    def _compete(self, x: Tensor, *, unread: bool) -> Competed | None:
        """Return u, sum_b y x and the mass of y for prepared input x by one loop; None where none does it or pays."""
        return None

    def rivals(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the response by which neurons compete, for prepared input x: u, unless the rule names another."""
        return u if self.rule.rivals is None else self.response(x, self.rule.rivals)

    def gate(self, u: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return y, the plastic gate of the rule; groups of channels compete among themselves.

        A state of the rule moves on.
        """
        if self.state is not None:
            groups = self.state.advance(u)
            gates = [self._signal(maps, labels, "(B, C, ...) like u", state) for maps, state in groups]
            return gates[0] if len(gates) == 1 else torch.cat(gates, dim=1)
        rows = self.rows(u)  # (M, C)
        rivals = rows.reshape(len(rows) * self.groups, -1)
        y = self._signal(rivals, labels, "(M, C) like u")
        return self.unrows(y.reshape_as(rows), u)

    def _signal(self, u: Tensor, labels: Tensor | None, shape: str, *state: Mapping[str, Tensor]) -> Tensor:
        inputs = contracts.Inputs(u=u, labels=labels) if self.is_new("signal") else None
        signal: Any = self.rule.signal
        y: Tensor = signal(u, self.spec, labels, *state)
        contracts.require_alike(self.rule, "signal", y, u, shape)
        if inputs is not None:
            inputs.check(self.rule, "signal", y)
        return y

    def is_new(self, name: str) -> bool:
        """Tell whether a function of the rule is called for the first time, and so checked in full."""
        new = name in self.unchecked
        if new:
            self.unchecked.remove(name)
        return new

    @torch.no_grad()
    def rehearse(self, into: tuple[int, ...]) -> None:
        """Call the rule's functions once on random inputs, where a step itself cannot look at values; nothing changes.

        Args:
            into: shape of what the layer receives, without the batch.
        """
        with torch.random.fork_rng(devices=[]):
            x = self.prepare(torch.rand(2, *into).to(self.weight.device))
            u = self.respond(x)
            copies = {} if self.state is None else self.state.copies()
            y = self.gate(self.rivals(x, u), torch.zeros(2, dtype=torch.int64, device=u.device))
            if self.state is not None:
                self.state.restore(copies)
            self.change(x, u, y)
            if self.rule.project is not None:
                self.law("project")
            if self.bias is not None:
                self._bias_change(y, self.bias)

    def change(self, x: Tensor, u: Tensor, y: Tensor) -> Tensor:
        """Return dw = sum_b y x - (sum_b y u) w for prepared input x, before it is normalised."""
        return self._change(x, u, y)[0]

    def _change(
        self, x: Tensor, u: Tensor, y: Tensor, *, step: bool = False
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Return dw and, for a ``step``, its largest entry and the radii if a fused loop has computed them."""
        change = self.correlate(x, y)
        if self.rule.decay is not None:
            return change.sub_(self.own_decay(u, y)), None
        # where u = x * effective weight, sum_b y u needs no second pass over u
        short = self.bias is None and self.linear and self.weight.numel() < u.numel()
        return self._decayed(change, None if short else self.rows(y * u).sum(dim=0), step=step)

    def _decayed(
        self, change: Tensor, decay: Tensor | None, *, step: bool
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Do the rest of ``_change``; decay is sum_b y u (C,), or None where it is the sum of change w."""
        if step and self.groups == 1 and self.spec.normaliser == Normaliser.LAYER and self._euclidean:
            fused = loops.decay(change, self.weight, decay)
            if fused is not None:
                return change, fused
        if decay is None:
            decay = (change * self.effective_weight()).sum(dim=self.fan_in)
        return add_product(change, self.per_row(decay), self.weight, value=-1), None

    @property
    def _euclidean(self) -> bool:
        """Whether the radii are Euclidean norms, and the effective weights the weights."""
        return self.spec.lebesgue_p == 2 and self.rule.effective is None

    def own_decay(self, u: Tensor, y: Tensor) -> Tensor:
        """Return the rule's own decay, subtracted from sum_b y x: in the shape of the weights, group by group."""
        weight = self.weight if self.rule.effective is None else self.effective_weight()
        columns = [self.rows(y).chunk(self.groups, dim=1), self.rows(u).chunk(self.groups, dim=1)]
        groups = zip(*columns, weight.flatten(1).chunk(self.groups), strict=True)
        return torch.cat([self._decay_of(*group) for group in groups]).view(self.weight.shape)

    def _decay_of(self, y: Tensor, u: Tensor, weight: Tensor) -> Tensor:
        """Return the rule's own decay of one group, (C, N)."""
        assert self.rule.decay is not None
        inputs = contracts.Inputs(weight=weight, y=y, u=u) if self.is_new("decay") else None
        decay = self.rule.decay(y, u, weight, self.spec)
        contracts.require_alike(self.rule, "decay", decay, weight, "(C, N) like weight")
        if inputs is not None:
            inputs.check(self.rule, "decay", decay)
        return decay

    @torch.no_grad()
    def plastic(
        self, x: Tensor, u: Tensor, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor | float, Tensor | None, Tensor | None]:
        """Return dw, its divisor, the normalised change of the bias, and the radii where they are known by now."""
        y = self.gate(self.rivals(x, u), labels)
        self.gate_mass.add_(loops.positive_mass(y))  # before y leaves the caches
        dw, size, radius = self._divided(*self._change(x, u, y, step=True), y.numel() // y.shape[1])
        return dw, size, None if self.bias is None else self._bias_change(y, self.bias), radius

    def _divided(
        self, dw: Tensor, fused: tuple[Tensor, Tensor] | None, rows: int
    ) -> tuple[Tensor, Tensor | float, Tensor | None]:
        """Return what ``_change`` returned with its divisor in place of its largest entry, and count it if finite."""
        peak, radius = fused or (None, None)
        top, size = self.size(dw, rows, peak)
        self.finite_updates.add_(top - top == 0)
        return dw, size, radius

    @torch.no_grad()
    def plasticity(self, x: Tensor, u: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the normalised change of weights and bias for prepared input x and pre-activation u."""
        dw, size, db, _ = self.plastic(x, u, labels)
        return dw.div_(size if isinstance(size, float) else self.per_row(size)), db

    def _bias_change(self, y: Tensor, bias: Tensor) -> Tensor:
        """Return the normalised change of the bias."""
        bias_step = self.rule.bias_step
        assert bias_step is not None
        inputs = contracts.Inputs(bias=bias, y=y) if self.is_new("bias_step") else None
        db: Tensor = bias_step(y, bias, self.spec)
        contracts.require_alike(self.rule, "bias_step", db, bias, "(C,) like bias")
        if inputs is not None:
            inputs.check(self.rule, "bias_step", db)
        return db / (db.abs().amax() + self.rule.floor)

    def size(self, dw: Tensor, rows: int, peak: Tensor | None = None) -> tuple[Tensor, Tensor | float]:
        """Return the largest entry of dw (``peak``, if known) and its divisor: largest entries, or rows."""
        kind = self.spec.normaliser
        if kind == Normaliser.LAYER and self.groups == 1:
            top = dw.abs().amax() if peak is None else peak  # twenty times as fast as the norm of order inf
            return top, top + self.rule.floor
        largest = dw.abs().amax(dim=self.fan_in)  # (C,)
        top = largest.amax()
        if kind == Normaliser.MEAN:
            return top, float(rows)
        if kind == Normaliser.LAYER:
            groups = largest.view(self.groups, -1)
            largest = groups.amax(dim=1, keepdim=True).expand(groups.shape).reshape(-1)
        return top, largest + self.rule.floor

    def respond(self, x: Tensor) -> Tensor:
        """Return the pre-activation u of prepared input."""
        u = self.response(x, self.spec.response)
        if self.bias is not None:
            u = u + self.bias.view(1, -1, *[1] * (u.dim() - 2))
        return self.pre_gate(u)

    def step(
        self,
        dw: Tensor,
        db: Tensor | None,
        rate: Tensor | float | None,
        size: Tensor | float = 1.0,
        radius: Tensor | None = None,
    ) -> None:
        """w += rate dw / size; b += rate lrb db with lrb = 1/beta (MLP) or 0.1/beta (CNN)."""
        eta = self.rate(rate, radius)
        if torch.is_grad_enabled():
            self.weight = self.weight.clone()  # the graph of the layers above still needs the weights of this run
        # a number over a tensor is its product with the reciprocal, and a number on the device must give its bits
        on_device = isinstance(rate, Tensor) and rate.dim() == 0
        factor = size.reciprocal() * eta if on_device and isinstance(size, Tensor) else eta / size
        if isinstance(factor, Tensor):
            self.weight = add_product(self.weight, dw, self.per_row(factor))
        else:
            self.weight.add_(dw, alpha=factor)
        if self.rule.project is not None:
            projected = self.law("project")
            if projected is not self.weight:
                self.weight.copy_(projected)
        if db is not None:
            assert self.bias is not None
            self.bias += db * eta * (self.bias_scale / self.spec.t_invert)

    def response(self, x: Tensor, kind: Response) -> Tensor:
        """Return how prepared input x answers to the weights, before bias and surround (``hebb.nn.response``)."""
        if kind == Response.DOT:
            return self.currents(x, self.effective_weight())
        currents, squares = functools.partial(self.currents, x), functools.partial(self.squares, x)
        return response.respond(kind, self.effective_weight(), currents, squares)

    def law(self, name: str) -> Tensor:
        """Return what a law of the rule makes of the weights, ``effective`` or ``project``."""
        return contracts.lawful(self.rule, name, self.weight, self.spec, new=self.is_new(name))

    def effective_weight(self) -> Tensor:
        """Return the weights as the input meets them: sign(w)|w|^(p-1), which is w for p = 2, or the rule's own."""
        if self.rule.effective is not None:
            return self.law("effective")
        p = self.spec.lebesgue_p
        return self.weight if p == 2 else self.weight.sign() * self.weight.abs().pow(p - 1)

    # -- views --------------------------------------------------------------------------------------------

    def rows(self, u: Tensor) -> Tensor:
        """View (B, C) or (B, C, H, W) as (M, C): one row per sample and pixel."""
        return u if u.dim() == 2 else u.permute(0, 2, 3, 1).reshape(-1, u.shape[1])

    def unrows(self, rows: Tensor, u: Tensor) -> Tensor:
        """View (M, C) in the shape of u."""
        return rows if u.dim() == 2 else rows.view(len(u), *u.shape[2:], -1).permute(0, 3, 1, 2)

    def per_row(self, per_neuron: Tensor) -> Tensor:
        """Shape one number per neuron so that it multiplies the rows of the weights."""
        return per_neuron.view(-1, *[1] * (self.weight.dim() - 1))

    # -- measures -----------------------------------------------------------------------------------------

    def reset_statistics(self) -> None:
        """Start counting gate mass and finite updates anew, and forget the maps that the rule keeps."""
        self.gate_mass.zero_()
        self.finite_updates.zero_()
        self.update_count = 0
        if self.state is not None:
            self.state.forget()

    # -- initialisation -----------------------------------------------------------------------------------

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw weights of mean radius R = ``radius``; a rule may define its own start.

        After a batch norm they are normal, otherwise uniform from 0 on. The bias of n neurons starts at ln(1/n)/beta.
        """
        if self.rule.initialise is not None:
            drawn = self.rule.initialise(self.weight.shape, self.spec, generator)
            self.weight.copy_(contracts.require_weights(self.rule, drawn, self.weight.shape))
            return
        size, kind = (self.spec.radius, self.weight[0].numel(), self.spec.lebesgue_p), self.spec.weight_init
        drawn = torch.empty(self.weight.shape)
        if kind == WeightInit.NORMAL or (kind == WeightInit.AUTO and self.behind_norm):
            drawn.normal_(0, initial.normal_deviation(*size), generator=generator)
        else:
            drawn.uniform_(0, initial.positive_bound(*size), generator=generator)
        self.weight.copy_(drawn)
        if self.bias is not None:
            self.bias.fill_(-math.log(len(self.bias)) / self.spec.t_invert)

    def extra_repr(self) -> str:
        """Describe the layer in ``print(model)``, as ``nn.Linear`` and ``nn.Conv2d`` do, with its rule and rate."""
        values = dict(self.spec.values)
        rate = [f"lr={values['lr']:g}"] if "lr" in values else []
        return ", ".join((*self._geometry(), f"bias={self.bias is not None}", f"rule={self.spec.method}", *rate))

    def _geometry(self) -> list[str]:
        """Return the sizes of the layer as its arguments write them."""
        raise NotImplementedError
