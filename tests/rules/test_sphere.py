"""SPHeRe: the losses, gradients and steps that the published code computed, small cases by hand, and its invariances.

Without it a norm, a mean or the place of the residual could differ from the published loss, which would still fall.
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

from hebb.config import catalog, grammar, plan, shapes
from hebb.config.specs import NetworkSpec
from hebb.core.errors import ConfigError
from hebb.nn import blocks, losses, model
from hebb.nn.model import Network
from hebb.rules import sphere
from hebb.training import engine, optimiser

SHAPES = {"plain": (3, 8, 8), "res": (4, 8, 8)}
NAMES = {"block.0": "layer", "block.1": "after.0", "out_proj.0": "local.head.0.0", "out_proj.1": "local.head.0.1"}
NAMES["out_proj.5"] = "local.head.0.5"
"""Modules of a block, by the published names."""


@functools.cache
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN / "rivals" / "sphere.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def assert_close(value: Tensor, key: str) -> None:
    want = golden()[key]
    bound = 1e-10 if want.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(value, want, atol=bound, rtol=0, msg=lambda text: f"{key}: {text}")


def assert_stepped(named: dict[str, Tensor], prefix: str) -> None:
    """Compare the parameters after a step of AdamW.

    A shift that a later batch norm takes out again has gradient 0 but for rounding, of which Adam makes a step as long
    as the rate.
    """
    for name, parameter in named.items():
        want, real = golden()[f"{prefix}.adamw1.{name}"], golden()[f"{prefix}.g.{name}"].abs() > 1e-5
        gap = (parameter.detach() - want).abs()
        assert not real.any() or float(gap[real].max()) < (1e-9 if want.dtype == torch.float64 else 1e-5), name
        assert float(gap.max()) <= 2.1e-3, name


def network(text: str, into: tuple[int, ...], kind: torch.dtype = torch.float32) -> Network:
    """Return a network written out, whose projectors have 6 outputs."""
    spec = grammar.parse_network(text, catalog.load().defaults)
    return model.Network(spec, into, 10).to(kind).train()


def load(made: Network, prefix: str, block: int, published: str = "") -> dict[str, nn.Parameter]:
    """Give a block the published parameters, and return them by their published names."""
    own = dict(made[block].named_parameters())
    named = {}
    for theirs, ours in NAMES.items():
        for name in ("weight", "bias"):
            parameter = own.pop(f"{ours}.{name}")
            parameter.data.copy_(golden()[f"{prefix}.p.{published}{theirs}.{name}"])
            named[f"{published}{theirs}.{name}"] = parameter
    assert not own, "every parameter has a published value"
    return named


def steps(spec: NetworkSpec, made: Network, *changes: str) -> torch.optim.Optimizer:
    """Return the optimiser of the only phase of a network that trains all at once."""
    run = small.config(small.CNN, *changes, mode="simultaneous")
    object.__setattr__(run, "network", spec)
    (phase,) = plan.phases(run)
    found = optimiser.of_blocks(run, phase, made.learnt)
    assert found is not None
    return found


BLOCK = "SPHeRe-c8-k3-p1:bn_affine:leaky:max_4_2_1:projector_out=6"
WHOLE = (
    "SPHeRe-c4-k3-p1:bn_affine:leaky:max_4_2_1:projector_out=6 "
    "SPHeRe-c8-k3-p1:bn_affine:leaky:max_4_2_1:projector_out=6 "
    "SPHeRe-c16-k3-p1:bn_affine:leaky:max_4_2_1:residual:projector_out=6 BP:flatten"
)


@pytest.mark.parametrize("similarity", ["cosine", "distance"])
@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("case", SHAPES)
def test_a_step_is_that_of_the_published_code(case: str, kind: str, similarity: str) -> None:
    prefix = f"{case}.{kind}"
    residual = ":residual" if case == "res" else ""
    dtype = torch.float32 if kind == "f32" else torch.float64
    text = f"{BLOCK}{residual}:similarity={similarity} BP:flatten"
    made = network(text, SHAPES[case], dtype)
    named = load(made, prefix, 0)
    out = made[0].descend(golden()[f"{prefix}.x"], torch.zeros(5, dtype=torch.int64))
    found = made[0].local.means()
    old = "distance." if similarity == "distance" else ""
    assert_close(out, f"{prefix}.y_out")
    for ours, theirs in {"structure": f"{old}structure", "loss": f"{old}loss", "ortho": "ortho"}.items():
        assert found[ours] == pytest.approx(float(golden()[f"{prefix}.{theirs}"]), abs=1e-6 if kind == "f32" else 1e-10)
    for name, parameter in named.items():
        assert parameter.grad is not None
        assert_close(parameter.grad, f"{prefix}.{old}g.{name}")
    if not old:
        steps(made.spec, made).step()
        assert_stepped(named, prefix)


def test_a_step_of_the_whole_network_is_that_of_the_published_code() -> None:
    """Three blocks and the classifier together; the answers after it, by the running statistics of two batches."""
    made = network(WHOLE, (3, 32, 32))
    named: dict[str, Tensor] = {}
    for i in range(3):
        named |= load(made, "net", i, f"block{i + 1}.")
    for name in ("weight", "bias"):
        parameter = getattr(made[3].layer, name)
        parameter.data.copy_(golden()[f"net.p.fc.{name}"])
        named[f"fc.{name}"] = parameter
    run = small.config(WHOLE.replace("max_4_2_1", "max_2_1_0"), mode="simultaneous")
    (phase,) = plan.phases(run)
    x, labels = golden()["net.x"], golden()["net.labels"]
    with torch.no_grad():
        made(x)  # the running statistics have seen this batch twice when the step is made
    logits = engine.backprop_step(made, x, labels, phase, 0)
    loss = losses.loss(made.loss, logits, labels)
    loss.backward()
    assert_close(logits.detach(), "net.logits")
    assert_close(loss.detach(), "net.ce")
    own = torch.tensor([made[i].local.means()["loss"] for i in range(3)])
    assert_close(own, "net.block_losses")
    assert_close(own.sum() + loss.detach(), "net.total")
    for name, parameter in named.items():
        assert_close(parameter.grad, f"net.g.{name}")
    steps(made.spec, made, "classifier.optimiser=adamw", "classifier.weight_decay=0.05").step()
    assert_stepped(named, "net")
    for name, parameter in named.items():  # where rounding decides
        parameter.data.copy_(golden()[f"net.adamw1.{name}"])
    with torch.no_grad():
        assert_close(made.eval()(x).flatten(1), "net.eval_logits_after_step")


def test_two_images_by_hand() -> None:
    x, z = torch.eye(2, dtype=torch.float64), torch.tensor([[1, 0], [1, 1]], dtype=torch.float64)
    assert sphere.structure(x, z).item() == pytest.approx(0.25)
    assert sphere.orthogonality(z).item() == pytest.approx(0.25)
    assert sphere.distances(x, z).item() == pytest.approx((math.sqrt(2) - math.sqrt(2 - math.sqrt(2))) ** 2)


def test_the_gradient_of_the_structure_is_the_printed_one() -> None:
    """And has no part along z: the loss does not see the length of an image's features."""
    torch.manual_seed(0)
    x, z = torch.rand(7, 11, dtype=torch.float64), torch.rand(7, 4, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(sphere.structure(x, z), z)
    n, m = F.normalize(x, dim=1), F.normalize(z.detach(), dim=1)
    for b in range(7):
        terms = [(m[b] @ m[c] - n[b] @ n[c]) * (m[c] - (m[b] @ m[c]) * m[b]) for c in range(7)]
        torch.testing.assert_close(found[b], 4 / 49 * torch.stack(terms).sum(0) / z[b].norm().detach())
        assert abs(float(found[b] @ z[b].detach())) < 1e-12


@pytest.mark.parametrize("term", [sphere.structure, sphere.distances])
def test_length_rotation_and_order_change_nothing(term: Any) -> None:
    torch.manual_seed(0)
    x, z = torch.rand(8, 5, dtype=torch.float64), torch.rand(8, 3, dtype=torch.float64)
    turn = torch.linalg.qr(torch.rand(3, 3, dtype=torch.float64))[0]
    order, lengths = torch.randperm(8), 0.1 + torch.rand(8, 1, dtype=torch.float64)
    want = term(x, z)
    torch.testing.assert_close(term(x * lengths, z / lengths), want)
    torch.testing.assert_close(term(x, z @ turn), want)
    torch.testing.assert_close(term(x[order], z[order]), want)
    torch.testing.assert_close(term(x, x), torch.zeros_like(want))


@pytest.mark.parametrize(("images", "features"), [(4, 9), (3, 12), (5, 5)])
def test_columns_are_as_orthogonal_as_the_batch_lets_them(images: int, features: int) -> None:
    """d columns of B numbers, d > B: the least value 1/B - 1/d belongs to a tight frame, here of roots of unity."""
    angle = 2 * math.pi * torch.arange(features, dtype=torch.float64).outer(torch.arange(images, dtype=torch.float64))
    frame = torch.polar(torch.ones_like(angle), angle / features)  # (d, B), complex, of rank B
    gram = (frame @ frame.conj().T).abs() / images
    assert gram.fill_diagonal_(0).square().mean() == pytest.approx(1 / images - 1 / features)
    torch.manual_seed(0)
    for _ in range(20):
        assert sphere.orthogonality(torch.randn(images, features, dtype=torch.float64)) >= 1 / images - 1 / features


def test_an_image_of_zeros_gives_finite_numbers() -> None:
    x, z = torch.rand(4, 6), torch.rand(4, 3).requires_grad_()
    x[1] = 0
    silent = z * torch.tensor([1.0, 0, 1, 1])[:, None]
    loss = sphere.structure(x, silent) + sphere.orthogonality(silent)
    loss.backward()
    assert loss.isfinite()
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())


