"""How people store images, folders and labels: each line is an input and what must come out of it.

Without it a 16-bit photo could be trained on as white, or a hidden folder take the label of a class.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import image_files
import numpy as np
import pytest
import torch
from PIL import Image

from hebb.api.runs import TrainedRun
from hebb.cli import describe, run
from hebb.config import catalog, plan, probed
from hebb.config.registry import DATASETS
from hebb.config.specs import RunConfig
from hebb.core.errors import ConfigError, DiskFullError, HebbError
from hebb.data import decode, images, memory, npz, own, scan, sources
from hebb.data.images import RESIDENT
from hebb.storage.folders import Home
from hebb.training import run as training_run

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=2)
CATALOG = catalog.load()
Save = Callable[[Path], None]


def exif(orientation: object) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def saved(pixels: np.ndarray, ending: str, mode: str | None = None, **options: object) -> tuple[str, Save]:
    """Return the ending and what saves pixels, converted to a mode of Pillow."""

    def save(path: Path) -> None:
        image = Image.fromarray(pixels)
        (image if mode is None else image.convert(mode)).save(path, **options)

    return ending, save


def written(content: bytes, ending: str) -> tuple[str, Save]:
    return ending, lambda path: path.write_bytes(content) and None


def pages(kind: str) -> tuple[str, Save]:
    first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
    return kind, lambda path: first.save(path, save_all=True, append_images=[second])


def grey_and_alpha(path: Path) -> None:
    """Write a PNG of 16 bits, which Pillow reads and does not write."""
    rows = np.stack([WIDE, np.full_like(WIDE, 65535)], axis=2).astype(">u2")
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 8, 6, 16, 4, 0, 0, 0), b"IDAT": content, b"IEND": b""}
    parts = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks.items())
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


WIDE = GREY.astype(np.uint16) * 257
READ = {
    "8-bit PNG": (saved(GREY, "png"), GREY),
    "16-bit PNG": (saved(WIDE, "png"), GREY),
    "16-bit TIFF": (saved(WIDE, "tif"), GREY),
    "16-bit TIFF whose white is 0": (saved(65535 - WIDE, "tif", tiffinfo={262: 0}), GREY),
    "16-bit PGM": (saved(WIDE.astype(np.int32), "pgm"), GREY),
    "16 bits are rounded": (saved(WIDE + 128, "png"), GREY),
    "float TIFF": (saved(GREY.astype(np.float32) / 255, "tif"), GREY),
    "black and white": (saved((GREY > 99).astype(np.uint8) * 255, "png", "1"), (GREY > 99).astype(np.uint8) * 255),
    "grey with alpha": (saved(GREY, "png", "LA"), GREY),
    "grey of 16 bits with alpha": (("png", grey_and_alpha), GREY),
    "colour": (saved(COLOUR, "png"), COLOUR),
    "colour with alpha": (saved(COLOUR, "png", "RGBA"), COLOUR),
    "colour as TIFF": (saved(COLOUR, "tiff"), COLOUR),
    "a palette": (saved(GREY, "png", "P"), np.repeat(GREY[:, :, None], 3, axis=2)),
    "turned by its tag": (saved(np.rot90(COLOUR), "png", exif=exif(6)), COLOUR),
    "mirrored by its tag": (saved(GREY[:, ::-1], "png", exif=exif(2)), GREY),
    "16 bits, turned by its tag": (saved(np.rot90(WIDE).copy(), "png", exif=exif(6)), GREY),
    "TIFF upside down by its tag": (saved(GREY[::-1, ::-1].copy(), "tif", tiffinfo={274: 3}), GREY),
    "a tag out of range": (saved(GREY, "png", exif=exif(9)), GREY),
}
REFUSED = {
    "signed numbers of 8 bits": (saved(GREY, "tif", tiffinfo={339: 2}), "holds signed numbers of 8 bits"),
    "32-bit whole numbers": (saved(GREY.astype(np.int32) * 257, "tif"), "holds whole numbers of 32 or signed bits"),
    "floats above 1": (saved(GREY.astype(np.float32), "tif"), "holds floats from 0 to 235"),
    "floats that are not numbers": (saved(np.full((6, 8), np.nan, np.float32), "tif"), "holds floats from nan"),
    "TIFF on its side": (saved(GREY, "tif", tiffinfo={274: 6}), "is a TIFF on its side"),
    "pages of a TIFF": (pages("tif"), "holds 2 images"),
    "frames of a WebP": (pages("webp"), "holds 2 images"),
    "frames of a PNG": (pages("png"), "holds 2 images"),
    "a broken header": (written(b"P5\n8 x\n255\n" + bytes(64), "pgm"), "is not an image that can be read"),
    "nothing": (written(b"", "png"), "is not an image that can be read"),
    "text": (written(b"text", "jpg"), "is not an image that can be read"),
}


@pytest.mark.parametrize("case", READ)
def test_pixels_of_an_image(case: str, tmp_path: Path) -> None:
    (ending, save), expected = READ[case]
    path = tmp_path / f"image.{ending}"
    save(path)
    channels = 1 if expected.ndim == 2 else 3
    assert np.array_equal(decode.pixels(path, channels), expected)
    with decode.opened(path) as image:
        assert decode.size(image) == expected.shape[:2]
        assert decode.is_grey(image) == (channels == 1)


@pytest.mark.parametrize("case", REFUSED)
def test_images_that_are_refused_by_name(case: str, tmp_path: Path) -> None:
    (ending, save), message = REFUSED[case]
    path = tmp_path / f"odd.{ending}"
    save(path)
    with pytest.raises(ConfigError, match=rf"odd\.{ending}: {message}"):
        decode.pixels(path, 1)


def test_a_truncated_image_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    Image.fromarray(COLOUR).resize((64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ConfigError, match=r"half\.png: is not an image that can be read"):
        decode.pixels(path, 3)


@pytest.mark.parametrize(
    ("odd", "message"), [((7, 9, "L"), "an image of 7x9, and the others are 20x16"), ((20, 16, "RGB"), "is in colour")]
)
@pytest.mark.parametrize("resident", [RESIDENT, 0])
def test_an_odd_image_beyond_the_headers_is_refused(
    odd: tuple[int, int, str], message: str, resident: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory and streamed alike, as a small folder would show it."""
    image_files.folder(tmp_path, mode="L")
    monkeypatch.setattr(scan, "HEADERS", 5)
    Image.new(odd[2], odd[:2]).save(tmp_path / "train" / "cat" / "cat_1.png")  # not among the five
    spec = CATALOG.dataset(f"folder:{tmp_path}", "test")
    with pytest.raises(ConfigError, match=rf"cat_1\.png: .*{message}"):
        list(images.load(spec, tmp_path, 0, torch.device("cpu"), resident=resident).train.batches(4))


