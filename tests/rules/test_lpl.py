"""LPL: published values of its losses, its gradient by hand, isolation of the blocks, invariances, ablations.

Without it a coefficient, a detach or an ablation could be wrong in a loss that still falls.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import small
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hebb.config import catalog, plan
from hebb.config.registry import RULES, LocalRule
from hebb.config.rule import LossContext
from hebb.config.specs import LayerSpec, make_layer
from hebb.core.errors import ConfigError, DivergenceError
from hebb.data import images
from hebb.nn import model
from hebb.nn.local_loss import LocalLoss, Pass
from hebb.probing import geometry
from hebb.rules import lpl, rates
from hebb.training import engine, features, train
from hebb.training.epoch import Epoch

LPL = "LPL-c6-k3-p1:relu:max_2_2_0:warmup=0 LPL-c8-k3-p1:relu:warmup=0 LPL-c8-k3-p1:relu:max_2_2_0:warmup=0 BP:flatten"
EASY = tuple(f"dataset_{name}.view_{key}" for name in ("sup", "unsup") for key in ("area=0.6", "flip=0", "colour=0"))
"""Views in which a digit of 8x8 pixels can be told."""
METHODS = ("LPL", "ContrastiveLPL", "SupervisedLPL", "LocalBP")


def golden() -> tuple[Tensor, Tensor]:
    """z1[b,i] = max(0, sin(1.3 b + 0.7 i) + 0.5), z2 with the phase 0.4 more: six samples, four neurons."""
    angle = 1.3 * torch.arange(6, dtype=torch.float64)[:, None] + 0.7 * torch.arange(4, dtype=torch.float64)
    return (angle.sin() + 0.5).clamp(min=0), ((angle + 0.4).sin() + 0.5).clamp(min=0)


def golden_maps() -> tuple[Tensor, Tensor]:
    """The same of a flat index: (3, 2, 2, 2)."""
    angle = 0.9 * torch.arange(24, dtype=torch.float64).view(3, 2, 2, 2)
    return (angle.sin() + 0.5).clamp(min=0), ((angle + 0.4).sin() + 0.5).clamp(min=0)


def layer(method: str = "LPL", arch: str = "MLP", **values: object) -> LayerSpec:
    given = {"out_channels": 4, **({"kernel_size": 1} if arch == "CNN" else {}), **values}
    return make_layer(method, arch, given, catalog.load().defaults, "test")


def passed(out: Tensor) -> Pass:
    """A block that passes its input on."""
    return Pass(out.detach(), out, out, nn.Identity())


def terms(views: tuple[Tensor, ...], method: str = "LPL", **values: object) -> dict[str, float]:
    """Return the terms of a loss as the block computes them."""
    arch = "CNN" if views[0].dim() == 4 else "MLP"
    loss = LocalLoss(layer(method, arch, **values), views[0].shape[1], 10).double()
    loss(torch.cat(views), torch.zeros(2 * len(views[0]), dtype=torch.int64), passed(torch.cat(views)))
    return loss.means()


# -- published values ---------------------------------------------------------------------------------------


def test_golden_losses() -> None:
    """Values of the published functions in double precision, to the digits they were written with."""
    found = terms(golden())
    for name, value in {"pull": 0.06364843, "push": 0.91352951, "decorr": 0.05766725, "loss": 1.55385043}.items():
        assert found[name] == pytest.approx(value, abs=0.6e-8), name


def test_golden_gradients() -> None:
    views = [z.requires_grad_() for z in golden()]
    loss = LocalLoss(layer(), 4, 10)(torch.cat(views), torch.zeros(12, dtype=torch.int64), passed(torch.cat(views)))
    first, second = torch.autograd.grad(loss, views)
    assert first.norm() == pytest.approx(0.20958955, abs=0.6e-8)
    assert second.norm() == pytest.approx(0.24309434, abs=0.6e-8)
    assert first[0, 0] == pytest.approx(-0.00060059, abs=0.6e-8)


def test_golden_negative_samples() -> None:
    found = terms(golden(), "ContrastiveLPL", projector=False)
    assert found["pull"] == pytest.approx(-0.97595235, abs=0.6e-8)
    assert found["push"] == pytest.approx(0.38491973, abs=0.6e-8)


def test_golden_stale_push() -> None:
    """The first step takes the logarithm, the second the statistics of the first, which here is the same batch."""
    loss = LocalLoss(layer(stale=True), 4, 10).double()
    found = []
    for _ in range(2):
        loss.reset_statistics()
        loss(torch.cat(golden()), torch.zeros(12, dtype=torch.int64), passed(torch.cat(golden())))
        found.append(loss.means()["push"])
    assert found == [pytest.approx(0.91352951, abs=0.6e-8), pytest.approx(-1.00159573, abs=0.6e-8)]


def test_golden_unpooled() -> None:
    found = terms(golden_maps(), pooling=False)
    for name, value in {"pull": 0.05429282, "push": 2.17171512, "decorr": 0.10837822}.items():
        assert found[name] == pytest.approx(value, abs=0.6e-8), name


# -- the gradient -------------------------------------------------------------------------------------------


def by_hand(first: Tensor, second: Tensor, pull: float = 1, push: float = 1, decorr: float = 10) -> Tensor:
    """Return dloss/dz1 of the printed rule, written as sums over samples and neurons."""
    samples, neurons = first.shape
    centred = first - first.mean(dim=0)
    variance = centred.square().sum(dim=0) / (samples - 1)
    covariance = torch.einsum("bi,bk->ik", centred, centred) / (samples - 1)
    gradient = pull * 2 * (first - second) / (samples * neurons)
    gradient = gradient - push * centred / ((samples - 1) * neurons * (variance + 1e-4))
    for i in range(neurons):
        others = [k for k in range(neurons) if k != i]
        along = sum(covariance[i, k] * centred[:, k] for k in others)
        gradient[:, i] += decorr * 2 / ((samples - 1) * (neurons**2 - neurons)) * along
    return gradient


@pytest.mark.parametrize("coefficients", [(1, 1, 10), (1, 0, 0), (0, 1, 0), (0, 0, 10), (0.3, 2.5, 7)])
def test_gradient_is_the_three_term_rule(coefficients: tuple[float, float, float]) -> None:
    torch.manual_seed(0)
    first, second = (torch.randn(7, 5, dtype=torch.float64).requires_grad_() for _ in range(2))
    values = dict(zip(("pull", "push", "decorr"), coefficients, strict=True))
    both = torch.cat([first, second])
    loss = LocalLoss(layer(**values), 5, 10)(both, torch.zeros(14, dtype=torch.int64), passed(both))
    found = torch.autograd.grad(loss, [first, second])
    with torch.no_grad():
        assert torch.allclose(found[0], by_hand(first, second, **values), atol=1e-15)
        assert torch.allclose(found[1], by_hand(second, first, **values), atol=1e-15)


@pytest.mark.parametrize("arch", ["MLP", "CNN"])
def test_change_of_the_weights_is_signal_times_input(arch: str) -> None:
    """The rule is local: -dloss/dw = sum over samples and pixels of y x, y = -f'(u) dloss/dz / pixels."""
    torch.manual_seed(0)
    text = "LPL-c5:flatten:relu:warmup=0 BP" if arch == "MLP" else "LPL-c5-k3-p1:relu:warmup=0 BP:flatten"
    block = model.build(small.config(text))[0].double()
    x = torch.randn(12, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        u = block.pre_activation(x)
        z = u.relu() if arch == "MLP" else u.relu().mean(dim=(2, 3))
        first, second = z.chunk(2)
        gradient = torch.cat([by_hand(first, second), by_hand(second, first)])
        if arch == "MLP":
            y, patches = -gradient * (u > 0), x.flatten(1)
            change, bias = y.T @ patches, y.sum(dim=0)
        else:
            y = -gradient[:, :, None, None] * (u > 0) / 64  # (B, C, H, W)
            patches = F.unfold(x, 3, padding=1)  # (B, C_in k k, L)
            change, bias = torch.einsum("bcl,bpl->cp", y.flatten(2), patches), y.sum(dim=(0, 2, 3))
    block.descend(x, torch.zeros(12, dtype=torch.int64))
    assert torch.allclose(block.layer.weight.grad.flatten(1), -change, atol=1e-12)
    assert torch.allclose(block.layer.bias.grad, -bias, atol=1e-12)


def test_a_silent_neuron_costs_the_floor_and_feels_nothing() -> None:
    z = torch.zeros(5, 1, dtype=torch.float64)
    assert float(lpl.push(z)) == pytest.approx(-math.log(1e-4)) == pytest.approx(9.21, abs=0.001)
    u = torch.full((5, 1), -1.0, requires_grad=True)
    lpl.push(u.relu()).backward()
    assert u.grad is not None
    assert (u.grad == 0).all()


# -- invariances --------------------------------------------------------------------------------------------


def pooled_batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(6, 5, dtype=torch.float64), torch.rand(6, 5, dtype=torch.float64)


@pytest.mark.parametrize("method", METHODS[:2])
def test_order_of_images_neurons_and_views(method: str) -> None:
    first, second = pooled_batch()
    images_, neurons = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([4, 2, 0, 1, 3])
    given = {"projector": False}
    want = terms((first, second), method, **given)
    for other in (
        (first[images_], second[images_]),
        (first[:, neurons], second[:, neurons]),
        (second, first),
    ):
        assert terms(other, method, **given) == pytest.approx(want, rel=1e-12)
    mismatched = terms((first, second[images_]), method, **given)
    assert mismatched["pull"] != pytest.approx(want["pull"])
    assert mismatched["push"] == pytest.approx(want["push"], rel=1e-12)


def test_shifts_and_scales() -> None:
    """A common shift moves nothing; a scale s multiplies pull by s^2 and decorr by s^4, and lowers push by ln s^2."""
    first, second = (50 * z for z in pooled_batch())  # far above the floor of the logarithm
    want = terms((first, second))
    assert terms((first + 3, second + 3)) == pytest.approx(want, rel=1e-9)
    scaled = terms((2 * first, 2 * second))
    assert scaled["pull"] == pytest.approx(4 * want["pull"])
    assert scaled["decorr"] == pytest.approx(16 * want["decorr"])
    assert scaled["push"] == pytest.approx(want["push"] - math.log(4), abs=1e-5)


def test_independent_neurons_have_no_decorrelation_loss_and_copies_have_most() -> None:
    pattern = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    assert float(lpl.decorrelation(pattern)) == pytest.approx(0)
    copies = pattern[:, :1].expand(-1, 3)
    assert float(lpl.decorrelation(copies)) == pytest.approx((4 / 3) ** 2)


def test_maps_of_one_pixel_are_vectors() -> None:
    first, second = pooled_batch()
    maps = (first[:, :, None, None], second[:, :, None, None])
    assert terms(maps, pooling=False) == pytest.approx(terms((first, second)), rel=1e-12)
    assert terms(maps, pooling=True) == pytest.approx(terms((first, second)), rel=1e-12)


def test_pull_as_two_stopped_halves_is_the_same_step() -> None:
    views = [z.clone().requires_grad_() for z in golden()]
    whole = torch.autograd.grad(lpl.pull(*views), views)
    first = torch.autograd.grad(lpl.pull(views[0], views[1].detach()), views[0])[0]
    second = torch.autograd.grad(lpl.pull(views[0].detach(), views[1]), views[1])[0]
    assert torch.equal(whole[0], first)
    assert torch.equal(whole[1], second)


def test_shuffled_positives_permute_the_pull_alone() -> None:
    first, second = pooled_batch()
    loss = LocalLoss(layer(shuffle=True), 5, 10)
    loss.positives = torch.Generator().manual_seed(3)
    both = torch.cat([first, second])
    loss(both, torch.zeros(12, dtype=torch.int64), passed(both))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    assert order.tolist() != list(range(6))
    found = loss.means()
    want = terms((first, second))
    assert found["pull"] == pytest.approx(float((first - second[order]).square().mean()))
    assert (found["push"], found["decorr"]) == (pytest.approx(want["push"]), pytest.approx(want["decorr"]))


def test_every_block_of_a_step_has_the_same_order_and_every_step_another(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, ...]] = []

    def spy(self: LocalLoss, view: Tensor) -> Tensor:
        drawn.append(tuple(torch.randperm(len(view), generator=self.positives).tolist()))
        return torch.tensor(drawn[-1])

    monkeypatch.setattr(LocalLoss, "_order", spy)
    made = small.config(LPL, "b*.layer.shuffle=1", "dataset_unsup.epochs=2", mode="consecutive")
    small.run(made)
    steps = [set(drawn[i : i + 3]) for i in range(0, len(drawn), 3)]  # ten steps an epoch, three blocks each
    assert len(drawn) == 60
    assert all(len(step) == 1 for step in steps)
    assert len(set.union(*steps)) == 20


