"""PCNudge: predictive coding with a weakly nudged output (Millidge et al., ICLR 2023).

Shapes: N images, n_l neurons of layer l, from n_0 pixels to n_L classes; rates and z are (N, n_1 + ... + n_L).
"""

from __future__ import annotations

import torch
from torch import Tensor

from hebb.config.vocabulary import Solver
from hebb.energy.coding import Coding, Descent, ErrorDescent, Relu
from hebb.energy.network import PhaseState


class PCNudge(Coding):
    """f = relu. The z start at the forward pass, which is the free equilibrium, and all ascend at once

        J = - sum_l |e_l|^2 - beta |z_L - y|^2                 for one image, without a factor 1/2

        hidden   z_l += 2 eta (-e_l + 1[z_l > 0] W_{l+1}^T e_{l+1})
        output   z_L += 2 eta (-e_L - beta (z_L - y))

    Then the weights ascend J/beta, summed over the batch: W_l += 2 lr/beta sum e_l f(z_{l-1})^T, b_l likewise.
    e is of the order of beta. The change divides e by beta, and with it the rounding error of single precision.
    Prediction: the forward pass.
    """  # noqa: D415

    activation = Relu()

    def settle(
        self, x: Tensor, target: Tensor | None = None, beta: float = 0.0, start: PhaseState | None = None
    ) -> PhaseState:
        """Return z after the nudged relaxation; for beta = 0, return the forward pass, where nothing moves."""
        if not beta:
            return PhaseState(self.forward_pass(x) if start is None else start.rates.clone())
        assert target is not None
        descend = self.descend_errors if self.settings.solver == Solver.ERROR else self.descend
        return PhaseState(descend(x, target, beta, start).z)

    def descend(self, x: Tensor, target: Tensor, beta: float, start: PhaseState | None) -> Descent:
        """Return the z with the output nudged towards ``target``."""
        step, descent = 2 * self.settings.step, Descent(self, x, start)
        output, output_error = self.split(descent.z)[-1], self.split(descent.error)[-1]
        target = target.to(output.dtype)
        for _ in range(self.settings.steps):
            output.lerp_(target, beta * step).sub_(output_error, alpha=step)
            descent.step(step)
        return descent

    def descend_errors(self, x: Tensor, target: Tensor, beta: float, start: PhaseState | None) -> ErrorDescent:
        """Return the errors and their z with the output nudged towards ``target``."""
        step, descent = 2 * self.settings.step, ErrorDescent(self, x, start)
        descent.forward()
        for _ in range(self.settings.steps):
            torch.sub(descent.output, target, out=descent.output_signal).mul_(beta)
            descent.backward()
            descent.error.mul_(1 - step).sub_(descent.signal, alpha=step)
            descent.forward()
        return descent

    def learn(
        self, x: Tensor, target: Tensor, sign: int, factor: float, optimiser: torch.optim.Optimizer | None = None
    ) -> None:
        """Settle, then change the weights by the remaining errors."""
        beta = sign * self.settings.beta
        z, error = self.settled(x, target, beta)
        errors, inputs = self.split(error), [x, *map(self.activation, self.split(z)[:-1])]
        for layer, e, f in zip(self.layers, errors, inputs, strict=True):
            assert layer.bias is not None
            self.shrink(layer, factor)
            rate = 2 * layer.spec.lr * factor / beta
            layer.weight.addmm_(e.T, f, alpha=rate)
            layer.bias.add_(e.sum(dim=0), alpha=rate)

    def energy(self, x: Tensor, state: PhaseState, target: Tensor | None = None, beta: float = 0.0) -> Tensor:
        """Return -J of every image, (N,)."""
        minus_j = self.errors(x, state.rates).square().sum(dim=1)
        if beta:
            assert target is not None
            minus_j = minus_j + beta * (self.split(state.rates)[-1] - target).square().sum(dim=1)
        return minus_j
