"""Names that spell out their data: ``folder:PATH`` and ``npz:PATH``, here and through the real command line.

Without it a user's own files could be read with wrong labels or channels.
"""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import image_files
import numpy as np
import pytest
import torch
from conftest import Command
from light import light
from PIL import Image

from hebb.config import catalog, shapes
from hebb.config.registry import DATASETS
from hebb.config.specs import RunConfig
from hebb.core.errors import ConfigError
from hebb.data import images, own, scan

CPU = torch.device("cpu")
CATALOG = catalog.load()


def load(name: str, **changes: object) -> images.Images:
    """Load what a name spells out, with some fields changed."""
    return images.load(replace(CATALOG.dataset(name, "test"), **changes), Path("nowhere"), 0, CPU)


def pixels(split: images.Split) -> torch.Tensor:
    assert isinstance(split.images, torch.Tensor)
    return split.images


def test_the_entry_of_a_folder_is_read_from_its_images(tmp_path: Path) -> None:
    image_files.folder(tmp_path / "pets", test="val")
    (tmp_path / "pets" / "train" / "dog" / "notes.txt").write_text("not an image")
    entry = DATASETS.get(f"FOLDER:{tmp_path}/pets/../pets", "test")
    assert entry.name == f"folder:{tmp_path}/pets"
    assert (entry.channels, entry.height, entry.width, entry.classes) == (3, 16, 20, 2)
    assert (entry.train, entry.per_class, entry.test, entry.test_per_class) == (18, (9, 9), 8, (4, 4))
    found = load(entry.name, classes=(1,))
    assert (len(found.train), len(found.test)) == (9, 4)
    path = sorted((tmp_path / "pets" / "train" / "dog").glob("*.png"))[0]
    assert torch.equal(pixels(found.train)[0], torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1))