def test_supervised_loss_is_the_mean_cross_entropy_of_its_own_classifier() -> None:
    torch.manual_seed(0)
    loss = LocalLoss(layer("SupervisedLPL"), 4, 3)
    z, labels = torch.rand(10, 4), torch.tensor([0, 2, 1, 1, 0])
    (linear,) = loss.head
    want = F.cross_entropy(linear(z), labels.repeat(2))
    assert loss(z, labels.repeat(2), passed(z)).item() == pytest.approx(want.item(), rel=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_projector_is_two_layers_with_rectifiers(bias: bool) -> None:
    loss = LocalLoss(layer(projector=True, add_bias=bias), 512, 10)
    kinds = [type(module) for module in loss.head]
    assert kinds == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU]
    assert [tuple(p.shape) for p in loss.parameters() if p.dim() == 2] == [(2048, 512), (256, 2048)]
    assert sum(p.numel() for p in loss.parameters() if p.dim() == 1) == (2048 + 256) * bias


def test_vgg_has_the_published_numbers_of_parameters() -> None:
    network = model.Network(catalog.load().models["9LPLVggCIFAR"].network, (3, 32, 32), 10)
    convolutions = sum(p.numel() for i in range(8) for p in network[i].layer.parameters())
    assert convolutions == 9_220_480
    heads = [LocalLoss(layer("LPL", projector=True), network[i].shapes.out[0], 10) for i in range(8)]
    assert sum(p.numel() for head in heads for p in head.parameters()) == 9_848_832


