"""Loops over memory: powers against double precision, dropout against its factors, in every order of memory.

Without it a fast loop could skip the last numbers of a batch.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from small import layer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hebb.config.fields import LayerFields
from hebb.energy.coding import Relu, Sigmoid, TransferFunction
from hebb.kernels import loops, numba_loops, own_threads, team
from hebb.nn.noise import Noise
from hebb.rules.activations import repu
from hebb.rules.soft import soft, soft_krotov


def numbers(count: int, low: float, high: float) -> Tensor:
    """Return positive and negative numbers, their magnitudes spread evenly on a logarithmic scale."""
    drawn = torch.Generator().manual_seed(1)
    magnitude = torch.empty(count, dtype=torch.float64).uniform_(low, high, generator=drawn).exp2()
    return (magnitude * (torch.rand(count, generator=drawn) - 0.2).sign()).float()


@pytest.mark.parametrize("exponent", [0.05, 0.35, 0.7, 0.99, 1.4, 3.0])
@pytest.mark.parametrize("span", [(-4, 4), (-125, 127)])
def test_powers_agree_with_those_of_double_precision(exponent: float, span: tuple[float, float]) -> None:
    u = numbers(300_000, *span)
    expected = u.double().clamp(min=0) ** exponent
    held = (expected == 0) | ((expected > 2.0**-125.9) & (expected < 2.0**127.9))
    found = loops.power(u, exponent).double()
    bound = 1e-7 * (2 + exponent * u.double().abs().log2().abs())
    assert ((found - expected).abs() <= bound * expected)[held].all()
    assert (found[expected > 2.0**128.1] == torch.inf).all()
    assert (found[expected < 2.0**-126.1] < 2.0**-126).all()


def test_powers_of_what_is_no_ordinary_number() -> None:
    u = torch.tensor([0.0, -0.0, -1.0, -torch.inf, 2.0**-140, torch.inf, torch.nan, 1.0] * 9)
    found = loops.power(u, 0.7)
    assert torch.allclose(found, torch.tensor([0, 0, 0, 0, 0, torch.inf, torch.nan, 1.0] * 9), equal_nan=True)


@pytest.mark.parametrize("count", [1, 7, 1001, 65_537])
def test_powers_do_not_depend_on_the_threads(count: int) -> None:
    u = numbers(count, -8, 8)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(loops.power(u, 0.7))
    torch.set_num_threads(before)
    assert torch.equal(*found)


def test_powers_in_every_order_of_memory(threads: int) -> None:
    dense = numbers(2 * 6 * 10 * 8, -8, 8).view(2, 6, 10, 8)
    expected = loops.power(dense, 1.4)
    for order in (torch.contiguous_format, torch.channels_last):
        found = loops.power(dense.contiguous(memory_format=order), 1.4)
        assert found.is_contiguous(memory_format=order)
        assert torch.equal(found, expected)
    assert torch.equal(loops.power(dense.transpose(1, 3), 1.4), expected.transpose(1, 3))
    assert torch.equal(loops.power(dense[:, ::2, 1:], 1.4), expected[:, ::2, 1:])
    assert torch.equal(loops.power(dense[:1], 1.4), expected[:1])


def test_powers_of_a_pack_are_those_of_its_members() -> None:
    u = numbers(3 * 4 * 50, -8, 8).view(3, 4, 50)
    many = torch.vmap(lambda member: loops.power(member, 0.7))
    assert torch.equal(many(u), loops.power(u, 0.7))
    assert torch.equal(torch.vmap(lambda member: loops.power(member, 0.7), in_dims=1, out_dims=1)(u), many(u))


def test_powers_are_an_operation_torch_can_trace() -> None:
    example = (numbers(60, -4, 4).view(3, 4, 5), 0.7)
    torch.library.opcheck(torch.ops.hebb.power.default, example, test_utils=("test_schema", "test_faketensor"))


def test_a_large_activation_is_that_of_a_small_one_but_for_rounding(threads: int) -> None:
    u = numbers(loops.WORTH + 5, -8, 8)
    assert loops.pays(u)
    found = torch.cat([repu(part, 0.7) for part in u.split(1000)])
    assert torch.allclose(repu(u, 0.7), found, rtol=1e-6, atol=0)
    with_gradient = u.clone().requires_grad_()
    assert torch.equal(repu(with_gradient, 0.7), u.relu().pow(0.7))


def rows(count: int, neurons: int, spread: float) -> Tensor:
    """Return pre-activations of rows of neurons that compete."""
    return torch.randn(count, neurons, generator=torch.Generator().manual_seed(2)) * spread


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("beta", [0.3, 1.0, 15.0])
@pytest.mark.parametrize("neurons", [1, 2, 15, 96, 97, 1537])
@pytest.mark.usefixtures("threads")
def test_shares_agree_with_those_of_double_precision(neurons: int, beta: float, signed: bool) -> None:
    u = rows(40, neurons, 4)
    expected = (u.double() * beta).softmax(dim=1)
    found = loops.softmax(u, beta, signed=signed)
    held = expected > 2.0**-125
    bound = 1e-7 * (4 + 2 * expected.log2().abs()) * expected
    assert ((found.double().abs() - expected).abs() <= bound)[held].all()
    assert (found.abs()[~held] <= 2.0**-125).all()
    loses = u < u.amax(dim=1, keepdim=True)
    assert torch.equal(found.signbit(), loses if signed else torch.zeros_like(loses))


def test_shares_of_what_is_no_ordinary_number() -> None:
    u = torch.zeros(6, 20)
    u[1, 3], u[2, 3], u[3, 3], u[4] = torch.nan, -torch.nan, torch.inf, -torch.inf
    u[5, :2], u[5, 2:] = 2.0**-140, -(2.0**-140)
    found = loops.softmax(u, 1.0)
    assert torch.allclose(found, u.softmax(dim=1), equal_nan=True)


def test_all_neurons_with_the_largest_response_win() -> None:
    u = torch.tensor([[1.0, 3, 3, 0], [0.0, -0.0, -1, -2], [-5.0, -5, -5, -5]])
    found = loops.softmax(u, 1.0, signed=True)
    assert (found > 0).tolist() == [[False, True, True, False], [True, True, False, False], [True] * 4]


@pytest.mark.parametrize("neurons", [1, 7, 96])
@pytest.mark.parametrize("count", [1, 127, 128, 1000])
@pytest.mark.usefixtures("threads")
def test_positive_sums_agree_with_those_of_double_precision(neurons: int, count: int) -> None:
    y = rows(count, neurons, 1)
    expected = y.double().relu().sum(dim=0)
    assert torch.allclose(loops.positive_sums(y).double(), expected, rtol=1e-6, atol=0)
    y[0, 0] = torch.nan
    assert loops.positive_sums(y)[0].isnan()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("neurons", [1, 15, 96, 1537])
@pytest.mark.usefixtures("threads")
def test_a_softmax_counts_its_positive_sums(neurons: int, signed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sums of its answer, of a view of it too, need no second pass, and are those of one to the last bit."""
    y = loops.softmax(rows(1000, neurons, 2), 1.0, signed=signed)
    expected = loops.positive_sums(y.clone())
    assert torch.allclose(expected.double(), y.double().relu().sum(dim=0), rtol=1e-6)
    with monkeypatch.context() as patch:
        patch.setattr(numba_loops, "POSITIVE_SUMS", None)
        assert torch.equal(loops.positive_sums(y), expected)
        assert torch.equal(loops.positive_sums(y.view(10, 100, neurons).view(1000, neurons)), expected)


