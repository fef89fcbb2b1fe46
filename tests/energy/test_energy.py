"""The equations of networks that settle: published golden vectors, plain loops, gradients, descent.

Without it a sign or a factor of two in a phase would still learn, only worse.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ROOT
from torch import Tensor, nn

from hebb.config import catalog
from hebb.config.registry import RULES, SettlingRule
from hebb.config.settle import make_settle
from hebb.energy import diagnostics, phases
from hebb.energy.coding import Coding
from hebb.energy.network import EnergyNetwork, PhaseState
from hebb.kernels import loops
from hebb.nn import model
from hebb.nn.feedback import FeedbackLinear

GOLDEN = json.loads((ROOT / "tests" / "data" / "settling.json").read_text())
RULES_THAT_SETTLE = [rule for rule in RULES.entries() if isinstance(rule, SettlingRule)]
METHODS = [rule.name for rule in RULES_THAT_SETTLE]
CODING = [rule.name for rule in RULES_THAT_SETTLE if issubclass(rule.network(), Coding)]
TWO_PHASE = ["CorInfoMax", "CorInfoMaxSparse", "EP", "CSM"]


def build(network: str, inputs: int = 3, classes: int = 2, seed: int = 0, dtype: torch.dtype = torch.float64) -> Any:
    """Return the dynamics of a network written out."""
    made = model.Network(catalog.load().network(network), (inputs,), classes).initialise(seed).to(dtype)
    assert made.energy is not None
    return made.energy


def tokens(method: str) -> str:
    """Rates of every kind that the method has, so that everything learns."""
    extra = {"CorInfoMax": "-lf0.2", "CorInfoMaxSparse": "-lf0.2-lt0.1", "CSM": "-lm0.1"}
    return extra.get(method, "")


def sample(network: EnergyNetwork, count: int, inputs: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return random images and one-hot labels."""
    generator = torch.Generator().manual_seed(seed)
    like = network.layers[0].weight
    x = torch.rand(count, inputs, generator=generator, dtype=torch.float64).to(like.dtype)
    labels = torch.randint(len(network.layers[-1].weight), (count,), generator=generator)
    return x, network.one_hot(labels, x)


def stored(network: EnergyNetwork) -> list[dict[str, Tensor]]:
    """Return copies of all weights."""
    return [{name: t.clone() for name, t in layer.named_buffers()} for layer in network.layers]


# -- golden vectors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_published_code_on_a_small_network(case: dict[str, Any]) -> None:
    """One batch of the published code, 3-2-2 neurons, in single precision."""
    network = build(case["network"], dtype=torch.float32)
    for layer, given in zip(network.layers, GOLDEN["weights"], strict=True):
        for name, _ in layer.named_buffers():
            key = "similarity" if name == "lateral" and layer.feedback is None and layer.bias is not None else name
            getattr(layer, name).copy_(torch.tensor(given[key]))
    x = torch.tensor(GOLDEN["x"]) * case.get("scale", 1)
    y, want, near = torch.eye(2), case["want"], case.get("tolerance", 1e-5)

    def check(name: str, found: Tensor) -> None:
        if name in want:
            assert (found - torch.tensor(want[name])).abs().max() < near, name

    sign = case.get("sign", 1)
    if "free" in want:
        free = network.settle(x)
        nudged = network.settle(x, y, float(sign), free)
        check("free", free.rates)
        check("nudged", nudged.rates)
        for i, threshold in enumerate(free.thresholds):
            check(f"threshold{i}", threshold[:, 0])
    if "clamped" in want:
        check("clamped", network.split(network.settle(x, y).rates)[0])
    network.learn(x, y, sign, 1.0)
    for i, layer in enumerate(network.layers):
        for name, tensor in layer.named_buffers():
            check(f"{name}{i}", tensor)


# -- CorInfoMax against its equations, one image and one layer at a time ------------------------------------


