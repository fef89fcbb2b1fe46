"""SCFF: answers, goodness, loss, gradients and steps that the published code computed, and what pairs obey.

Without it a normalisation or a factor 2 could differ from the published pairs, and thresholds would mean other things.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import small
import torch
from conftest import GOLDEN
from torch import Tensor, nn
from torch.nn import functional as F

from hebb.config import catalog, grammar, plan
from hebb.config.rule import LossContext
from hebb.core.errors import ConfigError
from hebb.kernels import paired
from hebb.nn import model
from hebb.rules import scff
from hebb.training import optimiser

BLOCKS = {
    "stage1": "SCFF-c6-k5-p2:triangle:max_4_2_1 BP:flatten",
    "stage3": "SCFF-c10-k3-p1:relu:avg_2_2_0:positive_goodness=6:negative_goodness=10:flatness=0.0005 BP:flatten",
}
LAYER = {"stage1": "1", "stage3": "3"}


@functools.cache
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN / "rivals" / "scff.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def assert_close(value: Tensor, key: str) -> None:
    torch.testing.assert_close(value, golden()[key], atol=1e-5, rtol=0, msg=lambda text: f"{key}: {text}")


def network(text: str, into: tuple[int, ...]) -> model.Network:
    return model.Network(grammar.parse_network(text, catalog.load().defaults), into, 10).train()


def learnt(stage: str, monkeypatch: pytest.MonkeyPatch) -> tuple[model.Network, Tensor]:
    """Return a network after the gradient of the published batch, and what its first block passed on."""
    number = LAYER[stage]
    pairs = [golden()[f"{stage}.{sign}_in{number}"] for sign in ("pos", "neg")]
    x, other = (pair.chunk(2, dim=1)[half] for pair, half in zip(pairs, (0, 1), strict=True))
    made = network(BLOCKS[stage], tuple(x.shape[1:]))
    for name in ("weight", "bias"):
        getattr(made[0].layer, name).data.copy_(golden()[f"{stage}.p{number}.{name}"])
    (shift,) = {s for s in range(1, 4) if torch.equal(x.roll(-s, 0), other)}
    monkeypatch.setattr("hebb.nn.local_loss.LocalLoss.draw", lambda _, n: (torch.arange(n) + shift) % n)
    return made, made[0].descend(x, torch.zeros(4, dtype=torch.int64))


def test_answers_are_those_of_the_published_code() -> None:
    made = network(BLOCKS["stage1"], (3, 32, 32))
    layer = made[0].layer
    for name in ("weight", "bias"):
        getattr(layer, name).data.copy_(golden()[f"stage1.p1.{name}"])
    with torch.no_grad():
        assert_close(layer(golden()["x"]), "stage1.u_pos")
        first, other = golden()["stage1.neg_in1"].chunk(2, dim=1)
        assert_close(layer.pair(first, other), "stage1.u_neg")
        assert_close(scff.goodness(golden()["stage1.u_pos"]), "stage1.goodness_map_pos")
        assert_close(made[0](golden()["x"]), "stage1.block_out_pos")
    assert_close(paired.standardised(golden()["x"]), "stdnorm_x")


@pytest.mark.parametrize("stage", BLOCKS)
def test_a_step_is_that_of_the_published_code(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, out = learnt(stage, monkeypatch)
    layer = made[0].layer
    if stage == "stage1":
        assert_close(out, "stage1.block_out_pos")
        assert made[0].local.means()["loss"] == pytest.approx(float(golden()["stage1.loss"]), abs=1e-6)
    for name in ("weight", "bias"):
        assert_close(getattr(layer, name).grad, f"{stage}.g.{name}")
    run = small.config(BLOCKS[stage].replace("max_4_2_1", "max_2_2_0"))
    phase = next(phase for phase in plan.phases(run) if 0 in phase.blocks)
    made_step = optimiser.of_blocks(run, phase, made.learnt)
    assert made_step is not None
    made_step.step()
    for name in ("weight", "bias"):
        assert_close(getattr(layer, name).detach(), f"{stage}.adamw1.{name}")


def test_the_published_second_block_is_given_the_answers_to_pairs() -> None:
    """It gets the outputs of the first block for both pairs, each alone: u = W * s(a) + b, without the factor 2.

    Ours makes pairs of its own. So its thresholds are others than the published 5 and 9.
    """
    first = paired.PairedConv2d(3, 6, 5, padding=2, padding_mode="reflect")
    second = [golden()[f"stage2.p2.{name}"].clone().requires_grad_() for name in ("weight", "bias")]
    for name in ("weight", "bias"):
        getattr(first, name).data.copy_(golden()[f"stage2.p1.{name}"])
    maps = []
    for sign in ("pos", "neg"):
        with torch.no_grad():
            u = first.pair(*golden()[f"stage2.{sign}_in1"].chunk(2, dim=1))
            out = F.max_pool2d((u - u.mean(dim=1, keepdim=True)).relu(), 4, 2, 1)
        maps.append(scff.goodness(F.conv2d(paired.standardised(F.pad(out, (1, 1, 1, 1), mode="reflect")), *second)))
    loud, quiet = maps
    for name, found in (("pos", loud), ("neg", quiet)):
        assert found.mean().item() == pytest.approx(float(golden()[f"stage2.goodness_{name}_mean"]), abs=1e-6)
    loss = F.softplus(5 - loud).mean() + F.softplus(quiet - 9).mean() + 7e-4 * loud.flatten(1).norm(dim=1).mean()
    for name, found in zip(("weight", "bias"), torch.autograd.grad(loss, second), strict=True):
        assert_close(found, f"stage2.g.{name}")


def test_what_the_published_classifier_reads() -> None:
    """All three blocks, each averaged over 2 x 2 pixels and standardised for each image; ours reads the top one."""
    text = "SCFF-c6-k5-p2:triangle:max_4_2_1 SCFF-c8-k3-p1:triangle:max_4_2_1 SCFF-c10-k3-p1:relu:avg_2_2_0 BP:flatten"
    made, features, x = network(text, (3, 32, 32)).eval(), [], golden()["x"]
    with torch.no_grad():
        for i, block in enumerate(list(made)[:3], start=1):
            for name in ("weight", "bias"):
                getattr(block.layer, name).data.copy_(golden()[f"stage3.p{i}.{name}"])
            x = block(x)
            features.append(paired.standardised(F.avg_pool2d(x, 2, 2, ceil_mode=True)).flatten(1))
    assert_close(torch.cat(features, dim=1), "readout.features")


def terms(positive: Tensor, negative: Tensor, **thresholds: float) -> tuple[dict[str, Tensor], float]:
    """Return the terms of the rule's loss, and their sum, for the answers of a layer to both kinds of pairs."""
    arch, fields = ("CNN", {"kernel_size": 1}) if positive.dim() == 4 else ("MLP", {})
    spec = grammar.make_layer(
        "SCFF", arch, {"out_channels": 2, **fields, **thresholds}, catalog.load().defaults, "test"
    )
    x, order = torch.rand(len(positive), 3), torch.arange(len(positive)).roll(-1)

    class Layer(nn.Module):
        def pair(self, first: Tensor, other: Tensor) -> Tensor:
            assert torch.equal(first, x)
            assert torch.equal(other, x[order])
            return negative

    empty = torch.zeros(len(x), dtype=torch.int64)
    context = LossContext(labels=empty, inputs=(x,), fed=(x,), answers=(positive,), module=Layer(), order=order)
    found = scff.scff((positive,), spec, context)
    return found, sum(spec.coefficient(name) * term.item() for name, term in found.items())