def test_images_that_are_streamed_are_said_to_be(tmp_path: Path) -> None:
    """They are not decoded before the first update, so a broken one is found late."""
    image_files.folder(tmp_path)
    spec = CATALOG.dataset(f"folder:{tmp_path}", "test")
    for resident, expected in ((RESIDENT, []), (0, ["training images of dataset_sup and test images of dataset_sup"])):
        data = images.load(spec, tmp_path, 0, torch.device("cpu"), resident=resident)
        assert len(data.test) == 8
        notes = training_run._streamed({"sup": data})
        assert [note.partition(" are ")[0].removeprefix("note: the ") for note in notes] == expected


DARK = {
    "12 bits": (4095, 4095, "tif", "the largest value in 18 of the training images is 4,095.*; multiply them by 16"),
    "10 bits in a PNG": (0, 1023, "png", "is 1,023,.*; multiply them by 64"),
    "black": (0, 0, "tif", "is 0, "),
    "an eighth of white": (8192, 0, "tif", None),
    "one bright image": (4095, 40000, "tif", None),
}


@pytest.mark.parametrize(("white", "last", "ending", "says"), DARK.values(), ids=DARK)
def test_images_that_use_few_of_their_16_bits(
    white: int, last: int, ending: str, says: str | None, tmp_path: Path
) -> None:
    """They would train nearly black without a word."""
    root = image_files.folder(tmp_path)
    paths = sorted(root.rglob("*.png"))  # the last one is a training image
    for path in paths:
        path.unlink()
        values = np.full((8, 8), last if path == paths[-1] else white, np.uint16)
        Image.fromarray(values).save(path.with_suffix(f".{ending}"))
    note = DATASETS.get(f"folder:{root}", "test").note
    assert ("nearly black" in note) == (says is not None)
    assert says is None or re.search(says, note)


# -- folders ------------------------------------------------------------------------------------------------


