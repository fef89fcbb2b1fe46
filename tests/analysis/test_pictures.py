"""What the analyses of stored networks compute: closed forms, gradients, direct computations.

Without it attacks could be too weak and filters the wrong ones, and every picture would still look plausible.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import pandas as pd
import pytest
import small
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hebb.analysis import embed, filters, gradients, interpolate, neurons, pixels, preferred_images, receptive, robust
from hebb.analysis.embed import Method
from hebb.analysis.filters import Order, View
from hebb.analysis.robust import Attack, Loss
from hebb.config import catalog
from hebb.core import seeds
from hebb.core.errors import ConfigError
from hebb.nn import model
from hebb.nn.model import Network
from hebb.probing import neuron_order

DEEP = (
    "SoftKrotov-c6-k5-p2:bn:triangle_0.7:avg_4_2_1 SoftKrotov-c7-k3-p1-e1:bn:triangle_1.4:max_2_2_0 "
    "Soft-c5-k3-p1:bn:triangle:avg_2_2_0 BP:flatten"
)


def network(text: str, shape: tuple[int, int, int] = (2, 24, 24), seed: int = 0) -> Network:
    """A network with random weights and random batch statistics, in evaluation mode."""
    made = Network(catalog.load().network(text), shape, 10).initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.5, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return made.eval()


def blocks(made: Network) -> list:
    return [made[i] for i in range(len(made))]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- receptive fields -------------------------------------------------------------------------------------


def test_sides_of_the_published_fields() -> None:
    """Journe et al. maximise on images of 5, 12, 26 and 54 pixels for the four layers of the STL-10 network."""
    spec = catalog.load().network("5SoftHebbCnnSTL").blocks
    assert [receptive.side(spec, i) for i in range(4)] == [5, 12, 26, 54]


@pytest.mark.parametrize(
    "text",
    [
        "Soft-c3-k5-p2:avg_4_2_1 Soft-c4-k3-p1:avg_2_2_0 Soft-c3-k3-p1 BP:flatten",
        "Soft-c3-k3-p1-s2 Soft-c4-k3-p2-d2:avg_3_2_1 Soft-c3-k2 BP:flatten",
        "Soft-c3-k5-p4:padding_mode=circular:avg_2_2_0 Soft-c3-k3-p1:padding_mode=zeros BP:flatten",
        "Soft-c3-k5-p4:padding_mode=replicate Soft-c3-k3-p2 BP:flatten",
        "Soft-c3-k3-p2:padding_mode=reflect Soft-c4-k2-s2 BP:flatten",
    ],
)
def test_boxes_are_the_support_of_the_gradient(text: str) -> None:
    """Weights are positive and pools are means, so that no gradient cancels: what it reaches is what is seen."""
    made = network(text, (1, 14, 13))
    specs, shapes = [b.spec for b in blocks(made)], [b.shapes for b in blocks(made)]
    for block in range(len(made)):
        x = torch.ones(1, 1, 14, 13, requires_grad=True)
        u = made[block].pre_activation(made(x, stop=block))
        u = u if u.dim() == 4 else u[..., None, None]
        if block == len(made) - 1:
            u = u.square()  # the classifier has weights of both signs
        for row in range(u.shape[2]):
            for column in range(u.shape[3]):
                (slope,) = torch.autograd.grad(u[0, :, row, column].sum(), x, retain_graph=True)
                seen = slope[0, 0].nonzero()
                low, high = seen.amin(dim=0).tolist(), seen.amax(dim=0).tolist()
                expected = receptive.Box(low[0], low[1], high[0] + 1, high[1] + 1)
                assert receptive.box(specs, shapes, block, row, column) == expected


@pytest.mark.parametrize("block", [0, 1, 2])
def test_every_place_has_a_field_of_one_size(block: int) -> None:
    """Patches stay aligned at the borders: the box is the part of the whole field that lies inside the image."""
    made = network(DEEP)
    specs, shapes = [b.spec for b in blocks(made)], [b.shapes for b in blocks(made)]
    _, rows, columns = shapes[block].layer_out
    side, fields = receptive.side(specs, block), set()
    for row in range(rows):
        for column in range(columns):
            whole, box = (of(specs, shapes, block, row, column) for of in (receptive.reach, receptive.box))
            assert (whole.bottom - whole.top, whole.right - whole.left) == (side, side)
            inside = receptive.Box(max(whole.top, 0), max(whole.left, 0), min(whole.bottom, 24), min(whole.right, 24))
            assert inside == box
            fields.add((whole.top, whole.left))
    assert len(fields) == rows * columns


def test_what_was_learned_comes_first() -> None:
    """Radius 1 first, by the share of the wins; then the radius nearest 1; what wins nothing last."""
    radius = torch.tensor([1.001, 2.0, 0.998, 1.2, 1.0, 1.5])
    share = torch.tensor([10.0, 50.0, 20.0, 0.0, 5.0, 15.0])
    assert neuron_order.by_learning(radius, 0.005, share).tolist() == [2, 0, 4, 5, 1, 3]
    assert neuron_order.by_learning(radius, 0.005).tolist() == [4, 0, 2, 3, 5, 1]


def test_silent_neurons_are_marked() -> None:
    """A flat filter is crossed out, one that wins nothing is framed; both are counted below."""
    images = torch.rand(4, 1, 3, 3, generator=generator())
    images[2] = 0.5
    frame = pixels.beside(
        pd.DataFrame({"deviation": images.flatten(1).std(1), "share": [50.0, 0.0, 0.0, 50.0]}), images
    )
    assert filters.silent(frame) == [False, True, True, False]
    (axes,) = filters.draw(frame, "title").axes
    assert axes.get_xlabel() == "cross: the same everywhere (1 of 4); frame: the neuron wins nothing (1 of 4)"
    assert (len(axes.lines), len(axes.patches)) == (2, 1)


@pytest.mark.parametrize("block", [0, 1, 2])
def test_an_isolated_neuron_answers_as_in_its_network(block: int) -> None:
    """Where no border is near, u at a place of the map is u of the piece of image in its box."""
    made = network(DEEP, (2, 40, 40))
    specs, shapes = [b.spec for b in blocks(made)], [b.shapes for b in blocks(made)]
    isolated = neurons.isolate(blocks(made), block)
    side = receptive.side(specs, block)
    assert isolated.shape == (2, side, side)
    x = torch.rand(1, 2, 40, 40, generator=generator())
    with torch.no_grad():
        u = made[block].pre_activation(made(x, stop=block))
        middle = u.shape[2] // 2
        box = receptive.box(specs, shapes, block, middle, middle)
        assert box.bottom - box.top == box.right - box.left == side
        alone = isolated.respond(x[:, :, box.top : box.bottom, box.left : box.right])
    if block == 1:  # its triangle before the competition is left out, as an activation is
        alone = (alone - alone.mean(dim=1)).relu()
    torch.testing.assert_close(alone[0], u[0, :, middle, middle], rtol=1e-4, atol=1e-5)
    again = made[block].pre_activation(made(x, stop=block))
    assert torch.equal(again, u), "the network itself is left as it was"


def test_behind_a_flattened_map_a_neuron_sees_the_image() -> None:
    made = network(DEEP)
    isolated = neurons.isolate(blocks(made), 3)
    x = torch.rand(3, 2, 24, 24, generator=generator())
    assert isolated.shape == (2, 24, 24)
    torch.testing.assert_close(isolated.respond(x), made(x))


@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_filter_through_its_field_is_the_linear_neuron(block: int) -> None:
    """U(x) - u(0) = <filter, x> for every x, where activations are left out."""
    made = network(DEEP)
    isolated = neurons.isolate(blocks(made), block, linear=True)
    chosen = torch.tensor([3, 0])
    projected = neurons.projected(isolated, chosen).double()
    x = torch.randn(5, *isolated.shape, generator=generator())
    with torch.no_grad():
        change = (isolated.respond(x) - isolated.respond(torch.zeros_like(x)))[:, chosen].double()
    torch.testing.assert_close(change, torch.einsum("bchw,nchw->bn", x.double(), projected), rtol=1e-3, atol=1e-3)
    if block == 0:  # behind its batch norm
        norm = made[0].before[0]
        assert isinstance(norm, nn.BatchNorm2d)
        scale = (norm.running_var + norm.eps).rsqrt().view(1, -1, 1, 1)
        torch.testing.assert_close(projected, (made[0].weight[chosen] * scale).double(), rtol=1e-4, atol=1e-5)


# -- what neurons prefer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("radius", [1.0, 4.0])
def test_the_best_image_of_a_linear_neuron(positive: bool, radius: float) -> None:
    weight = torch.randn(6, 2 * 5 * 5, generator=generator(1))
    images, answers = neurons.maximise(
        lambda x: x.flatten(1) @ weight.T,
        (2, 5, 5),
        torch.tensor([4, 1, 5]),
        steps=200,
        step=0.1,
        radius=radius,
        positive=positive,
        generator=generator(),
        batch=2,
    )
    direction = weight[[4, 1, 5]]
    direction = direction.clamp(min=0) if positive else direction
    expected = radius * direction / direction.norm(dim=1, keepdim=True)
    torch.testing.assert_close(images.flatten(1), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(answers[:, 1], radius * direction.norm(dim=1), rtol=1e-5, atol=1e-5)
    assert bool((answers[:, 0] <= answers[:, 1] + 1e-5).all())


def test_published_settings_reach_the_best_image_of_a_filter() -> None:
    """500 steps of 0.001 suffice for weights of norm 1 and more: the start of norm 1e-5 is forgotten at once."""
    made = network("Soft-c4-k5-r3 BP:flatten", (3, 12, 12))
    isolated = neurons.isolate(blocks(made), 0)
    frame = preferred_images.best_images(isolated, torch.arange(4), positive=False, generator=generator())
    weight = made[0].weight.flatten(1)
    np.testing.assert_allclose(pixels.of(frame).reshape(4, -1), weight / weight.norm(dim=1, keepdim=True), atol=2e-3)
    np.testing.assert_allclose(frame["answer"], weight.norm(dim=1), rtol=1e-4)


def test_the_best_image_beats_every_other_of_its_norm() -> None:
    """In a deep network there is no closed form, but no random image of that norm may do better."""
    made = network(DEEP)
    isolated = neurons.isolate(blocks(made), 1)
    frame = preferred_images.best_images(isolated, torch.arange(7), steps=150, step=0.02, generator=generator())
    images = torch.from_numpy(pixels.of(frame))
    torch.testing.assert_close(images.flatten(1).norm(dim=1), torch.ones(7))
    assert bool((images >= 0).all())
    x = torch.rand(2000, *isolated.shape, generator=generator())
    with torch.no_grad():
        best = isolated.respond(x / x.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).amax(dim=0)
    assert bool((torch.tensor(list(frame["answer"])) > best).all())


@pytest.mark.parametrize("linear", [False, True])
def test_the_strongest_images_by_sorting_them_all(linear: bool) -> None:
    x = torch.rand(60, 2, 9, 9, generator=generator())
    made = None if linear else network("Soft-c5-k3-p1-s2 BP:flatten", (2, 9, 9))
    weight = torch.randn(5, 162, generator=generator(2))

    def respond(images: Tensor) -> Tensor:
        return images.flatten(1) @ weight.T if made is None else made[0].pre_activation(images)

    chosen = torch.tensor([3, 1])
    tops = preferred_images.strongest(respond, x.split(7), chosen, 4)
    u = respond(x)[:, chosen]
    u = u[..., None, None] if u.dim() == 2 else u
    for i in range(2):
        best = u[:, i].flatten(1).amax(dim=1)
        order = sorted(range(60), key=lambda n: -float(best[n]))[:4]
        assert tops.images[i].tolist() == order
        assert tops.answers[i].tolist() == [float(best[n]) for n in order]
        for rank, image in enumerate(order):
            assert float(u[image, i, tops.rows[i, rank], tops.columns[i, rank]]) == float(best[image])


def test_chosen_neurons_are_random_and_sorted() -> None:
    weight = torch.randn(50, 3, 4, generator=generator()) * torch.linspace(0.1, 5, 50).view(-1, 1, 1)
    chosen = neurons.choose(weight, 12, seed=0)
    deviations = weight.flatten(1).double().numpy().std(axis=1)[chosen]
    assert len(set(chosen.tolist())) == 12
    assert list(deviations) == sorted(deviations, reverse=True)
    assert chosen.tolist() == neurons.choose(weight, 12, seed=0).tolist()
    assert set(chosen.tolist()) != set(neurons.choose(weight, 12, seed=1).tolist())
    assert sorted(neurons.choose(weight, 99, seed=0).tolist()) == list(range(50))


# -- filters ----------------------------------------------------------------------------------------------


def test_filters_are_the_sorted_weights() -> None:
    made = network(DEEP)
    weight = made[0].weight.numpy().astype(np.float64)
    for order, key in (
        (Order.DEVIATION, lambda i: -weight[i].std()),
        (Order.RADIUS, lambda i: -math.sqrt((weight[i] ** 2).sum())),
        (Order.INDEX, lambda i: i),
    ):
        frame = filters.table(blocks(made), 0, view=View.WEIGHTS, order=order, most=4)
        expected = sorted(range(6), key=key)[:4]
        assert list(frame["neuron"]) == expected
        np.testing.assert_array_equal(pixels.of(frame), weight[expected])
        np.testing.assert_allclose(frame["deviation"], [weight[i].std() for i in expected], rtol=1e-5)
        np.testing.assert_allclose(frame["radius"], [np.linalg.norm(weight[i]) for i in expected], rtol=1e-5)
    deeper = filters.table(blocks(made), 1, view=View.MEAN, order=Order.INDEX)
    np.testing.assert_allclose(pixels.of(deeper), made[1].weight.mean(dim=1, keepdim=True), rtol=1e-6, atol=1e-7)
    assert pixels.of(filters.table(blocks(made), 1, view=View.IMAGE)).shape == (7, 2, 12, 12)
    mlp = network("Soft-c8:flatten BP", (2, 3, 4))
    np.testing.assert_array_equal(
        pixels.of(filters.table(blocks(mlp), 0, view=View.WEIGHTS, order=Order.INDEX)).reshape(8, -1), mlp[0].weight
    )


def test_views_that_a_block_does_not_have() -> None:
    made = network(DEEP)
    assert [filters.view_of(blocks(made), i) for i in range(4)] == ["weights", "image", "image", "image"]
    for block, view, problem in ((1, View.WEIGHTS, "are not images"), (3, View.MEAN, "no input channels")):
        with pytest.raises(ConfigError, match=problem):
            filters.view_of(blocks(made), block, view)


# -- attacks ----------------------------------------------------------------------------------------------


def linear_model(classes: int = 3) -> tuple[Tensor, Tensor, robust.Logits]:
    """Weights, bias and logits of a classifier whose planes pass near the middle of the pixel range."""
    weight = torch.randn(classes, 12, generator=generator(3))
    bias = -0.5 * weight.sum(dim=1)
    return weight, bias, lambda x: x.flatten(1) @ weight.T + bias


@pytest.mark.parametrize("loss", Loss)
@pytest.mark.parametrize("norm", [Attack.L2, Attack.LINF])
def test_one_step_against_a_linear_model_is_the_closed_form(norm: Attack, loss: Loss) -> None:
    """With d = w_other - w_own the margin is d x + b: eps sign(d) costs eps |d|_1, and eps d/|d|_2 costs eps |d|_2."""
    weight, bias, logits = linear_model(2)
    x = 0.4 + 0.2 * torch.rand(40, 1, 3, 4, generator=generator())
    labels = logits(x).argmax(dim=1)  # all right at first
    d = weight[1 - labels] - weight[labels]
    eps = 0.03 if norm == Attack.L2 else 0.01
    step = d.sign() if norm == Attack.LINF else d / d.norm(dim=1, keepdim=True)
    attacked, right = robust.pgd(
        logits, x, labels, eps, norm, steps=1, step=1.0, restarts=1, loss=loss, generator=generator()
    )
    torch.testing.assert_close(attacked.flatten(1), x.flatten(1) + eps * step)
    margin = (d * x.flatten(1)).sum(dim=1) + bias[1 - labels] - bias[labels]
    cost = eps * (d.abs().sum(dim=1) if norm == Attack.LINF else d.norm(dim=1))
    assert right.tolist() == (margin + cost < 0).tolist()
    assert 0 < int(right.sum()) < 40, "the ball is of a size that tells"


@settings(max_examples=30, deadline=None)
@given(
    eps=st.floats(0, 2),
    norm=st.sampled_from([Attack.L2, Attack.LINF]),
    seed=st.integers(0, 10**6),
    spread=st.floats(0.1, 3),
)
def test_attacked_images_stay_in_ball_and_box(eps: float, norm: Attack, seed: int, spread: float) -> None:
    _, _, logits = linear_model()
    x = torch.rand(6, 1, 3, 4, generator=generator(seed))
    x[:2] = x[:2].round()  # pixels at the bounds
    moved = x + spread * torch.randn(x.shape, generator=generator(seed + 1))
    for attacked in (
        robust.project(moved, x, eps, norm),
        robust.pgd(logits, x, torch.zeros(6, dtype=torch.int64), eps, norm, steps=3, generator=generator(seed))[0],
    ):
        change = (attacked - x).flatten(1)
        size = change.norm(dim=1) if norm == Attack.L2 else change.abs().amax(dim=1)
        assert float(size.max()) <= eps * (1 + 1e-5) + 1e-6
        assert float(attacked.min()) >= 0
        assert float(attacked.max()) <= 1


def test_random_starts_fill_the_ball() -> None:
    """Uniform in it: (|z|_2/eps)^D is uniform on [0, 1], and so is |z_i|/eps of the other norm."""
    from scipy import stats

    x = torch.zeros(2000, 1, 2, 3)
    l2 = robust._inside(x, 0.7, Attack.L2, generator()).flatten(1)
    assert stats.kstest((l2.norm(dim=1) / 0.7).numpy() ** 6, "uniform").pvalue > 0.01
    linf = robust._inside(x, 0.7, Attack.LINF, generator()).flatten()
    assert stats.kstest(((linf / 0.7 + 1) / 2).numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize("attack", Attack)
def test_accuracy_falls_from_that_without_an_attack(attack: Attack) -> None:
    _, _, logits = linear_model()
    x = torch.rand(100, 1, 3, 4, generator=generator(9))
    labels = logits(x + 0.2 * torch.randn(x.shape, generator=generator(8))).argmax(dim=1)
    batches = list(zip(x.split(30), labels.split(30), strict=True))
    frame = robust.measure(logits, batches, attack, (0.5, 0.0, 0.1, 0.02), generator=generator())
    assert list(frame["strength"]) == [0.0, 0.02, 0.1, 0.5]
    assert frame["accuracy"][0] == 100 * float((logits(x).argmax(dim=1) == labels).double().mean())
    assert frame["accuracy"][3] < frame["accuracy"][0]
    assert set(frame["images"]) == {100}
    if attack != Attack.NOISE:
        assert list(frame["accuracy"]) == sorted(frame["accuracy"], reverse=True)
        assert set(frame["no_gradient"]) == {0.0}


def test_an_attack_on_a_linear_model_of_many_classes_finds_the_exact_answer() -> None:
    """An image resists the L2 ball iff it lies further than eps from every plane between its class and another."""
    weight, _, logits = linear_model(4)
    x = 0.4 + 0.2 * torch.rand(200, 1, 3, 4, generator=generator(5))  # far from the bounds of the pixels
    labels = logits(x).argmax(dim=1)
    z = logits(x)
    distance = torch.full((200,), torch.inf)
    for other in range(4):
        gap = (z.gather(1, labels.unsqueeze(1)).squeeze(1) - z[:, other]) / (weight[labels] - weight[other]).norm(dim=1)
        distance = distance.minimum(gap.where(labels != other, torch.inf))
    eps = 0.03
    clear = (distance - eps).abs() > 1e-4
    assert 20 < int((distance > eps).sum()) < 180
    _, right = robust.pgd(logits, x, labels, eps, Attack.L2, steps=20, restarts=4, generator=generator())
    assert bool((right == (distance > eps))[clear].all())
    _, weaker = robust.pgd(logits, x, labels, eps, Attack.L2, steps=20, loss=Loss.CROSS_ENTROPY, generator=generator())
    assert not bool((~weaker & (distance > eps))[clear].any()), "no image is fooled outside its reach"


def test_an_image_without_a_gradient_is_counted() -> None:
    """Answers that do not depend on the image give none; robust they seem, and the table says why."""
    x = torch.rand(10, 1, 2, 2, generator=generator())
    flat = lambda images: torch.eye(2)[torch.zeros(len(images), dtype=torch.int64)] + 0 * images.sum()  # noqa: E731
    frame = robust.measure(
        flat, [(x, torch.zeros(10, dtype=torch.int64))], Attack.L2, (0.0, 1.0), generator=generator()
    )
    assert list(frame["accuracy"]) == [100.0, 100.0]
    assert list(frame["no_gradient"]) == [100.0, 100.0]


def test_the_gradient_of_an_attack_is_that_of_the_network() -> None:
    """By finite differences in double precision; without ``whole`` the triangle hides a part of it."""
    made = network("Soft-c6-k3-p1:bn:triangle_1.4:avg_2_2_0 BP:flatten", (1, 6, 6)).double()
    x, labels = torch.rand(2, 1, 6, 6, generator=generator(), dtype=torch.float64), torch.tensor([1, 3])
    with gradients.whole([made]):
        slope = robust.gradient(made, x, labels, Loss.CROSS_ENTROPY)
    expected = torch.zeros_like(x)
    with torch.no_grad():
        for place in np.ndindex(*x.shape):
            step = torch.zeros_like(x)
            step[place] = 1e-6
            up, down = (robust.loss_of(Loss.CROSS_ENTROPY, made(x + s * step), labels).sum() for s in (1, -1))
            expected[place] = (up - down) / 2e-6
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-7)
    constant = robust.gradient(made, x, labels, Loss.CROSS_ENTROPY)
    assert float((constant - expected).abs().max()) > 0.1 * float(expected.abs().max())


def test_spread_over_the_runs_of_an_arm() -> None:
    rows = [("A", 0, 90.0), ("A", 1, 92.0), ("B", 0, 50.0)]
    single = pd.DataFrame(
        [
            {"arm": a, "seed": s, "kind": "l2", "strength": 0.1, "accuracy": v, "images": 7, "no_gradient": 0.0}
            for a, s, v in rows
        ]
    )
    summary = robust.summary(single).set_index("arm")
    assert (summary.loc["A", "n"], summary.loc["A", "mean"], summary.loc["B", "mean"]) == (2, 91.0, 50.0)
    assert summary.loc["A", "sd"] == pytest.approx(math.sqrt(2))
    assert math.isnan(summary.loc["B", "sd"])
    assert (summary.loc["A", "images"], summary.loc["A", "no_gradient"]) == (7, 0.0)


@pytest.mark.parametrize("strengths", [(), (0.1, -1.0)])
def test_strengths_that_no_attack_can_have(strengths: tuple[float, ...]) -> None:
    _, _, logits = linear_model()
    with pytest.raises(ConfigError, match="--l2: must be numbers >= 0, at least one"):
        robust.measure(logits, [], Attack.L2, strengths, generator=generator())


# -- maps of layers ---------------------------------------------------------------------------------------


def clusters() -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(120) % 3
    centres = np.eye(3, 20) * 30
    return centres[labels] + np.random.default_rng(0).normal(size=(120, 20)), labels


@pytest.mark.parametrize(
    "method", [Method.TSNE, pytest.param(Method.UMAP, marks=pytest.mark.slow)]
)  # it is compiled first
def test_a_map_keeps_neighbours_and_its_bits(method: Method) -> None:
    if method == Method.UMAP:
        pytest.importorskip("umap", reason="the extra umap is not installed")
    features, labels = clusters()
    frame = embed.table({"b0": features}, labels, method, seed=3, perplexity=10)
    points = frame[["x", "y"]].to_numpy()
    again = embed.plane(features, method, seed=3, perplexity=10)
    np.testing.assert_array_equal(points, again)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag(np.full(120, np.inf))
    assert bool((labels[distances.argmin(axis=1)] == labels).all())
    assert frame["trustworthiness"].nunique() == 1
    assert frame["trustworthiness"][0] == pytest.approx(trustworthiness(features, points, 15))
    assert list(frame["image"]) == list(range(120))


def trustworthiness(features: np.ndarray, points: np.ndarray, k: int) -> float:
    """1 - 2/(n k (2n - 3k - 1)) sum over neighbours j in the map of (rank of j before - k), where it is above k."""
    n = len(features)
    before, after = (np.linalg.norm(z[:, None] - z[None], axis=2) for z in (features, points))
    total = 0
    for i in range(n):
        ranks = {j: r for r, j in enumerate(np.argsort(before[i]))}
        total += sum(max(0, ranks[j] - k) for j in np.argsort(after[i])[1 : k + 1])
    return 1 - 2 * total / (n * k * (2 * n - 3 * k - 1))


@pytest.mark.parametrize(("images", "neighbours"), [(31, 15), (30, 14), (20, 9), (19, 9)])
def test_few_images_are_trusted_by_fewer_neighbours(images: int, neighbours: int) -> None:
    """Trustworthiness is defined for fewer neighbours than half of the images."""
    features, labels = clusters()
    frame = embed.table({"b0": features[:images]}, labels[:images], Method.TSNE, perplexity=5)
    points = frame[["x", "y"]].to_numpy()
    assert frame["trustworthiness"][0] == pytest.approx(trustworthiness(features[:images], points, neighbours))


def test_components_are_those_of_the_covariance() -> None:
    features, _ = clusters()
    components = embed.reduced(features, 5, seed=0)
    values = np.linalg.eigvalsh(np.cov(features.T))[::-1][:5]
    np.testing.assert_allclose(components.var(axis=0, ddof=1), values, rtol=1e-6)


def test_maps_that_cannot_be_made() -> None:
    features, _ = clusters()
    with pytest.raises(ConfigError, match="too few"):
        embed.plane(features, Method.TSNE, perplexity=50)
    with pytest.raises(ConfigError, match="2 images are too few, 3 are needed"):
        embed.plane(features[:2], Method.TSNE, perplexity=0.5)
    with pytest.raises(ConfigError, match="finite"):
        embed.plane(np.full((200, 3), np.nan), Method.TSNE)


def test_without_umap_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ConfigError, match=r"--method umap: needs umap, which is not installed\n.*\[umap\]"):
        embed.plane(clusters()[0], Method.UMAP)


# -- between classes --------------------------------------------------------------------------------------


def test_class_means_by_numpy() -> None:
    x = torch.rand(50, 2, 3, 3, generator=generator())
    labels = torch.arange(50) % 5 - 1  # some have none
    means = interpolate.means(zip(x.split(8), labels.split(8), strict=True), 5)
    for label in range(4):
        np.testing.assert_allclose(means[label], x[labels == label].numpy().astype(np.float64).mean(axis=0))
    assert bool(means[4].isnan().all())


def test_prototypes_of_neurons() -> None:
    weight = torch.tensor([[1.0, 3.0, 0.0, 2.0], [3.0, 5.0, 0.0, 2.0], [0.0, -1.0, 0.0, 1.0]])
    prototypes = interpolate.of_neurons(weight, torch.tensor([1, 1, 0]), (1, 2, 2), 3)
    torch.testing.assert_close(prototypes[1], torch.tensor([[[0.5, 1.0], [0.0, 0.5]]], dtype=torch.float64))
    torch.testing.assert_close(prototypes[0], torch.tensor([[[0.5, 0.0], [0.5, 1.0]]], dtype=torch.float64))
    assert bool(prototypes[2].isnan().all())


def test_lines_end_at_the_prototypes_and_what_is_made_stays_near() -> None:
    made = network("Soft-c6-k3-p1:bn:triangle:avg_2_2_0 BP:flatten", (1, 8, 8))
    a, b = torch.rand(2, 1, 8, 8, generator=generator())
    t, straight = interpolate.line(a, b, 7)
    moved = interpolate.generated(made, straight, t, (2, 5), radius=0.4, steps=30)
    for images in (straight, moved):
        assert torch.equal(images[0], a)
        assert torch.equal(images[-1], b)
    torch.testing.assert_close(straight[2], a + (b - a) * 2 / 6)
    reach = 4 * t * (1 - t) * 0.4 * float((b - a).norm())
    assert bool(((moved - straight).flatten(1).norm(dim=1) <= reach * (1 + 1e-5) + 1e-6).all())
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    frame = interpolate.table(made, {"line": straight, "generated": moved}, t, (2, 5))
    p = frame[[f"p{c}" for c in range(10)]].to_numpy()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    with torch.no_grad():
        np.testing.assert_allclose(p[:7], made(straight).softmax(dim=1), rtol=1e-4, atol=1e-6)
    target = np.tile(t.numpy(), 2)
    cost = -(1 - target) * np.log(frame["p2"]) - target * np.log(frame["p5"])
    assert bool((cost[7:].to_numpy() <= cost[:7].to_numpy() + 1e-6).all())
    assert bool((cost[8:13].to_numpy() < cost[1:6].to_numpy()).all()), "inside, the network's own are nearer"
    with pytest.raises(ConfigError, match="points"):
        interpolate.line(a, b, 1)


def test_seeds_name_their_purpose() -> None:
    """The choice of neurons and the start of an ascent have generators of their own."""
    drawn = {float(torch.rand(1, generator=seeds.generator(0, purpose))) for purpose in ("neurons", "ascent")}
    assert len(drawn) == 2


@pytest.mark.parametrize(
    ("radius", "short", "full"),
    [
        (1.0, "radius 1 and most wins first", "neurons of radius 1 first, by their share of the wins"),
        (25.0, "radius nearest 1 first", "no neuron has radius 1"),
    ],
)
def test_the_order_is_said_as_the_neurons_are(radius: float, short: str, full: str) -> None:
    """A title must not speak of neurons of radius 1 where there are none."""
    block = model.build(small.config()).blocks[0]
    block.weight.copy_(radius * torch.nn.functional.normalize(block.weight.flatten(1)).view_as(block.weight))
    assert filters.sorting(block, filters.Order.LEARNED) == short
    assert filters.sorting_in_full(block).startswith(full)