def test_initial_weights_are_those_of_torch() -> None:
    """Uniform in +-1/sqrt(fan-in), weights and biases: 0.1925 for three channels of 3x3 pixels."""
    network = model.Network(catalog.load().models["9LPLVggCIFAR"].network, (3, 32, 32), 10).initialise(0)
    for i, fan_in in ((0, 27), (1, 576)):
        bound = fan_in**-0.5
        for parameter in network[i].layer.parameters():
            assert 0.9 * bound < parameter.abs().max() <= bound
            assert parameter.detach().std() == pytest.approx(bound / 3**0.5, rel=0.15)


# -- isolation ----------------------------------------------------------------------------------------------


def batch(made: object) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.rand(40, 1, 8, 8), torch.arange(20).repeat(2) % 10


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("projector", [0, 1])
@pytest.mark.parametrize("trained", range(3))
def test_a_block_moves_itself_alone(method: str, projector: int, trained: int) -> None:
    """One update of block i: every other parameter keeps its bits, and every other gradient stays as it was."""
    text = LPL.replace("LPL", method)
    made = small.config(
        text, f"b*.layer.projector={projector}", "b*.layer.projector_hidden=9", training_blocks=(trained,)
    )
    phase = plan.phases(made)[0]
    network = model.build(made)
    others = [p for i in range(4) if i != trained for p in network[i].parameters()]
    for parameter in others:
        parameter.grad = torch.full_like(parameter, 7.0)
    before = {name: p.clone() for name, p in network.named_parameters()}
    data = images.load(made.dataset_unsup, Path("nowhere"), 0, torch.device("cpu"))
    split = features.inputs(network, phase, data, made, None, train.Report()).train
    optimiser = train.optimiser_of(made, phase, network)
    assert optimiser is not None
    at = Epoch(seed=0, phase=phase, phase_index=0, epoch=0)
    engine.hebbian(network, split, at, lambda n: None, optimiser)
    assert all((p.grad == 7).all() for p in others)
    moved = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if name.startswith(f"blocks.{trained}.")}