def plain_corinfomax(
    network: Any, x: Tensor, y: Tensor, sign: int, factor: float, sparse: bool
) -> list[dict[str, Tensor]]:
    """The equations as they are printed: vectors, outer products, no sharing between steps or layers."""
    s = network.settings
    layers, count = stored(network), len(x)
    last, gamma = len(layers) - 1, (1 - s.forgetting) / s.forgetting
    specs = [layer.spec for layer in network.layers]
    states = []
    for image, label in zip(x, y, strict=True):
        r = [torch.zeros(len(layer["weight"]), dtype=x.dtype) for layer in layers]
        a = [torch.zeros((), dtype=x.dtype) for _ in layers]
        seen = []
        for steps, beta in ((s.free_steps, 0.0), (s.nudged_steps, sign * s.beta), (s.nudged_steps, -sign * s.beta)):
            u, v = [t.clone() for t in r], [t.clone() for t in a]
            for t in range(steps):
                eta = s.step if s.step_rule == "constant" else max(s.step / (1 + s.step_slope * t), s.step_floor)
                if s.step_rule == "loop":
                    eta = max(s.step / (t + 1), s.step_floor)
                for i, layer in enumerate(layers):
                    below = image if i == 0 else r[i - 1]
                    du = (layer["weight"] @ below - u[i]) / s.epsilon + s.gain * (r[i] - u[i])
                    if i < last:
                        du = du + (layers[i + 1]["feedback"] @ r[i + 1] - u[i]) / s.epsilon
                        du = du + 2 * gamma * layer["lateral"] @ r[i]
                    else:
                        du = du + gamma * layer["lateral"] @ r[i] - u[i] - beta * (r[i] - label)
                    u[i] = u[i] + eta * (du - a[i] if sparse else du)
                    r[i] = u[i].clamp(min=0) if sparse else u[i].clamp(0, 1)
                    if sparse:
                        v[i] = v[i] + specs[i].lr_threshold * (-v[i] + a[i] + r[i].sum() - 1)
                        a[i] = v[i].clamp(min=0)
            seen.append([t.clone() for t in r])
        states.append((image, seen))
    new = [{name: tensor.clone() for name, tensor in layer.items()} for layer in layers]
    k, low = (2, 2) if s.third_phase else (1, 0)
    for i, spec in enumerate(specs):
        new[i]["weight"] *= 1 - s.weight_decay * spec.lr * factor
        moment = torch.zeros_like(new[i]["lateral"])
        for image, seen in states:
            for state, way in ((seen[1], 1), (seen[low], -1)):
                scale = way * factor / (k * sign * s.beta * count)
                below = image if i == 0 else state[i - 1]
                error = state[i] - layers[i]["weight"] @ below
                new[i]["weight"] += spec.lr * scale * torch.outer(error, below)
                if i:
                    error = state[i - 1] - layers[i]["feedback"] @ state[i]
                    new[i]["feedback"] += spec.lr_feedback * scale * torch.outer(error, state[i])
            q = layers[i]["lateral"] @ seen[1][i]
            moment += torch.outer(q, q) / count
        new[i]["lateral"] = (new[i]["lateral"] - gamma * moment) / s.forgetting
    return new


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("hidden", [(), (4,), (4, 3), (4, 3, 5)])
@pytest.mark.parametrize(
    "settings", ["step=0.04", "third_phase=1,step_rule=slow,weight_decay=0.1", "step_rule=loop,beta=0.5"]
)
@pytest.mark.parametrize("method", ["CorInfoMax", "CorInfoMaxSparse"])
def test_corinfomax_is_its_equations(method: str, settings: str, hidden: tuple[int, ...], count: int) -> None:
    """Any depth and batch, both signs, third phase, every step rule."""
    extra = tokens(method).replace("-lf0.2", "")
    blocks = [f"{method}-c{n}-lr0.5{extra}{'-lf0.2' if i else ''}" for i, n in enumerate(hidden)]
    blocks.append(f"{method}-lr0.4{extra}{'-lf0.3' if hidden else ''}")
    network = build(f"settle:forgetting=0.98,{settings} {' '.join(blocks)}", classes=2)
    x, y = sample(network, count)
    for sign in (1, -1):
        want = plain_corinfomax(network, 3 * x, y, sign, 0.7, method.endswith("Sparse"))
        network.learn(3 * x, y, sign, 0.7)
        for found, expected in zip(stored(network), want, strict=True):
            for name, tensor in expected.items():
                assert torch.allclose(found[name], tensor, rtol=1e-9, atol=1e-11), name


