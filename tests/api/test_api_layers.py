"""``hebb.HebbLinear`` and ``hebb.HebbConv2d`` in anyone's module: the step of a network, the arguments of torch.

Without it a layer of its own could learn by another equation than the same layer inside a network.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ROOT
from torch import nn

import hebb
from hebb.config.registry import RULES
from hebb.config.rule import HebbianRule

BIOPYTORCH = json.loads((ROOT / "tests" / "data" / "biopytorch.json").read_text())
HEBBIAN = [rule.name for rule in RULES.entries() if isinstance(rule, HebbianRule)]


TOKENS = {"ThresholdInstar": "-dev0.5"}
"""Of six neurons none stands out by the default of two deviations."""


def pair(rule: str, arch: str, seed: int) -> tuple[Any, Any, torch.Tensor, torch.Tensor]:
    """Return a layer of its own and the same layer in a network, with an input and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 6, (9,), generator=generator)
    rule += TOKENS.get(rule, "")
    if arch == "CNN":
        x = torch.rand(9, 2, 7, 7, generator=generator)
        net = hebb.network(f"{rule}-c6-k3-p1-s2 BP:flatten", input_shape=(2, 7, 7), classes=6)
        layer: Any = hebb.HebbConv2d(2, 6, 3, stride=2, padding=1, padding_mode="reflect", rule=rule)
    else:
        x = torch.rand(9, 20, generator=generator)
        net = hebb.network(f"{rule}-c6:flatten BP", input_shape=(1, 4, 5), classes=6)
        layer = hebb.HebbLinear(20, 6, rule=rule)
    twin = net[0].hebb
    assert twin is not None
    layer.weight.copy_(twin.weight)
    return layer, twin, x, labels


@pytest.mark.parametrize("arch", ["MLP", "CNN"])
@pytest.mark.parametrize("rule", HEBBIAN)
def test_a_step_is_that_of_a_network(rule: str, arch: str) -> None:
    if arch not in RULES.get(rule, "rule").archs:
        with pytest.raises(hebb.ConfigError, match=f"{rule} has no {arch} form"):
            pair(rule, arch, 0)
        return
    layer, twin, x, labels = pair(rule, arch, 0)
    before = layer.weight.clone()
    for _ in range(3):
        with torch.no_grad():
            expected = twin.learn(x, labels=labels)
        assert torch.equal(layer.learn(x, labels=labels), expected)
    assert torch.equal(layer.weight, twin.weight)
    assert not torch.equal(layer.weight, before)


def wave(shape: tuple[int, ...], rate: float, phase: float) -> torch.Tensor:
    """sin(rate n + phase) of the flat index n."""
    return (rate * torch.arange(math.prod(shape), dtype=torch.float64) + phase).sin().view(shape)


@pytest.mark.parametrize("case", BIOPYTORCH["cases"], ids=lambda case: f"{case['layer']}-{case['tokens']}")
def test_steps_behind_a_norm_are_those_of_biopytorch(case: dict[str, Any]) -> None:
    """Three of its ``training_step``, with the norm that it has inside: weights, convergence and later responses."""
    kind, norm_of = {"conv": (hebb.HebbConv2d, nn.BatchNorm2d), "linear": (hebb.HebbLinear, nn.BatchNorm1d)}[
        case["layer"]
    ]
    layer = kind(*case["shape"], rule=case["tokens"], **case["geometry"], dtype=torch.float64)
    norm = norm_of(case["shape"][0], affine=False, dtype=torch.float64)
    layer.weight.copy_(wave(layer.weight.shape, 2.1, 0.3))
    convergence = []
    for step in range(BIOPYTORCH["steps"]):
        layer.learn(norm.train()(wave(case["into"], 1.7, step) + 0.5), BIOPYTORCH["rate"])
        convergence.append(layer.norm_error().item())
    assert convergence == pytest.approx(case["convergence"], abs=1e-9)
    assert layer.weight.flatten().tolist() == pytest.approx(case["weight"], abs=1e-9)
    assert norm.running_mean.tolist() == pytest.approx(case["norm_mean"], abs=1e-9)
    response = layer(norm.eval()(wave(case["into"], 1.7, 9) + 0.5)).flatten()[: len(case["response"])]
    assert response.tolist() == pytest.approx(case["response"], abs=1e-8)


@pytest.mark.parametrize("ours", [hebb.HebbLinear, hebb.HebbConv2d])
def test_arguments_and_defaults_are_those_of_torch(ours: type) -> None:
    """All of torch's arguments in torch's order; only the bias has another default."""
    theirs = {hebb.HebbLinear: nn.Linear, hebb.HebbConv2d: nn.Conv2d}[ours]
    mine = list(inspect.signature(ours).parameters.values())
    for parameter in inspect.signature(theirs).parameters.values():
        own = mine.pop(0)
        assert own.name == parameter.name
        if own.name == "bias":
            assert (own.default, parameter.default) == (False, True)
        else:
            assert own.default == parameter.default
    assert [parameter.name for parameter in mine] == ["rule", "behind_norm", "generator"]


