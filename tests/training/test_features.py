"""Features of frozen blocks: kept or computed anew, in memory or in a file, a run learns the same.

Without it the feature cache could change what the classifier learns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small
import torch

from hebb.config import plan, shapes
from hebb.config.specs import RunConfig
from hebb.core import machine
from hebb.data import images
from hebb.nn import model
from hebb.training import engine, features, train

NETWORKS = {"conv": small.CNN, "deep": small.DEEP, "mlp": "Soft-c40-t1-lr0.05:flatten:bn Hard-c30:bn:relu BP:drop_0.3"}
LONG = ("dataset_sup.epochs=3", "dataset_unsup.epochs=2", "dataset_sup.batch_size=24", "dataset_sup.validation=0.2")


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without free memory."""
    monkeypatch.setattr(machine, "free_memory", lambda device: 0)


def outcome(result: train.Result) -> tuple[dict[str, torch.Tensor], list[dict[str, object]]]:
    rows = [{k: v for k, v in row.items() if k != "images_per_second"} for row in result.rows]
    return result.network.state_dict(), rows


def assert_same(one: train.Result, other: train.Result) -> None:
    (state, rows), (second, others) = outcome(one), outcome(other)
    assert all(torch.equal(state[name], second[name]) for name in state)
    assert rows == others


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_keeping_features_changes_no_bit(name: str, dtype: str) -> None:
    made = small.config(NETWORKS[name], *LONG, f"feature_dtype={dtype}")
    assert_same(small.run(made), small.run(made, keep_features=False))


def test_keeping_features_of_zoomed_images_changes_no_bit() -> None:
    made = small.config(small.CNN, *LONG, "dataset_sup.zoom=1.5")
    assert_same(small.run(made), small.run(made, keep_features=False))


@pytest.mark.usefixtures("full")
def test_features_in_a_file_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = small.config(small.CNN, *LONG)
    taken: list[torch.Tensor | None] = []
    take = features.Room.take

    def spy(room: features.Room, *given: object) -> torch.Tensor | None:
        taken.append(take(room, *given))  # type: ignore[arg-type]
        return taken[-1]

    monkeypatch.setattr(features.Room, "take", spy)
    assert_same(small.run(made, cache=tmp_path / "cache"), small.run(made, keep_features=False))
    assert len(taken) == 3  # of the training, validation and test images
    assert all(found is not None for found in taken)
    assert list((tmp_path / "cache" / "features").iterdir()) == []


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("place", [{"cache": None}, {"cache_limit": 1000}, {"cache_limit": 500_000, "trials": 100}])
def test_features_that_fit_nowhere_are_computed_anew(tmp_path: Path, place: dict[str, object]) -> None:
    made = small.config(small.CNN, *LONG)
    assert_same(small.run(made, **{"cache": tmp_path, **place}), small.run(made))


@pytest.mark.usefixtures("full")
def test_a_full_disk_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", refuse)
    assert features.Room(file_limit=10**9, folder=tmp_path).take((10, 10), torch.float32, torch.device("cpu")) is None


@pytest.mark.usefixtures("full")
def test_the_limit_counts_all_files_of_a_phase(tmp_path: Path) -> None:
    room = features.Room(file_limit=1000, folder=tmp_path)
    cpu = torch.device("cpu")
    assert room.take((200,), torch.float32, cpu) is not None
    assert room.take((200,), torch.float32, cpu) is None
    assert room.take((50,), torch.float32, cpu) is not None


def test_memory_is_shared_by_the_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda device: 1000)
    cpu = torch.device("cpu")
    assert features.Room(file_limit=0, folder=None).take((180,), torch.float32, cpu) is not None
    assert features.Room(file_limit=0, folder=None, trials=2).take((180,), torch.float32, cpu) is None


def passes(made: RunConfig, monkeypatch: pytest.MonkeyPatch, **place: object) -> int:
    """Count the images that went through the frozen first block while the classifier learnt."""
    counted = 0

    class Counting(features.Frozen):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            nonlocal counted
            counted += len(x)
            return super().__call__(x)

    monkeypatch.setattr(features, "Frozen", Counting)
    small.run(made, **place)
    return counted


def test_images_pass_the_frozen_blocks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 training images and 360 test images: once, whatever the number of epochs and reports."""
    made = small.config(small.CNN, "dataset_sup.epochs=4")
    test = len(images.load(made.dataset_sup, Path("nowhere"), 0, torch.device("cpu")).test)
    assert passes(made, monkeypatch) == 200 + test


def test_without_the_cache_they_pass_at_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    made = small.config(small.CNN, "dataset_sup.epochs=4")
    test = len(images.load(made.dataset_sup, Path("nowhere"), 0, torch.device("cpu")).test)
    assert passes(made, monkeypatch, keep_features=False) == 4 * (200 + test)


def test_varied_images_pass_at_every_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Augmented training images are new in each epoch; the test images are not."""
    rng = np.random.default_rng(0)
    arrays = {
        f"{kind}_{part}": rng.integers(0, 256 if kind == "x" else 10, size, dtype=np.uint8)
        for part, count in (("train", 40), ("test", 30))
        for kind, size in (("x", (count, 32, 32, 3)), ("y", (count,)))
    }
    np.savez(tmp_path / "cifar10.npz", **arrays)
    made = small.config(small.CNN, "dataset_sup.epochs=3")
    data = replace(made.dataset_sup, dataset="CIFAR10", samples=None, augmentation=True)
    made = replace(made, dataset_sup=data, dataset_unsup=replace(data, epochs=1))
    assert passes(made, monkeypatch, datasets=tmp_path) == 3 * 40 + 30