@pytest.mark.parametrize("method", METHODS)
def test_no_gradient_crosses_a_block(method: str) -> None:
    """The gradient of block 1 is the same whatever stands above and whether the block below learns too."""
    made = small.config(LPL.replace("LPL", method))
    x, labels = batch(made)
    network = model.build(made)
    together = x
    for i in range(3):
        together = network[i].descend(together, labels)
        assert not together.requires_grad
    grads = [p.grad.clone() for p in network[1].parameters()]
    network.zero_grad()
    with torch.no_grad():
        below = network[0](x)
    network[1].descend(below, labels)
    assert all(p.grad is None for p in network[0].parameters())
    assert all(torch.equal(p.grad, g) for p, g in zip(network[1].parameters(), grads, strict=True))


def test_end_to_end_is_back_prop_of_the_top_loss() -> None:
    """With loss=above the blocks below get the gradient that autograd gives of the last block's loss."""
    made = small.config(LPL, "b0.layer.loss=above", "b1.layer.loss=above")
    x, labels = batch(made)
    network, x = model.build(made).double(), x.double()
    out = x
    for i in range(3):
        out = network[i].descend(out, labels)
    found = [p.grad.clone() for i in range(3) for p in network[i].parameters()]
    parameters = [p for i in range(3) for p in network[i].parameters()]
    z = network(x, stop=3).mean(dim=(2, 3))
    first, second = z.chunk(2)
    loss = sum(
        lpl.lpl((first, second), layer(), LossContext(labels=labels, inputs=(), fed=(), answers=(), module=None))[n] * c
        for n, c in (("pull", 1), ("push", 1), ("decorr", 10))
    )
    want = torch.autograd.grad(loss, parameters)
    assert all(torch.allclose(f, w, atol=1e-12) for f, w in zip(found, want, strict=True))
    assert all((f != 0).any() for f in found)


