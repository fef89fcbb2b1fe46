"""What the two kinds of predictive coding share: errors, and the two ways to the state in which they are least.

Shapes: N images, n_l neurons of layer l, from n_0 pixels to n_L classes; rates and z are (N, n_1 + ... + n_L).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from hebb.config.vocabulary import Solver
from hebb.energy.network import EnergyNetwork, PhaseState, upward
from hebb.kernels import loops, private_torch


class TransferFunction:
    """The function f that turns the state of a hidden neuron into its rate."""

    in_loops: ClassVar[loops.Transfer | None] = None
    """The same function among the faster loops; None where they lack it. A subclass does not inherit it."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "in_loops" not in vars(cls):
            cls.in_loops = None

    def __call__(self, z: Tensor, out: Tensor | None = None) -> Tensor:
        """Return f(z), in ``out`` if there is one."""
        raise NotImplementedError

    def times_derivative(self, slope: Tensor, f: Tensor) -> None:
        """Multiply ``slope`` by f'(z), computed from f = f(z), which is not read again."""
        raise NotImplementedError


class Sigmoid(TransferFunction):
    """f = 1/(1 + exp(-z)), f' = f - f^2."""

    in_loops = loops.Transfer.SIGMOID

    def __call__(self, z: Tensor, out: Tensor | None = None) -> Tensor:
        """Return f(z), in ``out`` if there is one."""
        return torch.sigmoid(z, out=out)

    def times_derivative(self, slope: Tensor, f: Tensor) -> None:
        """Multiply ``slope`` by f'(z)."""
        slope.mul_(f.addcmul_(f, f, value=-1))


class Relu(TransferFunction):
    """f = max(z, 0), f' = 1[f > 0]."""

    in_loops = loops.Transfer.RELU

    def __call__(self, z: Tensor, out: Tensor | None = None) -> Tensor:
        """Return f(z), in ``out`` if there is one."""
        return torch.clamp_min(z, 0, out=out)

    def times_derivative(self, slope: Tensor, f: Tensor) -> None:
        """Multiply ``slope`` by f'(z)."""
        private_torch.silence(slope, f)


