"""Image files that changed, and files that are decoded late: each line is what happened to a folder.

Without it a run continues on an image that was edited, and a broken test image ends a run after its last epoch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import image_files
import numpy as np
import pytest
import torch
from PIL import Image

from hebb.config import catalog
from hebb.core.errors import ConfigError
from hebb.data import contents, images, scan, verify
from hebb.data.contents import Contents
from hebb.data.stores import Files
from hebb.storage import folders, records

CATALOG = catalog.load()


def edit(root: Path) -> None:
    """Write other bytes of the same size."""
    path = root / "train" / "cat" / "cat_1.bmp"
    path.write_bytes(path.read_bytes()[:-5] + b"\xff\xff\xff\xff\xff")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10))


def edit_keeping_time(root: Path) -> None:
    path = root / "train" / "cat" / "cat_1.bmp"
    before = path.stat().st_mtime_ns
    edit(root)
    os.utime(path, ns=(before, before))


def copy(root: Path) -> None:
    """A copy without its times: all are newer than before."""
    for path in root.rglob("*.bmp"):
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**15))


def move_clock_back(root: Path) -> None:
    for path in root.rglob("*.bmp"):
        os.utime(path, ns=(0, 10**9))


def nothing(root: Path) -> None:
    del root


def read(root: Path) -> Contents:
    return contents.of([scan.part(root, train, "test") for train in (True, False)])


@pytest.mark.parametrize(
    ("change", "whole", "sampled"),
    [
        (nothing, False, False),
        (edit, True, True),
        (copy, False, False),
        (move_clock_back, False, False),
        (edit_keeping_time, False, False),  # not seen, and only a program that hides its work does that
    ],
)
def test_files_that_changed(
    change: Callable[[Path], None], whole: bool, sampled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = image_files.folder(tmp_path, ending="bmp")
    for limit, expected in ((contents.WHOLE, whole), (0, sampled)):
        monkeypatch.setattr(contents, "WHOLE", limit)
        monkeypatch.setattr(contents, "SAMPLE", 1)  # not the one that is edited
        before = read(root).to_json()
        assert before["whole"] == (limit > 0)
        change(root)
        assert contents.changed(before, read(root)) == expected
    assert not contents.changed(None, read(root)), "a run of an old version goes on"


def test_a_folder_that_was_moved_is_the_same(tmp_path: Path) -> None:
    before = read(image_files.folder(tmp_path / "a"))
    (tmp_path / "a").rename(tmp_path / "b")
    assert read(tmp_path / "b") == before


def test_a_run_is_not_continued_on_an_edited_image(tmp_path: Path) -> None:
    root = image_files.folder(tmp_path / "pets", ending="bmp")
    spec = CATALOG.dataset(f"folder:{root}", "test")

    def load() -> images.Images:
        return images.load(spec, tmp_path, 0, torch.device("cpu"))

    started = load()
    assert started.contents is not None
    path = tmp_path / folders.ENVIRONMENT
    environment = {"data_sha256": {"sup": started.sha256}}
    folders.write_json(path, environment | {"data_files": {"sup": started.contents.to_json()}})
    edit(root)
    edited = load()
    assert edited.sha256 == started.sha256, "names and sizes are what they were"
    assert edited.key != started.key, "and nothing that was computed from the old image is used"
    with pytest.raises(ConfigError, match=r"the data have changed since the run started: .* in dataset_sup"):
        records.check_data(path, {"sup": edited.sha256}, {"sup": edited.contents})  # type: ignore[dict-item]
    folders.write_json(path, environment)
    records.check_data(path, {"sup": edited.sha256}, {"sup": edited.contents})  # type: ignore[dict-item]


# -- files that are decoded when they are used --------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("Not found")


def zeros(path: Path) -> None:
    """As a download leaves it that reserved its space."""
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2].ljust(size, b"\0"))


def another_size(path: Path) -> None:
    Image.new("RGB", (9, 7)).save(path)


def trailing(path: Path) -> None:
    """Junk after the end, which viewers do not mind."""
    path.write_bytes(path.read_bytes() + b"\0" * 200)


def whole(path: Path) -> None:
    del path


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "webp", "tif"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (whole, None),
        (cut, "is not an image that can be read"),
        (empty, "is not an image that can be read"),
        (text, "is not an image that can be read"),
        (zeros, "is not (whole: its last|an image that can be read)"),
        (another_size, "is an image of 9x7, and the others are 64x48"),
        (trailing, None),
    ],
)
def test_files_are_looked_at_before_they_are_used(
    change: Callable[[Path], None], message: str | None, ending: str, tmp_path: Path
) -> None:
    image_files.classes(tmp_path, ("cat",), size=(64, 48), ending=ending)
    change(tmp_path / "cat" / f"cat_1.{ending}")
    store = Files(scan.listing(tmp_path, "test"), (3, 48, 64), (48, 64))
    if change is zeros and ending in ("bmp", "tif"):
        message = None  # zeros are black pixels there
    if message is None:
        verify.files(store)
    else:
        with pytest.raises(ConfigError, match=rf"cat_1\.{ending}: {message}"):
            verify.files(store)


def test_a_broken_test_image_of_a_large_folder_is_refused_at_the_start(tmp_path: Path) -> None:
    root = image_files.folder(tmp_path / "pets", size=(64, 48))
    cut(root / "test" / "dog" / "dog_3.png")
    spec = CATALOG.dataset(f"folder:{root}", "test")
    data = images.load(spec, tmp_path, 0, torch.device("cpu"), resident=0)
    with pytest.raises(ConfigError, match=r"dog_3\.png: is not an image that can be read"):
        data.test  # noqa: B018  (what the start of a run reads)


def test_files_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again when one of them has changed."""
    looks: list[int] = []
    monkeypatch.setattr(verify, "_look", lambda store, places: looks.extend(places))
    image_files.classes(tmp_path / "a", ("cat",))
    store = Files(scan.listing(tmp_path / "a", "test"), (3, 16, 20))
    for count in (3, 3):
        verify.files(store, tmp_path / "cache")
        assert len(looks) == count
    Image.fromarray(np.zeros((16, 20, 3), np.uint8)).save(tmp_path / "a" / "cat" / "cat_0.png")
    verify.files(store, tmp_path / "cache")
    assert len(looks) == 6