def test_what_a_softmax_counted_is_not_taken_for_the_sums_of_other_numbers() -> None:
    y = loops.softmax(rows(200, 20, 2), 1.0)
    assert torch.allclose(loops.positive_sums(y[:100]), y[:100].sum(dim=0))
    assert torch.allclose(loops.positive_sums(y.view(100, 40)), y.view(100, 40).sum(dim=0))
    assert torch.equal(loops.positive_sums(torch.ones(200, 20)), torch.full((20,), 200.0))
    square = loops.softmax(rows(20, 20, 2), 1.0)
    assert torch.allclose(loops.positive_sums(square.T), square.sum(dim=1))
    y[:, 3] *= 2
    assert torch.allclose(loops.positive_sums(y), y.sum(dim=0))
    with torch.inference_mode():  # its tensors do not tell whether they were changed
        y = loops.softmax(rows(200, 20, 2), 1.0)
        y.mul_(3)
        assert torch.allclose(loops.positive_sums(y), y.sum(dim=0))


def test_a_softmax_counts_nan_as_a_second_pass_does() -> None:
    u = rows(10, 6, 1)
    u[2, 3], u[4, 1] = torch.inf, -torch.nan
    y = loops.softmax(u, 1.0, signed=True)
    assert y[2].isnan().all()
    assert loops.positive_sums(y).isnan().all()
    assert loops.positive_sums(y.clone()).isnan().all()


