"""PC: predictive coding with a clamped output (Whittington & Bogacz, Neural Comput. 2017).

Shapes: N images, n_l neurons of layer l, from n_0 pixels to n_L classes; rates and z are (N, n_1 + ... + n_L).
"""

from __future__ import annotations

import torch
from torch import Tensor

from hebb.config.vocabulary import Optimiser
from hebb.energy import adam
from hebb.energy.network import EnergyNetwork, PhaseState


class Coding(EnergyNetwork):
    """Base class of predictive coding, with prediction errors e_l = z_l - W_l f(z_{l-1}) - b_l with f(z_0) = x.

    The state is z. Hidden layers pass f(z) on; the output is linear.
    """

    def activation(self, z: Tensor, out: Tensor | None = None) -> Tensor:
        """Return f(z), in ``out`` if there is one."""
        raise NotImplementedError

    def forward_pass(self, x: Tensor) -> Tensor:
        """Return the z (N, n_1 + ... + n_L) whose errors are all 0, the free equilibrium."""
        parts = []
        for i, layer in enumerate(self.layers):
            z = layer(x)
            parts.append(z)
            if i < self.last:
                x = self.activation(z)
        return torch.cat(parts, dim=1)

    def predict(self, x: Tensor) -> list[Tensor]:
        """Return the forward pass: f(z) of the hidden layers and z of the output."""
        *hidden, output = self.split(self.forward_pass(x))
        return [*(self.activation(z) for z in hidden), output]

    def errors(self, x: Tensor, z: Tensor) -> Tensor:
        """Return e, (N, n_1 + ... + n_L)."""
        inputs = [x, *(self.activation(part) for part in self.split(z)[:-1])]
        return z - torch.cat([layer(r) for layer, r in zip(self.layers, inputs, strict=True)], dim=1)

    def times_derivative(self, slope: Tensor, f: Tensor) -> None:
        """Multiply ``slope`` by f'(z), computed from f = f(z), which is not read again."""
        raise NotImplementedError

    def drive(self, x: Tensor) -> Tensor:
        """Return the part of the predictions that stays the same in every step, (N, n_1 + ... + n_L)."""
        biases = [layer.bias for layer in self.layers[1:] if layer.bias is not None]
        return torch.cat([self.layers[0](x), *(b.expand(len(x), -1) for b in biases)], dim=1)


class Descent:
    """The gradient of F for one batch, in buffers and views that all steps share.

    Making them anew in each step takes as long as the products of layers of a hundred neurons.

    Attributes:
        z: (N, n_1 + ... + n_L), the state, which the caller moves in place.
        error: e, same shape as z.
        slope: W_{l+1}^T e_{l+1} f'(z_l) of the hidden layers, (N, n_1 + ... + n_{L-1}).
    """

    def __init__(self, network: Coding, x: Tensor, z: Tensor) -> None:
        width = network.spans[-1].start
        self.z, self.error, self.slope = z, torch.empty_like(z), z.new_empty(len(z), width)
        self.hidden_z, self.hidden_error = z[:, :width], self.error[:, :width]
        self._network, self._drive, self._f = network, network.drive(x), torch.empty_like(self.slope)
        errors, below = network.split(self.error)[1:], network.spans[:-1]
        weights = [layer.weight for layer in network.layers[1:]]
        self._products = [
            (e, self._f[:, span], weight.T, weight, self.slope[:, span])
            for e, span, weight in zip(errors, below, weights, strict=True)
        ]

    def update(self) -> None:
        """Compute error and slope of the present z."""
        torch.sub(self.z, self._drive, out=self.error)
        self._network.activation(self.hidden_z, out=self._f)
        for e, f, transposed, weight, slope in self._products:
            e.addmm_(f, transposed, alpha=-1)
            torch.mm(e, weight, out=slope)
        self._network.times_derivative(self.slope, self._f)


class PC(Coding):
    """f = sigmoid. The output is clamped to t = (1 - 2 margin) y + margin; the hidden z start at the forward pass.

    Settling descends F = sum_l |e_l|^2/2 in all hidden z at once:

        z_l += eta (-e_l + f'(z_l) W_{l+1}^T e_{l+1})

    Then the weights descend F too: dW_l = <e_l f(z_{l-1})^T>, db_l = <e_l>. Adam's epsilon is added to sqrt(v)
    before the bias correction of v. Prediction: the forward pass.
    """

    def activation(self, z: Tensor, out: Tensor | None = None) -> Tensor:
        """1/(1 + exp(-z))."""
        return torch.sigmoid(z, out=out)

    def times_derivative(self, slope: Tensor, f: Tensor) -> None:
        """Multiply by f' = f - f^2."""
        slope.mul_(f.addcmul_(f, f, value=-1))

    def settle(
        self, x: Tensor, target: Tensor | None = None, beta: float = 0.0, start: PhaseState | None = None
    ) -> PhaseState:
        """Return z with the output clamped to ``target``; without one, the forward pass. ``beta`` is not read."""
        z = self.forward_pass(x) if start is None else start.rates.clone()
        if target is None:
            return PhaseState(z)
        s = self.settings
        output = self.split(z)[-1]
        torch.add(target * (1 - 2 * s.margin), s.margin, out=output)
        descent = Descent(self, x, z)
        for _ in range(s.steps if self.last else 0):
            descent.update()
            descent.hidden_z.add_(descent.slope.sub_(descent.hidden_error), alpha=s.step)
        return PhaseState(z)

    def learn(
        self, x: Tensor, target: Tensor, sign: int, factor: float, optimiser: torch.optim.Optimizer | None = None
    ) -> None:
        """Settle, then let the optimiser change the weights; without an optimiser, make a plain gradient step."""
        z = self.settle(x, target).rates
        errors, inputs = self.split(self.errors(x, z)), [x, *map(self.activation, self.split(z)[:-1])]
        for layer, e, f in zip(self.layers, errors, inputs, strict=True):
            assert layer.bias is not None
            self.shrink(layer, factor)
            if optimiser is None:
                rate = layer.spec.lr * factor / len(x)
                layer.weight.addmm_(e.T, f, alpha=rate)
                layer.bias.add_(e.sum(dim=0), alpha=rate)
            else:
                layer.weight.grad = (e.T @ f).div_(-len(x))
                layer.bias.grad = e.mean(dim=0).neg_()
        if optimiser is not None:
            adam.step(optimiser, [layer.spec.lr * factor for layer in self.layers])

    def optimiser(self) -> torch.optim.Optimizer | None:
        """Make Adam; None for plain gradient steps."""
        return None if self.settings.optimiser == Optimiser.SGD else adam.of_layers(self.layers)

    def energy(self, x: Tensor, state: PhaseState, target: Tensor | None = None, beta: float = 0.0) -> Tensor:
        """Return F of every image, (N,)."""
        return 0.5 * self.errors(x, state.rates).square().sum(dim=1)
