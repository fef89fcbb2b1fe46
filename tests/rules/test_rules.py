"""Every registered rule against the contract, and what is particular to each.

Without it a rule could break its own equation and still learn something.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small import layer, maps
from torch import Tensor
from torch.nn import functional as F

from hebb.config.registry import RULES, HebbianRule
from hebb.config.vocabulary import Competition
from hebb.testing import RuleContract


class TestHard(RuleContract):
    method = "Hard"


class TestHardKrotov(RuleContract):
    method = "HardKrotov"


class TestSoft(RuleContract):
    method = "Soft"


class TestSoftRelu(RuleContract):
    method = "Soft"
    fields = {"soft_activation_fn": "relu"}


class TestSoftKrotov(RuleContract):
    method = "SoftKrotov"


class TestKrotov(RuleContract):
    method = "Krotov"


class TestKrotovOneMaximum(RuleContract):
    method = "Krotov"
    fields = {"normaliser": "layer", "ranking_param": 3, "punish_positive": True}


class TestKWTA(RuleContract):
    method = "KWTA"
    fields = {"winners": 2}


class TestOja(RuleContract):
    method = "Oja"
    fields = {"normaliser": "layer"}


class TestSanger(RuleContract):
    """The neurons are not equals, so renaming them does not commute; the change is that of its own equation."""

    method = "Sanger"
    fields = {"normaliser": "layer"}

    test_change_is_a_gradient = None
    test_the_p_sphere_is_invariant = None
    test_order_of_channels_commutes = None


class TestHebb(RuleContract):
    """Without decay there is no sphere, and no fixed point."""

    method = "Hebb"

    test_change_is_a_gradient = None
    test_the_p_sphere_is_invariant = None
    test_unit_weight_with_x_equal_w_is_fixed = None


class Cosine(RuleContract):
    """The change is that of an instar or of BCM, and a cosine of maps has a norm for each tap: patches are below."""

    test_change_is_a_gradient = None
    test_the_p_sphere_is_invariant = None
    test_unit_weight_with_x_equal_w_is_fixed = None
    test_conv_is_linear_on_patches = None


class TestHardInstar(Cosine):
    method = "HardInstar"


class TestHardInstarDot(RuleContract):
    """Behind a dot product it is a Hebbian layer like others, with a decay of its own."""

    method = "HardInstar"
    fields = {"response": "dot"}

    test_change_is_a_gradient = None
    test_the_p_sphere_is_invariant = None
    test_unit_weight_with_x_equal_w_is_fixed = None


class TestHardInstarUnlearns(RuleContract):
    """With Oja's decay it obeys all laws of p = 2, and it has no other p."""

    method = "HardInstar"
    fields = {"response": "dot", "losers": "unlearn"}

    test_the_p_sphere_is_invariant = None


class TestHardInstarPresynaptic(Cosine):
    method = "HardInstar"
    fields = {"presynaptic": "norm"}


class TestTemporalInstar(Cosine):
    """Its threshold is that of a pixel, over images."""

    method = "TemporalInstar"
    fields = {"window": 20}


class TestThresholdInstar(Cosine):
    """Three neurons of a group must be able to stand out."""

    method = "ThresholdInstar"
    fields = {"deviations": 0.5}


class TestBCM(Cosine):
    method = "BCM"


class TestBCMDot(RuleContract):
    """Without decay there is no sphere, and no fixed point."""

    method = "BCM"
    fields = {"response": "dot"}

    test_change_is_a_gradient = None
    test_the_p_sphere_is_invariant = None
    test_unit_weight_with_x_equal_w_is_fixed = None


class TestBCMSurround(Cosine):
    method = "BCM"
    fields = {"surround": 3}


class TestSupervised(RuleContract):
    method = "SupervisedSoftKrotov"


def test_every_hebbian_rule_has_a_contract() -> None:
    kinds = [*RuleContract.__subclasses__(), *Cosine.__subclasses__()]
    tested = {kind.method for kind in kinds if kind.method}
    assert tested == {rule.name for rule in RULES.entries() if isinstance(rule, HebbianRule)}


