"""Krotov and Hopfield's rule: published numbers, its schedule, its batch norm, and when it stops.

The numbers of ``test_published_*`` were computed with the published BioPyTorch functions; the rest is the paper's
equations worked out by hand.

Without it the punished neuron could have the wrong rank, and filters would still form.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from conftest import Command
from hypothesis import given
from hypothesis import strategies as st
from random_specs import SMALL
from torch import Tensor

from hebb.config import catalog, search_space
from hebb.config.specs import LayerSpec, make_layer
from hebb.nn.layers import ConvHebbLayer, LinearHebbLayer
from hebb.rules import rates
from hebb.rules.ranking import first_and_kth

DEFAULTS = catalog.load().defaults


def spec(arch: str = "MLP", **values: object) -> LayerSpec:
    """Return a Krotov layer of three neurons."""
    given = {"out_channels": 3, **({"kernel_size": 2} if arch == "CNN" else {}), **values}
    return make_layer("Krotov", arch, given, DEFAULTS, "test")


# -- published numbers --------------------------------------------------------------------------------------

X = [[0.1, 0.2, 0.3, 0.4], [0.1, 0.3, 0.3, 0.1], [0.4, 0.1, 0.1, 0.4]]
W = [[1.62, -0.61, -0.53, -1.07], [0.87, -2.30, 1.74, -0.76], [0.32, -0.25, 1.46, -2.06]]


def linear(**values: object) -> LinearHebbLayer:
    """Return the layer of the published example."""
    made = LinearHebbLayer(spec(**values), 4, 3)
    made.weight.copy_(torch.tensor(W))
    return made


def test_published_linear_step() -> None:
    made, x = linear(lebesgue_p=2, ranking_param=2, delta=0.4), torch.tensor(X)
    u = made.respond(x)
    y = made.gate(u)
    assert y.T.tolist() == [
        [0, 0, 1],
        [1, pytest.approx(-0.4), pytest.approx(-0.4)],
        [pytest.approx(-0.4), 1, 0],
    ]
    raw = [
        [0.22828, 0.16466, 0.15618, 0.51342],
        [-0.02396, -0.16102, 0.29208, 0.13358],
        [-0.05219, 0.30765, -0.33188, 0.66224],
    ]
    assert torch.allclose(made.change(x, u, y), torch.tensor(raw), atol=1e-5)
    normalised = [
        [0.34471, 0.24864, 0.23583, 0.77527],
        [-0.03618, -0.24314, 0.44104, 0.20170],
        [-0.07881, 0.46456, -0.50114, 0.99998],
    ]
    assert torch.allclose(made.plasticity(x, u)[0], torch.tensor(normalised), atol=1e-5)


def test_published_linear_step_with_p_3() -> None:
    made, x = linear(lebesgue_p=3, ranking_param=3, delta=0.1), torch.tensor(X)
    normalised = [
        [-0.47015, 0.43718, 0.39346, 0.99999],
        [0.30925, -0.39412, 0.71193, 0.21629],
        [-0.10010, 0.39902, -0.42360, 0.99924],
    ]
    assert torch.allclose(made.plasticity(x, made.respond(x))[0], torch.tensor(normalised), atol=1e-5)


def test_published_radii_after_300_steps() -> None:
    """At a constant rate of 0.1 the published loop ends near sum w^2 = 1.015, 1.003, 1.015."""
    made, x = linear(lebesgue_p=2, ranking_param=2, delta=0.4), torch.tensor(X)
    for _ in range(300):
        made.learn(x, 0.1)
    assert made.weight.square().sum(1).tolist() == pytest.approx([1.015, 1.003, 1.015], abs=2e-3)


def test_published_conv_step() -> None:
    """One image of 3 x 3 pixels, three filters of 2 x 2, four patches: one divisor per filter."""
    made = ConvHebbLayer(spec("CNN", lebesgue_p=3, ranking_param=2, delta=0.4), 1, 3)
    filters = [[0.5, -0.2, 0.3, 0.8], [-0.7, 0.4, 0.6, -0.1], [0.2, 0.9, -0.5, 0.35]]
    made.weight.copy_(torch.tensor(filters).view(3, 1, 2, 2))
    x = torch.tensor([[0.9, -0.4, 0.2], [0.1, 0.7, -0.6], [-0.3, 0.5, 1.1]]).view(1, 1, 3, 3)
    u = made.respond(x)
    currents = [[0.698, -0.429, 0.29, 0.948], [-0.476, 0.486, -0.05, -0.27], [-0.22725, -0.1025, 0.70725, -0.44825]]
    assert torch.allclose(u.view(3, 4), torch.tensor(currents), atol=1e-5)
    normalised = [
        [0.81621, -0.99999, 0.26796, 0.38603],
        [-0.26942, 0.20640, 0.14644, -0.99999],
        [-0.99996, 0.09246, -0.74830, 0.62088],
    ]
    assert torch.allclose(made.plasticity(x, u)[0].view(3, 4), torch.tensor(normalised), atol=1e-5)


# -- the rank -------------------------------------------------------------------------------------------------


def by_sorting(row: list[float], k: int, delta: float) -> set[tuple[float, float]]:
    """Return (u, y) of the two neurons that move: of equals any may be taken."""
    ranked = sorted(row, reverse=True)
    return {(ranked[0], 1.0), (ranked[k - 1], -delta)}


@SMALL
@given(st.data())
def test_exactly_two_neurons_of_a_sample_move(data: st.DataObject) -> None:
    """Also among equals, and wherever the competition lies in memory."""
    neurons = data.draw(st.integers(2, 9))
    k = data.draw(st.integers(2, neurons))
    values = st.sampled_from([-1.5, -0.25, 0.0, 0.5, 2.0]) | st.floats(-3, 3, width=32)
    rows = data.draw(st.lists(st.lists(values, min_size=neurons, max_size=neurons), min_size=4, max_size=4))
    u = torch.tensor(rows, dtype=data.draw(st.sampled_from([torch.float32, torch.float64])))
    maps = u.view(2, 2, 1, neurons).permute(0, 3, 1, 2)  # channels last
    for y in (
        first_and_kth(u, k, 0.375),
        first_and_kth(maps, k, 0.375).permute(0, 2, 3, 1).reshape(4, neurons),
        first_and_kth(maps.contiguous(), k, 0.375).permute(0, 2, 3, 1).reshape(4, neurons),
    ):
        assert (y != 0).sum(1).tolist() == [2] * 4
        for row, answer in zip(u, y, strict=True):
            moved = {(float(row[i]), float(answer[i])) for i in answer.nonzero().flatten()}
            assert moved == by_sorting(row.tolist(), k, 0.375)


def test_half_precision_ranks_alike() -> None:
    u = torch.randperm(24 * 7, generator=torch.Generator().manual_seed(0)).view(24, 7).float()
    assert torch.equal(first_and_kth(u.bfloat16(), 3, 0.5).float(), first_and_kth(u, 3, 0.5))


def test_delta_0_punishes_nobody() -> None:
    y = first_and_kth(torch.tensor([[3.0, 1.0, 2.0]]), 2, 0.0)
    assert y.tolist() == [[1, 0, 0]]


def test_only_a_positive_current_is_punished_when_asked() -> None:
    u = torch.tensor([[2.0, -1.0, -3.0], [2.0, 1.0, -3.0]])
    always, positive = (
        LinearHebbLayer(spec(delta=0.4, ranking_param=2, punish_positive=p), 4, 3).gate(u) for p in (False, True)
    )
    assert always.tolist() == [[1, pytest.approx(-0.4), 0]] * 2
    assert positive.tolist() == [[1, 0, 0], [1, pytest.approx(-0.4), 0]]


# -- the step -------------------------------------------------------------------------------------------------


def test_a_neuron_that_neither_wins_nor_is_punished_stays() -> None:
    made = ConvHebbLayer(spec("CNN", out_channels=5, ranking_param=2, lebesgue_p=2), 1, 5)
    torch.manual_seed(0)
    made.weight.copy_(torch.rand(5, 1, 2, 2))
    made.weight[3] = -9.0
    before = made.weight.clone()
    made.learn(torch.rand(4, 1, 5, 5), 0.1)
    assert torch.equal(made.weight[3], before[3])
    assert not torch.equal(made.weight, before)


def test_each_filter_moves_by_the_rate() -> None:
    """The largest move of a filter that learns is the rate; with one maximum per layer only the largest of all."""
    torch.manual_seed(1)
    x = torch.randn(6, 2, 6, 6)
    for normaliser in ("filter", "layer"):
        made = ConvHebbLayer(spec("CNN", normaliser=normaliser), 2, 3)
        made.weight.normal_()
        before = made.weight.clone()
        made.learn(x, 0.05)
        moves = (made.weight - before).flatten(1).abs().amax(1)
        assert float(moves.max()) == pytest.approx(0.05, rel=1e-4)
        assert (moves < 0.0499).any() == (normaliser == "layer")


def test_the_start_does_not_know_the_fan_in() -> None:
    """N(0, 1) or U(0, 1) for 4 inputs as for 4000."""
    for fan_in in (40, 4000):
        made = LinearHebbLayer(spec(out_channels=500), fan_in, 500)
        made.initialise(torch.Generator().manual_seed(0))
        assert float(made.weight.mean()) == pytest.approx(0, abs=0.03)
        assert float(made.weight.std()) == pytest.approx(1, abs=0.03)
        made.spec = spec(out_channels=500, start="uniform")
        made.initialise(torch.Generator().manual_seed(0))
        assert 0 <= float(made.weight.min()) < float(made.weight.max()) < 1
        assert float(made.weight.mean()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("p", [2, 3, 5])
def test_radii_go_to_the_p_sphere(p: int) -> None:
    """Winners of positive current: sum |w|^p = 1 to 1 % when the rate falls; the published test of convergence."""
    torch.manual_seed(0)
    made = LinearHebbLayer(spec(out_channels=4, lebesgue_p=p, delta=0.05, ranking_param=2), 20, 4)
    made.initialise(torch.Generator().manual_seed(2))
    centres = torch.randn(4, 20)
    made.weight.copy_(centres + 0.3 * made.weight)  # each neuron near one cluster, so that all of them win
    assert float(made.norm_error()) > 1
    for step in range(1500):
        x = centres[torch.randint(4, (40,))] + 0.1 * torch.randn(40, 20)
        made.learn(x, 0.05 * (1 - step / 1500))
    norms = made.weight.abs().pow(p).sum(1)
    assert norms.tolist() == pytest.approx([1] * 4, abs=0.01)
    assert float(made.norm_error()) == pytest.approx(float((norms - 1).abs().max()), abs=1e-6)


# -- the schedule ---------------------------------------------------------------------------------------------

CONV, FULL = spec("CNN"), spec("MLP")
LIBRARY = spec("CNN", lr=0.01, lr_floor=0.003, lr_fall=1)


@pytest.mark.parametrize(
    ("layer", "epoch", "rate"),
    [
        *((CONV, e, r) for e, r in ((0, 0.007), (1, 0.0032), (2, 0.0015), (3, 0.00073), (5, 0.00023))),
        *((FULL, e, r) for e, r in ((0, 0.1), (1, 0.0910), (2, 0.0828), (3, 0.0754), (5, 0.0626))),
        *((LIBRARY, e, r) for e, r in ((0, 0.01), (1, 0.0056), (2, 0.0039), (3, 0.0033), (5, 0.0030))),
    ],
)
def test_published_rates(layer: LayerSpec, epoch: int, rate: float) -> None:
    """After so many epochs of 625 batches, however many epochs the phase may last."""
    for epochs in (6, 20):
        found = rates.scheduled(layer, epoch * 625, epochs * 625, epochs)
        assert found == pytest.approx(rate, rel=0.03)


@pytest.mark.parametrize(
    ("layer", "epochs", "total"),
    [
        *((CONV, e, s) for e, s in ((1, 3.03), (2, 4.43), (3, 5.09), (4, 5.42), (6, 5.72))),
        (FULL, 1, 59.6),
        (FULL, 2, 113.9),
    ],
)
def test_published_sum_of_rates(layer: LayerSpec, epochs: int, total: float) -> None:
    """How far a weight can travel; in batches of 512 a conv layer gets 0.38 in the first epoch."""
    found = sum(rates.scheduled(layer, k, 20 * 625, 20) for k in range(epochs * 625))
    assert found == pytest.approx(total, rel=2e-3)
    if layer is CONV and epochs == 1:
        large = sum(rates.scheduled(layer, k, 20 * 40000 / 512, 20) for k in range(79))
        assert large == pytest.approx(0.38, abs=0.01)


SCHEDULES = (
    *(CONV, FULL, LIBRARY, spec(lr_decay="linear"), spec(lr_decay="constant"), spec(lr_fall=0)),
    make_layer("Soft", "MLP", {"lr_decay": "exp"}, DEFAULTS, "test"),
    make_layer("Soft", "CNN", {"lr_decay": "exp", "kernel_size": 1}, DEFAULTS, "test"),
)


@pytest.mark.parametrize("layer", SCHEDULES)
@pytest.mark.parametrize(("updates", "epochs"), [(12500, 20), (312.5, 2), (7.8, 1)])
def test_how_far_a_weight_can_travel(layer: LayerSpec, updates: float, epochs: int) -> None:
    """The closed form is the sum, over all updates and over some; in SoftHebb's exponential schedule too."""
    for made in (math.ceil(updates), 5, 0):
        found = sum(rates.scheduled(layer, k, updates, epochs) for k in range(made))
        assert rates.travel(layer, made, updates, epochs) == pytest.approx(found, rel=1e-6)


