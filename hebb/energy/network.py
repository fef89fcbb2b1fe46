"""The base class of all settling networks, and that of networks with a free and a nudged phase.

Shapes: N images, n_l neurons of layer l, from n_0 pixels to n_L classes; rates and z are (N, n_1 + ... + n_L).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from hebb.config.settle import SettleSpec
from hebb.core import user_code
from hebb.energy.layer import SettlingLayer

Drive = TypeVar("Drive")


@dataclass
class PhaseState:
    """The state in which a batch has settled.

    Attributes:
        rates: (N, n_1 + ... + n_L), the layers side by side.
        thresholds: per layer (N, 1); empty if the method has none.
    """

    rates: Tensor
    thresholds: list[Tensor] = field(default_factory=list)

    def copy(self) -> PhaseState:
        """Return a copy that shares no tensor."""
        return PhaseState(self.rates.clone(), [a.clone() for a in self.thresholds])


def upward(weight: Tensor) -> Tensor:
    """Return W^T (n_{l-1}, n_l), row by row in memory, for products s W^T in every step of a phase.

    A product of a few images with it takes two thirds of the time of one with a view of W, so the copy pays within six
    steps. torch copies a lone transposed matrix slowly and on one thread, but not a stack, so this is a stack of one.
    """
    return weight[None].mT.contiguous()[0]


class EnergyNetwork:
    """A settling network. Subclasses define ``settle``, ``learn``, ``predict`` and, if they descend one, ``energy``.

    The layers own all tensors, so they decide device and type. Nothing here waits for the device.

    Attributes:
        layers: the layers, from the lowest to the output.
        settings: the network's settings.
        spans: per layer, the columns of its neurons in a state.
    """

    def __init__(self, layers: Sequence[SettlingLayer], settings: SettleSpec) -> None:
        self.layers = list(layers)
        self.settings = settings
        widths = [len(layer.weight) for layer in self.layers]
        self.spans = [slice(sum(widths[:i]), sum(widths[: i + 1])) for i in range(len(widths))]

    @classmethod
    def missing(cls) -> list[str]:
        """List the methods that a subclass must give and does not."""
        return [name for name in ("learn", "predict") if getattr(cls, name) is getattr(EnergyNetwork, name)]

    @property
    def last(self) -> int:
        """Index of the output layer."""
        return len(self.layers) - 1

    def settle(
        self, x: Tensor, target: Tensor | None = None, beta: float = 0.0, start: PhaseState | None = None
    ) -> PhaseState:
        """Return the state of one phase.

        Args:
            x: (N, n_0).
            target: one-hot labels (N, n_L), read when ``beta`` is not 0.
            beta: strength and sign of the nudge; 0 is the free phase.
            start: state that the phase starts from; None: the method's own start.
        """
        raise NotImplementedError

    def learn(
        self, x: Tensor, target: Tensor, sign: int, factor: float, optimiser: torch.optim.Optimizer | None = None
    ) -> None:
        """Settle and change the weights once.

        Args:
            x: (N, n_0).
            target: one-hot labels (N, n_L).
            sign: sign of the nudge in this batch, +1 or -1.
            factor: factor of all rates, from the schedule.
            optimiser: what the method ``optimiser`` returned.
        """
        raise NotImplementedError

    def predict(self, x: Tensor) -> list[Tensor]:
        """Return the activity (N, n_l) of every layer without a label; the largest output is the predicted class."""
        raise NotImplementedError

    def activity(self, x: Tensor) -> list[Tensor]:
        """Return what ``predict`` returns; raise unless that is a tensor (N, n_l) for every layer."""
        states = self.predict(x)
        sizes = [(len(x), len(layer.weight)) for layer in self.layers]
        shapes = [tuple(s.shape) if isinstance(s, Tensor) else s for s in states] if isinstance(states, list) else None
        if shapes != sizes:
            name = self.layers[0].spec.method
            got = states if shapes is None else shapes
            problem = f"must return a list of (N, n_l), one for each layer, here {sizes}, got {got}"
            raise user_code.broken(type(self).predict, f"predict of {name}", problem)
        return states

    def energy(self, x: Tensor, state: PhaseState, target: Tensor | None = None, beta: float = 0.0) -> Tensor:
        """Return the energy of every image, (N,), which settling descends."""
        raise NotImplementedError(f"{type(self).__name__} descends no energy")

    def optimiser(self) -> torch.optim.Optimizer | None:
        """Make the optimiser of the weights; None if the method updates them itself."""
        return None

    def split(self, rates: Tensor) -> list[Tensor]:
        """Return the views (N, n_l) of the layers."""
        return [rates[:, span] for span in self.spans]

    def one_hot(self, labels: Tensor, like: Tensor) -> Tensor:
        """(N,) int64 -> (N, n_L) of the type of ``like``; ``F.one_hot`` would wait for the device."""
        classes = torch.arange(len(self.layers[-1].weight), device=labels.device)
        return (labels.unsqueeze(1) == classes).to(like.dtype)

    def shrink(self, layer: SettlingLayer, factor: float) -> None:
        """W -= weight_decay lr factor W, before the change of this batch is added."""
        rate = self.settings.weight_decay * layer.spec.lr * factor
        if rate:
            layer.weight.mul_(1 - rate)


class TwoPhase(EnergyNetwork, Generic[Drive]):
    """A network that learns from a free and a nudged state; a third state, with the opposite nudge, is optional.

    ``Drive`` is the type of the result of ``prepare``, which is computed once for all phases of a batch.
    """

    @classmethod
    def missing(cls) -> list[str]:
        """List the methods that a subclass must give and does not."""
        return [name for name in ("prepare", "relax", "change") if getattr(cls, name) is getattr(TwoPhase, name)]

    def learn(
        self, x: Tensor, target: Tensor, sign: int, factor: float, optimiser: torch.optim.Optimizer | None = None
    ) -> None:
        """Run the free phase, then the nudged phase from its end, and change the weights by the difference over beta.

        With ``third_phase``, a phase with -beta follows from the nudged state. Its state replaces the free state, and
        the difference is divided by 2 beta.
        """
        beta, settings = sign * self.settings.beta, self.settings
        drive = self.prepare(x)
        low = self.relax(drive, settings.free_steps, settings.step)
        nudged = self.relax(drive, settings.nudged_steps, settings.step, target, beta, low)
        span = beta
        if settings.third_phase:
            low = self.relax(drive, settings.nudged_steps, settings.step, target, -beta, nudged)
            span = 2 * beta
        self.change(x, low, nudged, span, factor)

    def settle(
        self, x: Tensor, target: Tensor | None = None, beta: float = 0.0, start: PhaseState | None = None
    ) -> PhaseState:
        """Return the state after a free (beta = 0) or a nudged phase, from rest unless ``start`` is given."""
        count = self.settings.nudged_steps if beta else self.settings.free_steps
        return self.relax(self.prepare(x), count, self.settings.step, target, beta, start)

    def predict(self, x: Tensor) -> list[Tensor]:
        """Return the rates after a free phase with the evaluation step."""
        settings = self.settings
        state = self.relax(self.prepare(x), settings.free_steps, settings.eval_step or settings.step)
        return self.split(state.rates)

    def prepare(self, x: Tensor) -> Drive:
        """Compute what stays the same in all phases of a batch: drive of the first layer, products of the weights."""
        raise NotImplementedError

    def relax(
        self,
        drive: Drive,
        count: int,
        step: float,
        target: Tensor | None = None,
        beta: float = 0.0,
        start: PhaseState | None = None,
    ) -> PhaseState:
        """Return the state after ``count`` steps; ``start`` does not change."""
        raise NotImplementedError

    def change(self, x: Tensor, low: PhaseState, nudged: PhaseState, span: float, factor: float) -> None:
        """Change the weights by the difference of the states over ``span``: beta, or 2 beta with a third phase."""
        raise NotImplementedError

    def at_rest(self, x: Tensor) -> Tensor:
        """Return rates of 0."""
        return x.new_zeros(len(x), self.spans[-1].stop)
