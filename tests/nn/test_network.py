"""Blocks and networks as PyTorch modules.

Without it a checkpoint could load in part, or a gradient cross a block that must stop it.
"""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest
import small
import torch
from torch import nn
from torch.nn import functional as F

from hebb.config import catalog, grammar, shapes
from hebb.config.registry import ACTIVATIONS, RULES, HebbianRule
from hebb.core.errors import ConfigError
from hebb.kernels import channels_last
from hebb.nn import model
from hebb.nn.blocks import Activate, AttDropout, Block, Dropout, MaxNorm, NormNorm
from hebb.nn.noise import Noise

X = torch.rand(6, 1, 8, 8)


def block(text: str, into: tuple[int, ...] = (3, 8, 8), classes: int = 10) -> Block:
    known = catalog.load()
    network = grammar.parse_network(text, known.defaults)
    made = Block(network.blocks[0], shapes.trace(network, into, classes)[0])
    made.initialise(torch.Generator().manual_seed(0))
    return made


@pytest.mark.parametrize("name", [m for m in catalog.load().models if not re.search("ImNet|STL|TinyImageNet", m)])
def test_every_preset_builds_with_the_traced_shapes(name: str) -> None:
    """Shapes and parameter counts computed without torch are those of the real modules."""
    side = {"MNIST": (1, 28, 28), "Digits": (1, 8, 8)}
    into = next((shape for key, shape in side.items() if key in name), (3, 32, 32))
    spec = catalog.load().models[name].network
    network = model.Network(spec, into, 10).eval()
    traced = shapes.trace(spec, into, 10)
    with torch.no_grad():
        x = torch.rand(2, *into)
        for i, found in enumerate(traced):
            x = network[i](x)
            assert tuple(x.shape[1:]) == found.out
            tensors = [*network[i].layer.parameters(), *network[i].layer.buffers()]
            named = {"weight", "bias"}  # of a layer that settles, all: lateral weights are learnt too
            own = {n: t for n, t in network[i].layer.state_dict().items() if n in named or spec.settles}
            stored = sum(t.numel() for t in (*own.values(), *network[i].after.parameters()))
            assert stored == found.parameters
            assert tensors
    assert x.shape == (2, 10)


def test_order_of_a_block() -> None:
    """BN2d, flatten, BN1d, maxnorm, normnorm, dropout, layer, activation, batch norm, pool."""
    made = block("BP-c4:batchnorm2d:flatten:bn:maxnorm:normnorm:drop_0.5:attdrop_0.1:relu:bn_after", classes=4)
    kinds = [type(m).__name__ for m in made.before]
    assert kinds == ["AttDropout", "BatchNorm2d", "Flatten", "BatchNorm1d", "MaxNorm", "NormNorm", "Dropout"]
    assert [type(m).__name__ for m in made.after] == ["Activate", "BatchNorm1d"]
    made = block("Soft-c4-k3:relu:bn_after:max_2_2_0")
    assert [type(m).__name__ for m in made.after] == ["Activate", "BatchNorm2d", "MaxPool2d"]


def test_batch_norms_have_no_affine_parameters() -> None:
    made = block("Soft-c4-k3:bn:bn_after")
    for norm in (made.before[0], made.after[0]):
        assert isinstance(norm, nn.BatchNorm2d)
        assert not norm.affine
        assert (norm.momentum, norm.eps) == (0.1, 1e-5)


@pytest.mark.parametrize("pool", ["max_4_2_1", "avg_4_2_1"])
def test_pools(pool: str) -> None:
    """The average counts the padding."""
    made = block(f"Soft-c4-k1:{pool}")
    u = made.pre_activation(torch.rand(2, 3, 8, 8))
    function = F.max_pool2d if pool.startswith("max") else F.avg_pool2d
    assert torch.equal(made.after(u), function(u, 4, 2, 1))


@pytest.mark.parametrize("name", ACTIVATIONS.names())
def test_activations(name: str) -> None:
    u = torch.randn(4, 5, 3, 3, dtype=torch.float64)
    expected = {
        "relu": u.clamp(min=0),
        "leaky": torch.where(u > 0, u, 1.4 * u),
        "triangle": (u - u.mean(1, keepdim=True)).clamp(min=0) ** 1.4,
        "repu": u.clamp(min=0) ** 1.4,
        "softmax": (1.4 * u).exp() / (1.4 * u).exp().sum(1, keepdim=True),
        "exp": (1.4 * u).exp(),
        "tanh": (1.4 * u).tanh(),
        "sigmoid": 1 / (1 + (-1.4 * u).exp()),
        "hard": (u == u.amax(1, keepdim=True)).double(),
    }[name]
    activate = Activate(name, 1.4)
    assert torch.allclose(activate(u), expected)
    assert torch.allclose(activate(u, nn.MaxPool2d(2)), F.max_pool2d(expected, 2))