def test_a_file_of_the_same_name_is_read_anew(tmp_path: Path) -> None:
    """A notebook corrects its labels and trains again: the old ones must not go with the new images."""
    path = tmp_path / "mine.npz"
    arrays = {"x_train": np.zeros((6, 4, 4), np.uint8), "x_test": np.zeros((2, 4, 4), np.uint8), "y_test": [0, 1]}
    name = f"npz:{path}"
    for y_train in ([0, 0, 0, 1, 1, 1], [1, 1, 0, 0, 1, 0], [2, 0, 1, 2, 0, 1]):
        np.savez(path, y_train=y_train, **arrays)
        data = load(name)
        assert data.train.labels.tolist() == y_train
        assert DATASETS.get(name, "test").classes == len(set(y_train))
    entry = DATASETS.get(name, "test")
    own.look_again()
    assert DATASETS.get(name, "test") is entry  # as long as nothing changes, nothing is read
    np.savez(path, y_train=[0, 1, 0, 1, 0, 1], **arrays)
    assert DATASETS.get(name, "test") is entry  # a moment ago it was as it was read
    assert entry.load is not None
    with pytest.raises(ConfigError, match=r"mine\.npz: has changed since its labels were read\nstart again"):
        entry.load(tmp_path, True)


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its labels must not stay with the stamp of the new file."""
    path = tmp_path / "mine.npz"
    arrays = {"x_train": np.zeros((4, 4, 4), np.uint8), "x_test": np.zeros((2, 4, 4), np.uint8), "y_test": [0, 1]}
    np.savez(path, y_train=[0, 1, 0, 1], **arrays)
    labels = own._labels

    def replaced_meanwhile(file: Path, name: str) -> np.ndarray:
        values = labels(file, name)
        if name == "y_train":
            np.savez(file, y_train=[1, 1, 0, 1], **arrays)
        return values

    monkeypatch.setattr(own, "_labels", replaced_meanwhile)
    DATASETS.get(f"npz:{path}", "test")
    monkeypatch.setattr(own, "_labels", labels)
    assert load(f"npz:{path}").train.labels.tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize("at", ["train/cat", "train/cat/winter", "train/cat/winter/empty", "train/bird"])
def test_a_folder_that_has_grown_is_read_anew(at: str, tmp_path: Path) -> None:
    """By an image, in a subfolder too, or by a class."""
    root = image_files.folder(tmp_path / "pets")
    winter = root / "train" / "cat" / "winter"
    winter.mkdir()
    Image.new("RGB", (20, 16)).save(winter / "snow.png")
    (winter / "empty").mkdir()
    before = DATASETS.get(f"folder:{root}", "test")
    own.look_again()
    assert DATASETS.get(f"folder:{root}", "test") is before
    (root / at).mkdir(exist_ok=True)
    Image.new("RGB", (20, 16)).save(root / at / "new.png")
    own.look_again()
    after = DATASETS.get(f"folder:{root}", "test")
    assert (after.train, after.classes) == (before.train + 1, before.classes + (at == "train/bird"))


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    root = image_files.folder(tmp_path, mode="L")
    assert DATASETS.get(f"folder:{root}", "test").channels == 1
    assert pixels(load(f"folder:{root}").train).shape == (18, 1, 16, 20)


def test_images_of_differing_sizes_need_a_size(tmp_path: Path) -> None:
    root = image_files.folder(tmp_path)
    Image.new("RGB", (7, 9)).save(root / "train" / "cat" / "small.png")
    data = CATALOG.dataset(f"folder:{root}", "test")
    run = RunConfig(network=CATALOG.network("BP:flatten"), mode="successive", dataset_sup=data, dataset_unsup=data)
    with pytest.raises(ConfigError, match=r"differ in size\n--set dataset_sup.size"):
        shapes.of_run(run)
    sized = replace(data, size=12)
    assert shapes.of_run(replace(run, dataset_sup=sized, dataset_unsup=sized))[0].into == (3, 12, 12)
    assert pixels(load(data.dataset, size=12).train).shape == (19, 3, 12, 12)


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3), (3, 9, 7), (9, 7, 1)])
def test_the_entry_of_an_npz_file_is_read_from_its_headers(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = image_files.keras(tmp_path / "mine.npz", shape)
    entry = DATASETS.get(f"npz:{path}", "test")
    assert (entry.channels, entry.height, entry.width) == (3 if 3 in shape else 1, 9, 7)
    assert (entry.classes, entry.train, entry.per_class, entry.test_per_class) == (3, 30, (10, 10, 10), (4, 4, 4))
    assert pixels(load(entry.name).train).shape == (30, entry.channels, 9, 7)
    assert load(entry.name, size=5).test.images.shape == (12, entry.channels, 5, 5)


def mark_members(path: Path, place: int, value: int) -> None:
    """Set a byte in the header of every file of a zip, and the same byte, two further on, in its list of them."""
    content = bytearray(path.read_bytes())
    for sign, offset in ((b"PK\x03\x04", place), (b"PK\x01\x02", place + 2)):
        for match in re.finditer(re.escape(sign), bytes(content)):
            content[match.start() + offset] = value
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder:{}/nothing", "no such folder"),
        ("folder:{}/empty", "holds no image"),
        ("folder:{}/more", "'?.*bird is a class"),
        ("folder:{}/broken", "broken.png: is not an image"),
        ("npz:{}/nothing.npz", "no such file"),
        ("npz:{}/text.npz", "truncated or not an .npz"),
        ("npz:{}/lacks.npz", "lacks x_train"),
        ("npz:{}/floats.npz", "x_train must be uint8, got float64"),
        ("npz:{}/labels.npz", "y_train must hold labels"),
        ("npz:{}/twice.npz", "holds x_test 2 times, must hold it once"),
        ("npz:{}/locked.npz", "cannot be unpacked: .* is encrypted"),
        ("npz:{}/other.npz", "cannot be unpacked: .*compress"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty" / "train" / "cat").mkdir(parents=True)
    image_files.classes(image_files.folder(tmp_path / "more") / "test", ["bird"])
    (image_files.folder(tmp_path / "broken") / "train" / "cat" / "broken.png").write_bytes(b"none")
    (tmp_path / "text.npz").write_text("text")
    np.savez(tmp_path / "lacks.npz", x_test=np.zeros(3))
    whole = {name: np.zeros((4, 5, 5), np.uint8) for name in ("x_train", "x_test")}
    labels = {"y_train": np.zeros(4, int), "y_test": np.zeros(4, int)}
    np.savez(tmp_path / "floats.npz", **{**whole, "x_train": np.zeros((4, 5, 5))}, **labels)
    np.savez(tmp_path / "labels.npz", **whole, **{**labels, "y_train": np.zeros(4) + 0.5})
    np.savez(tmp_path / "twice.npz", **whole, **labels)
    with zipfile.ZipFile(tmp_path / "twice.npz", "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("x_test.npy", archive.read("x_train.npy"))
    mark_members(image_files.keras(tmp_path / "locked.npz"), 6, 1)  # the bit that says encrypted
    mark_members(image_files.keras(tmp_path / "other.npz"), 8, 9)  # Deflate64
    with pytest.raises(ConfigError, match=message):
        DATASETS.get(name.format(tmp_path), "test")


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_the_real_command_line(kind: str, tmp_path: Path, inside: Command, forked: Command) -> None:
    """Dry without torch; trained; and run again from its ``config.json`` in a process somewhere else."""
    made = image_files.folder(tmp_path / "pets") if kind == "folder" else image_files.keras(tmp_path / "pets.npz")
    words = ["--dataset", f"{kind}:{made.relative_to(tmp_path)}", "--preset", "BP:flatten"]
    words += ["--set", "dataset_sup.epochs=30", "dataset_sup.batch_size=4", "--threads", "1"]
    dry = light(tmp_path, "multi_layer.py", *words, "--dry-run")
    assert (dry.code, dry.asked) == (0, []), dry.err
    assert f"{150 if kind == 'folder' else 240} updates" in dry.out  # batches of 4 of 18 and of 30 images
    assert "3x16x20" in dry.out
    done = inside("multi_layer.py", *words, "--model-name", "first")
    assert done.returncode == 0, done.stderr
    first = tmp_path / "home" / "hebb" / "result" / "network" / "first"
    (tmp_path / "elsewhere").mkdir()
    config = json.loads((first / "config.json").read_text())
    assert config["dataset_sup"]["dataset"] == f"{kind}:{made}"
    done = forked("multi_layer.py", "--run-config", str(first / "config.json"), "--model-name", "second")
    assert done.returncode == 0, done.stderr
    results = [json.loads((first.parent / n / "result.json").read_text())["metrics"] for n in ("first", "second")]
    assert results[0]["test_loss"] == results[1]["test_loss"]
    assert results[0]["test_acc"] == 100, "the classes have different rows"


def test_headers_of_many_images_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_files.folder(tmp_path)
    monkeypatch.setattr(scan, "HEADERS", 5)
    (tmp_path / "train" / "cat" / "cat_1.png").write_bytes(b"none")  # not among the five
    assert scan.image_shape(scan.part(tmp_path, True, "test")) == (3, 16, 20)
