"""The two solvers of predictive coding: the states descend, or the errors do (ePC).

Without it the errors could rest somewhere else than the states, and a published comparison would be of two methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import GOLDEN
from torch import Tensor, nn

from hebb.config import catalog
from hebb.energy.coding import Sigmoid, TransferFunction
from hebb.energy.network import PhaseState
from hebb.energy.pc import PC
from hebb.nn import model

METHODS = ["PC", "PCNudge"]
HIDDEN = {"none": [], "one": [5], "two": [5, 4], "five": [6, 5, 4, 5, 6]}
BETA = 0.02


def build(method: str, hidden: list[int], settings: str = "solver=error", dtype: torch.dtype = torch.float64) -> Any:
    """Return the dynamics of a network with 6 inputs and 3 classes; layers of rate 1."""
    text = " ".join([f"settle:{settings}", *(f"{method}-c{n}-lr1" for n in hidden), f"{method}-lr1"])
    network = model.Network(catalog.load().network(text), (6,), 3).initialise(1).to(dtype)
    assert network.energy is not None
    return network.energy


def sample(network: Any, count: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    like = network.layers[0].weight
    x = torch.rand(count, 6, generator=generator, dtype=torch.float64).to(like.dtype)
    return x, network.one_hot(torch.arange(count) % 3, like)


def learnt(network: Any, x: Tensor, y: Tensor, sign: int = 1) -> list[Tensor]:
    """Return the change of every tensor in one plain update."""
    before = [tensor.clone() for layer in network.layers for tensor in layer.buffers()]
    network.learn(x, y, sign, 1.0)
    after = [tensor for layer in network.layers for tensor in layer.buffers()]
    return [a - b for a, b in zip(after, before, strict=True)]


# -- the published algorithm, by automatic differentiation ----------------------------------------------------


Predict = Callable[[int, Tensor], Tensor]
Cost = Callable[[Tensor], Tensor]


def published(predict: Predict, depth: int, cost: Cost, x: Tensor, sizes: list[int], steps: int, rate: float) -> Any:
    """Descend F(e) = sum |e_l|^2/2 + cost(z_L) from e = 0 as it is printed; return the errors and the states."""
    errors = [x.new_zeros(len(x), n).requires_grad_() for n in sizes]

    def climb() -> list[Tensor]:
        below, states = x, []
        for i in range(depth):
            below = predict(i, below)
            if i < len(errors):
                below = below + errors[i]
            states.append(below)
        return states

    for _ in range(steps):
        energy = sum((0.5 * e.square().sum() for e in errors), cost(climb()[-1]))
        for e, gradient in zip(errors, torch.autograd.grad(energy, errors) if errors else (), strict=True):
            e.data.sub_(gradient, alpha=rate)
    return [e.detach() for e in errors], [s.detach() for s in climb()]


def local_energy(predict: Predict, depth: int, cost: Cost, x: Tensor, states: list[Tensor]) -> Tensor:
    """Return sum |predict(z_{l-1}) - z_l|^2/2 over the free states; cost of the output, or of its prediction."""
    below = [x, *states]
    terms = [0.5 * (predict(i, below[i]) - z).square().sum() for i, z in enumerate(states)]
    return sum(terms, cost(states[-1] if len(states) == depth else predict(depth - 1, below[-1])))


def ordinary(predict: Predict, depth: int, cost: Cost, x: Tensor, free: int, steps: int, rate: float) -> list[Tensor]:
    """Let the free states descend the local energy from the forward pass; return them."""
    states, below = [], x
    for i in range(free):
        below = predict(i, below).detach()
        states.append(below.clone().requires_grad_())
    for _ in range(steps if states else 0):
        gradients = torch.autograd.grad(local_energy(predict, depth, cost, x, states), states)
        for z, gradient in zip(states, gradients, strict=True):
            z.data.sub_(gradient, alpha=rate)
    return [z.detach() for z in states]


def golden(prefix: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / "rivals" / "epc.npz") as file:
        start = f"{prefix}."
        return {k.removeprefix(start): torch.tensor(file[k]) for k in file.files if k.startswith(start)}


PUBLISHED = [f"mlp.{loss}.{precision}" for loss in ("mse", "ce") for precision in ("f32", "f64")]


def test_every_stored_case_is_replayed() -> None:
    """Each case compares all of its arrays where it is replayed."""
    with np.load(GOLDEN / "rivals" / "epc.npz") as file:
        assert len(file.files) == sum(len(golden(case)) for case in [*PUBLISHED, "linear"])


@pytest.mark.parametrize("case", PUBLISHED)
def test_the_reference_is_the_published_code(case: str) -> None:
    """Their layers are gelu(W s + b) with errors behind the activation, so ours are compared with the reference.

    Steps, states, energies and gradients of the weights, over the batch of 4, are all that their code stored.
    """
    want, near = golden(case), 1e-5 if case.endswith("f32") else 1e-10
    x, target = want.pop("x"), want.pop("target")
    parameters = {k.removeprefix("p."): want.pop(k).requires_grad_() for k in list(want) if k.startswith("p.")}
    layers = [(parameters[f"layers.{i}.0.weight"], parameters[f"layers.{i}.0.bias"]) for i in range(3)]

    def predict(i: int, s: Tensor) -> Tensor:
        u = nn.functional.linear(s, *layers[i])
        return u if i == 2 else nn.functional.gelu(u)

    def cost(output: Tensor) -> Tensor:
        if "mse" in case:
            return 0.5 * (output - target).square().sum()
        return nn.functional.cross_entropy(output, target, reduction="sum")

    computed: dict[str, Tensor] = {}

    def store(name: str, energy: Tensor, divisor: float = 4) -> None:
        values = torch.autograd.grad(energy, list(parameters.values()))
        computed.update({f"g_{name}.{k}": g / divisor for k, g in zip(parameters, values, strict=True)})

    settled = {}
    for name, steps, rate in [("T1", 1, 0.1), ("T2", 2, 0.1), ("T5", 5, 0.1), ("eq", 120, 0.2)]:
        errors, states = published(predict, 3, cost, x, [5, 4], steps, rate)
        settled[name] = states[:2]
        local = local_energy(predict, 3, cost, x, states[:2])
        computed |= {f"e{i}_{name}": e for i, e in enumerate(errors, 1)}
        computed[f"F_{name}"] = sum((0.5 * e.square().sum() for e in errors), cost(states[-1]))
        computed |= {} if name == "eq" else {f"Flocal_{name}": local}
        store(name, local)
    for name, steps, rate in [("T5", 5, 0.1), ("eq", 400, 0.2)]:
        states = ordinary(predict, 3, cost, x, 2, steps, rate)
        computed |= {f"s{i}_{name}": s for i, s in enumerate(states, 1)}
        if name == "T5":
            store("states_T5", local_energy(predict, 3, cost, x, states))
        else:
            gaps = [(s - by_errors).abs().max() for s, by_errors in zip(states, settled[name], strict=True)]
            computed["state_gap_eq"] = torch.stack(gaps).max()
    store("bp", cost(predict(2, predict(1, predict(0, x)))))
    few = published(predict, 3, cost, x, [5, 4], 5, 0.001)[1][:2]
    store("cifar", local_energy(predict, 3, cost, x, few), divisor=4 * 0.005)
    assert computed.keys() == want.keys()
    for name, value in computed.items():
        bound = near * (10 if name.startswith("F") else 1)
        assert (value - want[name]).abs().max() < bound, name


def predictions(network: Any, parameters: list[Tensor] | None = None) -> Predict:
    """Return our prediction W f(z) + b of a layer from the z below; from the image in the first."""
    stored = [tensor for layer in network.layers for tensor in (layer.weight, layer.bias)]
    w = stored if parameters is None else parameters
    return lambda i, z: nn.functional.linear(z if i == 0 else network.activation(z), w[2 * i], w[2 * i + 1])


def weight_gradients(network: Any, cost: Cost, x: Tensor, states: list[Tensor]) -> list[Tensor]:
    """Return the gradients of the published local energy: of the weights and biases of our layers in turn."""
    parameters = [t.clone().requires_grad_() for layer in network.layers for t in (layer.weight, layer.bias)]
    energy = local_energy(predictions(network, parameters), len(network.layers), cost, x, states)
    return list(torch.autograd.grad(energy, parameters))


def assert_learnt(network: Any, x: Tensor, y: Tensor, gradients: list[Tensor], rate: float, *, sign: int = 1) -> None:
    assert gradients[-1].abs().max() > 1e-7  # few steps of the states leave the lower layers as they are
    for change, gradient in zip(learnt(network, x, y, sign), gradients, strict=True):
        assert torch.allclose(change, -rate * gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("solver", ["state", "error"])
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("depth", HIDDEN)
def test_pc_takes_the_published_steps(depth: str, steps: int, solver: str) -> None:
    """Its clamped output is a free one with the loss |z_L - t|^2/2. The weights descend the mean over the batch."""
    hidden = HIDDEN[depth]
    network = build("PC", hidden, f"solver={solver},steps={steps},step=0.2,optimiser=sgd")
    x, y = sample(network)
    target = 0.94 * y + 0.03
    cost = lambda output: 0.5 * (output - target).square().sum()  # noqa: E731
    layers = len(hidden) + 1
    if solver == "error":
        states = published(predictions(network), layers, cost, x, hidden, steps, 0.2)[1][:-1]
    else:
        states = ordinary(predictions(network), layers, cost, x, len(hidden), steps, 0.2)
    below = [x, *states]
    z, e = network.settled(x, y)
    assert torch.allclose(z, torch.cat([*states, target], dim=1), atol=1e-12)
    errors = [s - predictions(network)(i, below[i]) for i, s in enumerate([*states, target])]
    assert torch.allclose(e, torch.cat(errors, dim=1), atol=1e-12)
    assert torch.equal(network.settle(x, y).rates, z)
    assert_learnt(network, x, y, weight_gradients(network, cost, x, states), 1 / len(x))


@pytest.mark.parametrize("solver", ["state", "error"])
def test_pc_does_not_read_the_output_of_a_start(solver: str) -> None:
    network = build("PC", HIDDEN["two"], f"solver={solver},steps=3,step=0.1")
    x, y = sample(network)
    start = network.forward_pass(x)
    far = torch.cat([*network.split(start)[:-1], torch.full_like(y, 1e9)], dim=1)
    near = network.settle(x, y, start=PhaseState(start)).rates
    assert torch.equal(network.settle(x, y, start=PhaseState(far)).rates, near)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("depth", HIDDEN)
@pytest.mark.parametrize("beta", [BETA, -0.3])
def test_nudged_pc_takes_the_published_steps(beta: float, depth: str, steps: int) -> None:
    """Its output has an error of its own; -J is twice their F, so its step is twice theirs; weights ascend J/beta."""
    hidden = HIDDEN[depth]
    network = build("PCNudge", hidden, f"solver=error,steps={steps},step=0.1,beta={abs(beta)}")
    x, y = sample(network)
    cost = lambda output: 0.5 * beta * (output - y).square().sum()  # noqa: E731
    sizes = [*hidden, 3]
    errors, states = published(predictions(network), len(sizes), cost, x, sizes, steps, 0.2)
    descent = network.descend_errors(x, y, beta, None)
    assert torch.allclose(descent.z, torch.cat(states, dim=1), atol=1e-12)
    assert torch.allclose(descent.error, torch.cat(errors, dim=1), atol=1e-12)
    want = weight_gradients(network, cost, x, states)
    assert_learnt(network, x, y, want, 2 / beta, sign=1 if beta > 0 else -1)


class Identity(TransferFunction):
    """f(z) = z."""

    def __call__(self, z: Tensor, out: Tensor | None = None) -> Tensor:
        return z.clone() if out is None else out.copy_(z)

    def times_derivative(self, slope: Tensor, f: Tensor) -> None:
        pass


def test_a_transfer_function_does_not_inherit_the_loop_of_another() -> None:
    class Steep(Sigmoid):
        def __call__(self, z: Tensor, out: Tensor | None = None) -> Tensor:
            return torch.sigmoid(4 * z, out=out)

    assert Sigmoid.in_loops is not None
    assert Steep.in_loops is None


class Linear(PC):
    """PC without a non-linearity, where errors before and behind an activation are the same."""

    activation = Identity()


def linear(weights: list[Tensor], settings: str) -> Any:
    blocks = " ".join([f"PC-c{len(w)}-lr1" for w in weights[:-1]] + ["PC-lr1"])
    spec = catalog.load().network(f"settle:solver=error,margin=0,optimiser=sgd,{settings} {blocks}")
    layers = model.Network(spec, (weights[0].shape[1],), len(weights[-1])).to(weights[0].dtype)
    network = Linear([block.layer for block in layers], spec.settle)  # type: ignore[arg-type, misc]
    for layer, weight in zip(network.layers, weights, strict=True):
        layer.weight.copy_(weight)
    return network


def test_the_exact_equilibrium_of_a_linear_network() -> None:
    """Golden values from a linear solve, which descends nothing; the weights learn from its errors."""
    want = golden("linear")
    assert want.keys() == {"x", "target", *(f"W{i}" for i in range(1, 5)), *(f"s{i}_exact" for i in range(1, 4))}
    weights = [want[f"W{i}"] for i in range(1, 5)]
    network = linear(weights, "steps=3000,step=0.05")
    *hidden, output = network.split(network.settle(want["x"], want["target"]).rates)
    for i, states in enumerate(hidden, start=1):
        assert (states - want[f"s{i}_exact"]).abs().max() < 1e-5
    assert torch.equal(output, want["target"])
    exact = [want["x"], *(want[f"s{i}_exact"] for i in range(1, 4)), want["target"]]
    network.learn(want["x"], want["target"], 1, 1.0)
    for layer, w, below, above in zip(network.layers, weights, exact[:-1], exact[1:], strict=True):
        change = (above - below @ w.T).T @ below / 3
        assert (layer.weight - w - change).abs().max() < 1e-5 < change.abs().max()


@pytest.mark.parametrize(
    ("settings", "error", "first", "second"),
    [("steps=1,step=0.1", -0.4, 0.4, 0.72), ("steps=200,step=0.2", -0.8, 0.8, 0.08)],
)
def test_two_weights_by_hand(settings: str, error: float, first: float, second: float) -> None:
    """x = 1, w = 1 and 2, target 0: F(e) = e^2/2 + (2(1 + e))^2/2 is least at e = -0.8; the changes are -dF/dw."""
    network = linear([torch.ones(1, 1, dtype=torch.float64), torch.full((1, 1), 2.0, dtype=torch.float64)], settings)
    x, target = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    z, e = network.settled(x, target)
    assert e[0, 0] == pytest.approx(error)
    assert z[0, 0] == pytest.approx(1 + error)
    before = [layer.weight.clone() for layer in network.layers]
    network.learn(x, target, 1, 1.0)
    changes = [float(layer.weight - old) for layer, old in zip(network.layers, before, strict=True)]
    assert changes == pytest.approx([-first, -second])


# -- the same equilibrium -------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", HIDDEN)
@pytest.mark.parametrize("method", METHODS)
def test_states_errors_and_gradients_are_those_of_the_other_solver(method: str, depth: str) -> None:
    """Both rest where F is least; the errors come there in a tenth of the steps.

    The relu of PCNudge is kept off its kink, at which neither would rest.
    """
    common, step = ("optimiser=sgd", 0.2) if method == "PC" else (f"beta={BETA}", 0.1)
    state = build(method, HIDDEN[depth], f"{common},steps=1500,step={step / 2}")
    error = build(method, HIDDEN[depth], f"{common},steps=150,step={step},solver=error")
    if method == "PCNudge":
        away_from_the_kink(state, error)
    x, y = sample(state)
    (z, e), (other_z, other_e) = (network.settled(x, y, BETA) for network in (state, error))
    assert (z - other_z).abs().max() < 1e-9
    assert (e - other_e).abs().max() < 1e-9
    for a, b in zip(learnt(state, x, y), learnt(error, x, y), strict=True):
        assert (a - b).norm() <= 1e-7 * a.norm()


def away_from_the_kink(*networks: Any) -> None:
    """Give every hidden neuron a drive well above 0."""
    for layer in (layer for network in networks for layer in network.layers):
        layer.weight.mul_(0.4)
        layer.bias.fill_(0.5)


def test_with_one_hidden_layer_both_solvers_of_pc_take_the_same_steps() -> None:
    """z_1 = W_1 x + b_1 + e_1, so the one descends exactly when the other does."""
    for steps in (1, 3, 10):
        state, error = (build("PC", [5], f"solver={solver},steps={steps},step=0.3") for solver in ("state", "error"))
        x, y = sample(state)
        assert torch.allclose(state.settle(x, y).rates, error.settle(x, y).rates, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_a_start_is_where_the_errors_go_on(method: str) -> None:
    """Five steps and five more are ten."""
    five, ten = (build(method, [5, 4], f"solver=error,steps={n}") for n in (5, 10))
    x, y = sample(five)
    half = five.settle(x, y, BETA)
    kept = half.copy()
    assert torch.allclose(five.settle(x, y, BETA, half).rates, ten.settle(x, y, BETA).rates, atol=1e-12)
    assert torch.equal(half.rates, kept.rates)


@pytest.mark.parametrize("method", METHODS)
def test_without_a_label_the_state_is_the_forward_pass(method: str) -> None:
    network = build(method, [5, 4])
    x, _ = sample(network)
    assert torch.equal(network.settle(x).rates, network.forward_pass(x))
    start = PhaseState(torch.ones(len(x), 12, dtype=x.dtype))
    assert torch.equal(network.settle(x, start=start).rates, start.rates)


# -- limits -----------------------------------------------------------------------------------------------------


def signals(network: Any, x: Tensor, gradient: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Return dC/dz_l of the hidden layers at the forward pass, by back-prop."""
    states, below = [], x
    for i in range(len(network.layers)):
        below = predictions(network)(i, below)
        if not below.requires_grad:
            below.requires_grad_()
        states.append(below)
    return list(torch.autograd.grad(states[-1], states[:-1], gradient(states[-1].detach())))


