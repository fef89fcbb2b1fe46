"""CorInfoMax: correlative information maximisation (Bozkurt, Pehlevan & Erdogan, NeurIPS 2023).

Shapes: N images, n_l neurons of layer l, from n_0 pixels to n_L classes; rates and z are (N, n_1 + ... + n_L).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hebb.energy import phases
from hebb.energy.network import PhaseState, TwoPhase


@dataclass
class Currents:
    """The inputs and synapses that stay the same in all phases of a batch.

    Attributes:
        first: input to the first layer, W_1 x / eps, (N, n_1).
        synapses: per layer (n_l, n_{l-1} + n_l + n_{l+1}), the factors of the rates of the layer below, its own rates
            and those of the layer above.
    """

    first: Tensor
    synapses: list[Tensor]


class CorInfoMax(TwoPhase[Currents]):
    """Membranes u_l and rates r_l = clip(u_l) = min(max(u_l, 0), 1); forward W_l, feedback V_l, lateral B_l.

    Every phase starts with u = r. One step updates the layers from the lowest to the highest, so each layer uses the
    new rates of the layer below and the old rates of the layer above. With gamma = (1 - lambda)/lambda,

        hidden   du = (W_l r_{l-1} - u)/eps + (V_{l+1} r_{l+1} - u)/eps + 2 gamma B_l r_l + g (r_l - u)
        output   du = (W_L r_{L-1} - u)/eps + gamma B_L r_L + g (r_L - u) - u - beta (r_L - y)
        u <- u + eta_t du;  r <- clip(u)

    The changes use the nudged state n and the low state f, the prediction errors e_l = r_l - W_l r_{l-1} and
    d_l = r_l - V_{l+1} r_{l+1}, and the old weights throughout:

        W_l     += lr_l/beta          (<e_l^n r_{l-1}^nT> - <e_l^f r_{l-1}^fT>)
        V_{l+1} += lr_feedback_l+1/beta (<d_l^n r_{l+1}^nT> - <d_l^f r_{l+1}^fT>)
        B_l     <- (B_l - gamma <(B_l r_l^n)(B_l r_l^n)^T>)/lambda
    """

    def prepare(self, x: Tensor) -> Currents:
        """Return inputs and synapses; a step then takes one matrix product per layer."""
        s = self.settings
        gamma = (1 - s.forgetting) / s.forgetting
        synapses = []
        for i, layer in enumerate(self.layers):
            assert layer.lateral is not None
            below, above = self._around(i)
            width = len(layer.weight)
            joined = x.new_empty(width, below + width + above)
            if below:
                torch.mul(layer.weight, 1 / s.epsilon, out=joined[:, :below])
            lateral = joined[:, below : below + width]
            torch.mul(layer.lateral, gamma if i == self.last else 2 * gamma, out=lateral)
            lateral.diagonal().add_(s.gain)
            if above:
                torch.mul(self._feedback(i + 1), 1 / s.epsilon, out=joined[:, below + width :])
            synapses.append(joined)
        return Currents((x @ self.layers[0].weight.T).div_(s.epsilon), synapses)

    def relax(
        self,
        drive: Currents,
        count: int,
        step: float,
        target: Tensor | None = None,
        beta: float = 0.0,
        start: PhaseState | None = None,
    ) -> PhaseState:
        """Return the state after ``count`` steps."""
        state = self.begin(drive.first, start)
        layers = self._circuits(drive, state.rates, target, beta)
        for eta in phases.steps(self.settings, count, step):
            for i, (membrane, rates, seen, synapses, leak, constant) in enumerate(layers):
                membrane.addmm_(seen, synapses, beta=1 - eta * leak, alpha=eta)
                if constant is not None:
                    membrane.add_(constant, alpha=eta)
                self.fire(i, membrane, rates, state, eta)
        return state

    def _circuits(
        self, currents: Currents, rates: Tensor, target: Tensor | None, beta: float
    ) -> list[tuple[Tensor, Tensor, Tensor, Tensor, float, Tensor | None]]:
        """Return per layer: membrane, rates, the rates that it receives, their synapses, leak, constant input.

        All rates are views of one tensor, so the rates that a layer receives are a view too.
        """
        s, circuits = self.settings, []
        for i, span in enumerate(self.spans):
            below, above = self._around(i)
            synapses = currents.synapses[i]
            leak = (1 if i == self.last else 2) / s.epsilon + s.gain
            constant = currents.first if i == 0 else None
            if i == self.last:
                leak += 1
                if beta:
                    assert target is not None
                    synapses = synapses.clone()
                    synapses[:, below : below + span.stop - span.start].diagonal().sub_(beta)
                    constant = beta * target if constant is None else constant + beta * target
            mine = rates[:, span]
            seen = rates[:, span.start - below : span.stop + above]
            circuits.append((mine.clone(), mine, seen, synapses.T, leak, constant))
        return circuits

    def begin(self, like: Tensor, start: PhaseState | None) -> PhaseState:
        """Return the state that a phase starts from."""
        return PhaseState(self.at_rest(like)) if start is None else start.copy()

    def fire(self, i: int, membrane: Tensor, rates: Tensor, state: PhaseState, eta: float) -> None:
        """Set the rates of layer i, in place."""
        torch.clamp(membrane, 0, 1, out=rates)

    def change(self, x: Tensor, low: PhaseState, nudged: PhaseState, span: float, factor: float) -> None:
        """Change W, V and B."""
        s, count = self.settings, len(x)
        both = torch.cat([nudged.rates, low.rates])  # (2N, n_1 + ... + n_L): nudged above, low below
        rates = self.split(both)
        gamma = (1 - s.forgetting) / s.forgetting
        for i, layer in enumerate(self.layers):
            scale = factor / (span * count)
            errors = None if i == 0 else rates[i] - rates[i - 1] @ layer.weight.T
            self.shrink(layer, factor)
            if errors is None:  # the prediction W_1 x is the same in both states
                layer.weight.addmm_((rates[0][:count] - rates[0][count:]).T, x, alpha=layer.spec.lr * scale)
            else:
                errors[count:].neg_()
                layer.weight.addmm_(errors.T, rates[i - 1], alpha=layer.spec.lr * scale)
            if i > 0 and layer.spec.lr_feedback:
                feedback = self._feedback(i)
                errors = rates[i - 1] - rates[i] @ feedback.T
                errors[count:].neg_()
                feedback.addmm_(errors.T, rates[i], alpha=layer.spec.lr_feedback * scale)
            assert layer.lateral is not None
            q = rates[i][:count] @ layer.lateral.T
            layer.lateral.addmm_(q.T, q, beta=1 / s.forgetting, alpha=-gamma / (s.forgetting * count))

    def _around(self, i: int) -> tuple[int, int]:
        """Return the numbers of neurons that settle below and above layer i."""
        below = len(self.layers[i - 1].weight) if i > 0 else 0
        return below, len(self.layers[i + 1].weight) if i < self.last else 0

    def _feedback(self, i: int) -> Tensor:
        feedback = self.layers[i].feedback
        assert feedback is not None
        return feedback