def test_one_optimiser_is_an_optimiser_for_each_block() -> None:
    """Adam works element by element and no parameter has two losses, so blocks could have been trained apart."""
    made = small.config(LPL, "b*.layer.weight_decay=0.1", mode="consecutive")
    x, labels = batch(made)
    ours, apart = model.build(made), model.build(made)
    optimiser = train.optimiser_of(made, plan.phases(made)[0], ours)
    alone = [
        torch.optim.Adam(
            [
                {"params": [apart[i].layer.weight], "weight_decay": 0.1},
                {"params": [apart[i].layer.bias], "weight_decay": 0.0},
            ],
            lr=1e-3,
            fused=True,
        )
        for i in range(3)
    ]
    assert optimiser is not None
    for _ in range(3):
        optimiser.zero_grad()
        out, other = x, x
        for i in range(3):
            out = ours[i].descend(out, labels)
        for i in range(3):
            alone[i].zero_grad()
            below = other
            other = apart[i].descend(below, labels)
        for single in alone:
            single.step()
        optimiser.step()
    for a, b in zip(ours.parameters(), apart.parameters(), strict=True):
        assert torch.equal(a, b)


# -- runs ---------------------------------------------------------------------------------------------------


def test_warm_up_and_cosine_take_the_published_rates() -> None:
    """800 epochs with 10 of warm-up: 0, 1.11e-4, ..., 1e-3 at 9 and 10, 5.10e-4 at 400, 1.004e-6 at 799."""
    spec = layer(lr_sup=1e-3)
    want = {0: 0, 1: 1e-3 / 9, 9: 1e-3, 10: 1e-3, 400: 5.10e-4, 799: 1.004e-6}
    for epoch, rate in want.items():
        assert rates.warm_cosine(spec, epoch, 800) == pytest.approx(rate, rel=2e-3), epoch
    assert rates.warm_cosine(layer(warmup=0), 0, 1) == 1e-3
    assert [rates.warm_cosine(layer(warmup=1), e, 3) for e in (0, 1)] == [0, 1e-3]
    assert [rates.warm_cosine(layer(warmup=3, start_lr=1e-4), e, 9) for e in (0, 1, 2)] == pytest.approx(
        [1e-4, 5.5e-4, 1e-3]
    )