@pytest.mark.parametrize("power", [0.05, 0.35, 0.7, 0.99])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_roots_of_single_precision_agree_with_those_of_double(power: float, scale: float) -> None:
    u = torch.randn(10_000) * scale
    expected = u.double().clamp(min=0) ** power
    found = Activate("repu", power)(u)
    assert torch.equal(found == 0, expected == 0)
    assert torch.allclose(found.double(), expected, rtol=3e-6, atol=0)
    wild = torch.tensor([0.0, -0.0, -torch.inf, torch.inf, torch.nan])
    assert torch.allclose(Activate("repu", power)(wild), wild.relu().pow(power), equal_nan=True, rtol=0, atol=0)


def test_norms() -> None:
    x = torch.rand(3, 4, 5) + 0.1
    assert torch.allclose(MaxNorm()(x).flatten(1).amax(1), torch.ones(3))
    assert torch.allclose(NormNorm()(x).norm(dim=1), torch.full((3, 5), 10.0))
    assert torch.isfinite(MaxNorm()(torch.zeros(2, 3))).all()


# -- dropout --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeded", [True, False])
@pytest.mark.parametrize("p", [0.2, 0.5])
def test_dropout_keeps_the_mean(p: float, seeded: bool) -> None:
    made = Dropout(p)
    made.noise = Noise(3) if seeded else None
    y = made(torch.ones(400, 500))
    assert (y == 0).float().mean() == pytest.approx(p, abs=0.005)
    assert y.max() == pytest.approx(1 / (1 - p))
    assert torch.equal(made.eval()(torch.ones(2, 2)), torch.ones(2, 2))


def test_dropout_noise_repeats_from_its_seed() -> None:
    for p in (0.3, 0.5):
        masks = [Noise(seed).factors((50, 51), p, torch.device("cpu")) for seed in (1, 1, 2)]
        assert torch.equal(masks[0], masks[1])
        assert not torch.equal(masks[0], masks[2])


def test_dropout_of_one_half_draws_every_element_by_itself() -> None:
    """Bits come eight at a time; neighbours, rows and places in a byte are as independent as others."""
    drawn = Noise(5).factors((4000, 24), 0.5, torch.device("cpu")) - 1  # -1 or 1
    correlation = drawn.T @ drawn / len(drawn)
    assert (correlation - torch.eye(24)).abs().max() < 5 / 4000**0.5  # five deviations of chance
    assert (drawn[1:] * drawn[:-1]).mean().abs() < 0.02
    assert drawn.mean().abs() < 0.02


@pytest.mark.parametrize("seeded", [True, False])
def test_att_dropout_hits_pixels_of_low_contrast(seeded: bool) -> None:
    """An element goes with probability p (1 - s/max s); the pixel of the largest contrast never does."""
    made = AttDropout(0.6)
    made.noise = Noise(3) if seeded else None
    x = torch.ones(1, 2, 2, 1).repeat(1, 1, 1, 4000)
    x[:, 0, 0] = 3.0  # first row of pixels: std over channels sqrt(2); second row: 0
    y = made(x)
    assert (y[:, :, 0] == x[:, :, 0]).all()
    assert (y[:, :, 1] == 0).float().mean() == pytest.approx(0.6, abs=0.02)
    assert x.min() == 1.0  # the input is not changed in place
    assert torch.equal(made.eval()(x), x)


# -- modules --------------------------------------------------------------------------------------------------


def network(text: str = small.DEEP) -> model.Network:
    return model.build(small.config(text))


def test_train_and_eval_are_those_of_pytorch() -> None:
    made = network()
    assert made.train() is made
    assert all(m.training for m in made.modules())
    assert made.eval() is made
    assert not any(m.training for m in made.modules())
    before = copy.deepcopy(made.state_dict())
    made(X)
    assert all(torch.equal(before[n], t) for n, t in made.state_dict().items())