class Coding(EnergyNetwork):
    """Base class of predictive coding, with prediction errors e_l = z_l - W_l f(z_{l-1}) - b_l with f(z_0) = x.

    The state is z. Hidden layers pass f(z) on; the output is linear. ``settle.solver`` says which variables descend:
    the z, as written in each class, or the e (``ErrorDescent``). Both rest at the same z and e.

    Attributes:
        activation: f, which a subclass sets.
    """

    activation: ClassVar[TransferFunction]

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

    def descend(self, x: Tensor, target: Tensor, beta: float, start: PhaseState | None) -> Descent:
        """Return the z after ``steps`` steps of the z; from the forward pass unless ``start`` is given."""
        raise NotImplementedError

    def descend_errors(self, x: Tensor, target: Tensor, beta: float, start: PhaseState | None) -> ErrorDescent:
        """Return the errors, and their z, after ``steps`` steps of the errors; from 0 unless ``start`` is given."""
        raise NotImplementedError

    def settled(self, x: Tensor, target: Tensor, beta: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return z and e, from which the weights learn.

        Errors that were the variables are returned as they are: z minus its prediction would lose their last digits.
        """
        if self.settings.solver == Solver.ERROR:
            errors = self.descend_errors(x, target, beta, None)
            return errors.z, errors.error
        descent = self.descend(x, target, beta, None)
        return descent.z, descent.error

    def drive(self, x: Tensor) -> Tensor:
        """Return the part of the predictions that stays the same in every step, (N, n_1 + ... + n_L)."""
        biases = [layer.bias for layer in self.layers[1:] if layer.bias is not None]
        return torch.cat([self.layers[0](x), *(b.expand(len(x), -1) for b in biases)], dim=1)


class Descent:
    """The gradient of F for one batch, in buffers and views that all steps share.

    Making them anew in each step takes as long as the products of layers of a hundred neurons.

    Attributes:
        z: (N, n_1 + ... + n_L), the state, of which the caller may move the output.
        error: e, same shape; ``step`` computes it anew.

    Args:
        network: the network.
        x: images (N, n_0).
        start: the z to start from; None: the forward pass.
        output: the z of the output (N, n_L) in place of that of the start.
    """

    def __init__(
        self, network: Coding, x: Tensor, start: PhaseState | None = None, output: Tensor | None = None
    ) -> None:
        width = network.spans[-1].start
        self._activation, self._drive = network.activation, network.drive(x)
        self.z = self._drive.clone() if start is None else start.rates.clone()
        self.error, self._slope = torch.empty_like(self.z), self.z.new_empty(len(x), width)
        self._hidden_z, self._hidden_error = self.z[:, :width], self.error[:, :width]
        self._f = torch.empty_like(self._slope)
        z, errors, below = network.split(self.z), network.split(self.error), network.spans[:-1]
        weights = [layer.weight for layer in network.layers[1:]]
        self._up = [
            (e, self._f[:, span], upward(weight)) for e, span, weight in zip(errors[1:], below, weights, strict=True)
        ]
        self._down = [
            (e, weight, self._slope[:, span]) for e, span, weight in zip(errors[1:], below, weights, strict=True)
        ]
        if start is None:
            for z_below, z_above, (_, f, transposed) in zip(z, z[1:], self._up, strict=False):
                z_above.addmm_(self._activation(z_below, out=f), transposed)
            self.error.zero_()
            if output is not None:
                torch.sub(output, z[-1], out=errors[-1])
        if output is not None:
            z[-1].copy_(output)
        if start is not None:
            self._compare()
        self._move = loops.state_step(self._activation.in_loops, self.z, self._drive, self.error, self._slope, self._f)

    def step(self, size: float) -> None:
        """Move each hidden z_l by size (-e_l + f'(z_l) W_{l+1}^T e_{l+1}), and compute the error of the new z."""
        for e, weight, slope in self._down:
            torch.mm(e, weight, out=slope)
        if self._move is not None:
            self._move(size)
            self._subtract_predictions()
        else:
            self._activation.times_derivative(self._slope, self._f)
            self._hidden_z.add_(self._slope.sub_(self._hidden_error), alpha=size)
            self._compare()

    def _compare(self) -> None:
        torch.sub(self.z, self._drive, out=self.error)
        self._activation(self._hidden_z, out=self._f)
        self._subtract_predictions()

    def _subtract_predictions(self) -> None:
        for e, f, transposed in self._up:
            e.addmm_(f, transposed, alpha=-1)


class ErrorDescent:
    """Error-based predictive coding, ePC: the errors are the variables, and the z follow from them.

    For e = 0 at first, every step computes, from the lowest layer to the output and back,

        z_l = W_l f(z_{l-1}) + b_l + e_l
        d_l = f'(z_l) W_{l+1}^T d_{l+1},   d_L = dC/dz_L
        e_l += eta (-e_l - d_l)            in all layers at once

    e_l + d_l is the gradient with respect to e_l of F(e) = sum_l |e_l|^2/2 + C(z_L): the F that the z descend, because
    the map from e to z is triangular with ones on its diagonal. So the minimum is the same. The signal of the output
    reaches every layer in each step, where a step of the z passes it on by one layer, eta times weaker. A step has the
    products of a step of the z, but one after the other, and is not local; the change of the weights is.

    PC: C = |z_L - t|^2/2, e_L is 0 until the end and then t - z_L. PCNudge: C = beta |z_L - y|^2/2, e_L is a variable,
    and the step is 2 eta. T steps from e = 0 give e_l = -(1 - (1 - eta)^T) d_l to first order. For T eta << 1 the
    hidden layers therefore learn as by back-prop, with T eta times its rate; predictive coding needs T eta of 1 or
    more. Steps are stable for eta (1 + the largest eigenvalue of J J^T) < 2, with J the derivative of z_L with respect
    to all e_l, and beta J J^T and 2 eta in PCNudge.

    Source: Goemaere, Oliviers, Bogacz & Demeester, "ePC: Fast and Deep Predictive Coding in Digital Simulation", ICML
    2026 (arXiv 2505.20137).

    Attributes:
        z: (N, n_1 + ... + n_L), the state of the present errors.
        error: e, same shape, which the caller moves in place.
        signal: d, same shape; the caller sets that of the output.

    Args:
        network: the network.
        x: images (N, n_0).
        start: the z to start from; None: the forward pass.
    """

    def __init__(self, network: Coding, x: Tensor, start: PhaseState | None = None) -> None:
        self._network, self._drive = network, network.drive(x)
        self.z, self.signal = torch.empty_like(self._drive), torch.empty_like(self._drive)
        self.error = torch.zeros_like(self.z) if start is None else network.errors(x, start.rates)
        width = network.spans[-1].start
        self.hidden_error, self.hidden_signal = self.error[:, :width], self.signal[:, :width]
        self.output, self.output_error, self.output_signal = (
            network.split(each)[-1] for each in (self.z, self.error, self.signal)
        )
        rates = network.split(torch.empty_like(self.z))
        z, signals = network.split(self.z), network.split(self.signal)
        weights = [layer.weight for layer in network.layers[1:]]
        self._up = list(zip(z, rates, z[1:], [upward(weight) for weight in weights], strict=False))
        self._down = list(zip(signals[1:], weights, signals, rates, strict=False))[::-1]

    def forward(self) -> None:
        """Compute the z of the present errors."""
        torch.add(self._drive, self.error, out=self.z)
        for z, f, above, transposed in self._up:
            self._network.activation(z, out=f)
            above.addmm_(f, transposed)

    def backward(self) -> None:
        """Compute the signals of the hidden layers from that of the output; once after every ``forward``."""
        for above, weight, signal, f in self._down:
            torch.mm(above, weight, out=signal)
            self._network.activation.times_derivative(signal, f)