PADDED = {"reflect": "reflect", "zeros": "constant", "replicate": "edge", "circular": "wrap"}
"""numpy's names of the padding modes."""


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("mode", PADDED)
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 2), (3, 2)])
def test_a_cosine_of_maps_is_that_of_their_patches(stride: int, dilation: int, mode: str, groups: int) -> None:
    """Every output pixel divides by the norm of its own patch, and learns from it: y = u of the winner of a group."""
    geometry = {"kernel_size": 3, "stride": stride, "dilation": dilation, "padding": 2, "padding_mode": mode}
    made = layer("HardInstar", "CNN", fan_in=4, out_channels=6, groups=groups, lr=0.08, **geometry).double()
    x = maps(3, 4, 7, 9).double() * torch.rand(7, 9, generator=torch.Generator().manual_seed(1)).double()
    weight = maps(6, 4 // groups, 3, 3, seed=2).double()
    made.weight.copy_(weight)
    padded = torch.from_numpy(np.pad(x.numpy(), [(0, 0), (0, 0), (2, 2), (2, 2)], mode=PADDED[mode]))
    patches = F.unfold(padded, 3, dilation=dilation, stride=stride).transpose(1, 2)  # (B, L, 4 * 9)
    answers, changes = [], []
    for rows, w in zip(patches.flatten(0, 1).chunk(groups, dim=1), weight.chunk(groups), strict=True):
        taps = w / w.square().sum(dim=1, keepdim=True).sqrt()  # of norm 1 over the input channels
        u = rows @ taps.flatten(1).T / (rows.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()
        y = torch.where(u == u.amax(dim=1, keepdim=True), u, 0.0)
        change = y.T @ rows - y.sum(dim=0)[:, None] * w.flatten(1)
        answers.append(u)
        changes.append(change / change.abs().max())
    learnt = made.learn(x, 0.08)
    assert learnt.shape[2:] == tuple((size + 4 - 2 * dilation - 1) // stride + 1 for size in (7, 9))
    torch.testing.assert_close(learnt.flatten(2).transpose(1, 2).flatten(0, 1), torch.cat(answers, dim=1))
    torch.testing.assert_close((made.weight - weight).flatten(1), 0.08 * torch.cat(changes), atol=1e-12, rtol=1e-9)


U = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])


def test_hard_is_the_winner_alone() -> None:
    assert layer("Hard").gate(U).tolist() == [[1, 0, 0], [0, 1, 0]]


def test_hard_krotov_punishes_the_kth() -> None:
    made = layer("HardKrotov", delta=0.4, ranking_param=2)
    assert made.gate(U).tolist() == [[1, 0, pytest.approx(-0.4)], [0, 1, pytest.approx(-0.4)]]


def test_soft_is_the_softmax_at_inverse_temperature() -> None:
    y = layer("Soft", t_invert=2).gate(U)
    expected = [[math.exp(2 * v) / sum(math.exp(2 * w) for w in row) for v in row] for row in U.tolist()]
    assert torch.allclose(y, torch.tensor(expected))


def test_soft_krotov_turns_the_losers_against_the_input() -> None:
    soft, krotov = layer("Soft", t_invert=1).gate(U), layer("SoftKrotov", t_invert=1).gate(U)
    winner = torch.tensor([[True, False, False], [False, True, False]])
    assert torch.allclose(krotov[winner], soft[winner])
    assert torch.allclose(krotov[~winner], -soft[~winner])


@pytest.mark.parametrize("method", ["Soft", "SoftKrotov"])
def test_cold_soft_competition_is_hard(method: str) -> None:
    """As beta grows the softmax becomes the winner's one-hot."""
    gaps = [(layer(method, t_invert=t).gate(U) - layer("Hard").gate(U)).abs().max().item() for t in (1, 5, 30)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-6


@pytest.mark.parametrize(
    ("name", "f"),
    [
        ("relu", lambda v: max(v, 0)),
        ("repu", lambda v: max(v, 0) ** 15),
        ("sigmoid", lambda v: 1 / (1 + math.exp(-v))),
        ("tanh", math.tanh),
    ],
)
def test_soft_competition_by_other_functions(name: str, f: object) -> None:
    assert callable(f)
    y = layer("Soft", soft_activation_fn=name).gate(U)
    expected = [[f(v) / sum(map(f, row)) for v in row] for row in U.tolist()]
    assert torch.allclose(y, torch.tensor(expected), atol=1e-6)


@pytest.mark.parametrize("name", ["exp", *(case.value for case in Competition if case != Competition.EXP)])
@pytest.mark.parametrize("scale", [1.0, 30.0, -30.0])
def test_the_winner_is_the_largest_pre_activation(name: str, scale: float) -> None:
    """Sigmoid and tanh of 30 are 1 in float32 for all neurons; the shares of a negative sum are in reverse order."""
    u = torch.rand(50, 6, generator=torch.Generator().manual_seed(0)).add(0.5).mul(scale)
    soft = layer("Soft", soft_activation_fn=name).gate(u)
    krotov = layer("SoftKrotov", soft_activation_fn=name).gate(u)
    won = torch.zeros_like(u, dtype=torch.bool).scatter(1, u.argmax(dim=1, keepdim=True), True)
    assert torch.allclose(krotov, torch.where(won, soft, -soft), rtol=1e-3, atol=1e-30)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_a_power_competition_has_no_scale(scale: float) -> None:
    """u^15 leaves float32 above 370 and below 1e-3, and its shares do not."""
    made = layer("Soft", soft_activation_fn="repu")
    u = U.abs() + 0.5
    assert torch.allclose(made.gate(scale * u), made.gate(u), rtol=1e-4)
    assert made.gate(-u).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_no_neuron_above_zero_learns_nothing() -> None:
    """Relu competition without a positive u divides by zero unless it is guarded."""
    assert layer("Soft", soft_activation_fn="relu").gate(-U.abs()).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_supervised_gate_is_the_label() -> None:
    made = layer("SupervisedSoftKrotov")
    assert made.gate(U, torch.tensor([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(ValueError, match="labels"):
        made.gate(U)


def test_supervised_reads_labels_and_no_other_rule_does() -> None:
    assert {rule.name for rule in RULES.entries() if rule.labels} == {
        "SupervisedSoftKrotov",
        "SupervisedLPL",
        "LocalBP",
    }


def _train_radius(method: str, start: float, steps: int) -> Tensor:
    torch.manual_seed(0)
    made = layer(method, fan_in=12, radius=start, lr=0.1, power_lr=0.5)
    made.initialise(torch.Generator().manual_seed(1))
    prototypes = torch.rand(3, 12)
    for _ in range(steps):
        x = prototypes[torch.randint(3, (16,))] + 0.1 * torch.rand(16, 12)
        made.learn(x)
    return made.radius()


@pytest.mark.parametrize("start", [0.5, 3.0])
def test_radius_goes_to_one_with_positive_input(start: float) -> None:
    """Winners with u > 0 are pulled to the unit sphere from both sides (Hard keeps neurons that never win)."""
    soft = _train_radius("Soft", start, 1500)
    assert (soft - 1).abs().max() < 0.02
    hard = _train_radius("Hard", start, 1500)
    assert (hard - 1).abs().min() < 0.02


def test_radius_approaches_one_at_the_derived_rate() -> None:
    """One neuron on one input x, |x| = 1, w parallel to x: dr = rate (1 - r^2) r / max|dw| each step.

    With dw = r (1 - r^2) x and the largest entry of x called m, the normalised step is x/m, so r moves by
    rate/m a step while it is below 1, whatever r is.
    """
    x = torch.full((1, 4), 0.5)
    made = layer("Hard", fan_in=4, out_channels=1, adaptive=False, lr=0.01)
    made.weight.copy_(0.3 * x)
    radii = []
    for _ in range(20):
        made.learn(x, 0.01)
        radii.append(float(made.radius()))
    steps = torch.tensor(radii).diff()
    assert torch.allclose(steps, torch.full_like(steps, 0.01 / 0.5), atol=1e-5)


def test_anti_hebbian_losers_are_pushed_away() -> None:
    """A loser with u > 0 has c < 0, so its norm leaves the unit sphere."""
    made = layer("SoftKrotov", fan_in=4, t_invert=1)
    made.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0.8, 1, 0, 0], [0.8, 0, 1, 0]]))
    x = torch.tensor([[2.0, 0, 0, 0]])
    before = made.radius()
    made.learn(x)
    moved = made.radius() - before
    assert moved[0] == pytest.approx(0, abs=1e-3)  # the winner already has radius 1 in the direction of x
    assert (moved[1:] > 0).all()


# -- bias -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arch", "scale"), [("MLP", 1.0), ("CNN", 0.1)])
def test_bias_follows_its_equation(arch: str, scale: float) -> None:
    """Soft with exp: Db = (sum y - M e^(beta b)) / e^(beta b); b += lr_i (scale/beta) Db / max|Db|."""
    beta = 0.8
    made = layer("Soft", arch, add_bias=True, t_invert=beta, lr=0.1, power_lr=0.5)
    made.initialise(torch.Generator().manual_seed(0))
    assert made.bias is not None
    assert torch.allclose(made.bias, torch.full((3,), math.log(1 / 3) / beta))
    made.bias.copy_(torch.tensor([-1.0, -0.5, -2.0]))
    torch.manual_seed(0)
    x = torch.randn(5, 4, *([6, 6] if arch == "CNN" else []))
    b, w, rate = made.bias.clone(), made.weight.clone(), made.rate()
    dims = (0, 2, 3) if arch == "CNN" else (0,)
    u = (torch.einsum("bchw,nc->bnhw", x, w.flatten(1)) if arch == "CNN" else x @ w.T) + b.view(
        1, -1, *([1, 1] if arch == "CNN" else [])
    )
    y = (beta * u).softmax(1)
    m = y.sum() / 1  # the gate sums to one over neurons, so this is samples times pixels
    db = (y.sum(dims) - m * (beta * b).exp()) / (beta * b).exp()
    expected = b + rate * (scale / beta) * db / db.abs().max()
    answered = made.learn(x)
    assert torch.allclose(answered, u, atol=1e-5)
    assert torch.allclose(made.bias, expected, atol=1e-5)


def test_relu_bias_follows_its_equation() -> None:
    """Soft with relu: Db = sum y - M b - B."""
    made = layer("Soft", add_bias=True, soft_activation_fn="relu", t_invert=2.0)
    y = torch.rand(7, 3)
    bias = torch.tensor([0.1, -0.2, 0.3])
    step = made.spec.rule.bias_step
    assert step is not None
    assert torch.allclose(step(y, bias, made.spec), y.sum(0) - 7 * bias - 7)