@pytest.mark.parametrize(("steps", "step"), [(1, 1e-6), (5, 1e-6), (40, 1e-6)])
def test_few_small_steps_are_back_prop(steps: int, step: float) -> None:
    """For steps x step << 1, e_l = -(1 - (1 - step)^steps) dC/dz_l: the published setting for CIFAR is of this kind."""
    network = build("PC", [5, 4], f"solver=error,steps={steps},step={step}")
    x, y = sample(network)
    target = 0.94 * y + 0.03
    *hidden, output = network.split(network.settled(x, y)[1])
    share = 1 - (1 - step) ** steps
    for e, signal in zip(hidden, signals(network, x, lambda z: z - target), strict=True):
        assert torch.allclose(e, -share * signal, rtol=1e-3, atol=0)
    assert torch.allclose(output, target - network.predict(x)[-1], atol=1e-4)  # the output learns as by back-prop


def test_the_signal_reaches_every_layer_in_the_first_step() -> None:
    """A step of the states moves only the layer below the output."""
    moved = {}
    for solver in ("state", "error"):
        network = build("PC", HIDDEN["five"], f"solver={solver},steps=1")
        x, y = sample(network)
        z = network.split(network.settle(x, y).rates - network.forward_pass(x))
        moved[solver] = [bool(part.abs().max() > 1e-12) for part in z[:-1]]
    assert moved == {"state": [False] * 4 + [True], "error": [True] * 5}


