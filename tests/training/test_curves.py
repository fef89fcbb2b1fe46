"""Learning curves inside an epoch: where their points lie, what they hold, and that they change nothing.

Without it a curve could cost bits, end elsewhere than the record of its epoch, or double its points after an
interruption.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import small
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hebb.config import plan
from hebb.config.phase import Phase, PhaseKind
from hebb.config.specs import RunConfig
from hebb.core.errors import ConfigError
from hebb.nn import model
from hebb.storage import curves as stored
from hebb.storage import folders, tags
from hebb.storage.curves import Point
from hebb.training import curves, train
from hebb.training.epoch import Epoch

LPL = "LPL-c8-k3-p1:bn:relu:max_2_2_0 BP:flatten"
NETWORKS = {
    "successive": (small.DEEP, "successive"),
    "one after the other": (small.DEEP, "consecutive"),
    "joint": (small.MIXED, "simultaneous"),
    "back-prop": (small.BP, "successive"),
    "MLP with a bias": (small.MLP, "successive"),
    "Krotov": ("Krotov-c20-lr0.02:flatten BP", "successive"),
    "local loss": (LPL, "successive"),
    "settling": ("EP-c9:flatten EP", "successive"),
}


def config(network: str = small.DEEP, *, points: int = 8, mode: str = "successive") -> RunConfig:
    """Return a run of two epochs a phase, by default with a point after 3, 5, 8 and 10 of the 10 updates of each."""
    changes = ["dataset_sup.epochs=2", "dataset_unsup.epochs=2", f"curve_points={points}"]
    return small.config(network, *changes, *(["b0.layer.warmup=0"] if network == LPL else []), mode=mode)


def phase(network: str = small.CNN, *changes: str) -> Phase:
    return plan.phases(small.config(network, *changes))[0]


# -- where the points lie -----------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [1, 3, 49, 50, 51, 1000])
@pytest.mark.parametrize("updates", [1, 2, 9, 10, 144, 5000])
@pytest.mark.parametrize("points", [None, 1, 7, 50, 5001])
def test_points_are_spread_evenly_and_end_with_the_epoch(epochs: int, updates: int, points: int | None) -> None:
    places = curves.places(replace(phase(), epochs=epochs), updates, points)
    gaps = [b - a for a, b in zip([0, *places], places, strict=False)]
    assert places[-1] == updates
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1
    asked = (points or 50) / epochs
    assert len(places) <= max(1, math.ceil(asked))
    if points is None:
        assert len(places) == 1 or min(gaps) >= 10
    else:
        assert len(places) == min(updates, math.ceil(asked))


@pytest.mark.parametrize(
    ("kind", "points"), [("calibrate", None), ("settle", None), ("hebbian", 0), ("backprop", 0), ("settle", 5)]
)
def test_phases_without_points(kind: str, points: int | None) -> None:
    assert curves.places(replace(phase(), kind=PhaseKind(kind)), 100, points) == []


@pytest.mark.parametrize("value", ["-1", "1.5", "many"])
def test_a_number_of_points_that_cannot_be(value: str) -> None:
    with pytest.raises(ConfigError, match=r"--set curve_points: must be a whole number"):
        small.config(small.CNN, f"curve_points={value}")


# -- what they hold -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("network", "mode"), NETWORKS.values(), ids=NETWORKS)
def test_curves_change_no_bit_and_end_with_the_records_of_the_epochs(network: str, mode: str, tmp_path: Path) -> None:
    with_curves = small.run(config(network, mode=mode), tmp_path / "with")
    without = small.run(config(network, points=0, mode=mode), tmp_path / "without")
    states = with_curves.network.state_dict(), without.network.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert [{**row, "images_per_second": 0} for row in with_curves.rows] == [
        {**row, "images_per_second": 0} for row in without.rows
    ]
    assert stored.read(tmp_path / "without") == []
    points = [point for point in stored.read(tmp_path / "with") if point.epoch]
    rows = [row for row in with_curves.rows if row["kind"] not in ("calibrate", "settle")]
    assert [(p.phase, p.kind, p.epoch) for p in points[3::4]] == [(r["phase"], r["kind"], r["epoch"]) for r in rows]
    assert [p.update for p in points] == [at for row in rows for at in (row["step"] - n for n in (7, 5, 2, 0))]
    for point, row in zip(points[3::4], rows, strict=True):
        assert " ".join(point.blocks) == row["blocks"]
        for name in ("convergence", "R1"):
            assert point.value(name) == row[name]
    for row, of_epoch in zip(rows, (points[i : i + 4] for i in range(0, len(points), 4)), strict=True):
        for name, recent in (("train_loss", "recent_loss"), ("train_acc", "recent_acc")):
            values = [point.recent.get(recent) for point in of_epoch]
            if row["train_loss"] is None or (row["kind"] == "hebbian" and name == "train_acc"):  # of labelled neurons
                assert values == [None] * 4
            else:  # means over 3, 2, 3 and 2 batches of one size
                mean = sum(n * value for n, value in zip((3, 2, 3, 2), values, strict=True)) / 10  # type: ignore[operator]
                assert mean == pytest.approx(row[name], rel=1e-5)


@pytest.mark.parametrize(
    ("network", "names"),
    [
        (small.CNN, {"convergence", "R1", "radius_mean", "weight_change", "winner_share", "winners"}),
        (LPL, {"weight_change", "recent_loss", "recent_pull", "recent_push", "recent_decorr"}),
        (small.BP, {"weight_change"}),
    ],
)
def test_only_what_a_rule_has_is_measured(network: str, names: set[str], tmp_path: Path) -> None:
    small.run(config(network), tmp_path / "run")
    point = next(point for point in stored.read(tmp_path / "run") if point.epoch)
    assert set(point.blocks["b0"]) == names


def test_a_point_over_a_whole_phase_has_the_numbers_of_its_ends(tmp_path: Path) -> None:
    """Weights before and after, and the gate mass of the epoch, which the layer still has at its end."""
    made = small.config(small.CNN, "curve_points=1")
    before = model.build(made)[0].weight.clone()
    result = small.run(made, tmp_path / "run")
    layer = result.network[0].hebb
    assert layer is not None
    start, end = (point.blocks["b0"] for point in stored.read(tmp_path / "run")[:2])
    radii = before.flatten(1).norm(dim=1)
    assert start == {
        "convergence": pytest.approx(float((radii - 1).abs().mean())),
        "R1": int(((radii - 1).abs() < 0.01).sum()),
        "radius_mean": pytest.approx(float(radii.mean())),
    }
    assert end["weight_change"] == pytest.approx(float((layer.weight - before).norm() / before.norm()), rel=1e-4)
    shares = layer.gate_mass / layer.gate_mass.sum()
    assert end["winner_share"] == pytest.approx(100 * float(shares.max()), rel=1e-5)
    assert end["winners"] == pytest.approx(1 / float(shares.square().sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("gate", "share", "winners"), [((1, 0, 0), 100, 1), ((1, 1, 1), 100 / 3, 3), ((0, 0, 0), 0, 0)]
)
def test_winners_of_known_gates(gate: tuple[int, ...], share: float, winners: float) -> None:
    """One neuron that wins alone, three that share, and none: the two ends of both measures."""
    block = model.build(small.config("Hard-c3-k3:max_2_2_0 BP:flatten"))[0]
    assert block.hebb is not None
    block.hebb.gate_mass += 5.0  # won before
    curve = curves._Block(block)
    block.hebb.gate_mass += 100 * torch.tensor(gate)
    assert {name: float(value) for name, value in curve._wins().items()} == {
        "winner_share": pytest.approx(share),
        "winners": pytest.approx(winners),
    }


def test_one_copy_to_the_host_a_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each makes a GPU idle; the numbers of all blocks and of all members of a pack come together."""
    copies: list[int] = []
    host = torch.Tensor.tolist

    def tolist(tensor: torch.Tensor) -> object:
        copies.append(tensor.numel())
        return host(tensor)

    networks = [model.build(small.config(small.DEEP, seed=seed)) for seed in (0, 1)]
    made = small.config(small.DEEP, mode="consecutive")
    points: list[Point] = []
    epoch = Epoch(seed=0, phase=replace(plan.phases(made)[0], blocks=(0, 1)), phase_index=0, epoch=0)
    follower = curves.Curves(networks, epoch, [1, 3], 0, [points.append, points.append])
    monkeypatch.setattr(torch.Tensor, "tolist", tolist)
    follower.begin()
    for _ in range(3):
        follower.update()
    assert len(copies) == 3
    assert [(p.update, list(p.blocks)) for p in points] == [(u, ["b0", "b1"]) for u in (0, 0, 1, 1, 3, 3)]


