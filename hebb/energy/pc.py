"""PC: predictive coding with a clamped output (Whittington & Bogacz, Neural Comput. 2017).

Shapes: N images, n_l neurons of layer l, from n_0 pixels to n_L classes; rates and z are (N, n_1 + ... + n_L).
"""

from __future__ import annotations

import torch
from torch import Tensor

from hebb.config.vocabulary import Optimiser, Solver
from hebb.energy import adam
from hebb.energy.coding import Coding, Descent, ErrorDescent, Sigmoid
from hebb.energy.network import PhaseState


class PC(Coding):
    """f = sigmoid. The output is clamped to t = (1 - 2 margin) y + margin; the hidden z start at the forward pass.

    Settling descends F = sum_l |e_l|^2/2 in all hidden z at once:

        z_l += eta (-e_l + f'(z_l) W_{l+1}^T e_{l+1})

    Then the weights descend F too: dW_l = <e_l f(z_{l-1})^T>, db_l = <e_l>. Adam's epsilon is added to sqrt(v)
    before the bias correction of v. Prediction: the forward pass.
    """

    activation = Sigmoid()

    def settle(
        self, x: Tensor, target: Tensor | None = None, beta: float = 0.0, start: PhaseState | None = None
    ) -> PhaseState:
        """Return z with the output clamped to ``target``; without one, the forward pass. ``beta`` is not read."""
        if target is None:
            return PhaseState(self.forward_pass(x) if start is None else start.rates.clone())
        descend = self.descend_errors if self.settings.solver == Solver.ERROR else self.descend
        return PhaseState(descend(x, target, beta, start).z)

    def clamped(self, target: Tensor) -> Tensor:
        """Return the output of images with this one-hot target, (1 - 2 margin) y + margin."""
        return target * (1 - 2 * self.settings.margin) + self.settings.margin

    def descend(self, x: Tensor, target: Tensor, beta: float, start: PhaseState | None) -> Descent:
        """Return the z with the output clamped to ``target``."""
        s, descent = self.settings, Descent(self, x, start, self.clamped(target))
        for _ in range(s.steps if self.last else 0):
            descent.step(s.step)
        return descent

    def descend_errors(self, x: Tensor, target: Tensor, beta: float, start: PhaseState | None) -> ErrorDescent:
        """Return the errors and their z with the output clamped to ``target``."""
        s, descent = self.settings, ErrorDescent(self, x, start)
        descent.output_error.zero_()
        clamped = self.clamped(target)
        descent.forward()
        for _ in range(s.steps if self.last else 0):
            torch.sub(descent.output, clamped, out=descent.output_signal)
            descent.backward()
            descent.hidden_error.mul_(1 - s.step).sub_(descent.hidden_signal, alpha=s.step)
            descent.forward()
        torch.sub(clamped, descent.output, out=descent.output_error)
        descent.output.copy_(clamped)
        return descent

    def learn(
        self, x: Tensor, target: Tensor, sign: int, factor: float, optimiser: torch.optim.Optimizer | None = None
    ) -> None:
        """Settle, then let the optimiser change the weights; without an optimiser, make a plain gradient step."""
        z, error = self.settled(x, target)
        errors, inputs = self.split(error.div_(-len(x))), [x, *map(self.activation, self.split(z)[:-1])]
        for layer, e, f in zip(self.layers, errors, inputs, strict=True):
            assert layer.bias is not None
            self.shrink(layer, factor)
            if optimiser is None:
                rate = layer.spec.lr * factor
                layer.weight.addmm_(e.T, f, alpha=-rate)
                layer.bias.sub_(e.sum(dim=0), alpha=rate)
            else:
                layer.weight.grad, layer.bias.grad = e.T @ f, e.sum(dim=0)
        if optimiser is not None:
            adam.step(optimiser, [layer.spec.lr * factor for layer in self.layers])

    def optimiser(self) -> torch.optim.Optimizer | None:
        """Make Adam; None for plain gradient steps."""
        return None if self.settings.optimiser == Optimiser.SGD else adam.of_layers(self.layers)

    def energy(self, x: Tensor, state: PhaseState, target: Tensor | None = None, beta: float = 0.0) -> Tensor:
        """Return F of every image, (N,)."""
        return 0.5 * self.errors(x, state.rates).square().sum(dim=1)