@pytest.mark.parametrize("shape", [(1, 2), (1, 2, 1, 1)])
def test_a_pixel_by_hand(shape: tuple[int, ...]) -> None:
    """u of a pair is 3 and -1, of another 1 and 2: G is 9/2 and 5/2, with thresholds 0 and 1."""
    positive, negative = torch.tensor([3.0, -1.0]).view(shape), torch.tensor([1.0, 2.0]).view(shape)
    found, loss = terms(positive, negative, positive_goodness=0, negative_goodness=1, flatness=0.1)
    want = {"positive": math.log1p(math.exp(-4.5)), "negative": math.log1p(math.exp(1.5)), "flatness": 4.5}
    assert {name: term.item() for name, term in found.items()} == pytest.approx(want)
    assert loss == pytest.approx(2.16246, abs=1e-5)
    assert loss == pytest.approx(want["positive"] + want["negative"] + 0.1 * 4.5)


def test_two_images_of_two_pixels_by_hand() -> None:
    """G is 3 and 4 in one image, whose norm is 5, and 0 in the other; a threshold of 3 and one of 4."""
    squares = torch.tensor([[[6.0, 8.0], [-1.0, 0.0]], [[-1.0, -9.0], [0.0, -2.0]]])[:, :, None]
    positive = squares.sign() * squares.abs().sqrt()
    found, _ = terms(positive, 0 * positive, positive_goodness=3, negative_goodness=4)
    logs = [math.log1p(math.exp(gap)) for gap in (0, -1, 3, 3)]
    want = {"positive": sum(logs) / 4, "negative": math.log1p(math.exp(-4)), "flatness": 2.5}
    assert {name: term.item() for name, term in found.items()} == pytest.approx(want)