# -- interruptions, packs, shared blocks --------------------------------------------------------------------


class Stop(train.Report):
    """Interrupts a run after some batches, or when a phase begins."""

    def __init__(self, batches: int = 0, phase: int | None = None) -> None:
        self.left, self.at = batches, phase

    def progress(self, images: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def lines(folder: Path) -> str:
    return (folder / folders.LOOKS).read_text()


def date_back(folder: Path) -> None:
    """Name the events of a run as if it had begun a while ago.

    TensorBoard reads files in the order of their names, which have the second and a number of the process: of two in
    the same second, the tenth comes before the ninth. Nobody continues a run within a second of its start.
    """
    for path in folder.glob("events.out.tfevents.*"):
        words = path.name.split(".")
        words[3] = str(int(words[3]) - 100)
        path.rename(path.with_name(".".join(words)))


@pytest.mark.parametrize("checkpoint_every", [1, 2])
@pytest.mark.parametrize("batches", [1, 4, 10, 14, 20, 21, 25, 47, 60])
def test_a_continued_run_has_the_points_of_an_uninterrupted_one(
    whole: Path, tmp_path: Path, batches: int, checkpoint_every: int
) -> None:
    """Killed within an epoch, at its last update, and between two phases; none is doubled and none is lost."""
    place = {"folder": tmp_path / "cut", "checkpoint_every": checkpoint_every}
    with pytest.raises(KeyboardInterrupt):
        train.run(config(), Stop(batches), place=train.Place(datasets=Path("nowhere"), **place))
    date_back(tmp_path / "cut")
    again = small.run(config(), carry_on=True, **place)
    assert lines(tmp_path / "cut") == lines(whole)
    assert scalars(tmp_path / "cut") == scalars(whole)
    assert len(again.rows) == 6


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was left in peace."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    small.run(config(), folder)
    return folder


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return step and value of every scalar but the speed."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = sorted(set(events.Tags()["scalars"]) - {"run/images_per_second"})
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def test_tensorboard_has_the_points_under_their_blocks(whole: Path) -> None:
    """The end of an epoch is one point, although the record of the epoch has the same number."""
    shown, points = scalars(whole), stored.read(whole)
    for block in ("b0", "b1"):
        for name in ("convergence", "R1", "radius_mean", "weight_change", "winner_share", "winners"):
            of_block = [p for p in points if name in p.blocks.get(block, {})]
            assert [step for step, _ in shown[tags.of_block(block, name)]] == [p.update for p in of_block]
            values = [value for _, value in shown[tags.of_block(block, name)]]
            assert values == pytest.approx([p.blocks[block][name] for p in of_block])
    assert len(shown["loss/train inside epochs"]) == len(shown["training b2/weight_change"]) == 8


def test_members_of_a_pack_write_what_they_would_alone(tmp_path: Path) -> None:
    seeds = (4, 1)
    made = [replace(config(), seed=seed, pack=seeds) for seed in seeds]
    places = [train.Place(datasets=Path("nowhere"), folder=tmp_path / f"m-s{seed}") for seed in seeds]
    train.run_pack(made, places=places)
    for seed in seeds:
        small.run(replace(config(), seed=seed), tmp_path / f"alone-s{seed}")
        one, other = (stored.read(tmp_path / f"{name}-s{seed}") for name in ("m", "alone"))
        assert len(one) == len(other) == 26  # 3 phases of 2 epochs of 4 points, and the start of the Hebbian ones
        for mine, theirs in zip(one, other, strict=True):
            assert replace(mine, blocks={}, recent={}) == replace(theirs, blocks={}, recent={})
            assert numbers(mine) == pytest.approx(numbers(theirs), rel=1e-3, abs=1e-3)


def numbers(point: Point) -> dict[str, float | None]:
    of_blocks = {f"{b}/{name}": value for b, named in point.blocks.items() for name, value in named.items()}
    return {**point.recent, **of_blocks}


def test_a_run_that_takes_its_blocks_from_another_has_its_points(whole: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        small.run(config(), tmp_path / name, shared_blocks=tmp_path / "blocks")
        assert lines(tmp_path / name) == lines(whole)
    small.run(config(points=2), tmp_path / "third", shared_blocks=tmp_path / "blocks")
    assert len(stored.read(tmp_path / "third")) == 2 + 3 * 2


def test_a_line_reads_back(whole: Path) -> None:
    point = Point(update=3, phase=1, kind="hebbian", epoch=1, blocks={"b0": {"R1": 2, "convergence": math.nan}})
    line = json.loads(json.dumps(point.to_json()))
    assert line["blocks"]["b0"] == {"R1": 2, "convergence": None}
    assert stored.of_json(line).to_json() == line
    assert stored.of_json(line).value("convergence") is None
    assert [p.to_json() for p in stored.read(whole)] == [json.loads(line) for line in lines(whole).splitlines()]