def test_correlations_of_an_unforgetting_network_stay() -> None:
    """lambda = 1 gives gamma = 0: lateral weights neither act nor change."""
    network = build("settle:forgetting=1 CorInfoMax-c4-lr0.5 CorInfoMax-lf0.2")
    before = stored(network)
    network.learn(*sample(network, 4), 1, 1.0)
    for layer, old in zip(network.layers, before, strict=True):
        assert torch.equal(layer.lateral, old["lateral"])
        assert not torch.equal(layer.weight, old["weight"])


def test_thresholds_hold_the_summed_rates_at_one() -> None:
    """Where a threshold is active and rests, v = a, so sum_i r_i = 1."""
    settings = "settle:free_steps=20000,step=0.02,gain=0.1"
    network = build(f"{settings} CorInfoMaxSparse-c6-lr0.5-lt0.2 CorInfoMaxSparse-lt0.2")
    x, _ = sample(network, 4)
    state = network.settle(20 * x)
    hidden = network.split(state.rates)[0]
    active = state.thresholds[0][:, 0] > 0
    assert active.any()
    assert torch.allclose(hidden.sum(dim=1)[active], torch.ones(int(active.sum()), dtype=x.dtype), atol=1e-6)


# -- energies -----------------------------------------------------------------------------------------------


def plain_energy(method: str, network: Any, x: Tensor, state: list[Tensor], y: Tensor, beta: float) -> Tensor:
    """The energy of every image, (N,), written out from the papers."""
    total = torch.zeros(len(x), dtype=x.dtype)
    below = x
    for i, (layer, s) in enumerate(zip(network.layers, state, strict=True)):
        if method in ("EP", "CSM"):
            total = total + 0.5 * (s * s).sum(1) - torch.einsum("ni,ij,nj->n", s, layer.weight, below) - s @ layer.bias
            if method == "CSM" and i < len(state) - 1:
                total = total + 0.5 * torch.einsum("ni,ij,nj->n", s, layer.lateral, s)
            below = s
        else:
            e = s - below @ layer.weight.T - layer.bias
            total = total + (0.5 if method == "PC" else 1.0) * (e * e).sum(1)
            below = torch.sigmoid(s) if method == "PC" else torch.relu(s)
    return total if method == "PC" else total + beta * ((state[-1] - y) ** 2).sum(1)


ENERGIES = ["EP", "CSM", "PC", "PCNudge"]
DEPTHS = {"one": "{m}-c5{t} {m}", "two": "{m}-c5{t} {m}-c4{t} {m}", "none": "{m}"}


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("method", ENERGIES)
def test_a_step_descends_the_energy(method: str, depth: str) -> None:
    """One step of the neurons is eta times minus the gradient of the energy, then clipped where the method clips."""
    steps = "free_steps=1,nudged_steps=1" if method in TWO_PHASE else "steps=1"
    network = build(f"settle:step=0.05,{steps} " + DEPTHS[depth].format(m=method, t=tokens(method)))
    x, y = sample(network, 4)
    start = network.settle(x)
    generator = torch.Generator().manual_seed(3)
    start.rates = torch.rand(start.rates.shape, generator=generator, dtype=x.dtype)
    if method == "PC":  # clamps its output to 0.03 and 0.97
        network.split(start.rates)[-1].copy_(0.94 * y + 0.03)
    beta = 0.3
    leaf = start.rates.clone().requires_grad_()
    gradient = torch.autograd.grad(plain_energy(method, network, x, network.split(leaf), y, beta).sum(), leaf)[0]
    if method == "PC":
        network.split(gradient)[-1].zero_()
    want = start.rates - 0.05 * gradient
    want = want.clamp(0, 1) if method in TWO_PHASE else want
    assert torch.allclose(network.settle(x, y, beta, start).rates, want, atol=1e-12)
    assert torch.allclose(
        network.energy(x, start, y, beta), plain_energy(method, network, x, network.split(start.rates), y, beta)
    )


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("method", ENERGIES)
def test_the_energy_falls_while_the_network_settles(method: str, depth: str) -> None:
    network = build("settle:step=0.02 " + DEPTHS[depth].format(m=method, t=tokens(method)))
    x, y = sample(network, 6)
    beta = 0.5
    object.__setattr__(network, "settings", one_step(network))
    state = network.settle(x, y, beta if method != "PC" else 0.0, None)
    found = [network.energy(x, state, y, beta).sum()]
    for _ in range(60):
        state = network.settle(x, y, beta, state)
        found.append(network.energy(x, state, y, beta).sum())
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(found))
    if depth != "none":
        assert found[-1] < found[0]


