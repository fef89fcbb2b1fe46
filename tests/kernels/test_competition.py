"""Neurons of a convolution that compete in one pass, against the convolution, softmax and gradient of double precision.

Without it a block could forget its last pixels, or read what lies behind the images.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import ROOT
from small import layer, maps
from torch import Tensor

from hebb.config.registry import RULES
from hebb.config.rule import Softmax
from hebb.config.vocabulary import Response
from hebb.core.errors import ConfigError
from hebb.core.user_code import UserCodeError
from hebb.kernels import competition, private_torch, winograd
from hebb.kernels.competition import Competed
from hebb.kernels.private_torch import convolution_weight_gradient

pytestmark = pytest.mark.skipif(not private_torch.mkl(), reason="torch has no MKL here")

LAST = torch.channels_last


def expected(x: Tensor, weight: Tensor, stride: int, beta: float, *, signed: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return u, sum_b y x and the mass in double precision."""
    x, weight = x.double(), weight.double()
    u = torch.conv2d(x, weight, stride=stride)
    y = (beta * u).softmax(dim=1)
    if signed:
        y = torch.where(u < u.amax(dim=1, keepdim=True), -y, y)
    change = convolution_weight_gradient(x, y, weight, stride=stride, dilation=1, groups=1)
    return u, change, y.relu().sum(dim=(0, 2, 3))


def error(found: Tensor, right: Tensor) -> float:
    """Return the largest error as a part of the largest number."""
    return float((found - right).abs().max() / right.abs().max())


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("images", "weights", "stride"),
    [
        ((10, 3, 36, 36), (96, 3, 5, 5), 1),
        ((9, 1, 30, 30), (100, 1, 3, 3), 1),
        ((3, 17, 16, 21), (7, 17, 1, 1), 1),
        ((5, 6, 33, 17), (130, 6, 7, 7), 2),
        ((4, 5, 11, 12), (48, 5, 2, 2), 3),
        ((1, 40, 9, 9), (3, 40, 9, 9), 1),
        ((2, 64, 20, 24), (384, 64, 3, 3), 1),
        ((5, 4, 20, 20), (1, 4, 3, 3), 1),
        ((5, 4, 20, 20), (2, 4, 3, 3), 1),
    ],
    ids=str,
)
def test_a_competition_agrees_with_its_parts_in_double_precision(
    images: tuple[int, ...], weights: tuple[int, ...], stride: int, signed: bool, threads: int
) -> None:
    x, weight = maps(*images), 0.1 * maps(*weights, seed=1)
    found = competition.compete(x, weight, stride, 1.3, signed=signed, unread=False)
    u, change, mass = expected(x, weight, stride, 1.3, signed=signed)
    assert error(found.u, u) < 1e-6
    assert error(found.change, change) < 1e-5
    assert error(found.mass, mass) < 1e-6
    assert found.pixels == u[:, 0].numel()
    assert found.u.is_contiguous(memory_format=LAST)
    assert found.change.is_contiguous(memory_format=LAST)


def test_an_answer_that_nobody_reads_has_no_images_and_changes_nothing(threads: int) -> None:
    x, weight = maps(4, 3, 20, 20), maps(32, 3, 5, 5, seed=1)
    read, unread = (competition.compete(x, weight, 1, 1.0, signed=True, unread=flag) for flag in (False, True))
    assert unread.u.shape == (0, 32, 16, 16)
    assert torch.equal(read.change, unread.change)
    assert torch.equal(read.mass, unread.mass)


def test_the_same_bits_again_whatever_lies_in_memory(threads: int) -> None:
    """Blocks of new memory hold what was there before: no product may read it."""
    x, weight = maps(6, 3, 30, 30), maps(24, 3, 4, 4, seed=1)
    first = competition.compete(x, weight, 1, 1.0, signed=True, unread=False)
    waste = [torch.full((size,), torch.nan) for size in (1 << 12, 1 << 16, 1 << 18, 1 << 20) for _ in range(4)]
    del waste
    again = competition.compete(x, weight, 1, 1.0, signed=True, unread=False)
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in ("u", "change", "mass"))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_number_that_is_none_reaches_the_pixels_that_see_it(stride: int, threads: int) -> None:
    x, weight = maps(5, 2, 24, 24), maps(32, 2, 3, 3, seed=1)
    x[3, 1, 7, 9] = torch.nan
    found = competition.compete(x, weight, stride, 1.0, signed=True, unread=False)
    u = torch.conv2d(x, weight, stride=stride)
    assert torch.equal(found.u.isnan(), u.isnan())
    assert found.change.isnan().all()


