"""Datasets: sources, splits, subsets, batches.

Without it test images could leak into training.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED_DATA

from hebb.config.data_spec import DataSpec
from hebb.config.registry import DATASETS
from hebb.core.errors import ConfigError, HebbError
from hebb.data import images, sources

CPU = torch.device("cpu")
DIGITS = DataSpec(dataset="Digits")


def load(spec: DataSpec, folder: Path = Path("nowhere"), split_seed: int = 0) -> images.Images:
    return images.load(spec, folder, split_seed, CPU)


def names(split: images.Split | None) -> set[bytes]:
    """Identify images by their pixels; Digits has a few that occur twice, so sets are compared by inclusion."""
    assert split is not None
    return {image.numpy().tobytes() for image in split.images}


def test_digits_are_bundled_and_counted_right() -> None:
    found = load(DIGITS)
    entry = DATASETS.get("Digits", "test")
    assert found.train.images.shape == (entry.train, 1, 8, 8)
    assert found.train.images.dtype == torch.uint8
    assert int(found.train.images.max()) == 255
    assert len(found.test) == entry.test
    assert tuple(torch.bincount(found.train.labels).tolist()) == entry.per_class
    assert found.val is None


@pytest.mark.parametrize("file", [True, False])
def test_digits_are_those_of_scikit_learn(file: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its table is read without its import, and by its own function where another version keeps the table elsewhere."""
    from sklearn.datasets import load_digits

    bunch, images_read, labels_read = load_digits(), [], []
    if not file:
        monkeypatch.setattr(sources.Path, "exists", lambda _: False)
    for train in (True, False):
        read, labels = sources.digits(train)
        chosen = (np.arange(1797) % 5 != 4) == train
        images_read.append((read == np.round(bunch.images[chosen] * 255 / 16)).all())
        labels_read.append((labels == bunch.target[chosen]).all() and labels.dtype == np.int64)
    assert all(images_read)
    assert all(labels_read)


@pytest.mark.parametrize("samples", [None, 500, 101])
def test_validation_is_a_fifth_and_apart(samples: int | None) -> None:
    spec = replace(DIGITS, samples=samples, validation=0.2)
    found = load(spec)
    assert found.val is not None
    total = len(found.train) + len(found.val)
    assert total == spec.pool_samples()
    assert len(found.val) == int(0.2 * total)
    assert len(found.train) == spec.train_samples()


def test_validation_images_are_the_same_for_every_subset() -> None:
    """An image held out in one configuration is never trained on in another."""
    few, all_ = (load(replace(DIGITS, samples=n, validation=0.2)) for n in (300, None))
    assert names(few.val) <= names(all_.val)
    assert names(few.train) <= names(all_.train)
    zeros = load(replace(DIGITS, classes=(0, 1), validation=0.2))
    assert names(zeros.val) <= names(all_.val)


def test_split_seed_varies_the_split_and_nothing_else_does() -> None:
    spec = replace(DIGITS, validation=0.2)
    assert torch.equal(load(spec).train.images, load(replace(spec, epochs=9, batch_size=3)).train.images)
    assert not torch.equal(load(spec).train.labels, load(spec, split_seed=1).train.labels)


def test_class_filter_holds_for_training_and_test() -> None:
    found = load(replace(DIGITS, classes=(3, 7)))
    assert set(found.train.labels.tolist()) == set(found.test.labels.tolist()) == {3, 7}
    assert len(found.train) == replace(DIGITS, classes=(3, 7)).train_samples()


@pytest.mark.parametrize("batch_size", [1, 7, 64, 5000])
def test_batches_visit_every_image_once(batch_size: int) -> None:
    split = load(replace(DIGITS, samples=100)).train
    seen = list(split.batches(batch_size, torch.Generator().manual_seed(3)))
    assert [len(y) for _, y in seen[:-1]] == [batch_size] * (len(seen) - 1)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.cat([y for _, y in seen]), split.labels[order])
    x = torch.cat([x for x, _ in seen])
    assert torch.equal(x, split.images[order].float() / 255)
    stored = torch.cat([y for _, y in split.batches(batch_size)])
    assert torch.equal(stored, split.labels)


def keras(path: Path, images_: np.ndarray, labels: np.ndarray) -> None:
    np.savez(path, x_train=images_, y_train=labels, x_test=images_[:4], y_test=labels[:4])