def one_step(network: Any) -> Any:
    """Return the settings with phases of a single step."""
    given = dict(network.settings.values)
    given |= {name: 1 for name in ("free_steps", "nudged_steps", "steps") if name in given}
    return make_settle(network.layers[0].spec.rule, given, "test")


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("method", ENERGIES)
def test_weights_descend_the_energy(method: str, count: int, depth: str) -> None:
    """The change of a weight is minus its rate times the gradient of the energy, or of the difference of two."""
    network = build(
        "settle:decay=1{s} ".format(s=",optimiser=sgd" if method == "PC" else "")
        + DEPTHS[depth].format(m=method, t=tokens(method))
    )
    x, y = sample(network, count)
    beta = -network.settings.beta if method != "PC" else 0.0
    if method in TWO_PHASE:
        low = network.settle(x)
        states = [(network.settle(x, y, beta, low), 1 / beta), (low, -1 / beta)]
    elif method == "PC":
        states = [(network.settle(x, y), 1.0)]
    else:
        states = [(network.settle(x, y, beta), count / beta)]
    leaves = [{n: t.clone().requires_grad_() for n, t in layer.named_buffers()} for layer in network.layers]
    before = stored(network)
    for layer, given in zip(network.layers, leaves, strict=True):
        for name, leaf in given.items():
            layer._buffers[name] = leaf
    total = sum(scale * plain_energy(method, network, x, network.split(s.rates), y, beta).mean() for s, scale in states)
    total.backward()  # type: ignore[union-attr]
    gradients = [{name: leaf.grad for name, leaf in given.items()} for given in leaves]
    for layer, old in zip(network.layers, before, strict=True):
        for name, tensor in old.items():
            layer._buffers[name] = tensor.clone()
    network.learn(x, y, -1, 0.5)
    for layer, old, gradient in zip(network.layers, before, gradients, strict=True):
        for name in ("weight", "bias"):
            want = old[name] - 0.5 * layer.spec.lr * gradient[name]
            assert torch.allclose(getattr(layer, name), want, rtol=1e-8, atol=1e-13), name


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_lateral_weights_of_similarity_matching(beta: float) -> None:
    """M <- (1 - a/(2|beta|)) (M + a f/(2 beta) <s s^T>) at the nudged state, f the schedule's factor."""
    network = build(f"settle:beta={beta} CSM-c5-lm0.1 CSM-c4-lm0.2 CSM")
    x, y = sample(network, 3)
    for sign in (1, -1):
        old = stored(network)
        nudged = network.split(network.settle(x, y, sign * beta, network.settle(x)).rates)
        network.learn(x, y, sign, 0.75)
        for i, a in enumerate((0.1, 0.2)):
            grown = old[i]["lateral"] + a * 0.75 / (2 * sign * beta) * nudged[i].T @ nudged[i] / 3
            assert torch.allclose(network.layers[i].lateral, grown - a / (2 * beta) * grown)
        assert network.layers[2].lateral is None


# -- gradients of back-prop ---------------------------------------------------------------------------------


def interior(method: str, settings: str) -> Any:
    """Return a network whose free state keeps away from the bounds 0 and 1, so that it is smooth."""
    network = build(f"settle:{settings} {method}-c4-lr1 {method}-c3-lr1 {method}-lr1", inputs=3)
    for layer in network.layers:
        layer.weight.mul_(0.15)
        layer.bias.fill_(0.45)
    return network


