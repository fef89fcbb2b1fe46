"""Layers: rates, initialisation, measures, padding.

Without it rates and initial radii could be off, which training partly hides.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from small import layer
from torch.nn import functional as F

from hebb.kernels import loops, matmul
from hebb.nn.layers import ConvHebbLayer
from hebb.rules import rates

# -- large layers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [4, 12])
@pytest.mark.parametrize(
    ("method", "fields", "fused"),
    [
        ("SoftKrotov", {}, True),
        ("SoftKrotov", {"stride": 2, "padding": 2}, True),
        ("SoftKrotov", {"kernel_size": 1}, True),
        ("SoftKrotov", {"adaptive": False}, True),
        ("SoftKrotov", {"groups": 2}, False),
        ("SoftKrotov", {"lebesgue_p": 3.0}, False),
        ("Krotov", {"normaliser": "layer", "lebesgue_p": 2.0}, True),
        ("Krotov", {"normaliser": "filter", "lebesgue_p": 2.0}, False),
        ("Krotov", {"normaliser": "mean", "lebesgue_p": 2.0}, False),
        ("Hebb", {}, False),  # its own decay
    ],
)
def test_a_large_layer_makes_the_steps_of_a_small_one(
    method: str, fields: dict[str, object], fused: bool, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products of patches and loops over the weights, for a few patches with a wide fan-in and for many."""
    plain = {"out_channels": 24, "kernel_size": 3, "padding_mode": "reflect", "lr": 0.1}
    plain |= {} if method == "Krotov" else {"weight_init": "normal"}
    made = layer(method, "CNN", 40, **plain | fields)
    made.initialise(torch.Generator().manual_seed(0))
    large, by_loop = copy.deepcopy(made), []
    x = torch.randn(2, 40, side, side, generator=torch.Generator().manual_seed(1))
    decay = loops.decay
    with torch.no_grad():
        for _ in range(2):
            expected = made.learn(x)
            with monkeypatch.context() as patched:
                patched.setattr(loops, "WORTH", 0)
                patched.setattr(matmul, "WORTH", 0)
                patched.setattr(loops, "decay", lambda *of: by_loop.append(decay(*of)) or by_loop[-1])
                found = large.learn(x)
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
            assert found.is_contiguous(memory_format=torch.channels_last)
    assert [result is not None for result in by_loop] == [True] * (2 if fused else 0)
    assert torch.allclose(large.weight, made.weight, rtol=0, atol=1e-5)
    assert large.weight.stride() == made.weight.stride()
    assert torch.allclose(large.gate_mass, made.gate_mass)


def test_a_fused_decay_is_not_for_effective_weights() -> None:
    """Their radii, and the product that stands for sum_b y u, are others."""
    assert layer("SoftKrotov")._euclidean
    assert not layer("BCM")._euclidean


@pytest.mark.parametrize("grad", [False, True])
def test_patches_are_cut_once_and_forgotten(grad: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "WORTH", 0)
    made = layer("SoftKrotov", "CNN", 40, out_channels=24, kernel_size=3)
    assert isinstance(made, ConvHebbLayer)
    made.initialise(torch.Generator().manual_seed(0))
    kept: list[torch.Tensor] = []
    cut = made.convolution._patches
    monkeypatch.setattr(made.convolution, "_patches", lambda x: kept.append(cut(x)) or kept[-1])
    x = torch.randn(2, 40, 4, 4, requires_grad=grad)
    with torch.set_grad_enabled(grad):
        u = made.learn(x)
    assert [patches is kept[0] for patches in kept] == [True] * (1 if grad else 2)
    assert u.requires_grad == grad
    assert cut(x) is not cut(x)


# -- rates ----------------------------------------------------------------------------------------------------


def test_norm_dependent_rate() -> None:
    """Eta (|r - 1| + 1e-10)^q."""
    made = layer("Soft", lr=0.08, power_lr=0.5)
    made.weight.copy_(torch.tensor([[3.0, 4, 0, 0], [1, 0, 0, 0], [0.5, 0, 0, 0]]))
    expected = [0.08 * math.sqrt(4), 0.08 * 1e-5, 0.08 * math.sqrt(0.5)]
    rate = made.rate()
    assert isinstance(rate, torch.Tensor)
    assert rate.tolist() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("update", "expected"), [(0, 0.05), (1, 0.045), (5, 0.025), (10, 0.0), (11, 0.0)])