def test_the_forward_pass_is_that_of_torch() -> None:
    """For p = 2 u is the convolution itself, with torch's padding."""
    x = torch.rand(2, 4, 9, 9)
    for options in (
        {"padding": 2},
        {"stride": 2, "padding": 1, "groups": 2},
        {"dilation": 2, "padding_mode": "circular"},
    ):
        ours, theirs = hebb.HebbConv2d(4, 6, 3, rule="Soft", **options), nn.Conv2d(4, 6, 3, bias=False, **options)
        theirs.weight.data.copy_(ours.weight)
        torch.testing.assert_close(ours(x), theirs(x))
    assert hebb.HebbConv2d(4, 6, 5, padding="same")(x).shape == (2, 6, 9, 9)
    linear = hebb.HebbLinear(9, 5)
    torch.testing.assert_close(linear(x), x @ linear.weight.T)


def test_a_forward_pass_learns_nothing_and_an_optimiser_neither() -> None:
    """The weight is a parameter that no gradient reaches; gradients pass through it to the layers below."""
    below, layer = nn.Linear(10, 8), hebb.HebbLinear(8, 5)
    net = nn.Sequential(below, layer)
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.weight"]
    assert not layer.weight.requires_grad
    before = layer.weight.clone()
    optimiser = torch.optim.SGD(net.parameters(), lr=1.0)
    net(torch.rand(4, 10)).square().sum().backward()
    optimiser.step()
    assert torch.equal(layer.weight, before)
    assert below.weight.grad is not None
    assert bool(below.weight.grad.abs().sum() > 0)
    u = layer.learn(torch.rand(4, 8, requires_grad=True))
    assert not u.requires_grad
    assert isinstance(layer.weight, nn.Parameter)
    assert not torch.equal(layer.weight, before)


def test_a_step_that_is_not_finite_is_counted_out() -> None:
    layer = hebb.HebbLinear(3, 4)
    layer.learn(torch.rand(2, 3))
    layer.learn(torch.tensor([[1.0, math.nan, 0.0]]))
    assert (layer.update_count, int(layer.finite_updates)) == (2, 1)
    assert hebb.HebbLinear(3, 4)(torch.rand(0, 3)).shape == (0, 4)


@pytest.mark.parametrize("rule", ["SoftKrotov", "Hard", "TemporalInstar", "Krotov", "BCM", "Sanger"])
def test_a_layer_of_16_bits_learns(rule: str) -> None:
    layer = hebb.HebbLinear(5, 8, rule=rule, dtype=torch.bfloat16)
    before = layer.weight.clone()
    layer.learn(torch.rand(3, 5).bfloat16())
    assert layer.weight.dtype == torch.bfloat16
    assert not torch.equal(layer.weight, before)
    assert bool(layer.weight.isfinite().all())


def test_every_row_is_a_sample_as_for_torch() -> None:
    """Tokens (B, T, N) learn as B T rows, an image without a batch as a batch of one."""
    rows, batch = hebb.HebbLinear(6, 5), hebb.HebbLinear(6, 5)
    batch.weight.copy_(rows.weight)
    tokens = torch.rand(3, 4, 6)
    assert torch.equal(batch(tokens), rows(tokens.view(12, 6)).view(3, 4, 5))
    assert torch.equal(batch.learn(tokens), rows.learn(tokens.view(12, 6)).view(3, 4, 5))
    assert torch.equal(batch.weight, rows.weight)
    single, many = hebb.HebbConv2d(2, 5, 3), hebb.HebbConv2d(2, 5, 3)
    single.weight.copy_(many.weight)
    image = torch.rand(2, 6, 6)
    assert torch.equal(single.learn(image), many.learn(image[None])[0])
    assert torch.equal(single(image), many(image[None])[0])