def through_time(network: Any, x: Tensor, y: Tensor) -> list[Tensor]:
    """Gradients of mean |s_L - y|^2 at the free state, by back-prop through 400 plain steps."""
    weights = [layer.weight.clone().requires_grad_() for layer in network.layers]
    biases = [layer.bias for layer in network.layers]
    s = [torch.zeros(len(x), len(w), dtype=x.dtype) for w in weights]
    for _ in range(400):
        pulled = []
        for i, w in enumerate(weights):
            pull = (x if i == 0 else s[i - 1]) @ w.T + biases[i]
            if i < len(weights) - 1:
                pull = pull + s[i + 1] @ weights[i + 1]
            pulled.append((s[i] + 0.5 * (pull - s[i])).clamp(0, 1))
        s = pulled
    return list(torch.autograd.grad(((s[-1] - y) ** 2).sum(1).mean(), weights))


def distance(network: Any, x: Tensor, y: Tensor, want: list[Tensor]) -> float:
    """Relative distance of the change of the weights, at rate 1, from minus the gradient."""
    old = stored(network)
    network.learn(x, y, 1, 1.0)
    change = [layer.weight - before["weight"] for layer, before in zip(network.layers, old, strict=True)]
    return float(sum((c + g).norm() for c, g in zip(change, want, strict=True)) / sum(g.norm() for g in want))


def test_equilibrium_propagation_is_back_prop_for_a_weak_nudge() -> None:
    """Scellier & Bengio 2017, theorem 1; the error is of order beta, with a third phase of order beta^2."""
    found: dict[int, list[float]] = {0: [], 1: []}
    for third in found:
        for beta in (0.02, 0.01):
            network = interior("EP", f"beta={beta},free_steps=400,nudged_steps=400,third_phase={third}")
            x, y = sample(network, 5)
            found[third].append(distance(network, x, y, through_time(network, x, y)))
    assert found[0][1] < 0.05
    assert found[0][0] / found[0][1] == pytest.approx(2, rel=0.05)
    assert found[1][1] < 1e-3
    assert found[1][0] / found[1][1] == pytest.approx(4, rel=0.1)


def test_predictive_coding_is_back_prop_near_the_prediction() -> None:
    """Whittington & Bogacz 2017: near the prediction the settled errors are the output's error sent back.

    With target - prediction of order d the changes are the gradients for the settled output error, to a relative
    error of order d; at d = 0 nothing changes.
    """
    found = []
    for d in (0.02, 0.01, 0.0):
        network = build("settle:steps=4000,margin=0,optimiser=sgd PC-c5-lr1 PC-c4-lr1 PC-lr1")
        x, y = sample(network, 5)
        target = network.predict(x)[-1] + d * (2 * y - 1)
        error = network.split(network.errors(x, network.settle(x, target).rates))[-1]
        want = gradients_of(network, x, torch.sigmoid, error)
        if d:
            found.append(distance(network, x, target, want))
        else:
            assert error.abs().max() < 1e-15
    assert found[1] < 0.01
    assert found[0] / found[1] == pytest.approx(2, rel=0.1)


def gradients_of(network: Any, x: Tensor, f: Callable[[Tensor], Tensor], error: Tensor) -> list[Tensor]:
    """Gradients of a loss whose gradient at the output is -error/N, by back-prop through the forward pass."""
    weights = [layer.weight.clone().requires_grad_() for layer in network.layers]
    h = x
    for i, (w, layer) in enumerate(zip(weights, network.layers, strict=True)):
        h = nn.functional.linear(h if i == 0 else f(h), w, layer.bias)
    return list(torch.autograd.grad(h, weights, -error / len(x)))


