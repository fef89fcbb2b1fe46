"""The loops of a linear classifier against the steps of torch: every shape, any number of threads, every way out.

Without it a fast epoch could teach another classifier than the one that the config describes.
"""

from __future__ import annotations

import copy
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import small
import torch
from conftest import ROOT
from torch import Tensor

from hebb.config import plan
from hebb.core.errors import DivergenceError
from hebb.data.images import Split
from hebb.kernels import linear_readout
from hebb.nn.model import Network
from hebb.training import engine, readout_epoch
from hebb.training.epoch import Epoch, Scores
from hebb.training.optimiser import optimiser_of


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let small batches take the loops, and put the number of threads back."""
    monkeypatch.setattr(readout_epoch, "WORTH", 1)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Case:
    """A classifier, the shape of its features, the number of classes, of images and of those in a batch."""

    preset: str = "BP:flatten:drop_0.5"
    changes: tuple[str, ...] = ()
    shape: tuple[int, int, int] = (3, 8, 64)
    classes: int = 10
    images: int = 150
    batch: int = 64


CASES = {
    "two blocks of features and a short last batch": Case(),
    "less than a block": Case(shape=(1, 4, 6)),
    "no dropout": Case(preset="BP:flatten"),
    "no bias": Case(changes=("b0.layer.add_bias=false",)),
    "weight decay": Case(changes=("classifier.weight_decay=0.01",)),
    "two classes": Case(classes=2),
    "eleven classes": Case(classes=11),
    "a last batch of one image": Case(images=129),
    "batches of three": Case(images=20, batch=3),
    "batches of one": Case(images=9, batch=1),
}


class Student:
    """A classifier and its optimiser; each epoch goes on from the one before."""

    def __init__(self, case: Case) -> None:
        changes = (*case.changes, f"dataset_sup.batch_size={case.batch}", "classifier.lr=0.001")
        config = small.config(case.preset, *changes)
        self.phase = plan.phases(config)[-1]
        self.network = Network(config.network, case.shape, case.classes).initialise(1)
        optimiser = optimiser_of(config, self.phase, self.network)
        assert optimiser is not None
        self.optimiser = optimiser

    def learn(self, split: Split, epoch: int = 0) -> Scores:
        """Train for one epoch."""
        at = Epoch(seed=3, phase=self.phase, phase_index=0, epoch=epoch)
        return engine.backprop(self.network, split, at, self.optimiser, lambda _: None)

    def state(self) -> list[Tensor]:
        """Return weights and moments."""
        moments = [tensor for one in self.optimiser.state.values() for tensor in one.values()]
        return [tensor.detach().clone() for tensor in (*self.network.parameters(), *moments)]


def data(case: Case) -> Split:
    draw = torch.Generator().manual_seed(2)
    labels = torch.randint(case.classes, (case.images,), generator=draw)
    return Split(torch.rand((case.images, *case.shape), generator=draw), labels)


@pytest.mark.parametrize("name", CASES)
def test_the_loops_teach_what_torch_teaches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    split, by_loops, by_torch = data(case), Student(case), Student(case)
    assert readout_epoch.applies(by_loops.network, split, by_loops.phase, by_loops.optimiser)
    scores = [by_loops.learn(split, epoch) for epoch in range(3)]
    monkeypatch.setattr(readout_epoch, "applies", lambda *_: False)
    expected = [by_torch.learn(split, epoch) for epoch in range(3)]
    assert [s.accuracy for s in scores] == [s.accuracy for s in expected]
    assert all(math.isclose(s.loss, e.loss, rel_tol=1e-5) for s, e in zip(scores, expected, strict=True))  # type: ignore[arg-type]
    for mine, theirs in zip(by_loops.state(), by_torch.state(), strict=True):
        assert torch.linalg.vector_norm(mine - theirs) <= 5e-6 * torch.linalg.vector_norm(theirs)


def test_the_bits_do_not_depend_on_the_threads() -> None:
    case = Case(shape=(9, 16, 64))
    states = []
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        student = Student(case)
        student.learn(data(case))
        states.append(student.state())
    assert all(torch.equal(mine, first) for state in states[1:] for mine, first in zip(state, states[0], strict=True))


def test_a_stored_optimiser_continues_to_the_same_bits() -> None:
    case = Case()
    whole, first, second = Student(case), Student(case), Student(case)
    for epoch in range(2):
        whole.learn(data(case), epoch)
    first.learn(data(case), 0)
    second.network.load_state_dict(first.network.state_dict())
    second.optimiser.load_state_dict(copy.deepcopy(first.optimiser.state_dict()))
    second.learn(data(case), 1)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(second.state(), whole.state(), strict=True))


def test_moments_of_silent_features_end_at_zero_instead_of_in_slow_numbers() -> None:
    case = Case(shape=(1, 1, 24), images=8, batch=1)
    student, loud = Student(case), data(case)
    student.learn(loud)
    assert isinstance(loud.images, Tensor)
    silent = replace(loud, images=torch.zeros_like(loud.images))
    for epoch in range(1, 130):  # 1,040 updates: 0.9^1,040 is 2.6e-48, and float32 begins at 1.4e-45
        student.learn(silent, epoch)
        mean = student.optimiser.state[student.network[0].layer.weight]["exp_avg"]
        assert not ((mean != 0) & (mean.abs() < torch.finfo(torch.float32).tiny)).any()
    assert not mean.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_end_the_run(bad: float) -> None:
    case = Case(preset="BP:flatten")
    split = data(case)
    assert isinstance(split.images, Tensor)
    split.images[5, 0, 0, 0] = bad
    with pytest.raises(DivergenceError, match=r"loss of .* is not finite from update"):
        Student(case).learn(split)


def test_curves_see_the_weights_after_each_update() -> None:
    """The loops already answer the next batch by then, and must not have learnt from it."""
    case = Case(images=24, batch=8)
    split, student = data(case), Student(case)
    weight = student.network[0].layer.weight
    readout = readout_epoch.Readout(student.network, split, 8, student.optimiser)
    with engine.training(student.network, Epoch(seed=3, phase=student.phase, phase_index=0, epoch=0)):
        made = readout.epoch(torch.arange(24), split.labels, looks=[1, 2])
        seen = [(len(batches), batches[0].images, weight.detach().clone()) for batches in made]
    assert [(count, images) for count, images, _ in seen] == [(1, 8)] * 3
    moved = [later - earlier for (*_, earlier), (*_, later) in itertools.pairwise(seen)]
    assert all(change.abs().max() > 0 for change in moved)
    assert torch.equal(weight, seen[-1][2])


OTHERS = {
    "another layer": Case(preset="FA:flatten"),
    "batch norm": Case(preset="BP:flatten:batchnorm1d"),
    "another dropout": Case(preset="BP:flatten:drop_0.2"),
    "an activation": Case(preset="BP:flatten:relu"),
    "SGD": Case(changes=("classifier.optimiser=sgd",)),
    "AdamW": Case(changes=("classifier.optimiser=adamw", "classifier.weight_decay=0.1")),
    "features that fill no byte of random bits": Case(shape=(1, 1, 23)),
}


def test_a_linear_layer_below_a_classifier_stays_with_torch() -> None:
    """The loops are those of the classifier, and would train it instead."""
    config = small.config("BP-c24:flatten BP", "dataset_sup.batch_size=8", bp_blockwise=True)
    phases, network = plan.phases(config), Network(config.network, (1, 8, 8), 10).initialise(1)
    split = data(Case(shape=(1, 8, 8), images=24))
    used = []
    for phase in phases:
        optimiser = optimiser_of(config, phase, network)
        assert optimiser is not None
        used.append(readout_epoch.applies(network, split, phase, optimiser))
    assert used == [phase.top == 1 for phase in phases]
    assert used[0] is False


def test_an_interrupt_before_the_loops_begin_ends_the_epoch() -> None:
    """The helpers do not wait for the thread that was interrupted. In a process of its own, as they would for ever."""
    program = """