def test_the_run_takes_these_rates() -> None:
    made = small.config(LPL, "b*.layer.warmup=2", "dataset_unsup.epochs=5", mode="consecutive")
    rows = [row for row in small.run(made).rows if row["kind"] == "hebbian"]
    want = [rates.warm_cosine(layer(warmup=2), epoch, 5) for epoch in range(5)]
    assert [row["lr"] for row in rows] == want
    assert rows[0]["train_loss"] > rows[-1]["train_loss"]


OFTEN = [(method, mode) for method in METHODS for mode in plan.MODES if mode != "simultaneous" or method == "LPL"]
RARELY = [pytest.param(method, "simultaneous", marks=pytest.mark.slow) for method in METHODS if method != "LPL"]
"""Their parts are tried with LPL in that mode, and with the method in the others."""


@pytest.mark.parametrize(("method", "mode"), [*OFTEN, *RARELY])
def test_every_method_in_every_mode(method: str, mode: str) -> None:
    """Twice the same bits, all blocks move, and the classifier on top does better than a guess."""
    text = LPL.replace("LPL", method)
    rates_ = ("b*.layer.lr_sup=0.004", "classifier.lr=0.02")
    made = small.config(text, *EASY, *rates_, "dataset_unsup.epochs=3", "dataset_sup.epochs=16", mode=mode)
    first, second = small.run(made), small.run(made)
    start = model.build(made).state_dict()
    for name, tensor in first.network.state_dict().items():
        assert torch.equal(tensor, second.network.state_dict()[name])
        assert not torch.equal(tensor, start[name]), name
    assert first.metrics["train_loss"] < math.log(10) - 0.1
    views = RULES.get(method, "test").views
    assert [phase.views for phase in plan.phases(made)] == [
        1 if p.kind == "backprop" else views for p in plan.phases(made)
    ]


def test_beside_a_hebbian_rule() -> None:
    """One phase with both: the Hebbian block sees both views and makes its own step, the optimiser moves the other."""
    made = small.config("Soft-c6-k3-p1-t1-lr0.08:bn:triangle LPL-c8-k3:relu:warmup=0 BP:flatten", mode="consecutive")
    assert plan.phases(made)[0].blocks == (0, 1)
    result, start = small.run(made), model.build(made).state_dict()
    for i in range(3):
        name = f"blocks.{i}.layer.weight"
        assert not torch.equal(result.network.state_dict()[name], start[name])


