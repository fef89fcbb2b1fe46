"""Tests that every Hebbian rule must pass, for authors of rules. Needs pytest.

A test file for the rule ``Instar``, registered by ``instar.py`` beside it, is three lines::

    import instar
    from hebb.testing import RuleContract
    class TestInstar(RuleContract): method = "Instar"

The laws follow from the equation dw = sum_b y x - (sum_b y u) w, not from what the code returns. A rule for which a law
does not hold by design says so in its class: ``test_the_p_sphere_is_invariant = None``.
"""

# shapes: B samples, C input channels, H W pixels, N neurons, K kernel side, L patches per image, M rows that compete

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hebb import builtin
from hebb.config import catalog
from hebb.config.fields import Value
from hebb.config.registry import RULES, HebbianRule
from hebb.config.specs import LayerSpec, make_layer
from hebb.nn.hebb_layer import HebbLayer
from hebb.nn.layers import ConvHebbLayer, LinearHebbLayer

builtin.load()

SAMPLES, CHANNELS, SIDE, NEURONS, KERNEL = 5, 4, 8, 6, 3
TOLERANCE = 1e-9  # everything is float64


class RuleContract:
    """Subclass it as ``Test...`` and set ``method``; pytest then checks the rule for each of its architectures.

    Attributes:
        method: name of a registered Hebbian rule.
        fields: values of layer fields under which the rule is tested, where its defaults do not do.
    """

    method = ""
    fields: ClassVar[Mapping[str, Value]] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrise ``arch`` over the architectures of the rule; pytest calls this for each test."""
        if "arch" in metafunc.fixturenames:
            metafunc.parametrize("arch", self.rule.archs)

    @pytest.fixture(autouse=True)
    def _seed(self) -> None:
        torch.manual_seed(0)

    # -- parts ----------------------------------------------------------------------------------------------

    @property
    def rule(self) -> HebbianRule:
        """The rule under test."""
        if not self.method:
            raise pytest.UsageError(f"{type(self).__name__}.method must be the name of a registered rule")
        rule = RULES.get(self.method, f"{type(self).__name__}.method")
        if not isinstance(rule, HebbianRule):
            raise pytest.UsageError(f"{type(self).__name__}.method must be a Hebbian rule, got '{self.method}'")
        return rule

    def spec(self, arch: str, **values: Value) -> LayerSpec:
        """Describe a layer; values of fields that the rule does not have are dropped."""
        legal = self.rule.fields_on(arch)
        values = {"out_channels": NEURONS, "kernel_size": KERNEL, "t_invert": 0.7, **self.fields, **values}
        own = {name: value for name, value in values.items() if name in legal}
        return make_layer(self.method, arch, own, catalog.load().defaults, type(self).__name__)

    def layer(self, arch: str, channels: int = CHANNELS, **values: Value) -> HebbLayer:
        """Make a layer of float64 with standard normal weights."""
        spec = self.spec(arch, **values)
        layer = (ConvHebbLayer if arch == "CNN" else LinearHebbLayer)(spec, channels, spec.out_channels).double()
        layer.weight.normal_()
        return layer

    def batch(self, arch: str) -> Tensor:
        """Draw a batch, (B, C, H, W) or (B, C)."""
        shape = (SAMPLES, CHANNELS, SIDE, SIDE) if arch == "CNN" else (SAMPLES, CHANNELS)
        return torch.randn(shape, dtype=torch.float64)

    def labels(self) -> Tensor | None:
        """Return a label per sample if the rule reads labels."""
        return torch.arange(SAMPLES) % NEURONS if self.rule.labels else None

    def signal(self, u: Tensor, arch: str) -> Tensor:
        """Return the rule's own y for pre-activations (M, N); a state is that of the first batch."""
        spec, signal, advance = self.spec(arch), cast(Any, self.rule.signal), self.rule.advance
        if advance is None:
            return cast(Tensor, signal(u, spec, self.labels()))
        start = {state.name: state.start((u.shape[1],), spec).to(u) for state in self.rule.state}
        return cast(Tensor, signal(u, spec, self.labels(), advance(u, spec, start)))

    def raw(self, layer: HebbLayer, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return u, y and the change before it is normalised."""
        x = layer.prepare(x)
        u = layer.respond(x)
        y = layer.gate(layer.rivals(x, u), self.labels())
        return u, y, layer.change(x, u, y)

    def change(self, layer: HebbLayer, x: Tensor, labels: Tensor | None) -> Tensor:
        """Return the normalised change; a state of the rule stays where it was."""
        copies = {} if layer.state is None else layer.state.copies()
        x = layer.prepare(x)
        change = layer.plasticity(x, layer.respond(x), labels)[0]
        if layer.state is not None:
            layer.state.restore(copies)  # every change is that of the first batch
        return change

    def allowance(self, layer: HebbLayer, x: Tensor) -> float:
        """Return by how much, at most, the floor under the divisor keeps the largest entries below 1."""
        largest = self.raw(layer, x)[2].flatten(1).abs().amax(1)
        return self.rule.floor / float(largest[largest > 0].min())

    def needs(self, arch: str) -> None:
        """Skip a test of an architecture that the rule is not defined for."""
        if arch not in self.rule.archs:
            pytest.skip(f"{self.method} is not defined for {arch}")

    def holds(self, law: str, value: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
        """Fail with the name of the law unless two tensors agree."""
        __tracebackhide__ = True
        if value.shape != expected.shape:
            pytest.fail(
                f"{self.method} breaks a law: {law}\nshape must be {tuple(expected.shape)}, got {tuple(value.shape)}"
            )
        if not torch.allclose(value, expected, atol=tolerance):
            gap = (value - expected).abs().max().item()
            pytest.fail(f"{self.method} breaks a law: {law}\nlargest difference {gap:.3g}")

    # -- the laws -------------------------------------------------------------------------------------------

    def test_signal_has_the_shape_of_u_and_does_not_change_it(self, arch: str) -> None:
        """The layer reads u again after the gate, for the decay and for the block above."""
        u = torch.randn(SAMPLES, NEURONS, dtype=torch.float64)
        before = u.clone()
        y = self.signal(u, arch)
        self.holds("the gate y has the shape of u", torch.zeros(y.shape), torch.zeros(u.shape))
        self.holds("the signal leaves u as it is", u, before)

    def test_signal_runs_under_vmap(self, arch: str) -> None:
        """A pack of seeds maps the signal over a dimension in front; it must not look at values of a tensor."""
        u = torch.randn(2, SAMPLES, NEURONS, dtype=torch.float64)
        separate = torch.stack([self.signal(one.clone(), arch) for one in u])
        law = "torch.vmap gives the signals of two networks as two calls do"
        try:
            packed = torch.vmap(lambda one: self.signal(one, arch))(u)
        except RuntimeError as error:
            pytest.fail(f"{self.method} breaks a law: {law}\n{error}")
        self.holds(law, packed, separate)

    @pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 2, 2), (2, 2, 2), (3, 1, 1)])
    @pytest.mark.parametrize("p", [2, 3])
    def test_conv_is_linear_on_patches(self, stride: int, padding: int, dilation: int, p: float) -> None:
        """Breaks when a patch is lost or misplaced, or when the signal depends on where a row comes from."""
        self.needs("CNN")
        self.needs("MLP")
        conv = self.layer("CNN", stride=stride, padding=padding, dilation=dilation, lebesgue_p=p)
        linear = LinearHebbLayer(self.spec("MLP", lebesgue_p=p), CHANNELS * KERNEL**2, NEURONS).double()
        linear.spec = conv.spec  # both architectures have defaults of their own
        linear.weight.copy_(conv.weight.flatten(1))
        x = self.batch("CNN")
        padded = F.pad(x, (padding,) * 4, mode="reflect") if padding else x
        patches = F.unfold(padded, KERNEL, dilation=dilation, stride=stride)  # (B, C K K, L)
        rows = patches.transpose(1, 2).flatten(0, 1)  # (B L, C K K)
        u, _, change = self.raw(conv, x)
        _, _, expected = self.raw(linear, rows)
        law = "a convolution is a linear layer on its patches"
        self.holds(law, change.flatten(1), expected)
        self.holds(law, u.flatten(2).transpose(1, 2).flatten(0, 1), linear(rows))

    def test_change_is_a_gradient(self, arch: str) -> None:
        """For p = 2, dw_i is the gradient of sum(y_i u_i) - c_i/2 |w_i|^2 with y and c_i = sum(y_i u_i) held fixed."""
        layer, x = self.layer(arch), self.batch(arch)
        u, y, change = self.raw(layer, x)
        weight = layer.weight.clone().requires_grad_()
        response = layer.currents(layer.prepare(x), weight)
        assert layer.linear, "pre_triangle must be off here"
        c = (y * u).transpose(0, 1).flatten(1).sum(1)  # (N,)
        objective = (y * response).sum() - 0.5 * (c * weight.flatten(1).square().sum(1)).sum()
        (gradient,) = torch.autograd.grad(objective, weight)
        self.holds("dw = sum_b y x - (sum_b y u) w", change, gradient)

    @pytest.mark.parametrize("p", [1.5, 2, 3, 4])
    def test_the_p_sphere_is_invariant(self, arch: str, p: float) -> None:
        """<sign(w)|w|^(p-1), dw> = (sum y u)(1 - |w|_p^p): the pull to radius 1, for every p."""
        layer, x = self.layer(arch, lebesgue_p=p), self.batch(arch)
        u, y, change = self.raw(layer, x)
        c = (y * u).transpose(0, 1).flatten(1).sum(1)  # (N,)
        w = layer.weight.flatten(1)
        inner = (w.sign() * w.abs().pow(p - 1) * change.flatten(1)).sum(1)
        self.holds("weights are pulled to the p-sphere of radius 1", inner, c * (1 - w.abs().pow(p).sum(1)))

    def test_unit_weight_with_x_equal_w_is_fixed(self) -> None:
        """A neuron that has learnt its only input stays; breaks when decay and growth do not balance."""
        self.needs("MLP")
        layer = self.layer("MLP", lebesgue_p=2)
        layer.weight.copy_(F.normalize(layer.weight, dim=1))
        for i in range(NEURONS):
            x = layer.weight[i : i + 1].clone()
            u = layer.respond(x)
            y = torch.zeros_like(u)
            y[0, i] = 1.0
            change = layer.change(x, u, y)
            self.holds("a weight of norm 1 that equals its input is fixed", change, torch.zeros_like(change))

    def test_a_softmax_that_is_declared_is_the_signal(self, arch: str) -> None:
        """Breaks when a convolution that computes the softmax by itself would learn something else."""
        self.needs(arch)
        spec = self.spec(arch)
        gate = None if self.rule.softmax is None else self.rule.softmax(spec)
        if gate is None:
            return
        u = 3 * torch.randn(7, NEURONS, dtype=torch.float64)
        self.holds("a softmax that is declared is the signal", self.signal(u, arch), gate.of(u))

    def test_order_of_samples_does_not_matter(self, arch: str) -> None:
        """Breaks when rows of a batch, or their labels, get mixed up."""
        layer, x, labels = self.layer(arch), self.batch(arch), self.labels()
        order = torch.tensor([3, 1, 4, 0, 2])
        first = self.change(layer, x, labels)
        second = self.change(layer, x[order], None if labels is None else labels[order])
        self.holds("the order of the samples does not matter", second, first)

    def test_order_of_channels_commutes(self, arch: str) -> None:
        """Breaks when a neuron's place decides how it learns."""
        layer, x, labels = self.layer(arch), self.batch(arch), self.labels()
        columns, rows = torch.tensor([2, 0, 3, 1]), torch.tensor([5, 3, 1, 0, 2, 4])
        change = self.change(layer, x, labels)
        layer.weight.copy_(layer.weight[rows][:, columns])
        renamed = None if labels is None else rows.argsort()[labels]
        law = "renaming inputs and neurons renames the change"
        self.holds(law, self.change(layer, x[:, columns], renamed), change[rows][:, columns])

    def test_a_batch_twice_is_the_same_step(self, arch: str) -> None:
        """Breaks when the rate of learning depends on the batch size."""
        layer, x, labels = self.layer(arch), self.batch(arch), self.labels()
        once = self.change(layer, x, labels)
        twice = self.change(layer, x.repeat(2, *[1] * (x.dim() - 1)), None if labels is None else labels.repeat(2))
        allowance = self.allowance(layer, x)
        self.holds("a batch shown twice gives the same change", twice, once, TOLERANCE + allowance)
        one = torch.ones((), dtype=once.dtype)
        self.holds("the largest entry of a change is 1", once.abs().max(), one, 1e-6 + allowance)

    def test_groups_learn_apart(self) -> None:
        """Breaks when competition, change or normaliser of a grouped convolution reach into another group."""
        self.needs("CNN")
        layer, x = self.layer("CNN", groups=2), self.batch("CNN")
        whole = self.change(layer, x, self.labels())
        for inputs, neurons in zip(torch.arange(CHANNELS).chunk(2), torch.arange(NEURONS).chunk(2), strict=True):
            half = self.layer("CNN", CHANNELS // 2, out_channels=NEURONS // 2)
            half.weight.copy_(layer.weight[neurons])
            part = self.change(half, x[:, inputs], self.labels())
            self.holds("groups of a convolution learn apart", whole[neurons], part)

    def test_a_step_moves_no_weight_by_more_than_the_rate(self) -> None:
        """The meaning of lr: breaks when a step is larger, or when none is as large."""
        self.needs("MLP")
        layer, x = self.layer("MLP", adaptive=False, lr=0.03), self.batch("MLP")
        before = layer.weight.clone()
        layer.learn(x, 0.03, self.labels())
        largest = (layer.weight - before).abs().max()
        layer.weight.copy_(before)
        rate = torch.tensor(0.03, dtype=largest.dtype)
        allowance = 0.03 * (1e-6 + self.allowance(layer, x))
        self.holds("the largest step of a weight is the rate", largest, rate, allowance)
        assert largest <= 0.03 * (1 + 1e-12), f"{self.method} breaks a law: no step is larger than the rate"