def test_without_a_projector_the_loss_reads_the_mean_over_the_map() -> None:
    made = network(f"{BLOCK}:projector=0 BP:flatten", (3, 8, 8))
    x = torch.rand(5, 3, 8, 8)
    out = made[0].descend(x, torch.zeros(5, dtype=torch.int64))
    want = sphere.structure(x.flatten(1), out.mean(dim=(2, 3))) + 0.8 * sphere.orthogonality(out.mean(dim=(2, 3)))
    assert made[0].local.means()["loss"] == pytest.approx(float(want), rel=1e-6)
    assert not list(made[0].local.parameters())


@pytest.mark.parametrize(("size", "hidden"), [(0, 4), (5, 5)])
def test_the_projector_has_half_the_channels_unless_told(size: int, hidden: int) -> None:
    made = network(f"{BLOCK}:projector_hidden={size} BP:flatten", (3, 8, 8))
    assert made[0].local.head[0][0].weight.shape == (hidden, 8, 1, 1)


def test_both_terms_off_is_refused() -> None:
    with pytest.raises(ConfigError, match="structure, ortho are all 0"):
        network(f"{BLOCK}:structure=0:ortho=0 BP:flatten", (3, 8, 8))


@pytest.mark.parametrize("text", ["3SPHeReCnnDigits", "SPHeRe-c32-ls0.01:flatten:bn_affine:leaky BP"])
def test_training_beats_the_network_as_drawn(text: str) -> None:
    """On 600 digits, with the same classifier."""
    changes = ("dataset_sup.samples=600", "dataset_sup.epochs=6", "dataset_sup.batch_size=32")
    found = []
    for control, mode in (("learned", "simultaneous"), ("frozen", "successive")):
        done = small.run(small.config(text, *changes, f"control={control}", mode=mode))
        found.append(done.metrics["test_acc"])
    assert found[0] > found[1] + 2