def hidden_copies(root: Path) -> None:
    for place in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "cat/.ipynb_checkpoints", "cat/more/.git"):
        shutil.copytree(root / "train" / "dog", root / "train" / place)


def system_files(root: Path) -> None:
    for name in ("cat/._cat_0.png", ".DS_Store", "cat/Thumbs.db", "dog/desktop.ini"):
        (root / "train" / name).write_bytes(b"none")


def upper_case(root: Path) -> None:
    path = root / "train" / "cat" / "cat_0.png"
    path.rename(path.with_suffix(".PNG"))


def nested(root: Path) -> None:
    (root / "train" / "cat" / "deep" / "er").mkdir(parents=True)
    (root / "train" / "cat" / "cat_8.png").rename(root / "train" / "cat" / "deep" / "er" / "cat_8.png")


def linked(root: Path) -> None:
    (root / "train" / "cat").rename(root / "elsewhere")
    (root / "train" / "cat").symlink_to(root / "elsewhere")


def other_kinds(root: Path) -> None:
    for name in ("cat/a.txt", "cat/b.txt", "notes.md"):
        (root / "train" / name).write_text("text")


def validated(root: Path) -> None:
    shutil.copytree(root / "test", root / "val")


def untested(root: Path) -> None:
    shutil.rmtree(root / "test" / "dog")


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (hidden_copies, "skipped 5 hidden entries"),
        (system_files, "skipped 4 hidden entries"),
        (other_kinds, "skipped 1 .md file, 2 .txt files"),
        (untested, "no test image of dog"),
        (validated, "test/ holds the test images, and val/ is not used"),
        (upper_case, ""),
        (nested, ""),
        (linked, ""),
    ],
)
def test_a_folder_as_it_lies_on_a_disk(change: Callable[[Path], None], note: str, tmp_path: Path) -> None:
    change(image_files.folder(tmp_path))
    entry = DATASETS.get(f"folder:{tmp_path}", "test")
    assert (entry.class_names, entry.per_class, entry.note) == (("cat", "dog"), (9, 9), note)


def empty_class(root: Path) -> None:
    (root / "train" / "ant").mkdir()


def unread_class(root: Path) -> None:
    (root / "train" / "ant").mkdir()
    (root / "train" / "ant" / "a.jp2").write_bytes(b"none")


def loop(root: Path) -> None:
    (root / "train" / "cat" / "again").symlink_to(root / "train")


def pipe(root: Path) -> None:
    os.mkfifo(root / "train" / "cat" / "pipe.png")