@pytest.mark.skipif(sys.platform != "linux", reason="protects memory by the C library of Linux")
@pytest.mark.parametrize(("channels", "side", "columns"), [(3, 5, 17), (1, 3, 16), (16, 1, 8), (5, 4, 4)])
def test_nothing_behind_the_images_is_read(channels: int, side: int, columns: int) -> None:
    """The images end where memory ends: to read on would end the process."""
    program = (
        "import ctypes, mmap, sys, torch\n"
        "from hebb.kernels import competition\n"
        "channels, side, columns = map(int, sys.argv[1:])\n"
        "page = mmap.PAGESIZE; memory = mmap.mmap(-1, 32 * page); count = 2 * 9 * columns * channels\n"
        "start = ctypes.addressof(ctypes.c_char.from_buffer(memory))\n"
        "assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + 31 * page), page, 0) == 0\n"
        "flat = torch.frombuffer(memory, dtype=torch.float32, count=count, offset=31 * page - 4 * count)\n"
        "x = flat.normal_().view(2, 9, columns, channels).permute(0, 3, 1, 2)\n"
        "w = torch.randn(8, channels, side, side).contiguous(memory_format=torch.channels_last)\n"
        "found = competition.compete(x, w, 1, 1.0, signed=True, unread=False)\n"
        "assert torch.allclose(found.u, torch.conv2d(x.clone(), w), atol=1e-4)\n"
    )
    numbers = map(str, (channels, side, columns))
    subprocess.run([sys.executable, "-c", program, *numbers], cwd=ROOT, check=True)


def test_memory_that_is_free_is_not_read() -> None:
    """An allocator that spoils freed memory finds arguments of a product that nobody keeps."""
    program = (
        "import torch; from hebb.kernels import competition\n"
        "sizes = (10, 3, 36, 36), (96, 3, 5, 5)\n"
        "x, w = (torch.randn(*size).contiguous(memory_format=torch.channels_last) for size in sizes)\n"
        "found = competition.compete(x, w, 1, 1.0, signed=True, unread=False)\n"
        "assert torch.allclose(found.u, torch.conv2d(x, w), atol=1e-3) and found.change.abs().min() > 0\n"
    )
    spoils = {**os.environ, "MALLOC_PERTURB_": "165", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=spoils, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_where_openmp_has_fewer_threads_nothing_else_is_summed() -> None:
    program = (
        "import torch; from hebb.kernels import competition, team\n"
        "torch.set_num_threads(2)\n"
        "sizes = (4, 3, 20, 20), (16, 3, 5, 5)\n"
        "x, w = (torch.randn(*size).contiguous(memory_format=torch.channels_last) for size in sizes)\n"
        "both = competition.compete(x, w, 1, 1.0, signed=True, unread=False)\n"
        "run = team._parallel()\n"
        "team._parallel = lambda: lambda loop, task, threads, flags: run(loop, task, 1, flags)\n"
        "waste = torch.full((2 * both.change.numel(),), 1e6); del waste\n"
        "one = competition.compete(x, w, 1, 1.0, signed=True, unread=False)\n"
        "assert torch.allclose(one.change, both.change, rtol=1e-3, atol=1e-3)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def large(method: str = "SoftKrotov", **fields: Any) -> tuple[Any, Tensor]:
    """Return a layer of few weights and many pixels, and its input."""
    plain = {"out_channels": 96, "kernel_size": 5, "lr": 0.1}
    made = layer(method, "CNN", 3, **plain | fields)
    made.initialise(torch.Generator().manual_seed(0))
    return made, torch.randn(10, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Competed]:
    """Collect what competitions in one pass leave."""
    found: list[Competed] = []
    compete = competition.compete

    def noted(*arguments: Any, **named: Any) -> Competed:
        found.append(compete(*arguments, **named))
        return found[-1]

    monkeypatch.setattr(competition, "compete", noted)
    return found


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("SoftKrotov", {}),
        ("Soft", {}),
        ("SoftKrotov", {"adaptive": False}),
        ("SoftKrotov", {"stride": 2, "padding": 2, "out_channels": 384}),
        ("SoftKrotov", {"lebesgue_p": 3.0}),
        ("SoftKrotov", {"t_invert": 2.5}),
    ],
)
def test_a_layer_learns_the_same_in_one_pass(
    method: str, fields: dict[str, Any], calls: list[Competed], monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    (fast, x), (plain, _) = large(method, **fields), large(method, **fields)
    before = fast.weight.clone()
    u = fast.learn(x, 0.05)
    assert len(calls) == 1
    monkeypatch.setattr(competition, "pays", lambda *of: False)
    expected = plain.learn(x, 0.05)
    assert len(calls) == 1
    assert error(u, expected) < 1e-6
    assert error(fast.gate_mass, plain.gate_mass) < 1e-6
    assert error(fast.weight - before, plain.weight - before) < 1e-4
    assert fast.weight.stride() == plain.weight.stride()
    assert int(fast.finite_updates) == fast.update_count == 1


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("Hard", {}),
        ("SoftKrotov", {"soft_activation_fn": "relu"}),
        ("Soft", {"add_bias": True}),
        ("SoftKrotov", {"dilation": 2}),
        ("SoftKrotov", {"groups": 3}),
        ("SoftKrotov", {"pre_triangle": True}),
        ("SoftKrotov", {"out_channels": 24}),  # too few pixels and neurons
        ("SoftKrotov", {"out_channels": 3600}),  # too many weights
    ],
)
def test_a_layer_whose_step_is_another_goes_its_own_way(
    method: str, fields: dict[str, Any], calls: list[Competed]
) -> None:
    made, x = large(method, **fields)
    made.learn(x, 0.05)
    assert not calls