def test_statistics_of_the_batch_before_survive_an_interruption(tmp_path: Path) -> None:
    changes = (
        "b*.layer.stale=1",
        "b*.layer.shuffle=1",
        "b*.layer.warmup=1",
        "dataset_unsup.epochs=3",
        "dataset_sup.epochs=2",
    )
    made = small.config(LPL, *changes, mode="consecutive")
    whole = small.run(made, tmp_path / "whole")

    class Stop(train.Report):
        left = 15  # in the second epoch of ten batches

        def progress(self, images: int) -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    place = train.Place(datasets=Path("nowhere"), folder=tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        train.run(made, Stop(), place=place)
    again = small.run(made, tmp_path / "cut", carry_on=True)
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name
    strip = lambda rows: [{**row, "images_per_second": 0} for row in rows]  # noqa: E731
    assert strip(again.rows) == strip(whole.rows)


def represented(*changes: str) -> dict[str, float]:
    """Train the blocks, and return variance, correlation and (squared distance of two views)/(variance) at the top."""
    base = ("dataset_unsup.epochs=30", "b*.layer.lr_sup=0.005")
    made = small.config(LPL, *EASY, *base, *changes, mode="consecutive", training_blocks=(0, 1, 2))
    network = small.run(made).network
    split = images.load(made.dataset_unsup, Path("nowhere"), 0, torch.device("cpu")).train
    varied = torch.Generator().manual_seed(5)
    with torch.no_grad():
        first, second = (
            network(x, stop=3).mean(dim=(2, 3)).chunk(2) for x, _ in split.batches(200, None, varied, views=2)
        ).__next__()
    numbers = geometry.measure(2, first, split.labels).numbers
    assert numbers["variance"] is not None
    return {
        "variance": numbers["variance"],
        "correlation": numbers["correlation"] or 1.0,
        "mismatch": float(lpl.pull(first, second)) / max(numbers["variance"], 1e-12),
    }


def test_ablations() -> None:
    """Without push the outputs shrink, without decorrelation the neurons agree, without pull the views differ."""
    whole = represented()
    assert represented("b*.layer.push=0")["variance"] < 0.05 * whole["variance"]
    assert represented("b*.layer.decorr=0")["correlation"] > whole["correlation"] + 0.1
    assert represented("b*.layer.pull=0")["mismatch"] > 1.1 * whole["mismatch"]


# -- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "changes", "mode", "message"),
    [
        (LPL, ("b0.layer.pull=0", "b0.layer.push=0", "b0.layer.decorr=0"), "successive", "nothing to learn from"),
        (LPL, ("b0.layer.pooling=0", "b0.layer.projector=1"), "successive", "projector=1"),
        (LPL, ("b0.layer.stale=1", "b0.layer.pooling=0"), "successive", "stale=1"),
        (LPL, ("b0.layer.shuffle=1", "b0.layer.pooling=0"), "successive", "shuffle=1"),
        (LPL, ("b0.layer.warmup=1",), "successive", "warmup must be < 1, the epochs on Digits, got 1"),
        (LPL, ("b2.layer.loss=above",), "consecutive", "b2: learns from the loss of b3"),
        (LPL, ("b0.layer.loss=above", "b1.layer.pooling=0"), "consecutive", "b1: pooling=0"),
        (LPL, ("dataset_unsup.batch_size=1",), "consecutive", "two images or more"),
        (LPL, ("dataset_unsup.batch_size=199",), "consecutive", "leave one alone"),
        (LPL, ("dataset_unsup.augmentation=1",), "consecutive", "vary the images already"),
        (LPL, ("dataset_unsup.zca=1",), "consecutive", "zca"),
        (LPL, ("dataset_sup.held=1",), "consecutive", "dataset_sup: held"),
        ("LPL-c4:flatten:relu:pooling=0 BP", (), "successive", "has no 'pooling'"),
        ("LPL-c4-a2:flatten:relu BP", (), "successive", "does nothing for LPL"),
        ("Soft-c4-pull1:flatten BP", (), "successive", "does nothing for Soft"),
        ("SupervisedLPL:flatten:relu", (), "successive", "gives no class at the end"),
        ("BP-c4:flatten:relu LPL-c4:relu:warmup=0 BP", (), "simultaneous", "above b0, which learns by back-prop"),
        ("SupervisedLPL-c4-k3:relu:warmup=0 BP:flatten", ("dataset_unsup.dataset=CIFAR100",), "consecutive", "labels"),
    ],
)
def test_bad_input(network: str, changes: tuple[str, ...], mode: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made = small.config(network, *changes, mode=mode)
        model.build(made)
        plan.phases(made)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_divergence_names_block_and_update() -> None:
    made = small.config(LPL, "b1.layer.lr_sup=1e30", mode="consecutive")
    with pytest.raises(DivergenceError, match=r"loss of block b1 is not finite from update \d+ of epoch 1 .*lr_sup"):
        small.run(made)


def test_every_local_rule_is_tested_here() -> None:
    elsewhere = {"SPHeRe", "SCFF"}  # in files of their own
    assert {rule.name for rule in RULES.entries() if isinstance(rule, LocalRule)} == {*METHODS, *elsewhere}
