"""Loops over memory: powers against double precision, dropout against its factors, in every order of memory.

Without it a fast loop could skip the last numbers of a batch.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from conftest import ROOT
from torch import Tensor

from hebb.kernels import loops
from hebb.nn.noise import Noise
from hebb.rules.activations import repu


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


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