def broken_link(root: Path) -> None:
    (root / "train" / "cat" / "gone.png").symlink_to(root / "nowhere.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (empty_class, r"ant is a class that holds no image\n"),
        (unread_class, r"ant is a class that holds no image, but 1 \.jp2 file\n"),
        (loop, "again is a link to a folder that holds it"),
        (pipe, r"pipe\.png: is not a file"),
        (broken_link, r"gone\.png: no such file behind this link"),
    ],
)
def test_folders_that_are_refused(change: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    change(image_files.folder(tmp_path))
    with pytest.raises(ConfigError, match=message):
        DATASETS.get(f"folder:{tmp_path}", "test")


def paths_that_lead_nowhere(root: Path) -> dict[str, str]:
    (root / "a").symlink_to(root / "b")
    (root / "b").symlink_to(root / "a")
    (root / "file").write_text("text")
    return {
        f"folder:{root}/a": "leads to itself by links",
        f"npz:{root}/a": "leads to itself by links",
        "folder:~nobody-of-this-name/x": "has no such home",
        "npz:~nobody-of-this-name/x": "has no such home",
        f"folder:{root}/nope": "no such folder",
        f"folder:{root}/file": "is not a folder",
        f"npz:{root}": "is a folder",
        f"npz:{root}/nope.npz": "no such file",
        "folder:/a\0b": "cannot be read: embedded null byte",
        f"folder:/{'a' * 300}": "cannot be read: File name too long",
    }


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    for name, message in paths_that_lead_nowhere(tmp_path).items():
        with pytest.raises(ConfigError, match=message) as error:
            CATALOG.dataset(name, "--dataset")
        assert str(error.value).count(name.partition(":")[2]) == 1, "the path is said once"


def test_accents_that_are_stored_in_two_ways(tmp_path: Path) -> None:
    """macOS takes a letter apart from its accent; both names look the same."""
    root = image_files.folder(tmp_path, names=("caf\u00e9", "dog"))
    (root / "test" / "caf\u00e9").rename(root / "test" / "cafe\u0301")
    with pytest.raises(ConfigError, match="the accents of the two names are stored in different ways"):
        DATASETS.get(f"folder:{root}", "test")


def test_an_image_that_has_gone_since_the_folder_was_listed(tmp_path: Path) -> None:
    root = image_files.folder(tmp_path)
    spec = CATALOG.dataset(f"folder:{root}", "test")
    DATASETS.get(spec.dataset, "test")
    store = sources.store(DATASETS.get(spec.dataset, "test"), tmp_path, "train", (3, 16, 20))
    (root / "train" / "cat" / "cat_1.png").unlink()
    for use in (lambda: store.read(torch.arange(9)), lambda: store.update(hashlib.sha256())):
        with pytest.raises(ConfigError, match=r"cat_1\.png: (no such file|cannot be read: No such file)"):
            use()


# -- arrays -------------------------------------------------------------------------------------------------

TWO = np.array([0, 1, 0, 1])
X = np.zeros((4, 5, 5), np.uint8)


@pytest.mark.parametrize(
    ("train", "names"),
    [
        (TWO, ()),
        (TWO.astype(np.float64), ()),
        (TWO.astype(bool), ()),
        (TWO[:, None], ()),
        (TWO[None], ()),
        (np.eye(2)[TWO], ()),
        (TWO + 1, (1, 2)),
        (TWO * 10**9, (0, 10**9)),
        (np.array(["cat", "dog"])[TWO], ("cat", "dog")),
        (np.array([b"cat", b"dog"])[TWO], ("cat", "dog")),
    ],
)
def test_labels_as_people_store_them(train: np.ndarray, names: tuple[str, ...], tmp_path: Path) -> None:
    pixels = np.zeros((4, 5, 5), np.uint8)
    np.savez(tmp_path / "a.npz", x_train=pixels, y_train=train, x_test=pixels, y_test=train)
    spec = CATALOG.dataset(f"npz:{tmp_path}/a.npz", "test")
    entry = DATASETS.get(spec.dataset, "test")
    assert (entry.classes, entry.class_names, bool(entry.note)) == (2, names, bool(names))
    loaded = images.load(spec, tmp_path, 0, torch.device("cpu"))
    assert loaded.train.labels.tolist() == loaded.test.labels.tolist() == TWO.tolist()
    held = memory.register((pixels, train, pixels, train.tolist()))
    assert held.y_train.tolist() == held.y_test.tolist() == TWO.tolist()
    assert tuple(held.classes.tolist()) == (names or (0, 1))


@pytest.mark.parametrize(
    ("order", "kind"), [("F", "u1"), ("C", ">u1"), ("C", "u1")], ids=["by columns", "big-endian", "plain"]
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_pixels_as_people_store_them(order: Any, kind: str, save: Any, tmp_path: Path) -> None:
    pixels = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
    stored = np.array(pixels, dtype=kind, order=order)
    save(tmp_path / "a.npz", x_train=stored, y_train=TWO.astype(">i8"), x_test=stored, y_test=TWO, more=np.eye(3))
    spec = CATALOG.dataset(f"npz:{tmp_path}/a.npz", "test")
    assert np.array_equal(images.load(spec, tmp_path, 0, torch.device("cpu")).train.images[:, 0].numpy(), pixels)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((9, 28, 28), (1, 28, 28)),
        ((9, 28, 28, 1), (1, 28, 28)),
        ((9, 1, 28, 28), (1, 28, 28)),
        ((9, 28, 20, 3), (3, 28, 20)),
        ((9, 3, 20, 28), (3, 20, 28)),
        ((9, 3, 4, 4), (3, 4, 4)),
        ((9, 4, 4, 3), (3, 4, 4)),
        ((9, 1, 3, 3), (1, 3, 3)),
        ((9, 3, 5, 4), (3, 5, 4)),
        ((9, 4, 5, 3), (3, 4, 5)),
        ((9, 1, 1, 1), (1, 1, 1)),
        ((9, 3, 3, 3), None),
        ((9, 2, 2, 2), None),
        ((9, 2, 3, 4), None),
        ((9, 28, 28, 5), None),
        ((9, 25), None),
        ((9, 1, 1, 2, 2), None),
    ],
)
def test_the_layout_of_images(shape: tuple[int, ...], expected: tuple[int, ...] | None) -> None:
    if expected is None:
        with pytest.raises(ConfigError, match="images "):
            npz.image_shape(shape, "test")
    else:
        assert npz.image_shape(shape, "test") == expected