@pytest.mark.parametrize("remake", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(remake: object) -> None:
    assert callable(remake)
    made = network().eval()
    made[2].set_noise(Noise(1))
    other = remake(made)
    assert torch.equal(made(X), other(X))
    other[0].learn(X)
    assert not torch.equal(made[0].layer.weight, other[0].layer.weight)


def test_moving_keeps_everything_together() -> None:
    made = network().to(torch.float64)
    assert {t.dtype for t in made.state_dict().values() if t.is_floating_point()} == {torch.float64}
    assert made.to("meta")[0].layer.weight.device.type == "meta"


def test_parameters_are_what_back_prop_trains() -> None:
    names = {name for name, _ in network().named_parameters()}
    assert names == {"blocks.2.layer.weight", "blocks.2.layer.bias"}
    assert "blocks.0.layer.weight" in network().state_dict()


@pytest.mark.parametrize("method", [r.name for r in RULES.entries() if isinstance(r, HebbianRule) and "CNN" in r.archs])
def test_learning_a_block_leaves_every_other_tensor_alone(method: str) -> None:
    made = network(small.DEEP.replace("Soft-c12-k3-p1-t0.65-lr0.005", f"{method}-c12-k3-p1"))
    before = {n: t.clone() for n, t in made.state_dict().items()}
    made[1].train().learn(made.eval()(X, stop=1))
    changed = {n for n, t in made.state_dict().items() if not torch.equal(before[n], t)}
    own = {n for n in before if n.startswith("blocks.1.layer.")}  # a rule may keep a state beside the weights
    assert "blocks.1.layer.weight" in changed <= own


def test_learn_answers_with_the_weights_before_the_update() -> None:
    made = network().eval()
    expected = made[0](X)
    assert torch.equal(made[0].learn(X), expected)
    assert not torch.equal(made[0](X), expected)


# -- initialisation -------------------------------------------------------------------------------------------


def test_seed_decides_the_weights_block_by_block() -> None:
    first, again, other = (model.build(small.config(small.DEEP, seed=s)) for s in (0, 0, 1))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        if name.endswith("weight"):
            assert not torch.equal(tensor, other.state_dict()[name])
    shallow = model.build(small.config(small.CNN))
    assert torch.equal(shallow[0].layer.weight, first[0].layer.weight)


def test_bp_layers_start_as_torch_does() -> None:
    made = network("BP-c50-k3-p1:relu BP-c40:flatten BP")
    for i, fan_in in ((0, 9), (1, 50 * 64), (2, 40)):
        weight = made[i].layer.weight.detach()
        assert weight.abs().max() <= fan_in**-0.5
        assert weight.std() == pytest.approx(fan_in**-0.5 / 3**0.5, rel=0.2)
    assert isinstance(made[0].layer, nn.Conv2d)
    assert made[0].layer.bias is None
    assert made[1].layer.bias is not None


# -- files ----------------------------------------------------------------------------------------------------


def test_save_and_load(tmp_path: Path) -> None:
    stored, fresh = network(), model.build(small.config(small.DEEP, seed=5))
    model.save(stored, tmp_path / "m.pt")
    model.load_weights(fresh, tmp_path / "m.pt")
    assert all(
        torch.equal(a, b) for a, b in zip(stored.state_dict().values(), fresh.state_dict().values(), strict=True)
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "m.pt"]


def test_load_without_classifier(tmp_path: Path) -> None:
    stored, fresh = network(), model.build(small.config(small.DEEP, seed=5))
    model.save(stored, tmp_path / "m.pt")
    own = fresh[2].layer.weight.clone()
    model.load_weights(fresh, tmp_path / "m.pt", classifier=False)
    assert torch.equal(fresh[1].layer.weight, stored[1].layer.weight)
    assert torch.equal(fresh[2].layer.weight, own)


@pytest.mark.parametrize(
    ("other", "message"),
    [(small.CNN, r"(lacks|has an extra) 'blocks\."), (small.DEEP.replace("c12", "c14"), r"blocks\.1\.layer\.weight")],
)
def test_load_is_strict(tmp_path: Path, other: str, message: str) -> None:
    model.save(network(), tmp_path / "m.pt")
    fresh = network(other)
    before = copy.deepcopy(fresh.state_dict())
    with pytest.raises(ConfigError, match=message):
        model.load_weights(fresh, tmp_path / "m.pt")
    assert all(torch.equal(before[n], t) for n, t in fresh.state_dict().items())


@pytest.mark.parametrize("keep", [0, 10, 1000, -1])
def test_truncated_files(tmp_path: Path, keep: int) -> None:
    model.save(network(), tmp_path / "m.pt")
    data = (tmp_path / "m.pt").read_bytes()
    (tmp_path / "m.pt").write_bytes(data[:keep])
    with pytest.raises(ConfigError, match="truncated"):
        model.load_weights(network(), tmp_path / "m.pt")


def test_checkpoints_run_no_code(tmp_path: Path) -> None:
    torch.save({"model": {"x": print}}, tmp_path / "m.pt")
    with pytest.raises(ConfigError, match="not a checkpoint"):
        model.load_weights(network(), tmp_path / "m.pt")


# -- layers of back-prop on maps ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("pool", [nn.AvgPool2d(4, 2, 1), nn.MaxPool2d(2)])
def test_gradients_through_maps_are_those_of_torch(order: torch.memory_format, pool: nn.Module) -> None:
    """The channels lie last on the way up and on the way down; nothing but rounding may tell."""
    ours, torchs = (
        channels_last.Conv2d(3, 6, 5, padding=2, padding_mode="reflect").double(),
        nn.Conv2d(3, 6, 5, padding=2),
    )
    torchs.padding_mode, torchs._reversed_padding_repeated_twice = "reflect", [2, 2, 2, 2]
    torchs.double().load_state_dict(ours.state_dict())
    x, up = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.randn(4, 6 * 4 * 4, dtype=torch.float64)
    found = []
    for conv, flatten in ((ours, channels_last.Flatten()), (torchs, nn.Flatten())):
        image = x.clone().contiguous(memory_format=order).requires_grad_()
        out = flatten(pool(conv(image).relu()))
        found.append([out, *torch.autograd.grad(out, [image, *conv.parameters()], up)])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


def test_gradients_of_maps_keep_their_channels_last() -> None:
    seen = []
    u = channels_last.Conv2d(3, 6, 3)(torch.randn(2, 3, 8, 8))
    u.register_hook(lambda grad: seen.append(grad.is_contiguous(memory_format=torch.channels_last)))
    channels_last.Flatten()(u).sum().backward()
    assert u.is_contiguous(memory_format=torch.channels_last)
    assert seen == [True]
