"""What every layer-local rule must satisfy. A rule's test is a subclass that names it.

The oracles come from the equation dw = sum_b y x - (sum_b y u) w, not from what the code returns.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hebb.config import catalog, fields
from hebb.config.registry import RULES
from hebb.config.specs import LayerSpec, make_layer
from hebb.nn.layers import HebbConv2d, HebbLayer, HebbLinear

B, C_IN, SIDE, NEURONS = 5, 4, 8, 6


class RuleContract:
    """Subclass it, set ``method``, and pytest checks the rule; ``given`` holds values the rule needs."""

    method = ""
    given: dict[str, Any] = {}  # noqa: RUF012  (a class constant that subclasses replace)

    @pytest.fixture(autouse=True)
    def _seed(self) -> None:
        torch.manual_seed(0)

    # -- makers -------------------------------------------------------------------------------------------

    def spec(self, arch: str, **values: Any) -> LayerSpec:
        rule = RULES.get(self.method, "test")
        known = fields.fields_of(rule, arch)
        asked = {"out_channels": NEURONS, "kernel_size": 3, "t_invert": 0.7, **self.given, **values}
        given = {name: value for name, value in asked.items() if name in known}
        return make_layer(self.method, arch, given, catalog.load().defaults, "test")

    def layer(self, arch: str, **values: Any) -> HebbLayer:
        spec = self.spec(arch, **values)
        kind = HebbConv2d if arch == "CNN" else HebbLinear
        made = kind(spec, C_IN, spec.out_channels).double()
        made.weight.normal_()
        return made

    def batch(self, arch: str) -> Tensor:
        shape = (B, C_IN, SIDE, SIDE) if arch == "CNN" else (B, C_IN)
        return torch.randn(shape, dtype=torch.float64)

    def labels(self) -> Tensor | None:
        return torch.arange(B) % NEURONS if RULES.get(self.method, "test").labels else None

    def raw(self, layer: HebbLayer, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return u, y and the change before it is normalised."""
        x = layer.prepare(x)
        u = layer.respond(x)
        y = layer.gate(u, self.labels())
        return u, y, layer.change(x, u, y)

    # -- the contract -------------------------------------------------------------------------------------

    def test_gate_has_the_shape_of_u_and_does_not_change_it(self, arch: str) -> None:
        layer, x = self.layer(arch), self.batch(arch)
        u = layer(x)
        before = u.clone()
        assert layer.gate(u, self.labels()).shape == u.shape
        assert torch.equal(u, before)

    @pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 2, 2), (2, 2, 2), (3, 1, 1)])
    @pytest.mark.parametrize("p", [2, 3])
    def test_conv_is_linear_on_patches(self, stride: int, padding: int, dilation: int, p: float) -> None:
        """The conv update is the linear update on unfolded patches; breaks when a patch is lost or misplaced."""
        conv = self.layer("CNN", stride=stride, padding=padding, dilation=dilation, lebesgue_p=p)
        linear = HebbLinear(self.spec("MLP", lebesgue_p=p), C_IN * 9, NEURONS).double()
        linear.spec = conv.spec  # the same temperature, delta and rank
        linear.weight.copy_(conv.weight.flatten(1))
        x = self.batch("CNN")
        padded = F.pad(x, (padding,) * 4, mode="reflect") if padding else x
        patches = F.unfold(padded, 3, dilation=dilation, stride=stride)  # (B, C_in k k, L)
        rows = patches.transpose(1, 2).flatten(0, 1)
        u, _, change = self.raw(conv, x)
        _, _, expected = self.raw(linear, rows)
        assert torch.allclose(change.flatten(1), expected, atol=1e-9)
        assert torch.allclose(u.flatten(2).transpose(1, 2).flatten(0, 1), linear(rows), atol=1e-9)

    def test_change_is_a_gradient(self, arch: str) -> None:
        """For p = 2: dw_i = grad of sum(y_i u_i) - c_i/2 |w_i|^2 with y and c_i = sum(y_i u_i) held constant."""
        layer, x = self.layer(arch), self.batch(arch)
        u, y, change = self.raw(layer, x)
        weight = layer.weight.clone().requires_grad_()
        response = layer.currents(layer.prepare(x), weight)
        if arch == "CNN":
            assert not layer.spec.pre_triangle
        c = (y * u).transpose(0, 1).flatten(1).sum(1)
        objective = (y * response).sum() - 0.5 * (c * weight.flatten(1).square().sum(1)).sum()
        (gradient,) = torch.autograd.grad(objective, weight)
        assert torch.allclose(change, gradient, atol=1e-9)

    @pytest.mark.parametrize("p", [1.5, 2, 3, 4])
    def test_the_p_sphere_is_invariant(self, arch: str, p: float) -> None:
        """<sign(w)|w|^(p-1), dw> = (sum y u)(1 - |w|_p^p): the pull to radius 1, for every p."""
        layer, x = self.layer(arch, lebesgue_p=p), self.batch(arch)
        u, y, change = self.raw(layer, x)
        c = (y * u).transpose(0, 1).flatten(1).sum(1)
        w = layer.weight.flatten(1)
        inner = (w.sign() * w.abs().pow(p - 1) * change.flatten(1)).sum(1)
        assert torch.allclose(inner, c * (1 - w.abs().pow(p).sum(1)), atol=1e-9)

    def test_unit_weight_with_x_equal_w_is_fixed(self) -> None:
        layer = self.layer("MLP", lebesgue_p=2)
        layer.weight.copy_(F.normalize(layer.weight, dim=1))
        for i in range(NEURONS):
            x = layer.weight[i : i + 1].clone()
            u = layer.respond(x)
            only = torch.zeros_like(u)
            only[0, i] = 1.0
            assert layer.change(x, u, only).abs().max() < 1e-12

    def test_order_of_samples_does_not_matter(self, arch: str) -> None:
        layer, x = self.layer(arch), self.batch(arch)
        labels = self.labels()
        order = torch.tensor([3, 1, 4, 0, 2])
        first, _ = layer.plasticity(*self._answered(layer, x), labels)
        second, _ = layer.plasticity(*self._answered(layer, x[order]), None if labels is None else labels[order])
        assert torch.allclose(first, second, atol=1e-9)

    def test_order_of_channels_commutes(self, arch: str) -> None:
        """Renaming the input channels renames the weights' columns, renaming the neurons the rows."""
        layer, x = self.layer(arch), self.batch(arch)
        labels = self.labels()
        columns, rows = torch.tensor([2, 0, 3, 1]), torch.tensor([5, 3, 1, 0, 2, 4])
        change, _ = layer.plasticity(*self._answered(layer, x), labels)
        layer.weight.copy_(layer.weight[rows][:, columns])
        renamed = None if labels is None else rows.argsort()[labels]
        other, _ = layer.plasticity(*self._answered(layer, x[:, columns]), renamed)
        assert torch.allclose(other, change[rows][:, columns], atol=1e-9)

    def test_a_batch_twice_is_the_same_step(self, arch: str) -> None:
        """The normalised change does not depend on the batch size, and its largest entry is 1."""
        layer, x = self.layer(arch), self.batch(arch)
        labels = self.labels()
        once, _ = layer.plasticity(*self._answered(layer, x), labels)
        double = None if labels is None else labels.repeat(2)
        twice, _ = layer.plasticity(*self._answered(layer, x.repeat(2, *[1] * (x.dim() - 1))), double)
        assert torch.allclose(once, twice, atol=1e-9 + self.short_of_one(layer, x))
        assert once.abs().max() == pytest.approx(1, rel=1e-6 + self.short_of_one(layer, x))

    def short_of_one(self, layer: HebbLayer, x: Tensor) -> float:
        """By how much a floor under the divisor keeps the largest entries below 1, at most."""
        largest = self.raw(layer, x)[2].flatten(1).abs().amax(1)
        return RULES.get(self.method, "test").floor / float(largest[largest > 0].min())

    def test_groups_learn_apart(self) -> None:
        """A grouped layer is its groups side by side: competition, change and normaliser stay inside."""
        layer, x = self.layer("CNN", groups=2), self.batch("CNN")
        whole, _ = layer.plasticity(*self._answered(layer, x), self.labels())
        for g in range(2):
            half = self.layer("CNN", out_channels=NEURONS // 2)
            half = HebbConv2d(half.spec, C_IN // 2, NEURONS // 2).double()
            half.weight.copy_(layer.weight[3 * g : 3 * g + 3])
            part, _ = half.plasticity(*self._answered(half, x[:, 2 * g : 2 * g + 2]), self.labels())
            assert torch.allclose(whole[3 * g : 3 * g + 3], part, atol=1e-9)

    def test_a_step_moves_no_weight_by_more_than_the_rate(self) -> None:
        layer, x = self.layer("MLP", adaptive=False, lr=0.03), self.batch("MLP")
        before = layer.weight.clone()
        layer.learn(x, 0.03, self.labels())
        most = float((layer.weight - before).abs().max())
        layer.weight.copy_(before)
        assert most == pytest.approx(0.03, rel=1e-6 + self.short_of_one(layer, x))
        assert most <= 0.03 * (1 + 1e-12)

    @staticmethod
    def _answered(layer: HebbLayer, x: Tensor) -> tuple[Tensor, Tensor]:
        x = layer.prepare(x)
        return x, layer.respond(x)