def test_a_run_names_its_classes(tmp_path: Path) -> None:
    """What ``predict`` answers: the names of a folder's classes, the labels of a file, else numbers."""
    root = image_files.folder(tmp_path / "pets")
    np.savez(tmp_path / "a.npz", x_train=X, y_train=TWO + 7, x_test=X, y_test=TWO + 7)
    for name, expected in ((f"folder:{root}", ["cat", "dog"]), (f"npz:{tmp_path}/a.npz", [7, 8])):
        data = replace(CATALOG.dataset(name, "test"), batch_size=1)
        row = {"test_acc": None, "val_acc": None}
        stored = TrainedRun(replace(digits(), dataset_sup=data), [row], [], [], 0.0, points=[], home=Home(tmp_path))
        assert stored.classes.tolist() == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_train": TWO - 1}, "y_train must hold labels, whole numbers >= 0, got -1"),
        ({"y_train": TWO + 0.5}, "y_train must hold labels, whole numbers >= 0, got 0.5"),
        ({"y_train": TWO * np.nan}, "y_train must hold labels, whole numbers >= 0, got nan"),
        ({"y_train": TWO.astype(object)}, "y_train holds Python objects"),
        ({"y_train": TWO[:3]}, "y_train must hold one label for each image, got 3 for 4"),
        ({"y_train": np.ones((4, 2), int)}, "y_train must hold one label for each image, or one-hot rows"),
        ({"y_test": np.array([0, 1, 2, 1])}, "y_test holds class 2, and y_train has no image of it"),
        ({"y_test": TWO.astype(str)}, "both hold numbers, or both text"),
        ({"x_test": np.zeros((4, 6, 6), np.uint8)}, "one size, got 1 x 5 x 5 and 1 x 6 x 6"),
        ({"x_test": X.astype(np.float32)}, "x_test must be uint8, got float32"),
        ({"x_train": X.reshape(4, 25)}, "images must be"),
    ],
)
def test_arrays_that_a_dry_run_refuses(changes: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    arrays = {"x_train": X, "y_train": TWO, "x_test": X, "y_test": TWO, **changes}
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        DATASETS.get(f"npz:{tmp_path}/a.npz", "test")


# -- what is said before a run ------------------------------------------------------------------------------


def digits(**changes: object) -> RunConfig:
    data = replace(CATALOG.dataset("Digits", "test"), **changes)
    return RunConfig(network=CATALOG.network("BP:flatten"), mode="successive", dataset_sup=data, dataset_unsup=data)


def test_a_validation_share_that_holds_nothing_out_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"dataset_sup: validation=0\.2 of the 4 training images .* holds none out"):
        plan.phases(digits(samples=4, validation=0.2))
    assert plan.phases(digits(samples=5, validation=0.2))


def test_a_short_probe_of_few_images_is_noted() -> None:
    config = replace(digits(), probes=("short",))
    assert probed.short_updates(1438) == 60, "20 epochs of 3 batches"
    assert any("60 updates" in note for note in describe.notes(config, plan.phases(config)))


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"samples": 192, "batch_size": 64, "epochs": 1}, "makes 3 updates on 192 images.* epochs=50 makes 150"),
        ({"samples": 192, "batch_size": 64, "epochs": 33}, "makes 99 updates on 192 images.* epochs=50 makes 150"),
        ({"samples": 192, "batch_size": 192, "epochs": 1}, "makes 1 update on 192 images.* epochs=100 makes 100"),
        ({"samples": 192, "batch_size": 64, "epochs": 34}, None),
        ({"samples": 99, "batch_size": 1, "epochs": 1}, "makes 99 updates on 99 images.* epochs=2 makes 198"),
    ],
)
def test_a_phase_of_few_updates_is_noted_with_what_makes_more(changes: dict[str, int], note: str | None) -> None:
    config = digits(**changes)
    notes = describe.notes(config, plan.phases(config))
    assert bool(notes) == bool(note)
    if note:
        assert re.search(f"phase 0, backprop b0, {note}".replace("epochs=", "--set dataset_sup.epochs="), notes[0])