# -- what it brought to every block -------------------------------------------------------------------------------


def test_a_residual_averages_pixels_and_fills_channels_with_zeros() -> None:
    x = torch.rand(2, 3, 8, 6)
    found = blocks.shortcut(x, (5, 4, 3))
    torch.testing.assert_close(found[:, :3], F.avg_pool2d(x, 2))
    assert not found[:, 3:].any()
    torch.testing.assert_close(blocks.shortcut(x[:, :, 0, 0], (3,)), x[:, :, 0, 0])


@pytest.mark.parametrize("method", ["Soft", "BP", "LPL", "SPHeRe"])
def test_a_residual_is_the_block_without_it_and_its_input(method: str) -> None:
    """While the block learns, too; a loss of its own and a Hebbian step do not see it."""
    torch.manual_seed(0)
    text = f"{method}-c6-k3-p1:relu:max_2_2_0"
    with_it, without = (network(f"{text}{part} BP:flatten", (3, 8, 8)) for part in (":residual", ""))
    with_it.load_state_dict(without.state_dict())
    x, labels = torch.rand(6, 3, 8, 8), torch.zeros(6, dtype=torch.int64)
    want = without[0](x) + blocks.shortcut(x, (6, 4, 4))
    torch.testing.assert_close(with_it[0](x), want)
    for made in (with_it, without):
        if made[0].spec.hebbian:
            torch.testing.assert_close(made[0].learn(x, 0.01), want if made is with_it else without_input(want, x))
        elif made[0].local is not None:
            torch.testing.assert_close(made[0].descend(x, labels), want if made is with_it else without_input(want, x))
    for ours, theirs in zip(with_it[0].parameters(), without[0].parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(with_it[0].weight, without[0].weight)


def without_input(value: Tensor, x: Tensor) -> Tensor:
    return value - blocks.shortcut(x, tuple(value.shape[1:]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("BP-c2-k3-p1:residual BP:flatten", "at least as many channels after the block, got 3 before and 2 after"),
        ("BP-c4-k4:residual BP:flatten", "whole pixels, which 3x8x8 and 4x5x5"),
        ("BP-c4:flatten:residual BP", "maps before and after the block, or vectors, got 3x8x8 and 4"),
    ],
)
def test_residuals_that_do_not_fit_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shapes.trace(grammar.parse_network(text, catalog.load().defaults), (3, 8, 8), 10)


@pytest.mark.parametrize(
    "text", ["Soft-c6-k3:bn_affine BP:flatten", "EP-c6:flatten:bn_affine EP", "EP-c6:flatten:residual EP"]
)
def test_what_nothing_would_train_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"does not train|cannot be part of a settling network"):
        grammar.parse_network(text, catalog.load().defaults)


@pytest.mark.parametrize("mode", ["successive", "simultaneous"])
def test_a_classifier_by_adamw_is_that_of_torch(mode: str) -> None:
    """Decay apart from the gradient: after one update from zero moments the weights are those of torch's AdamW."""
    run = small.config(
        "BP-c8-k3-p1:bn_affine:relu BP:flatten",
        "classifier.optimiser=adamw",
        "classifier.weight_decay=0.1",
        "classifier.schedule=constant",
        "dataset_sup.samples=20",
        mode=mode,
    )
    start = model.build(run)
    done = small.run(run)
    assert done.network is not None
    for name, value in done.network.named_parameters():
        before = dict(start.named_parameters())[name].detach()
        moved = value.detach() - before * (1 - 0.001 * 0.1)
        assert float(moved.abs().max()) <= 0.001 * 1.01, name
        assert float(moved.abs().max()) > 0.0009, name