def test_the_gradient_is_the_printed_one() -> None:
    """Without flatness and with it; neurons below 0 feel nothing."""
    torch.manual_seed(0)
    loud, quiet = (torch.randn(3, 2, 4, 5, dtype=torch.float64).requires_grad_() for _ in range(2))
    for flatness in (0.0, 0.3):
        found, _ = terms(loud, quiet, positive_goodness=0.5, negative_goodness=0.2, flatness=flatness)
        assert found.keys() == {"positive", "negative", *(["flatness"] if flatness else [])}
        total = found["positive"] + found["negative"] + flatness * found.get("flatness", 0.0)
        gradients = torch.autograd.grad(total, (loud, quiet))
        g = [u.detach().relu().square().sum(dim=1, keepdim=True) / 2 for u in (loud, quiet)]
        length = g[0].square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
        factors = [flatness * g[0] / length - torch.sigmoid(0.5 - g[0]) / 20, torch.sigmoid(g[1] - 0.2) / 20]
        for u, gradient, factor in zip((loud, quiet), gradients, factors, strict=True):
            torch.testing.assert_close(gradient, 2 / (3 * 2) * u.detach().relu() * factor)


@pytest.mark.parametrize("kind", ["map", "vector"])
def test_pairs_are_two_products_standardised_together(kind: str) -> None:
    """In double precision, from the definition: stack, standardise, multiply each half."""
    torch.manual_seed(0)
    shape = (5, 3, 6, 7) if kind == "map" else (5, 12)
    x, other = torch.rand(shape, dtype=torch.float64), torch.rand(shape, dtype=torch.float64)
    layer: Any = (
        paired.PairedConv2d(3, 4, 3, 2, 1, padding_mode="reflect") if kind == "map" else paired.PairedLinear(12, 4)
    )
    layer = layer.double()
    found = layer.pair(x, other)
    for b in range(5):
        halves = [(part - part.mean()) / part.std() for part in (x[b], other[b])]
        if kind == "map":
            halves = [F.pad(half, (1, 1, 1, 1), mode="reflect") for half in halves]
        both = torch.stack(halves)
        both = (both - both.mean()) / both.std()
        if kind == "map":
            want = sum(F.conv2d(half[None], layer.weight, layer.bias, 2)[0] for half in both)
        else:
            want = sum(F.linear(half, layer.weight, layer.bias) for half in both)
        torch.testing.assert_close(found[b], want, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(layer(x), layer.pair(x, x.clone()))
    torch.testing.assert_close(layer.pair(3 * x - 1, other / 2), found, rtol=1e-8, atol=1e-8)  # of each image alone
    torch.testing.assert_close(layer.pair(other, x), found)


def test_an_image_of_one_colour_gives_finite_numbers() -> None:
    made = network("SCFF-c4-k3-p1:relu BP:flatten", (1, 8, 8))
    x = torch.rand(4, 1, 8, 8)
    x[0] = 0.5
    made[0].descend(x, torch.zeros(4, dtype=torch.int64))
    assert all(bool(p.grad.isfinite().all()) for p in made[0].parameters())


def test_a_partner_is_another_image_and_the_same_shift_for_all() -> None:
    made = network("SCFF-c4-k3-p1:relu BP:flatten", (1, 8, 8))
    local = made[0].local
    local.positives = torch.Generator().manual_seed(0)
    shifts = set()
    for _ in range(200):
        order = local.draw(6)
        (shift,) = set(((order - torch.arange(6)) % 6).tolist())
        shifts.add(shift)
    assert shifts == {1, 2, 3, 4, 5}


def test_weights_start_by_the_law_of_glorot() -> None:
    layer = network("SCFF-c40-k3-p1:relu BP:flatten", (10, 8, 8)).initialise(0)[0].layer
    bound = math.sqrt(6 / (9 * 50))
    assert 0.98 * bound < layer.weight.abs().max() <= bound
    assert layer.bias.abs().max() <= 1 / math.sqrt(90)


def test_a_projector_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"field \(projector\) does nothing for SCFF"):
        network("SCFF-c4-k3:projector=1 BP:flatten", (1, 8, 8))


@pytest.mark.parametrize("text", ["3SCFFCnnDigits", "SCFF-c40:flatten:relu BP"])
def test_training_beats_the_network_as_drawn(text: str) -> None:
    """On 600 digits, with the same classifier."""
    changes = [f"dataset_{name}.{key}" for name in ("sup", "unsup") for key in ("samples=600", "batch_size=32")]
    changes += ["dataset_unsup.epochs=4", "dataset_sup.epochs=6"]
    learned, frozen = (small.run(small.config(text, *changes, f"control={c}")) for c in ("learned", "frozen"))
    assert learned.metrics["test_acc"] > frozen.metrics["test_acc"] + 4