import time, torch
import test_readout_epoch as tests
from hebb.kernels import linear_readout
from hebb.training import readout_epoch
readout_epoch.WORTH, learn = 1, linear_readout.learn

def interrupted(*arguments):
    if arguments[-1] == 0:
        time.sleep(0.1)
        raise MemoryError("no room")
    learn(*arguments)

linear_readout.learn = interrupted
torch.set_num_threads(3)
tests.Student(tests.Case()).learn(tests.data(tests.Case()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr.endswith("MemoryError: no room\n")


def test_images_and_their_mirror_images_teach_as_images_do(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case()
    both = data(replace(case, images=2 * case.images))
    split = replace(both, labels=both.labels[: case.images], mirrored=True)
    ours, torchs = Student(case), Student(case)
    assert readout_epoch.applies(ours.network, split, ours.phase, ours.optimiser)
    scores = ours.learn(split)
    plain = Student(case)
    plain.learn(replace(split, images=split.images[: case.images], mirrored=False))  # type: ignore[index]
    assert not torch.equal(plain.state()[0], ours.state()[0])
    monkeypatch.setattr(readout_epoch, "applies", lambda *_: False)
    theirs = torchs.learn(split)
    assert scores.accuracy == theirs.accuracy
    assert scores.loss == pytest.approx(theirs.loss)
    for one, other in zip(ours.state(), torchs.state(), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", OTHERS)
def test_everything_else_stays_with_torch(name: str) -> None:
    case = OTHERS[name]
    student = Student(case)
    assert not readout_epoch.applies(student.network, data(case), student.phase, student.optimiser)
    assert student.learn(data(case)).loss is not None


@pytest.mark.parametrize(
    "change",
    [
        {"images": torch.zeros(150, 3, 8, 64, dtype=torch.uint8)},
        {"images": torch.zeros(150, 3, 8, 64, dtype=torch.bfloat16)},
        {"images": torch.zeros(150, 8, 64, 3).permute(0, 3, 1, 2)},
        {"finish": lambda x: x + 1},
        {"augment": lambda x, _: x + 1},
        {"zoom": 1.5},
    ],
)
def test_images_that_are_no_features_stay_with_torch(change: dict[str, object]) -> None:
    student = Student(Case())
    split = replace(data(Case()), **change)  # type: ignore[arg-type]
    assert not readout_epoch.applies(student.network, split, student.phase, student.optimiser)


@pytest.mark.parametrize("blocks", [1, 2, 5, 32])
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_every_thread_comes_to_every_block_and_to_its_own_share_first(blocks: int, threads: int) -> None:
    orders = [
        [linear_readout.of_turn(turn, blocks, threads, number) for turn in range(blocks)] for number in range(threads)
    ]
    shares = [number * blocks // threads for number in range(threads + 1)]
    for order, (first, stop) in zip(orders, itertools.pairwise(shares), strict=True):
        assert sorted(order) == list(range(blocks))
        assert order[: stop - first] == list(range(first, stop))


def test_blocks_are_as_wide_as_the_tests_take_them_for() -> None:
    assert math.prod(Case().shape) == 2 * linear_readout.WIDTH