def test_python_s_threads_do_not_share_what_a_softmax_counted() -> None:
    drawn = [rows(100 + i, 30, 1) for i in range(4)]
    wrong: list[int] = []

    def compete(i: int) -> None:
        for _ in range(200):
            y = loops.softmax(drawn[i], 1.0)
            if not torch.allclose(loops.positive_sums(y), y.sum(dim=0)):
                wrong.append(i)

    threads = [threading.Thread(target=compete, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("signed", [False, True])
def test_all_negative_rows_have_their_largest_number_on_top(signed: bool) -> None:
    u = -rows(50, 30, 40).abs() - 2.0**-130
    u[0] = torch.nan
    u[1, 3], u[2, 5] = -torch.inf, -torch.nan
    u[3] = -0.0
    found = loops.softmax(u, 1.0, signed=signed)
    expected = u.softmax(dim=1)
    assert torch.allclose(found.abs(), expected, rtol=1e-5, equal_nan=True)
    if signed:
        assert torch.equal(found > 0, u == u.amax(dim=1, keepdim=True))


def _no_memory() -> Tensor:
    zeros: Tensor = torch._efficientzerotensor((4, 3))
    return zeros


@pytest.mark.parametrize("operation", [lambda u: loops.softmax(u, 2.0), loops.positive_sums, lambda u: repu(u, 0.7)])
@pytest.mark.parametrize(
    "u",
    [torch.randn(2, 6, dtype=torch.complex64).conj().imag, torch._neg_view(torch.randn(4, 3)), _no_memory()],
    ids=["conjugate", "negative view", "no memory"],
)
def test_numbers_that_lie_otherwise_in_memory(
    operation: Callable[[Tensor], Tensor], u: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "WORTH", 0)
    plain = torch.empty(u.shape).copy_(u)
    assert torch.allclose(operation(u), operation(plain), atol=1e-6)


def test_a_gradient_of_a_transform_passes_by_plain_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an operation makes inside a transform is wrapped, even of plain numbers."""
    monkeypatch.setattr(loops, "WORTH", 0)
    u, w = rows(30, 20, 1), rows(30, 20, 2)

    def product(w: Tensor) -> Tensor:
        return (loops.softmax(u, 1.0) * w).sum() + (loops.power(u, 0.7) * w).sum() + loops.positive_sums(u).sum()

    expected = loops.softmax(u, 1.0) + loops.power(u, 0.7)
    assert torch.allclose(torch.func.grad(product)(w), expected)
    assert torch.allclose(torch.vmap(torch.func.grad(product))(w[None])[0], expected)


def test_a_compiled_function_has_the_operations_in_its_graph() -> None:
    u = rows(30, 20, 1)

    def function(u: Tensor) -> Tensor:
        return loops.softmax(u, 1.0) + loops.power(u, 0.7) + loops.positive_sums(u)

    compiled = torch.compile(function, fullgraph=True, backend="eager")
    assert torch.equal(compiled(u), function(u))


def test_a_softmax_tells_recorders_of_operations() -> None:
    """A loop that reads memory by itself would be left out of what they see."""
    u = rows(30, 20, 2)
    expected = loops.softmax(u, 1.0)

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(str(function))
            return function(*args, **(kwargs or {}))

    names: list[str] = []
    with Names():
        assert torch.equal(loops.softmax(u, 1.0), expected)
        loops.positive_sums(u)
        loops.power(u, 0.7)
    assert {"hebb.softmax.default", "hebb.positive_sums.default", "hebb.power.default"} <= set(names)


@pytest.mark.parametrize("operation", [lambda u: loops.softmax(u, 2.0, signed=True), loops.positive_sums])
def test_rows_of_a_pack_are_those_of_its_members(operation: Callable[[Tensor], Tensor]) -> None:
    u = rows(3 * 50, 12, 1).view(3, 50, 12)
    expected = torch.stack([operation(member) for member in u])
    assert torch.equal(torch.vmap(operation)(u), expected)
    assert torch.equal(torch.vmap(operation, in_dims=2)(u.permute(1, 2, 0).contiguous()), expected)
    assert torch.equal(operation(u[0].T.contiguous().T), expected[0])


def test_loops_over_rows_are_operations_torch_can_trace() -> None:
    for call, example in (
        (torch.ops.hebb.softmax.default, (rows(5, 4, 1), 2.0, True)),
        (torch.ops.hebb.positive_sums.default, (rows(5, 4, 1),)),
    ):
        torch.library.opcheck(call, example, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_a_decay_agrees_with_that_of_double_precision(
    order: torch.memory_format, given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "WORTH", 0)
    change, weight = (rows(7, 50, spread).view(7, 2, 5, 5).contiguous(memory_format=order) for spread in (1, 0.3))
    weight[3] = 0
    factors = rows(1, 7, 2)[0] if given else (change.double() * weight).sum(dim=(1, 2, 3))
    expected = change.double() - factors.double().view(-1, 1, 1, 1) * weight
    found = loops.decay(change, weight, factors if given else None)
    assert found is not None
    peak, norms = found
    assert torch.allclose(change.double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(peak, change.abs().amax())
    assert torch.allclose(norms.double(), weight.double().square().sum(dim=(1, 2, 3)).sqrt(), rtol=1e-6, atol=0)
    for number in (torch.nan, -torch.nan, -torch.inf):
        change[2, 1, 1, 1] = number
        found = loops.decay(change, weight, torch.zeros(7))
        assert found is not None
        assert not found[0].isfinite()


def test_a_decay_by_a_loop_is_for_plain_numbers_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    change = torch.zeros(4, loops.WORTH // 8)
    assert loops.decay(change, change.clone(), None) is not None
    assert loops.decay(change[:, 1:], change[:, 1:].clone(), None) is None
    assert loops.decay(change, change.double(), None) is None
    assert loops.decay(change, change.clone().requires_grad_(), None) is None
    assert loops.decay(change.T.contiguous().T, change.clone(), None) is None
    square = torch.zeros(1 << 9, 1 << 9)
    assert loops.decay(square, square.clone(), None) is not None
    assert loops.decay(square.T, square.clone().T, None) is None
    assert loops.decay(square, square.clone().T, None) is None
    assert torch.vmap(lambda x: x if loops.decay(x, x, None) is None else 0 * x + 1)(change[None]).eq(0).all()
    monkeypatch.setattr(loops, "WORTH", loops.WORTH + 1)
    assert loops.decay(change, change.clone(), None) is None


def test_loops_on_torch_s_threads_run_on_each_of_them(threads: int) -> None:
    """As many threads as torch has, and each has its own rows."""
    totals = torch.zeros(threads, 3, dtype=torch.float64)
    numba_loops.POSITIVE_SUMS(y=torch.ones(10, 3), out=totals)
    some = -(-10 // threads)
    assert totals[:, 0].tolist() == [min(some, 10 - some * i) for i in range(threads)]


def test_without_torch_s_threads_a_loop_has_the_calling_one(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    u = rows(loops.WORTH // 64 + 3, 64, 2)
    expected = loops.softmax(u, 1.0)
    monkeypatch.setattr(team, "_parallel", lambda: None)
    assert torch.equal(loops.softmax(u, 1.0), expected)
    assert torch.allclose(loops.positive_sums(u), u.relu().sum(dim=0), rtol=1e-5)
    assert loops.pays_between(u) == (threads == 1)


def test_loops_run_where_torch_has_no_openmp() -> None:
    program = (
        "import torch; from hebb.kernels import loops, private_torch, team\n"
        "private_torch.openmp = lambda name: None\n"
        "torch.set_num_threads(2)\n"
        "u = torch.randn(50, 7)\n"
        "assert team.threads() == 1 and not loops.pays_between(torch.zeros(loops.WORTH))\n"
        "assert torch.allclose(loops.softmax(u, 2.0), (2 * u).softmax(dim=1))\n"
        "assert torch.allclose(loops.positive_sums(u), u.relu().sum(dim=0))\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_bits_are_those_of_the_process_that_compiled_the_loops(threads: int, tmp_path: Path) -> None:
    """One process compiles, the next reads the file, and in another the order is another."""
    program = (
        "import sys, torch; from hebb.kernels import loops, winograd; torch.set_num_threads(int(sys.argv[1]))\n"
        "draw = torch.Generator().manual_seed(0); u, w = (torch.randn(1025, 600, generator=draw) * 3 for _ in '12')\n"
        "steps = [lambda: loops.softmax(u, 1.0, signed=True), lambda: loops.power(u, 0.7),"
        " lambda: loops.positive_sums(u), lambda: torch.cat([x.view(-1) for x in loops.decay(u.clone(), w, None)]),"
        " lambda: winograd.forward(u[:9].view(2, 27, 10, 10), w[:3].view(-1, 25)[:, :9].view(-1, 1, 3, 3)"
        ".expand(-1, 27, -1, -1))]\n"
        "found = [step() for step in steps[:: int(sys.argv[2])]][:: int(sys.argv[2])]\n"
        "torch.save(found, sys.argv[3])\n"
    )
    settings = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    found = []
    for number, order in enumerate((1, 1, -1)):
        file = tmp_path / f"{number}.pt"
        command = [sys.executable, "-c", program, str(threads), str(order), str(file)]
        subprocess.run(command, cwd=ROOT, env=settings, check=True)
        found.append(torch.load(file))
    assert all(torch.equal(*pair) for other in found[1:] for pair in zip(found[0], other, strict=True))


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the smallest step be one of a loop."""
    monkeypatch.setattr(loops, "WORTH_A_STEP", 0)


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("hidden", [0, 1, 15, 16, 700])
@pytest.mark.parametrize("activation", [Sigmoid(), Relu()])
def test_steps_agree_with_those_of_double_precision(activation: TransferFunction, hidden: int) -> None:
    z, drive, e = (rows(7, hidden + 3, 4) * factor for factor in (1, 0.5, -0.3))
    slope, f, size = rows(7, hidden, 2), activation(z[:, :hidden]), 0.3
    expected, push, rates = z.double(), slope.double(), f.double()
    activation.times_derivative(push, rates)
    expected[:, :hidden] += size * (push - e[:, :hidden].double())
    step = loops.state_step(activation.in_loops, z, drive, e, slope, f)
    assert step is not None
    step(size)
    assert torch.allclose(z.double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(e, z - drive)
    assert torch.allclose(f.double(), activation(z.double()[:, :hidden]), rtol=1e-6, atol=1e-37)


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("activation", [Sigmoid(), Relu()])
def test_steps_to_what_is_no_ordinary_number(activation: TransferFunction) -> None:
    z = torch.tensor([[0.0, -0.0, 200, -200, torch.inf, -torch.inf, torch.nan, -torch.nan, 88, -88]])
    e, drive, slope, f = (torch.zeros_like(z) for _ in range(4))
    step = loops.state_step(activation.in_loops, z, drive, e, slope, f)
    assert step is not None
    step(1.0)
    assert torch.allclose(f, activation(z), equal_nan=True, rtol=1e-6, atol=1e-37)


def test_steps_by_a_loop_are_for_plain_numbers_and_known_functions() -> None:
    z = torch.zeros(2, loops.WORTH_A_STEP // 2)
    tensors = [z.clone() for _ in range(5)]
    assert loops.state_step(loops.Transfer.RELU, *tensors) is not None
    assert loops.state_step(None, *tensors) is None
    for other in (z.double(), z.clone().requires_grad_(), z[:, 1:]):
        assert loops.state_step(loops.Transfer.RELU, *tensors[:4], other) is None


@pytest.mark.parametrize("rule", [soft, soft_krotov])
def test_a_large_competition_is_that_of_small_ones_but_for_rounding(
    rule: Callable[[Tensor, LayerFields, None], Tensor], threads: int
) -> None:
    spec = layer("SoftKrotov", t_invert=2).spec
    u = rows(loops.WORTH // 64 + 3, 64, 2)
    assert loops.pays_between(u)
    found = torch.cat([rule(part, spec, None) for part in u.split(500)])
    assert torch.allclose(rule(u, spec, None), found, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("shape", [(64, 8192), (1, loops.WORTH + 3), (3, loops.WORTH // 3 + 11)])
def test_dropout_of_a_large_batch_is_that_of_its_factors(shape: tuple[int, int], threads: int) -> None:
    x = torch.randn(shape)
    one, other = Noise(4), Noise(4)
    for _ in range(2):  # the generators move on alike
        found = one.drop_out(x, 0.5)
        expected = x * other.factors(shape, 0.5, x.device)
        assert torch.equal(found, expected)
        assert torch.equal(found.signbit(), expected.signbit())
    assert 0.49 < (found == 0).float().mean() < 0.51


def test_a_large_batch_that_needs_its_factors_again_drops_the_same() -> None:
    x = torch.randn(64, 8192)
    dropped = Noise(4).drop_out(x.clone().requires_grad_(), 0.5)
    assert torch.equal(Noise(4).drop_out(x, 0.5), dropped)
    assert torch.equal(Noise(4).drop_out(x.T.contiguous().T, 0.5), dropped)


def test_small_networks_never_import_the_compiler() -> None:
    program = (
        "import sys, torch; from hebb.rules.activations import repu; from hebb.nn.noise import Noise;"
        "x = torch.rand(64, 100); repu(x, 0.7); Noise(1).drop_out(x, 0.5); assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_loops_run_where_nothing_can_be_kept() -> None:
    """Neither beside the code nor in the user's folder: compiled anew in each process."""
    program = (
        "import numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "import torch; from hebb.kernels import loops\n"
        "assert torch.allclose(loops.power(torch.full((9,), 4.0), 0.5), torch.full((9,), 2.0))\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_threads_that_wait_need_no_call_of_the_system() -> None:
    program = "import os; del os.sched_yield; from hebb.kernels import compiling; compiling.give_way()"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("items", [1, 2, 3, 32, 1001])
def test_threads_share_a_loop(items: int, threads: int) -> None:
    """Every item is done once, whether or not a helper finds time for it."""
    done = np.zeros(items, int)

    def loop(counts: np.ndarray, first: int, stop: int) -> None:
        counts[first:stop] += 1

    for _ in range(20):
        own_threads.run(loop, done, items=items, threads=threads)
    assert (done == 20).all()


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_threads_work_together_and_do_something_aside(threads: int) -> None:
    """The other thing is done once, whether or not a helper finds time for it, and each number works once at most."""
    for _ in range(20):
        numbers, aside = list[int](), list[int]()
        own_threads.together(numbers.append, threads=threads, aside=lambda done=aside: done.append(1))  # type: ignore[misc]
        assert len(aside) == 1
        assert 0 in numbers
        assert sorted(numbers) == sorted({*numbers} & {*range(threads)})


def test_an_error_of_a_helper_is_raised() -> None:
    def aside() -> None:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        own_threads.together(lambda number: None, threads=2, aside=aside)


def test_no_helper_is_at_work_after_an_error() -> None:
    ended = list[int]()

    def work(number: int) -> None:
        if number == 0:
            raise MemoryError("no room")
        time.sleep(0.02)
        ended.append(number)

    def aside() -> None:
        time.sleep(0.05)
        ended.append(-1)

    with pytest.raises(MemoryError, match="no room"):
        own_threads.together(work, threads=3, aside=aside)
    before = list(ended)
    time.sleep(0.2)
    assert ended == before