@pytest.mark.parametrize(
    ("name", "meant"),
    [("own", "folder:own"), ("./own", "folder:./own"), ("a.npz", "npz:a.npz"), ("missing.npz", "npz:missing.npz")],
)
def test_a_folder_or_file_without_its_prefix_is_offered_with_it(
    name: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "a.npz").touch()
    for look_up in (lambda: CATALOG.dataset(name, "--dataset"), lambda: DATASETS.get(name, "--dataset")):
        with pytest.raises(ConfigError, match=rf"unknown dataset '{name}' \(did you mean '{meant}'\?\)"):
            look_up()
    with pytest.raises(ConfigError, match="folder:PATH and npz:FILE are files of your own"):
        CATALOG.dataset("dir:own", "--dataset")


def test_data_that_have_grown_are_the_reason(tmp_path: Path) -> None:
    from hebb.storage import folders
    from hebb.training.run import stored_config

    root = image_files.folder(tmp_path / "pets")
    data = CATALOG.dataset(f"folder:{root}", "test")
    config = replace(digits(), dataset_sup=replace(data, batch_size=1), dataset_unsup=data)
    folders.write_json(tmp_path / "config.json", stored_config(config, plan.phases(config)))
    assert run.read_config(tmp_path / "config.json") == config
    Image.new("RGB", (20, 16)).save(root / "train" / "cat" / "new.png")
    own.look_again()  # as a moment later
    with pytest.raises(ConfigError, match=r"the data have changed since the run started: .* now has 19 images"):
        run.read_config(tmp_path / "config.json")


# -- downloads ----------------------------------------------------------------------------------------------


def test_one_process_at_a_time_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that unpack the same archive would read each other's halves; the folder keeps no lock."""
    sources.declare_missing_operators()
    from torchvision import datasets

    inside, most = [], []

    def unpack(root: str, **_: object) -> Any:
        inside.append(root)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return SimpleNamespace(data=GREY[None], targets=[0])

    monkeypatch.setattr(datasets, "MNIST", unpack)
    threads = [Thread(target=sources.torchvision_images, args=("MNIST", tmp_path / "new", True)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError(errno.ENOSPC, "full"), DiskFullError, "no space left"),
        (OSError("refused"), HebbError, "could not be downloaded .OSError: refused"),
        (AssertionError("29 of 78 values"), ConfigError, "files of MNIST below it are damaged: 29 of 78 values"),
    ],
)
def test_a_download_that_fails(
    error: Exception, kind: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources.declare_missing_operators()
    from torchvision import datasets

    monkeypatch.setattr(datasets, "MNIST", Mock(side_effect=error))
    with pytest.raises(kind, match=message):
        sources.torchvision_images("MNIST", tmp_path / "new", True)
    assert not (tmp_path / "new").exists(), "a mistyped folder is not left behind"


def test_a_failure_leaves_what_another_process_has_downloaded_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which it waited for: the dataset was absent when it came, and whole when it got the lock."""
    sources.declare_missing_operators()
    from torchvision import datasets

    whole = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"

    @contextlib.contextmanager
    def held_by_another(_: Path) -> Iterator[None]:
        whole.parent.mkdir(parents=True)
        whole.write_bytes(b"all of them")
        yield

    monkeypatch.setattr(sources.locks, "held", held_by_another)
    monkeypatch.setattr(datasets, "MNIST", Mock(side_effect=OSError("cannot be read")))
    with pytest.raises(HebbError, match="cannot be read"):
        sources.torchvision_images("MNIST", tmp_path, True)
    assert whole.exists()


def test_a_download_that_fails_leaves_what_others_put_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another command may download its own dataset into a folder that this one has made."""
    sources.declare_missing_operators()
    from torchvision import datasets

    def beside_another(root: str, **_: object) -> Any:
        for name in ("MNIST/raw", "cifar-10-batches-py"):
            (Path(root) / name).mkdir(parents=True)
        (Path(root) / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"half of them")
        (Path(root) / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"images")
        raise OSError("the connection broke")

    monkeypatch.setattr(datasets, "MNIST", beside_another)
    with pytest.raises(HebbError, match="the connection broke"):
        sources.torchvision_images("MNIST", tmp_path / "a" / "b", True)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert left == ["a", "a/b", "a/b/cifar-10-batches-py", "a/b/cifar-10-batches-py/data_batch_1"]
