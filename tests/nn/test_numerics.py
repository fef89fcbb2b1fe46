"""What the process computes with: subnormal numbers become 0 in every thread while a run goes on, and only then.

Without it an Intel processor takes a hundred times as long for the products of a soft competition.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import small
import torch

import hebb
from hebb.kernels import loops, private_torch
from hebb.training import train

SMALL = 1e-30


def products() -> torch.Tensor:
    """Numbers that are subnormal where nothing flushes them, made by all threads of torch's pool."""
    return torch.full((1 << 20,), SMALL).mul_(1e-10)


@pytest.fixture(autouse=True)
def _as_it_was() -> object:
    before = private_torch.flushes_subnormals()
    yield
    private_torch.flush_subnormals(before)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_thread_follows(threads: int) -> None:
    """Also those that the pool had before; on and off, twice."""
    torch.set_num_threads(threads)
    for _ in range(2):
        private_torch.flush_subnormals(False)
        assert bool(products().all())
        assert not private_torch.flushes_subnormals()
        private_torch.flush_subnormals(True)
        assert not bool(products().any())
        assert private_torch.flushes_subnormals()


def test_a_flag_that_one_thread_has_is_given_to_all() -> None:
    """As where a program sets it by torch's own function, after its pool has begun."""
    torch.set_num_threads(2)
    private_torch.flush_subnormals(False)
    products()
    torch.set_flush_denormal(True)
    assert bool(products().any()), "the other thread does not follow"
    private_torch.flush_subnormals(True)
    assert not bool(products().any())


def test_the_threads_of_our_loops_follow() -> None:
    torch.set_num_threads(2)
    x, ones = torch.full((1 << 20,), 1e-39), np.full(256, 0x0101010101010101, np.int64)
    for flush in (False, True, False):
        private_torch.flush_subnormals(flush)
        made = loops.select(x, np.zeros(len(x) // 8, np.uint8), ones)  # times 1
        assert bool(made.any()) != flush
        assert bool(made.all()) != flush


def test_a_run_flushes_and_gives_the_program_back_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    train_phase = train._train_phase

    def spied(*arguments: Any) -> None:
        train_phase(*arguments)
        seen.append(bool(products().any()))

    monkeypatch.setattr(train, "_train_phase", spied)
    private_torch.flush_subnormals(False)
    x = np.random.default_rng(0).random((40, 1, 8, 8), dtype=np.float32)
    hebb.train(small.CNN, data=(x, np.arange(40) % 10), epochs=1, threads=2)
    assert seen == [False, False]
    assert bool(products().all())


def test_weights_are_those_without_flushing() -> None:
    """A softmax with many subnormal shares: flushed or not, the trained network has the same bits."""
    made = small.config("Soft-c24-k3-p1-t60-lr0.05:bn:triangle:max_2_2_0 BP:flatten")
    states = []
    for flush in (True, False):
        code = "" if flush else "private_torch.flush_subnormals = lambda flush: None\n"
        script = (
            "import sys, small, torch\nfrom hebb.kernels import private_torch\n"
            f"{code}done = small.run(small.config({made.network.name!r}))\n"
            "print([float(p.double().sum()) for p in done.network.state_dict().values()])"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="tests")
        states.append(done.stdout)
    assert states[0] == states[1]