def mirrored(network: str, *changes: str) -> RunConfig:
    return small.config(network, *changes, "dataset_sup.mirror=true", "dataset_unsup.mirror=true")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_keeping_mirror_images_changes_no_bit(name: str, dtype: str) -> None:
    made = mirrored(NETWORKS[name], *LONG, f"feature_dtype={dtype}")
    kept = small.run(made)
    assert_same(kept, small.run(made, keep_features=False))
    plain = small.run(small.config(NETWORKS[name], *LONG, f"feature_dtype={dtype}"))
    assert kept.rows[-1]["train_loss"] != plain.rows[-1]["train_loss"]


@pytest.mark.usefixtures("full")
def test_mirror_images_in_a_file_change_no_bit(tmp_path: Path) -> None:
    made = mirrored(small.CNN, *LONG)
    assert_same(small.run(made, cache=tmp_path / "cache"), small.run(made, keep_features=False))


@pytest.mark.usefixtures("full")
def test_mirror_images_that_fit_nowhere_are_computed_anew(tmp_path: Path) -> None:
    made = mirrored(small.CNN, *LONG)
    assert_same(small.run(made, cache=tmp_path, cache_limit=1000), small.run(made))


def test_mirror_images_pass_the_frozen_blocks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = mirrored(small.CNN, "dataset_sup.epochs=4")
    test = len(images.load(made.dataset_sup, Path("nowhere"), 0, torch.device("cpu")).test)
    assert passes(made, monkeypatch) == 2 * 200 + test


def test_mirror_images_of_zoomed_images_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only images that are not varied are enlarged: the test images, whose features are kept."""
    made = mirrored(small.CNN, "dataset_sup.epochs=3", "dataset_sup.zoom=1.25")
    fresh = small.run(made, keep_features=False)
    assert_same(small.run(made), fresh)
    test = len(images.load(made.dataset_sup, Path("nowhere"), 0, torch.device("cpu")).test)
    assert passes(made, monkeypatch) == 3 * 200 + test
    kept = shapes.features(made, plan.phases(made)[-1])
    assert kept is not None
    assert kept.images == test


def test_a_training_epoch_reads_each_image_or_its_mirror_image() -> None:
    made = mirrored(small.DEEP, "dataset_sup.epochs=2")
    network = model.build(made).eval()
    phase = plan.phases(made)[-1]
    data = images.load(made.dataset_sup, Path("nowhere"), 0, torch.device("cpu"))
    split = features.inputs(
        network, phase, data, made, train.Place(datasets=Path("nowhere")).room(), train.Report()
    ).train
    assert split.mirrored
    assert isinstance(data.train.images, torch.Tensor)
    x = images.as_float(data.train.images)
    expected = [network(version, stop=2) for version in (x, x.flip(-1))]
    chosen = torch.rand(len(x), generator=torch.Generator().manual_seed(3)) < 0.5
    read = torch.cat(
        [x for x, _ in split.batches(len(x), torch.Generator().manual_seed(1), torch.Generator().manual_seed(3))]
    )
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    assert torch.allclose(
        read, torch.where(chosen[:, None, None, None], expected[1][order], expected[0][order]), atol=1e-6
    )
    assert torch.allclose(torch.cat([x for x, _ in split.batches(30)]), expected[0], atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("samples=null", "classes=0,3"),
        ("validation=0.2",),
        ("validation=0.2", "held=true"),
        ("mirror=true", "validation=0.2", "held=true"),
        ("mirror=true", "zoom=1.25"),
        ("augmentation=true", "noise_std=0.1", "samples=null", "classes=1,8"),
    ],
)
def test_a_dry_run_counts_what_is_kept(changes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    made = small.config(small.CNN, "dataset_sup.epochs=2", *(f"dataset_sup.{change}" for change in changes))
    kept: list[int] = []
    take = features.Room.take

    def count(room: features.Room, shape: tuple[int, ...], *others: object) -> torch.Tensor | None:
        kept.append(shape[0])
        return take(room, shape, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(features.Room, "take", count)
    small.run(made)
    stated = shapes.features(made, plan.phases(made)[-1])
    assert stated is not None
    assert stated.images == sum(kept)


def test_a_phase_of_one_epoch_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features.Room, "take", lambda *_: pytest.fail("one epoch reads each image once"))
    small.run(small.config(small.DEEP))


def test_features_are_the_output_of_the_frozen_blocks() -> None:
    made = small.config(small.DEEP, "dataset_sup.epochs=2")
    network = model.build(made).eval()
    phase = plan.phases(made)[-1]
    data = images.load(made.dataset_sup, Path("nowhere"), 0, torch.device("cpu"))
    kept = features.inputs(network, phase, data, made, train.Place(datasets=Path("nowhere")).room(), train.Report())
    x, labels = next(data.test.batches(30))
    found, same = next(kept.test.batches(30))
    assert torch.allclose(found, network(x, stop=2), atol=1e-6)
    assert torch.equal(labels, same)
    direct = engine.evaluate(network, data.test)
    assert engine.evaluate(network, kept.test, start=phase.first).accuracy == pytest.approx(direct.accuracy)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
