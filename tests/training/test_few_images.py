"""Batches, classes and images that are too few are refused before the first update, by a dry run too.

Without it a batch norm fails at the end of the first epoch and a probe after the last one, when everything is trained.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Command

SMALL = ("--threads", "1", "--device", "cpu", "--model-name", "few")
CNN = "Soft-c4-k3-t1:bn:triangle:max_2_2_0 BP:flatten"
MLP = "Soft-c8-t1:flatten BP"
EPOCH = ("dataset_sup.epochs=1", "dataset_unsup.epochs=1")


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """11 training images of two classes with 8x8 pixels; one of them is of class 1."""
    generator = np.random.default_rng(0)
    labels = np.array([1] + [0] * 10)
    arrays = {f"x_{part}": generator.integers(0, 255, (11, 8, 8)).astype(np.uint8) for part in ("train", "test")}
    np.savez(tmp_path / "few.npz", y_train=labels, y_test=labels, **arrays)
    return tmp_path / "few.npz"


def refused(inside: Command, tmp_path: Path, arguments: tuple[str, ...], says: str, *, dry: bool = True) -> None:
    """Run the command, and its dry run where the numbers are known without the images."""
    for flags in (("--dry-run",), ()) if dry else ((),):
        done = inside("multi_layer.py", *arguments, *SMALL, *flags)
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stderr.startswith("error: "), done.stderr
        assert says in done.stderr
        assert not (tmp_path / "home" / "hebb" / "result").exists()


NORMS = {
    "in front of a 1x1 map": "Hard-c8-k8 Soft-c4-k1-t1:bn:triangle BP:flatten",
    "after a 1x1 map": "Soft-c8-k8-t1:bn_after BP:flatten",
    "after a 1x1 map that learns by back-prop": "BP-c8-k8:relu:bn_after BP:flatten",
    "in front of a 1x1 map that learns by back-prop": "BP-c8-k8:relu BP-c8-k1:bn BP:flatten",
    "in front of a vector": "Soft-c8-t1:bn:flatten BP",
    "after a vector": "Soft-c8-t1:flatten:bn_after BP",
    "of the classifier": "Soft-c8-k8-t1 BP:bn:flatten",
    "of a pooled 1x1 map": "Soft-c8-k7-t1:max_2_2_0 BP-c4-k1:bn BP:flatten",
}


@pytest.mark.parametrize("where", NORMS)
def test_a_batch_norm_of_one_value_is_refused(inside: Command, tmp_path: Path, few: Path, where: str) -> None:
    """11 images in batches of 10 leave one, and a map of 1x1 has one value per channel."""
    sizes = ("dataset_sup.batch_size=10", "dataset_unsup.batch_size=10", *EPOCH)
    arguments = ("--preset", NORMS[where], "--dataset", f"npz:{few}", "--set", *sizes)
    refused(inside, tmp_path, arguments, "its batch norm needs batches of two images or more, and 11 images in batches")


def test_a_frozen_block_that_is_calibrated_is_refused(inside: Command, tmp_path: Path, few: Path) -> None:
    """The batch statistics of random blocks come from the same batches."""
    blocks = ("--preset", NORMS["after a 1x1 map"], "--training-blocks", "1")
    arguments = (*blocks, "--dataset", f"npz:{few}", "--set", "dataset_unsup.batch_size=10", *EPOCH)
    refused(inside, tmp_path, arguments, "b0: its batch norm needs batches of two")


@pytest.mark.parametrize("network", [CNN, "Soft-c8-k8-t1 BP:flatten", MLP])
def test_a_map_of_several_pixels_learns_from_one_image(inside: Command, few: Path, network: str) -> None:
    sizes = ("dataset_sup.batch_size=10", "dataset_unsup.batch_size=10", *EPOCH)
    done = inside("multi_layer.py", "--preset", network, "--dataset", f"npz:{few}", "--set", *sizes, *SMALL)
    assert done.returncode == 0, done.stderr


PROBES = [
    ("linear", ("dataset_sup.classes=3", "dataset_unsup.classes=3"), "needs training images of two classes or more"),
    ("linear", ("dataset_sup.samples=1", "dataset_unsup.samples=20"), "two classes or more, got one image of Digits"),
    ("knn", ("dataset_sup.samples=9", "dataset_unsup.samples=20"), "needs 10 training images or more, got 9 of Digits"),
]


@pytest.mark.parametrize(("kind", "changes", "says"), PROBES)
def test_a_probe_of_too_little_is_refused(
    inside: Command, tmp_path: Path, kind: str, changes: tuple[str, ...], says: str
) -> None:
    arguments = ("--preset", CNN, "--dataset", "Digits", "--probe", kind, "--set", *changes, *EPOCH)
    refused(inside, tmp_path, arguments, says)


def test_a_probe_of_images_that_happen_to_be_of_one_class(inside: Command, tmp_path: Path, few: Path) -> None:
    """The file states two classes, and both images that are drawn are of one: known once they are read."""
    blocks = ("--preset", CNN, "--dataset", f"npz:{few}", "--probe", "linear", "--set", *EPOCH)
    says = "--probe linear: needs training images of two classes or more, got one class"
    refused(inside, tmp_path, (*blocks, "dataset_sup.samples=2"), says, dry=False)
    done = inside("multi_layer.py", *blocks, *SMALL)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["linear", "knn", "short", "neuron"])
def test_a_probe_of_images_without_labels_is_refused(inside: Command, tmp_path: Path, kind: str) -> None:
    """Where nothing learns from labels the probes read the images that trained."""
    blocks = ("--preset", CNN, "--training-blocks", "0", "--probe", kind)
    data = ("--dataset-sup", "STL10_1", "--dataset-unsup", "STL10_unlabel")
    done = inside("multi_layer.py", *blocks, *data, *SMALL, "--dry-run", "--set", *EPOCH)
    assert done.returncode == 2, done.stdout
    assert f"--probe {kind}: needs " in done.stderr


@pytest.mark.parametrize("kind", ["geometry", "short", "knn", "neuron"])
def test_what_one_class_allows_is_measured(inside: Command, kind: str) -> None:
    """Nothing that can be measured of one class is refused."""
    one = ("dataset_sup.classes=3", "dataset_unsup.classes=3", *EPOCH)
    done = inside("multi_layer.py", "--preset", CNN, "--dataset", "Digits", "--probe", kind, "--set", *one, *SMALL)
    assert done.returncode == 0, done.stderr


def test_a_sweep_refuses_a_point_with_such_a_batch(inside: Command, tmp_path: Path, few: Path) -> None:
    """The point is named, and the search begins no trial."""
    (tmp_path / "sizes.yaml").write_text("seeds: [0]\nspace:\n  dataset_unsup.batch_size: {grid: [5, 11]}\n")
    flags = ("--preset", NORMS["after a 1x1 map"], "--dataset", f"npz:{few}", "--config", "sizes.yaml", "--dry-run")
    done = inside("ray_search.py", *flags, "--threads", "1", "--device", "cpu")
    assert done.returncode == 2, done.stdout
    assert "dataset_unsup.batch_size=5" in done.stderr
    assert "11 images in batches of 5 leave one alone" in done.stderr


def test_a_quick_probe_of_one_class_is_refused(inside: Command, tmp_path: Path) -> None:
    (tmp_path / "rates.yaml").write_text("seeds: [0]\nspace:\n  b0.layer.lr: {grid: [0.1, 0.2]}\n")
    one = ("--set", "dataset_sup.classes=3", "dataset_unsup.classes=3", "--config", "rates.yaml", "--dry-run")
    flags = ("--scheduler", "asha", "--probe-every", "1", "--threads", "1", "--device", "cpu")
    done = inside("ray_search.py", "--preset", CNN, "--dataset", "Digits_5", *one, *flags)
    assert done.returncode == 2, done.stdout
    assert "--probe-every: needs training images of two classes or more, got one class of Digits" in done.stderr