def test_too_short_a_way_is_said(inside: Command) -> None:
    """A conv layer's 0.38 of one epoch in batches of 512; nothing where the way is long enough."""
    flags = ("--preset", "2KrotovCnnCIFAR", "--dataset", "CIFAR10", "--validation", "--dry-run", "--set")
    short = inside("multi_layer.py", *flags, "dataset_unsup.epochs=1", "dataset_unsup.batch_size=512").stdout
    assert "note: the rates of b0 add up to 0.38" in short
    assert (
        "note" not in inside("multi_layer.py", *flags, "dataset_unsup.epochs=2", "dataset_unsup.batch_size=64").stdout
    )


def test_linear_and_constant_schedules() -> None:
    falling, still = spec(lr=0.02, lr_decay="linear"), spec(lr=0.02, lr_decay="constant")
    assert [rates.scheduled(falling, k, 200, 2) for k in (0, 100, 200)] == pytest.approx([0.02, 0.01, 0])
    assert rates.scheduled(still, 150, 200, 2) == 0.02


# -- batch norm -----------------------------------------------------------------------------------------------

NETWORK = "Krotov-c6-k3-lb2-rank2:bn:relu:max_2_2_0 BP:batchnorm2d:flatten"


def block() -> tuple[object, Tensor]:
    """Return a learning block of that network, and a batch for it."""
    import small

    from hebb.nn import model

    made = model.build(small.config(NETWORK))[0].train()
    return made, torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_learning_uses_the_statistics_of_the_batch() -> None:
    """The step is that of the input normalised by its own batch, and the running statistics move towards it."""
    made, x = block()
    norm, layer = made.before[0], made.hebb  # type: ignore[attr-defined]
    weight, (mean, var) = layer.weight.clone(), (x.mean(), x.var())
    alone = ConvHebbLayer(layer.spec, 1, 6)
    alone.weight.copy_(weight)
    made.learn(x, 0.02)  # type: ignore[attr-defined]
    alone.learn((x - mean) / (x.var(correction=0) + 1e-5).sqrt(), 0.02)
    assert torch.allclose(layer.weight, alone.weight, atol=1e-6)
    assert float(norm.running_mean) == pytest.approx(0.1 * float(mean))
    assert float(norm.running_var) == pytest.approx(0.9 + 0.1 * float(var))