@pytest.mark.parametrize("method", METHODS)
def test_single_precision_keeps_the_digits_of_the_errors(method: str) -> None:
    """A weak nudge leaves errors a thousand times smaller than the states; as variables they keep their digits."""
    common = "solver=error,steps=60,step=0.3" + ("" if method == "PC" else ",beta=1e-5")
    single, double = (build(method, [5, 4], common, dtype) for dtype in (torch.float32, torch.float64))
    for layer, exact in zip(single.layers, double.layers, strict=True):
        for name, tensor in layer.named_buffers():
            getattr(exact, name).copy_(tensor)
    x, y = sample(single)
    e, exact = single.settled(x, y, 1e-5)[1], double.settled(x.double(), y.double(), 1e-5)[1]
    assert (e.double() - exact).norm() < 1e-5 * exact.norm()


# -- locality -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_change_is_the_product_of_the_error_and_what_the_layer_sees(method: str) -> None:
    """Settling is not local, learning is: each weight changes by its neuron's error times its input, and no more."""
    settings = "solver=error,steps=5,step=0.2" + ("" if method == "PC" else f",beta={BETA}")
    network = build(method, [5, 4], settings + (",optimiser=sgd" if method == "PC" else ""))
    x, y = sample(network)
    z, e = network.settled(x, y, BETA)
    inputs = [x, *(network.activation(part) for part in network.split(z)[:-1])]
    scale = 1 / len(x) if method == "PC" else 2 / BETA
    want = [t for part, f in zip(network.split(e), inputs, strict=True) for t in (part.T @ f, part.sum(0))]
    for change, tensor in zip(learnt(network, x, y), want, strict=True):
        assert torch.allclose(change, scale * tensor, atol=1e-12)