def test_linear_schedule_ends_at_zero(update: int, expected: float) -> None:
    spec = layer("Soft", adaptive=False, lr=0.05).spec
    assert rates.scheduled(spec, update, 10) == pytest.approx(expected)


def test_exponential_schedule_obeys_its_recursion() -> None:
    """lr <- (lr - m) e^(-s/T) + m, from eta to eta/div in T steps."""
    spec = layer("Soft", adaptive=False, lr=0.05, lr_decay="exp", speed=7, lr_div=96).spec
    total, end = 100, math.exp(-7)
    m = (0.05 / 96 - 0.05 * end) / (1 - end)
    lr = 0.05
    for k in range(total + 1):
        assert rates.scheduled(spec, k, total) == pytest.approx(lr)
        lr = (lr - m) * math.exp(-7 / total) + m
    assert rates.scheduled(spec, total, total) == pytest.approx(0.05 / 96)


def test_constant_schedule() -> None:
    spec = layer("Soft", adaptive=False, lr=0.05, lr_decay="constant").spec
    assert {rates.scheduled(spec, k, 10) for k in range(12)} == {0.05}


@pytest.mark.parametrize(
    ("epochs", "halvings"),
    [
        (1, []),
        (19, []),
        (20, [10, 15]),
        (49, [24, 36]),
        (50, [10, 17, 25, 30, 35, 40, 45]),
        (100, [20, 35, 50, 60, 70, 80, 90]),
    ],
)
def test_classifier_rate_halves(epochs: int, halvings: list[int]) -> None:
    factors = [rates.step_decay(epoch, epochs) for epoch in range(epochs)]
    assert factors == [0.5 ** sum(e >= h for h in halvings) for e in range(epochs)]


# -- initialisation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, 5])
@pytest.mark.parametrize("kind", ["normal", "positive"])
def test_initial_radius(kind: str, p: float) -> None:
    """The p-norms are R on average, for the normal and for the uniform initialisation."""
    made = layer("Soft", out_channels=400, fan_in=900, radius=25, weight_init=kind, lebesgue_p=p)
    made.initialise(torch.Generator().manual_seed(0))
    assert made.radius().pow(p).mean().pow(1 / p) == pytest.approx(25, rel=0.01)
    assert (made.weight >= 0).all() == (kind == "positive")
    if kind == "normal":
        assert abs(made.weight.mean()) < 0.02 * made.weight.std()


def test_known_spreads_for_p2() -> None:
    """Normal: std R/sqrt(N). Positive: uniform on [0, R sqrt(3/N))."""
    made = layer("Soft", out_channels=2000, fan_in=300, radius=10, weight_init="normal")
    made.initialise(torch.Generator().manual_seed(0))
    assert made.weight.std() == pytest.approx(10 / math.sqrt(300), rel=0.01)
    made = layer("Soft", out_channels=2000, fan_in=300, radius=10, weight_init="positive")
    made.initialise(torch.Generator().manual_seed(0))
    assert made.weight.max() == pytest.approx(10 * math.sqrt(3 / 300), rel=0.01)


# -- measures and forward -------------------------------------------------------------------------------------


def test_convergence_and_r1() -> None:
    made = layer("Soft")
    made.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.004, 0, 0], [0, 0, 1.5, 0]]))
    assert made.convergence() == pytest.approx((0 + 0.004 + 0.5) / 3, rel=1e-4)
    assert made.converged() == 2  # the linear threshold is 0.005
    conv = layer("Soft", "CNN")
    conv.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.008, 0, 0], [0, 0, 1.012, 0]]).view(3, 4, 1, 1))
    assert conv.converged() == 2  # the convolution's is 0.01


def test_measures_follow_the_weights() -> None:
    """Nothing is cached: radius and rate are those of weights that were just loaded."""
    made = layer("Soft")
    made.load_state_dict({"weight": torch.full((3, 4), 2.0)})
    assert made.radius().tolist() == [4, 4, 4]
    assert made.convergence() == 3