def test_a_layer_lives_in_a_module_as_any_other() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3, affine=False), hebb.HebbConv2d(3, 8, 3), nn.ReLU())
    x = torch.rand(4, 3, 6, 6)
    net[1].learn(net[0](x))
    net.eval()
    fresh = nn.Sequential(nn.BatchNorm2d(3, affine=False), hebb.HebbConv2d(3, 8, 3), nn.ReLU()).eval()
    fresh.load_state_dict(net.state_dict())
    for twin in (fresh, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(twin(x), net(x))
    assert list(net.state_dict())[-1] == "1.weight"
    assert net.double()(x.double()).dtype == torch.float64


def test_the_weights_come_from_the_generator() -> None:
    torch.manual_seed(5)
    first = hebb.HebbLinear(6, 4).weight
    torch.manual_seed(5)
    assert torch.equal(first, hebb.HebbLinear(6, 4).weight)
    own = [hebb.HebbLinear(6, 4, generator=torch.Generator().manual_seed(1)).weight for _ in range(2)]
    assert torch.equal(*own)
    assert bool((first >= 0).all())
    assert bool((hebb.HebbLinear(60, 40, behind_norm=True).weight < 0).any())


IMAGE = (1, 4, 4)


def supervised() -> hebb.HebbLinear:
    return hebb.HebbLinear(3, 4, rule="SupervisedSoftKrotov")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: hebb.HebbLinear(3, 4, rule="BP"), "rule 'BP': must be a Hebbian rule"),
        (lambda: hebb.HebbLinear(3, 4, rule="LPL"), "rule 'LPL': must be a Hebbian rule"),
        (lambda: hebb.HebbLinear(3, 4, rule="Sotf"), "unknown method 'Sotf' .did you mean 'Soft'"),
        (lambda: hebb.HebbLinear(3, 4, rule="Soft-c9"), "'out_channels' is given twice"),
        (lambda: hebb.HebbLinear(3, 4, True, rule="Hard"), "rule 'Hard'.*add_bias"),
        (lambda: hebb.HebbLinear(0, 4), "in_features: must be a whole number >= 1, got 0"),
        (lambda: hebb.HebbConv2d(3, 4, (3, 5)), "kernel_size: must be one number for rows and columns"),
        (lambda: hebb.HebbConv2d(3, 4, 3, groups=2), "in_channels: must be a multiple of groups, 2, got 3"),
        (lambda: hebb.HebbConv2d(3, 4, 4, padding="same"), "padding: 'same' needs stride 1"),
        (lambda: hebb.HebbConv2d(3, 4, 3, padding_mode="zero"), "padding_mode must be .*did you mean 'zeros'"),
        (lambda: hebb.HebbLinear(3, 4, rule="SupervisedSoftKrotov").learn(torch.rand(2, 3)), "learns from labels"),
        (lambda: hebb.HebbLinear(3, 4, rule="Krotov-rank5"), "rule 'Krotov-rank5': rank 5 exceeds the 4 competing"),
        (lambda: hebb.HebbLinear(3, 4, rule="KWTA"), "rule 'KWTA': number of winners 5 exceeds the 4 competing"),
        (lambda: hebb.HebbConv2d(4, 4, 3, groups=4, rule="Krotov"), "rank 2 exceeds the 1 competing neurons"),
        (lambda: hebb.HebbLinear(12, 4)(torch.rand(2, 3, 2, 2)), r"x: must be \(..., 12\), got \(2, 3, 2, 2\)"),
        (lambda: hebb.HebbLinear(12, 4).learn(torch.rand(2, 5)), r"x: must be \(..., 12\), got \(2, 5\)"),
        (lambda: hebb.HebbConv2d(3, 4, 3).learn(torch.rand(2, 1, 5, 5)), r"x: must be \(B, 3, H, W\) or \(3, H, W\)"),
        (lambda: hebb.HebbConv2d(3, 4, 3)(torch.rand(3, 5)), r"x: must be .*got \(3, 5\)"),
        (lambda: hebb.HebbLinear(3, 4).learn(torch.ones(2, 3, dtype=torch.uint8)), "x: must be floating point"),
        (lambda: supervised().learn(torch.rand(2, 3), labels=torch.tensor([0])), "one for each row.*got 1 of.* for 2"),
        (lambda: supervised().learn(torch.rand(1, 3), labels=torch.ones(1)), "labels: must be integers"),
        (lambda: hebb.HebbLinear(3, 4).learn(torch.rand(2, 3), rate=0.1), "rate: adapts to the radius"),
        (
            lambda: hebb.network("BP-c4:flatten BP", input_shape=IMAGE, classes=3)[0].learn(torch.rand(2, *IMAGE)),
            "by BP",
        ),
        (
            lambda: hebb.network("EP-c4:flatten EP", input_shape=IMAGE, classes=3)(torch.rand(2, *IMAGE), start=1),
            "as a whole",
        ),
        (lambda: hebb.HebbLinear(3, 4).learn(torch.rand(0, 3)), r"x: must hold at least one sample.*got \(0, 3\)"),
    ],
)
def test_what_cannot_be_built_is_refused(build: Any, message: str) -> None:
    with pytest.raises(hebb.ConfigError, match=message):
        build()


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (
            lambda: hebb.HebbConv2d(4, 16, 5, stride=2, padding=2, groups=2, rule="SoftKrotov-lr0.05"),
            "HebbConv2d(4, 16, kernel_size=(5, 5), stride=(2, 2), padding=(2, 2), padding_mode=zeros, groups=2, "
            "bias=False, rule=SoftKrotov, lr=0.05)",
        ),
        (
            lambda: hebb.HebbLinear(10, 5, bias=True, rule="Soft-lr0.1"),
            "HebbLinear(in_features=10, out_features=5, bias=True, rule=Soft, lr=0.1)",
        ),
    ],
)
def test_a_layer_prints_as_those_of_torch_do(layer: Callable[[], nn.Module], text: str) -> None:
    """With its rule and its rate."""
    assert repr(layer()) == text