def test_nudged_predictive_coding_is_back_prop_for_a_weak_nudge() -> None:
    """Millidge et al. 2023: the change tends to that of gradient descent on the summed squared error, by beta."""
    found = []
    for beta in (2e-3, 1e-3):
        network = build(f"settle:beta={beta},steps=4000,step=0.05 PCNudge-c5-lr1 PCNudge-c4-lr1 PCNudge-lr1")
        x, y = sample(network, 5)
        error = 2 * (y - network.predict(x)[-1])  # of |z_L - y|^2, summed over the 5 images
        want = [5 * g for g in gradients_of(network, x, torch.relu, error)]
        found.append(distance(network, x, y, want))
    assert found[1] < 0.02
    assert found[0] / found[1] == pytest.approx(2, rel=0.1)


# -- all methods --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", ["", "{m}-c12{t} ", "{m}-c12{t} {m}-c15{t}{f} "])
@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_any_depth_batch_and_type(method: str, dtype: torch.dtype, count: int, hidden: str) -> None:
    """Weights learn, stay finite and keep their type; the order of the images does not matter."""
    extra, f = tokens(method).replace("-lf0.2", ""), "-lf0.2" if "lf" in tokens(method) else ""
    text = hidden.format(m=method, t=extra, f=f) + f"{method}{extra}{f if hidden else ''}"
    first, second = (build(f"settle:decay=1 {text}", inputs=10, classes=6, dtype=dtype) for _ in range(2))
    x, y = sample(first, count, inputs=10)
    before = stored(first)
    first.learn(x, y, 1, 1.0, first.optimiser())
    order = torch.randperm(count, generator=torch.Generator().manual_seed(5))
    second.learn(x[order], y[order], 1, 1.0, second.optimiser())
    for old, new, other in zip(before, stored(first), stored(second), strict=True):
        assert not torch.equal(old["weight"], new["weight"])
        for name, tensor in new.items():
            assert tensor.dtype == dtype
            assert tensor.isfinite().all()
            assert torch.allclose(tensor, other[name], atol=5e-4 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("steps", [1, 2, 20])
@pytest.mark.parametrize("hidden", ["", "{m}-c12 ", "{m}-c12 {m}-c15 "])
@pytest.mark.parametrize("method", CODING)
def test_steps_by_a_loop_are_those_by_torch(
    method: str, hidden: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop takes single precision, torch takes double; states that are not learned from would hide a last step."""
    monkeypatch.setattr(loops, "WORTH_A_STEP", 0)
    text = f"settle:steps={steps} {hidden.format(m=method)}{method}"
    single, double = (build(text, inputs=10, classes=6, dtype=dtype) for dtype in (torch.float32, torch.float64))
    x, y = sample(double, 5, inputs=10)
    for beta in (0.2, -0.2):
        want = double.settled(x, y, beta)
        for ours, theirs in zip(single.settled(x.float(), y.float(), beta), want, strict=True):
            assert torch.allclose(ours.double(), theirs, atol=1e-6)
        assert torch.allclose(single.settle(x.float(), y.float(), beta).rates.double(), want[0], atol=1e-6)
        start = PhaseState(want[0] + 0.1)
        again = single.settle(x.float(), y.float(), beta, PhaseState(start.rates.float())).rates
        assert torch.allclose(again.double(), double.settle(x, y, beta, start).rates, atol=1e-6)
        assert torch.allclose(double.errors(x, want[0]), want[1], atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_twice_over(method: str) -> None:
    """Changes are means over the batch, so doubling it changes nothing; PCNudge sums, as published."""
    settings = "settle:optimiser=sgd" if method == "PC" else "settle:decay=1"
    text = f"{settings} {method}-c4 {method}"
    once, twice = build(text), build(text)
    x, y = sample(once, 3)
    old = stored(once)
    once.learn(x, y, 1, 1.0)
    twice.learn(torch.cat([x, x]), torch.cat([y, y]), 1, 1.0)
    factor = 2 if method == "PCNudge" else 1
    for before, a, b in zip(old, stored(once), stored(twice), strict=True):
        for name, start in before.items():
            assert torch.allclose(factor * (a[name] - start), b[name] - start, rtol=1e-6, atol=1e-12), name


@pytest.mark.parametrize("method", ["CorInfoMax", "CorInfoMaxSparse", "EP", "CSM"])
def test_evaluation_has_a_step_of_its_own(method: str) -> None:
    """Prediction runs the free phase with ``eval_step``; a third of the step is not the same state."""
    usual = build(f"settle:step=0.04,free_steps=5 {method}-c4 {method}")
    other = build(f"settle:step=0.04,free_steps=5,eval_step=0.01 {method}-c4 {method}")
    slow = build(f"settle:step=0.01,free_steps=5 {method}-c4 {method}")
    x, _ = sample(usual, 3)
    assert torch.equal(usual.predict(x)[-1], usual.split(usual.settle(x).rates)[-1])
    assert torch.equal(other.settle(x).rates, usual.settle(x).rates)
    assert torch.equal(other.predict(x)[0], slow.predict(x)[0])
    assert not torch.equal(other.predict(x)[0], usual.predict(x)[0])


def test_adam_of_predictive_coding() -> None:
    """p += lr sqrt(1 - b2^k)/(1 - b1^k) m/(sqrt(v) + 1e-8), epsilon beside the uncorrected sqrt(v)."""
    plain, ours = build("settle:optimiser=sgd PC-c4-lr1 PC-lr1"), build("PC-c4 PC")
    x, y = sample(ours, 4)
    x = x * 1e-6  # gradients so small that the place of epsilon shows
    optimiser, m, v = ours.optimiser(), {}, {}
    for k in range(1, 6):
        for here, there in zip(plain.layers, ours.layers, strict=True):
            for name, tensor in there.named_buffers():
                getattr(here, name).copy_(tensor)
        old = stored(plain)
        plain.learn(x, y, 1, 1.0)  # old + gradient
        ours.learn(x, y, 1, 0.9, optimiser)
        for i, layer in enumerate(ours.layers):
            for name, tensor in layer.named_buffers():
                g = getattr(plain.layers[i], name) - old[i][name]
                m[i, name] = 0.9 * m.get((i, name), 0) + 0.1 * g
                v[i, name] = 0.999 * v.get((i, name), 0) + 0.001 * g * g
                scale = 0.001 * 0.9 * (1 - 0.999**k) ** 0.5 / (1 - 0.9**k)
                want = old[i][name] + scale * m[i, name] / (v[i, name].sqrt() + 1e-8)
                assert torch.allclose(tensor, want, rtol=1e-7, atol=1e-12), (k, name)


# -- phases -------------------------------------------------------------------------------------------------


def settings(method: str, **given: object) -> Any:
    return make_settle(RULES.get(method, "test"), given, "test")


def test_schedules_of_the_published_runs() -> None:
    """Numbers of the papers' tables: the exponent counts from epoch 0, so the factor jumps at a change."""
    mnist = settings("CorInfoMax", decay=0.95, late_from=15)
    assert [round(phases.factor(mnist, e), 3) for e in (0, 14, 15)] == [1, 0.488, 0.206]
    fashion = settings("CorInfoMax", decay=0.95, late_from=20, last_from=25)
    assert phases.factor(fashion, 24) == pytest.approx(0.9**24)
    assert phases.factor(fashion, 25) == pytest.approx(0.0038, abs=1e-4)
    every = settings("EP", decay=0.75, decay_every=15)
    assert [phases.factor(every, e) for e in (14, 15, 29, 30, 49)] == [1, 0.75, 0.75, 0.5625, 0.421875]


def test_step_rules() -> None:
    slow = phases.steps(settings("CorInfoMax", step_rule="slow"), 3000, 0.05)
    assert slow[:2] == [0.05, 0.05 / 1.01]
    assert slow[-1] == pytest.approx(0.05 / (1 + 29.99))
    assert phases.steps(settings("CorInfoMax", step_rule="loop"), 100, 0.05)[:3] == [0.05, 0.025, 0.05 / 3]
    assert phases.steps(settings("CorInfoMax", step_rule="loop"), 100, 0.05)[-1] == 0.001


def test_signs_are_fair_or_fixed() -> None:
    drawn = phases.signs(settings("EP"), 4000, torch.Generator().manual_seed(0))
    assert set(drawn) == {-1, 1}
    assert abs(sum(drawn)) < 4 * 4000**0.5  # four standard deviations
    for sign, value in (("positive", 1), ("negative", -1)):
        assert phases.signs(settings("EP", sign=sign), 3, torch.Generator()) == [value] * 3


# -- initial weights ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_initial_weights_have_their_published_laws(method: str) -> None:
    network = build(f"{method}-c200 {method}-c300 {method}", inputs=400, classes=100)
    for i, (fan_in, width) in enumerate(((400, 200), (200, 300), (300, 100))):
        layer = network.layers[i]
        coding = method.startswith("PC")
        bound = (6 / (fan_in if coding else fan_in + width)) ** 0.5
        for tensor in (layer.weight, layer.feedback):
            if tensor is not None:
                assert tensor.abs().max() <= bound
                assert tensor.std() == pytest.approx(bound / 3**0.5, rel=0.02)
        assert (layer.feedback is not None) == (method.startswith("Cor") and i > 0)
        assert (layer.lateral is not None) == (method.startswith("Cor") or (method == "CSM" and i < 2))
        if layer.lateral is not None:
            assert torch.equal(layer.lateral, layer.lateral.T)
            assert layer.lateral.diagonal().mean() == pytest.approx(1, rel=0.05)
        if layer.bias is not None:
            assert layer.bias.abs().max() <= (1 / fan_in**0.5 if coding else 0)
            assert bool(layer.bias.any()) == coding


# -- measures and feedback alignment ------------------------------------------------------------------------


def test_angles() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert diagnostics.angle(a, 3 * a) == pytest.approx(0, abs=1e-5)
    assert diagnostics.angle(a, -a) == pytest.approx(180)
    assert diagnostics.angle(a, torch.tensor([[0.0, 1.0], [-1.0, 0.0]])) == pytest.approx(90)
    assert diagnostics.angle(a, torch.tensor([[1.0, 0.0], [0.0, 0.0]])) == pytest.approx(45)
    assert diagnostics.angle(a, 0 * a) != diagnostics.angle(a, 0 * a)  # undefined
    network = build("CorInfoMax-c4 CorInfoMax")
    network.layers[1].feedback.copy_(2 * network.layers[1].weight.T)
    assert diagnostics.alignment(network.layers[1]) == pytest.approx(0, abs=1e-5)
    assert diagnostics.alignment(network.layers[0]) is None


def test_sparsity_and_correlation() -> None:
    activity = torch.tensor([[0.0, 1.0, 2.0, 7.0], [1.0, 0.0, 4.0, 7.0], [2.0, -1.0, 0.0, 7.0]])
    assert diagnostics.sparsity(activity) == pytest.approx(100 * 3 / 12)
    # columns 0 and 1 are opposite; 0 and 2 have r = -1/2; column 3 does not vary
    assert diagnostics.correlation(activity) == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert diagnostics.correlation(activity[:, 3:]) != diagnostics.correlation(activity[:, 3:])


def test_feedback_alignment_is_back_prop_with_other_weights_on_the_way_down() -> None:
    layer, x = FeedbackLinear(4, 3), torch.randn(5, 4, requires_grad=True)
    layer.initialise(torch.Generator().manual_seed(0))
    assert layer.bias is not None
    assert layer.bias.tolist() == [1, 1, 1]
    g = torch.randn(5, 3)
    layer(x).backward(g)
    assert torch.allclose(layer.weight.grad, g.T @ x)  # type: ignore[arg-type]
    assert torch.allclose(layer.bias.grad, g.sum(0))  # type: ignore[arg-type]
    assert torch.allclose(x.grad, g @ layer.feedback.T)  # type: ignore[arg-type]
    assert not torch.allclose(x.grad, g @ layer.weight)  # type: ignore[arg-type]
    layer.feedback.copy_(layer.weight.detach().T)
    x.grad = None
    layer(x).backward(g)
    assert torch.allclose(x.grad, g @ layer.weight)  # type: ignore[arg-type]