@pytest.mark.parametrize("shape", [(32, 32, 3), (3, 32, 32)])
@pytest.mark.parametrize("column", [False, True])
def test_keras_files(tmp_path: Path, shape: tuple[int, ...], column: bool) -> None:
    """Channels first or last, labels flat or as a column: the same images."""
    rng = np.random.default_rng(0)
    last = rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(12) % 10
    stored = last if shape[-1] == 3 else last.transpose(0, 3, 1, 2)
    keras(tmp_path / "cifar10.npz", stored, labels[:, None] if column else labels)
    x, y = sources.read(DATASETS.get("CIFAR10", "test"), tmp_path, train=True)
    assert torch.equal(x, torch.from_numpy(last).permute(0, 3, 1, 2))
    assert y.tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x.astype(np.float32), y), "float32"),
        (lambda x, y: (x[:, :30], y), r"must be \(N, 3, 32, 32\) with N labels"),
        (lambda x, y: (x, y + 5), "labels must be 0 to 9, got 5 to 14"),
        (lambda x, y: (x, y[:-1]), "with N labels"),
    ],
)
def test_bad_keras_files(tmp_path: Path, change: object, message: str) -> None:
    assert callable(change)
    keras(tmp_path / "cifar10.npz", *change(np.zeros((12, 32, 32, 3), np.uint8), np.arange(12) % 10))
    with pytest.raises(ConfigError, match=message):
        sources.read(DATASETS.get("CIFAR10", "test"), tmp_path, train=True)


def test_truncated_file(tmp_path: Path) -> None:
    keras(tmp_path / "cifar10.npz", np.zeros((12, 32, 32, 3), np.uint8), np.arange(12) % 10)
    data = (tmp_path / "cifar10.npz").read_bytes()
    (tmp_path / "cifar10.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ConfigError, match="truncated"):
        sources.read(DATASETS.get("CIFAR10", "test"), tmp_path, train=True)


def test_missing_data_says_where_to_put_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources.declare_missing_operators()
    from torchvision import datasets

    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr(datasets.CIFAR10, "download", refuse)
    monkeypatch.setattr(datasets.CIFAR10, "__init__", refuse)
    with pytest.raises(HebbError, match=r"cifar10\.npz"):
        sources.read(DATASETS.get("CIFAR10", "test"), tmp_path, train=True)


def test_torchvision_loads_beside_a_cpu_torch() -> None:
    sources.declare_missing_operators()
    sources.declare_missing_operators()
    import torchvision.datasets

    assert torchvision.datasets.MNIST


def test_torchvision_files_are_read(tmp_path: Path) -> None:
    """CIFAR-10's own pickled batches, written here in the real format, read by torchvision's class."""
    import hashlib
    import pickle

    from torchvision import datasets

    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    rng = np.random.default_rng(0)
    kind = type("Tiny", (datasets.CIFAR10,), {})
    lists: dict[str, list[list[str]]] = {"train_list": [], "test_list": []}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        body = pickle.dumps({"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [0, 1, 2, 3]})
        (base / name).write_bytes(body)
        lists["test_list" if name == "test_batch" else "train_list"].append([name, hashlib.md5(body).hexdigest()])
    meta = pickle.dumps({"label_names": [str(i) for i in range(10)]})
    (base / "batches.meta").write_bytes(meta)
    kind.train_list, kind.test_list = lists["train_list"], lists["test_list"]
    kind.meta = {"filename": "batches.meta", "key": "label_names", "md5": hashlib.md5(meta).hexdigest()}
    datasets.Tiny = kind
    try:
        found, labels = sources.torchvision_images("Tiny", tmp_path, train=True)
    finally:
        del datasets.Tiny
    assert found.shape == (20, 32, 32, 3)
    assert labels.tolist() == [0, 1, 2, 3] * 5


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10"])
def test_the_real_files_have_the_counts_of_their_entries(name: str) -> None:
    if not (SHARED_DATA / f"{name.lower()}.npz").exists():
        pytest.skip(f"the real data are not at {SHARED_DATA}")
    entry = DATASETS.get(name, "test")
    x, y = sources.read(entry, SHARED_DATA, train=True)
    assert len(x) == entry.train
    per_class = entry.per_class or (entry.train // entry.classes,) * entry.classes
    assert tuple(torch.bincount(y).tolist()) == per_class