@pytest.mark.parametrize("shape", [(100, 3, 3, 2), (20, 1, 32, 32), (20, 6, 32, 32)])
def test_an_input_that_does_not_fit_is_an_error(shape: tuple[int, ...]) -> None:
    made, _ = large(padding=0)
    before = made.weight.clone()
    with pytest.raises(RuntimeError):
        made.learn(torch.randn(shape))
    assert torch.equal(made.weight, before)


@pytest.mark.parametrize("beta", [0, -1.0, float("inf"), float("nan"), 1e39, 1e-50, "2", None, True])
def test_a_softmax_has_a_positive_temperature(beta: Any) -> None:
    with pytest.raises(ValueError, match="beta must be a positive number"):
        Softmax(beta)


def test_a_rule_whose_signal_is_another_softmax_is_refused() -> None:
    wrong = replace(RULES.get("Soft", "test"), softmax=lambda layer: Softmax(2 * layer.t_invert))
    made, x = large("Soft")
    made.rule = wrong
    made._softmax = made._competes_alone()
    with pytest.raises(UserCodeError, match="softmax of Soft must be what the signal is"):
        made.learn(x)


@pytest.mark.parametrize("own", [{"labels": True}, {"rivals": Response.COSINE}, {"decay": lambda *of: of[2]}])
def test_a_rule_with_more_than_a_softmax_declares_none(own: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="cannot declare a softmax and have"):
        replace(RULES.get("Soft", "test"), **own)


def test_an_input_with_a_gradient_keeps_it(calls: list[Competed]) -> None:
    made, x = large()
    made.learn(x.requires_grad_()).sum().backward()
    assert not calls
    assert x.grad is not None


def test_filters_that_share_products_do_so(calls: list[Competed]) -> None:
    made = layer("SoftKrotov", "CNN", 100, out_channels=200, kernel_size=3, padding=0)
    x = torch.randn(10, 100, 26, 26)
    assert winograd.pays(x.contiguous(memory_format=LAST), made.weight)
    made.learn(x)
    assert not calls


def test_it_pays_for_numbers_that_a_loop_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = maps(10, 3, 36, 36), maps(96, 3, 5, 5, seed=1)
    assert competition.pays(x, weight, 1)
    assert not competition.pays(x.contiguous(), weight, 1)
    assert not competition.pays(x, weight.contiguous(), 1)
    assert not competition.pays(x.double(), weight.double(), 1)
    assert not competition.pays(maps(100_000, 1, 3, 3), maps(96, 1, 3, 3), 1)  # images end within a move of a vector
    monkeypatch.setattr(private_torch, "mkl", dict)  # torch has another library
    assert not competition.pays(x, weight, 1)


def test_products_of_other_operations_have_their_threads_back() -> None:
    """A share asks MKL for one thread, which the calling thread must not keep."""
    program = (
        "import ctypes, torch; from hebb.kernels import competition\n"
        "torch.set_num_threads(2); torch.zeros(9).sum()\n"
        "sizes = (2, 3, 20, 20), (8, 3, 5, 5)\n"
        "x, w = (torch.randn(*size).contiguous(memory_format=torch.channels_last) for size in sizes)\n"
        "most = ctypes.CDLL(torch._C.__file__).MKL_Get_Max_Threads\n"
        "before = most(); competition.compete(x, w, 1, 1.0, signed=True, unread=True)\n"
        "assert before == most() == 2, (before, most())\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