@pytest.mark.parametrize("mode", ["reflect", "zeros", "replicate", "circular"])
def test_padding_modes(mode: str) -> None:
    made = layer("Soft", "CNN", fan_in=2, kernel_size=3, padding=2, padding_mode=mode)
    made.weight.normal_()
    x = torch.randn(2, 2, 6, 6)
    padded = F.pad(x, (2, 2, 2, 2), mode="constant" if mode == "zeros" else mode)
    assert torch.allclose(made(x), F.conv2d(padded, made.weight), atol=1e-5)


def test_effective_weight_of_p3() -> None:
    made = layer("Soft", lebesgue_p=3)
    made.weight.copy_(torch.tensor([[1.0, -2, 0, 0.5]] * 3))
    x = torch.tensor([[1.0, 1, 1, 1]])
    assert made(x).tolist() == [[1 - 4 + 0.25] * 3]


def test_pre_triangle_replaces_u() -> None:
    """With e1 the output, and the u of the update, are relu(u - mean over channels)."""
    plain = layer("SoftKrotov", "CNN", pre_triangle=False)
    gated = layer("SoftKrotov", "CNN", pre_triangle=True)
    plain.weight.normal_()
    gated.weight.copy_(plain.weight)
    x = torch.randn(2, 4, 5, 5)
    u = plain(x)
    expected = (u - u.mean(1, keepdim=True)).relu()
    assert torch.allclose(gated(x), expected)
    dw, _ = gated.plasticity(x, gated.respond(x))
    y = gated.gate(expected)
    raw = gated.change(x, expected, y)
    assert torch.allclose(dw, raw / raw.abs().max())


def test_weights_are_no_parameters() -> None:
    """No optimiser of PyTorch touches Hebbian weights, and they are in the state dict."""
    made = layer("Soft", add_bias=True)
    assert list(made.parameters()) == []
    assert set(made.state_dict()) == {"weight", "bias"}
    assert not made.weight.requires_grad


def test_gradient_flows_through_a_layer_that_learns() -> None:
    """In a joint phase a BP block may lie below: its gradient is that of the weights before the update."""
    made = layer("Soft", lr=0.5)
    made.weight.normal_()
    before = made.weight.clone()
    x = torch.randn(3, 4, requires_grad=True)
    made.learn(x).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, before.sum(0).expand(3, 4))
    assert not torch.equal(made.weight, before)


@pytest.mark.parametrize(("rows", "inputs"), [(3, 8), (100, 8192)], ids=["small", "by oneDNN"])
def test_the_linear_layer_is_that_of_torch(rows: int, inputs: int) -> None:
    """Its products, its gradients, and those of a pack are those of ``nn.Linear`` in double precision."""
    assert (rows * inputs * 5 >= matmul.WORTH) == (rows == 100)
    made, plain = matmul.Linear(inputs, 5), torch.nn.Linear(inputs, 5)
    plain.load_state_dict(made.state_dict())
    plain.double()
    x = torch.randn(rows, inputs, requires_grad=True)
    exact = x.detach().double().requires_grad_()
    weighted = torch.randn(rows, 5)
    found = torch.autograd.grad((made(x) * weighted).sum(), (x, made.weight, made.bias))
    expected = torch.autograd.grad((plain(exact) * weighted).sum(), (exact, plain.weight, plain.bias))
    assert torch.allclose(made(x).double(), plain(exact), rtol=0, atol=1e-5)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a.double(), b, rtol=0, atol=1e-5 * float(b.abs().amax()))
    stacked = torch.stack([made.weight, 2 * made.weight]).detach()
    one, two = torch.vmap(lambda w: torch.func.functional_call(made, {"weight": w}, (x,)))(stacked)
    assert torch.allclose(two - one, F.linear(x, made.weight), rtol=0, atol=1e-5)


def test_a_product_is_the_same_from_views() -> None:
    """Transposed and strided matrices, as the weight gradient has them."""
    x, weight = torch.randn(700, 600).T[:, ::2], torch.randn(350, 64).T
    assert x.numel() * len(weight) >= matmul.WORTH
    exact = x.double() @ weight.double().T
    assert torch.allclose(matmul.linear(x, weight).double(), exact, rtol=0, atol=1e-4)