def test_the_answer_uses_running_statistics_and_the_new_weights() -> None:
    """What the block above learns from is what the block will answer in use, also while it learns."""
    made, x = block()
    answer = made.learn(x, 0.02)  # type: ignore[attr-defined]
    assert made.training  # type: ignore[attr-defined]
    norm, layer = made.before[0], made.hebb  # type: ignore[attr-defined]
    u = layer((x - norm.running_mean) / (norm.running_var + 1e-5).sqrt())
    assert torch.allclose(answer, torch.nn.functional.max_pool2d(u.relu(), 2), atol=1e-6)


def test_supervised_training_never_touches_the_statistics() -> None:
    import small

    made = small.config(NETWORK, "dataset_sup.epochs=3")
    short = replace(made, dataset_sup=replace(made.dataset_sup, epochs=1))
    norms = [small.run(config).network[0].before[0] for config in (made, short)]
    assert torch.equal(norms[0].running_mean, norms[1].running_mean)  # type: ignore[union-attr, arg-type]
    assert not math.isclose(float(norms[0].running_mean), 0)  # type: ignore[union-attr, arg-type]


# -- the published search -------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["2KrotovCnnCIFAR", "4KrotovCnnCIFAR"])
def test_the_search_has_the_published_space(preset: str, inside: Command) -> None:
    """P 2 to 8, k 2 to 10, Delta 0 to 0.40 by 0.005, dropout 0 to 0.5 by 0.05; the file serves every depth."""
    found = search_space.load("krotov")
    assert {axis.name: axis.count() for axis in found.axes} == {
        "b*.layer.lebesgue_p": 7,
        "b*.layer.ranking_param": 9,
        "b*.layer.delta": 81,
        "b-1.dropout": 11,
    }
    ends = [{path: float(value) for path, value in choice.items()} for axis in found.axes for choice in axis.corners()]
    assert [next(iter(end.values())) for end in ends] == [2, 8, 2, 10, 0, 0.4, 0, 0.5]
    flags = ("--preset", preset, "--dataset", "CIFAR10", "--protocol", "krotov", "krotov_head", "--config", "krotov")
    done = inside("ray_search.py", *flags, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "optuna" in done.stdout
    assert "median" in done.stdout
