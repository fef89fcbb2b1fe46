"""Updates that are recorded and replayed are those of the loop, to the last bit.

A CPU has no graphs, and calls the recorded updates again. ``tape`` repeats their operations and nothing else, as a
graph does, so an update that the host decides would repeat its first one. ``tests/devices`` runs every method. Without
it a replayed network could learn from one batch again and again, or count its updates twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small
import tape
import torch
from torch import Tensor

from hebb.config import plan
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import DeviceKind
from hebb.core.errors import DivergenceError
from hebb.data import images
from hebb.nn import model
from hebb.storage import folders
from hebb.training import engine, graphs, settling, train

AGAIN = graphs.RECORDER
SCHEDULED = "SoftKrotov-c8-k3-p1-t1-lr0.05-v0:bn:triangle:avg_2_2_0 BP:flatten"
LPL = "LPL-c6-k3-p1-ls0.01:relu:shuffle=true:stale=true:warmup=0 BP:flatten"
EP = "EP-c16:flatten EP-c12 EP"
RUNS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "scheduled rate, momentum": (SCHEDULED, ("classifier.optimiser=sgd", "classifier.momentum=0.5"), {}),
    "adaptive rate, early stop": (small.DEEP.replace(":drop_0.5", ""), ("stop.patience=9",), {"mode": "consecutive"}),
    "back-prop, cosine": (small.BP, ("classifier.schedule=cosine", "dataset_sup.zoom=1.2"), {}),
    "augmented": (small.BP, ("dataset_sup.augmentation=true", "dataset_unsup.augmentation=true"), {}),
    "mirror images behind frozen blocks": (
        small.CNN.replace(":drop_0.2", ""),
        ("dataset_sup.mirror=true", "dataset_unsup.mirror=true"),
        {},
    ),
    "local loss, two views": (LPL, (), {}),
    "settling, one nudge": (EP, ("settle.sign=positive",), {}),
    "settling, random nudge": (EP, ("settle.sign=random", "settle.decay=0.5", "settle.decay_every=1"), {}),
    "rule and gradient on the same batches": (small.MIXED, (), {"mode": "simultaneous"}),
    "settling, Adam": ("PC-c16:flatten PC", ("settle.decay=0.5", "settle.decay_every=1"), {}),
}
CALLED = ("local loss, two views", "settling, Adam")
"""Runs whose updates are called again: on a CPU the host counts the steps of settling updates by Adam."""


class Notes(train.Report):
    """Keeps the lines that a run tells."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str) -> None:
        self.lines.append(text)


def config(name: str, *changes: str) -> RunConfig:
    """Return two epochs of ten updates, the last of them smaller."""
    network, own, fields = RUNS[name]
    values = ("samples=95", "batch_size=10", "epochs=2")
    few = [f"dataset_{role}.{value}" for role in ("sup", "unsup") for value in values]
    return replace(small.config(network, *few, *own, *changes, **fields), device=DeviceKind.CPU)


def run(made: RunConfig, report: train.Report | None = None, **place: Any) -> train.Result:
    return train.run(made, report, place=train.Place(**{"datasets": Path("nowhere"), **place}))


