"""EP: equilibrium propagation (Scellier & Bengio, Front. Comput. Neurosci. 2017).

Shapes: N images, n_l neurons of layer l, from n_0 pixels to n_L classes; rates and z are (N, n_1 + ... + n_L).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from hebb.energy.network import PhaseState, TwoPhase, upward

Source: TypeAlias = tuple[int, Tensor, int]
"""A layer, what its rates are multiplied by, and a sign."""


@dataclass(frozen=True)
class Fixed:
    """What all steps of a batch share.

    Attributes:
        base: per layer its input that does not change: W_1 x + b_1, (N, n_1), of the first, b_l of the others.
        sources: per layer where its changing input comes from.
    """

    base: list[Tensor]
    sources: list[list[Source]]


class EP(TwoPhase[Fixed]):
    """States s_l, symmetric weights and biases. The energy of an image is

        Phi = sum_l |s_l|^2/2 - sum_l s_l (W_l s_{l-1} + b_l) + beta |s_L - y|^2

    All layers move at once. The free phase starts at 0, the nudged phase at the free state:

        s_l <- clip(s_l - eta (s_l - W_l s_{l-1} - b_l - W_{l+1}^T s_{l+1} + [l = L] 2 beta (s_L - y)))

    The weights descend (Phi(nudged) - Phi(free))/beta:

        W_l += lr_l/beta (<s_l^n s_{l-1}^nT> - <s_l^f s_{l-1}^fT>);   b_l += lr_l/beta (<s_l^n> - <s_l^f>)

    For beta -> 0 this is the gradient of |s_L - y|^2 at the free state (Scellier & Bengio, theorem 1).
    """  # noqa: D415

    def prepare(self, x: Tensor) -> Fixed:
        """Return what all steps share."""
        first, *others = self.layers
        base = [first(x)]
        for layer in others:
            assert layer.bias is not None
            base.append(layer.bias)
        return Fixed(base, [self.sources(i) for i in range(len(self.layers))])

    def sources(self, i: int) -> list[Source]:
        """Return the layers whose rates are input of layer i, with their weights and signs."""
        below = [(i - 1, upward(self.layers[i].weight), 1)] if i else []
        return below if i == self.last else [*below, (i + 1, self.layers[i + 1].weight, 1)]

    def relax(
        self,
        fixed: Fixed,
        count: int,
        step: float,
        target: Tensor | None = None,
        beta: float = 0.0,
        start: PhaseState | None = None,
    ) -> PhaseState:
        """Return the state after ``count`` steps."""
        state = PhaseState(self.at_rest(fixed.base[0])) if start is None else start.copy()
        pull = torch.empty_like(state.rates)
        rates, output_pull = self.split(state.rates), self.split(pull)[-1]
        inputs = [
            (into, base, [(rates[j], matrix, sign) for j, matrix, sign in sources])
            for into, base, sources in zip(self.split(pull), fixed.base, fixed.sources, strict=True)
        ]
        nudge = None
        if beta:
            assert target is not None
            nudge = target * (2 * beta)
        for _ in range(count):
            for into, base, sources in inputs:
                if not sources:
                    into.copy_(base)
                for s, matrix, sign in sources:
                    torch.addmm(base, s, matrix, alpha=sign, out=into)
                    base = into
            if nudge is not None:
                output_pull.add_(nudge).sub_(rates[-1], alpha=2 * beta)
            state.rates.lerp_(pull, step).clamp_(0, 1)
        return state

    def change(self, x: Tensor, low: PhaseState, nudged: PhaseState, span: float, factor: float) -> None:
        """Change weights and biases."""
        count = len(x)
        signed = torch.cat([nudged.rates, low.rates.neg()])  # (2N, n_1 + ... + n_L)
        plain = torch.cat([nudged.rates, low.rates])
        difference = self.split(nudged.rates - low.rates)
        for i, layer in enumerate(self.layers):
            rate = layer.spec.lr * factor / (span * count)
            self.shrink(layer, factor)
            if i == 0:
                layer.weight.addmm_(difference[0].T, x, alpha=rate)
            else:
                layer.weight.addmm_(self.split(signed)[i].T, self.split(plain)[i - 1], alpha=rate)
            assert layer.bias is not None
            layer.bias.add_(difference[i].sum(dim=0), alpha=rate)

    def energy(self, x: Tensor, state: PhaseState, target: Tensor | None = None, beta: float = 0.0) -> Tensor:
        """Return Phi of every image, (N,)."""
        rates = self.split(state.rates)
        phi = 0.5 * state.rates.square().sum(dim=1)
        for below, layer, s in zip([x, *rates], self.layers, rates, strict=False):
            phi = phi - (s * layer(below)).sum(dim=1)
        if beta:
            assert target is not None
            phi = phi + beta * (rates[-1] - target).square().sum(dim=1)
        return phi