def assert_same(one: train.Result, other: train.Result) -> None:
    """Fail unless weights, points and rows are equal, but for the times."""
    mine, its = one.network.state_dict(), other.network.state_dict()
    assert [name for name, tensor in mine.items() if not torch.equal(tensor, its[name])] == []
    assert [point.to_json() for point in one.points] == [point.to_json() for point in other.points]
    timed = ("seconds", "images_per_second")
    rows = [[{k: v for k, v in row.items() if k not in timed} for row in result.rows] for result in (one, other)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("name", "recorder"),
    [*((name, tape.record) for name in RUNS if name != "settling, Adam"), *((name, AGAIN) for name in CALLED)],
)
def test_replayed_updates_are_those_of_the_loop(
    name: str, recorder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs of three updates, so that ten of them are made together and one by one."""
    monkeypatch.setattr(graphs, "RECORDER", recorder)
    monkeypatch.setattr(graphs, "RUN", 3)
    monkeypatch.setattr(settling, "LOOK_EVERY", 4)
    made, notes = config(name, *(() if name.startswith("settling") else ("curve_points=5",))), Notes()
    loop = run(made)
    assert_same(loop, run(replace(made, cuda_graphs=True), notes))
    assert notes.lines == ["note: --cuda-graphs: a CPU has none, and makes the recorded updates one after the other"]


def test_masks_of_the_host_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "RUN", 3)
    few = ("dataset_sup.samples=95", "dataset_sup.batch_size=10", "dataset_sup.epochs=2")
    made = replace(small.config(small.CNN, *few), device=DeviceKind.CPU)
    assert_same(run(made), run(replace(made, cuda_graphs=True)))


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a phase: the moments, the rates and the early stop are those of an uninterrupted run."""
    monkeypatch.setattr(graphs, "RECORDER", tape.record)
    monkeypatch.setattr(graphs, "RUN", 3)
    made = replace(config("scheduled rate, momentum", "stop.patience=9"), cuda_graphs=True)

    class Stop(train.Report):
        def row(self, row: folders.Row, blocks: object) -> None:
            if row["epoch"] == 1 and row["phase"] == self.phase_to_stop:
                raise KeyboardInterrupt

        def __init__(self, phase: int) -> None:
            self.phase_to_stop = phase

    for phase in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            run(made, Stop(phase), folder=tmp_path / str(phase))
        rest = run(made, folder=tmp_path / str(phase), carry_on=True)
        assert_same(run(replace(made, cuda_graphs=False)), rest)


@pytest.mark.parametrize("network", [SCHEDULED.replace("lr0.05", "lr1e30"), "BP-c30:flatten:relu BP"])
def test_a_divergence_is_reported_for_its_update(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "RUN", 3)
    monkeypatch.setattr(engine, "CHECK_EVERY", 8)
    few = ("dataset_sup.batch_size=10", "dataset_unsup.batch_size=10", "classifier.lr=1e30")
    made = replace(small.config(network, *few), device=DeviceKind.CPU)
    said = []
    for recorder in (None, AGAIN, tape.record):
        monkeypatch.setattr(graphs, "RECORDER", recorder)
        with pytest.raises(DivergenceError) as error:
            run(replace(made, cuda_graphs=recorder is not None))
        said.append(str(error.value))
    assert len(set(said)) == 1, said


def test_where_recording_fails_the_loop_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A phase says so once, and what the failed recording counted is forgotten."""

    def refuse(updates: Callable[[], None]) -> Callable[[], None]:
        tape.record(updates)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(graphs, "RECORDER", refuse)
    monkeypatch.setattr(graphs, "RUN", 3)
    made, notes = config("scheduled rate, momentum"), Notes()
    loop = run(made)
    assert_same(loop, run(replace(made, cuda_graphs=True), notes))
    why = "operation not permitted when stream is capturing"
    assert notes.lines[1:] == [
        f"note: --cuda-graphs: {phase} makes its updates one by one: {why}" for phase in ("hebbian b0", "backprop b1")
    ]


def test_a_failed_recording_leaves_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A joint update makes new weights, and a recording computes none of them."""
    made = config("rule and gradient on the same batches")
    (phase,), network = plan.phases(made), model.build(made)
    data = images.load(made.dataset_sup, Path("nowhere"), 0, torch.device("cpu"))
    (layer,) = (layer for _, layer in network.hebbian())
    weight = layer.weight

    def learn(x: Tensor, labels: Tensor, word: object) -> None:
        layer.weight = torch.full_like(weight, torch.nan)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(graphs, "RECORDER", lambda updates: updates())
    recorded = graphs.Graphs(network, phase, data.train, None, lambda line: None)
    recorded._added = []
    assert recorded._replay(learn, "word", 1, []) is None
    assert layer.weight is weight


@pytest.mark.parametrize(
    ("network", "mode", "phase", "why"),
    [
        ("Oja-c12:flatten BP", "successive", "hebbian b0", "the rate of b0 changes"),
    ],
)
def test_a_phase_that_cannot_be_recorded_says_why(network: str, mode: str, phase: str, why: str) -> None:
    few = ("dataset_sup.samples=40", "dataset_unsup.samples=40")
    made, notes = replace(small.config(network, *few, mode=mode), device=DeviceKind.CPU, cuda_graphs=True), Notes()
    assert_same(run(replace(made, cuda_graphs=False)), run(made, notes))
    assert [line for line in notes.lines if f"--cuda-graphs: {phase} makes its updates one by one: {why}" in line]


def test_a_pack_says_that_it_records_nothing() -> None:
    few = ("dataset_sup.samples=40", "dataset_unsup.samples=40", "cuda_graphs=true")
    made, notes = replace(small.config(small.MLP, *few), device=DeviceKind.CPU, pack=(0, 1)), Notes()
    places = [train.Place(datasets=Path("nowhere"))] * 2
    train.run_pack([replace(made, seed=seed) for seed in (0, 1)], [notes, train.Report()], places=places)
    assert [line for line in notes.lines if "a pack makes its updates one by one" in line]


def test_what_an_update_writes_to_stays_where_it_is() -> None:
    """A graph writes where it wrote, also to what only the end of an epoch reads."""
    from hebb.config import plan
    from hebb.nn import model
    from hebb.training import early_stop

    made = small.config(small.DEEP, "stop.patience=9")
    network = model.build(made)
    watch = early_stop.watch_of(made, plan.phases(made)[0], network)
    assert watch is not None
    names = ("_last", "_least", "_waited")
    places = [getattr(watch, name).data_ptr() for name in names]
    for _ in range(2):
        watch.update()
        watch.load_state_dict(watch.state_dict())
    assert [getattr(watch, name).data_ptr() for name in names] == places


@pytest.mark.parametrize("lr", [0.05, 0.0123])
def test_a_rate_on_the_device_gives_the_bits_of_its_number(lr: float) -> None:
    """A number over a tensor and a tensor over a tensor round differently."""
    sizes = torch.rand(200, generator=torch.Generator().manual_seed(0)) + 0.1
    for size in sizes:
        layers = [small.layer("Soft", adaptive=False) for _ in range(2)]
        for layer, rate in zip(layers, (lr, torch.tensor(lr)), strict=True):
            layer.step(torch.ones(3, 4), None, rate, size)
        assert torch.equal(layers[0].weight, layers[1].weight)


def test_sums_of_a_local_loss_start_anew_in_their_place() -> None:
    from hebb.nn import model

    block = model.build(small.config(LPL))[0]
    assert block.local is not None
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    places = []
    for _ in range(2):
        block.descend(x, torch.zeros(8, dtype=torch.int64))
        sums = block.local.sums()
        places.append(sums["loss"].data_ptr())
        assert float(sums["loss"]) == block.local.means()["loss"] != 0
        block.local.reset_statistics()
        assert all(float(total) == 0 for total in block.local.sums().values())
    assert places[0] == places[1]
