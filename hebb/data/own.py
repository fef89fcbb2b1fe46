"""The user's own datasets, ``folder:PATH`` and ``npz:PATH``. Never imports torch.

Size, channels, classes and counts are read from the data. The name holds the absolute path, so that it means the
same in another process and in a stored ``config.json``.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hebb.config.registry import Dataset
from hebb.config.vocabulary import Augmentation, Part
from hebb.core.errors import ConfigError, within
from hebb.data import labels as label_reader
from hebb.data import npz, scan

_ONE_CLASS = "all images are of one class, so every accuracy will be 100 %"

_TO_UINT8 = {"O": "np.stack(x) makes one array of images of one size", "b": "x.astype('uint8') * 255"}
"""What makes uint8 images of another kind of array."""

if TYPE_CHECKING:
    from hebb.data.sources import Arrays
    from hebb.data.stores import Files


_Stamp = tuple[int, int, int]
"""Inode, size and time of change of a file or folder, in nanoseconds."""
_TRUSTED = 1.0
"""Seconds for which an entry is taken without a look at its sources: planning a run asks for it dozens of times."""


@dataclass
class _Read:
    """What was read of the user's data.

    Attributes:
        entry: the dataset.
        stamps: of the files and folders whose change would make it untrue, as they were before it was read.
        looked: when they were last looked at, on the monotonic clock.
    """

    entry: Dataset
    stamps: dict[Path, _Stamp | None]
    looked: float


_READ: dict[tuple[Path, Callable[..., object]], _Read] = {}


def _current(path: Path, sources: Callable[[Path], Sequence[Path]], read: Callable[[Path], Dataset]) -> Dataset:
    """Return the entry of ``path``, from memory as long as none of the files and folders behind it has changed.

    Reading takes seconds for a large folder, and a search asks for its data at every trial; but a notebook may write
    other images under the same name.

    Args:
        path: the absolute path.
        sources: lists these files and folders.
        read: reads the entry.
    """
    kept, now = _READ.get((path, read)), time.monotonic()
    if kept is not None and now - kept.looked < _TRUSTED:
        return kept.entry
    if kept is not None and kept.stamps == _stamps(kept.stamps):
        kept.looked = now
        return kept.entry
    stamps = _stamps(sources(path))
    entry = read(path)
    if stamps == _stamps(sources(path)):
        _READ[path, read] = _Read(entry, stamps, time.monotonic())
    else:  # it changed meanwhile
        _READ.pop((path, read), None)
    return entry


def look_again() -> None:
    """Let the next question for an entry look at its sources, however short ago that was."""
    for kept in _READ.values():
        kept.looked = -math.inf


def _stamps(paths: Iterable[Path]) -> dict[Path, _Stamp | None]:
    return {path: _stamp(path) for path in paths}


def _stamp(path: Path) -> _Stamp | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _folders(root: Path) -> list[Path]:
    """List a folder and all folders below it, which change when an image or a class comes or goes."""
    folders: list[Path] = []
    seen: set[int] = set()
    left = [root]
    while left:
        path = left.pop()
        stamp = _stamp(path)
        if stamp is None or stamp[0] in seen:  # a link may lead upwards
            continue
        seen.add(stamp[0])
        folders.append(path)
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            left += [Path(entry.path) for entry in entries if entry.is_dir()]
    return folders


def folder(path: str, where: str) -> Dataset:
    """Return the entry of a folder with ``train/<class>/*`` and ``test/<class>/*`` or ``val/<class>/*``."""
    with within(where):
        return _current(_absolute(path, "folder"), _folders, _folder)


def npz_file(path: str, where: str) -> Dataset:
    """Return the entry of an ``.npz`` file with x_train, y_train, x_test and y_test.

    An array ``frames`` (whole numbers, the places in x_train of the frames of a film) adds the split ``sequences``.
    """
    with within(where):
        return _current(_absolute(path, "npz"), lambda file: [file], _npz_file)


def _absolute(path: str, prefix: str) -> Path:
    """Return the absolute path, without links, of what the user wrote after ``folder:`` or ``npz:``."""
    try:
        absolute = Path(path).expanduser().resolve()
        absolute.exists()
    except RuntimeError:  # no such user, no home, or a link that leads to itself
        reason = "has no such home" if path.startswith("~") else "leads to itself by links"
        raise ConfigError(f"{prefix}:{path}", reason) from None
    except (OSError, ValueError) as error:  # no permission, a name that is too long or has a zero byte
        problem = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise ConfigError(f"{prefix}:{path}", problem) from None
    return absolute


def _folder(root: Path) -> Dataset:
    where = f"folder:{root}"
    train, test = (scan.part(root, part, where) for part in (True, False))
    shapes = scan.image_shape(train), scan.image_shape(test)
    channels = max(shape[0] for shape in shapes)
    height, width = shapes[0][1:] if shapes[0][1:] == shapes[1][1:] else (0, 0)

    def open_files(_: Path, split: str, shape: tuple[int, int, int]) -> Files:
        from hebb.data.stores import Files

        # beyond the headers that were read there may be images of another size
        native = (height, width) if height and shape[1:] == (height, width) else None
        return Files(scan.part(root, split == Part.TRAIN, where), shape, native)

    return Dataset(
        name=where,
        channels=channels,
        height=height,
        width=width,
        classes=len(train.classes),
        train=len(train.labels),
        per_class=train.per_class(),
        test=len(test.labels),
        test_per_class=test.per_class(),
        summary=f"the images below {root}",
        augmentation=Augmentation.RESIZED_CROP,
        class_names=train.classes,
        note=_note(root, train, test),
        open=open_files,
    )


def _note(root: Path, train: scan.Listing, test: scan.Listing) -> str:
    """Say what was skipped, which classes have no test image, and which a person could take for one."""
    skipped = Counter(dict(train.skipped)) + Counter(dict(test.skipped))
    notes = [f"skipped {scan.said(sorted(skipped.items()))}"] if skipped else []
    dark = scan.dark_16_bits(train)
    if dark is not None:
        notes.append(_dark_note(*dark))
    untested = [name for name, count in zip(test.classes, test.per_class(), strict=True) if not count]
    notes += [f"no test image of {_few(untested)}"] if untested else []
    lower = Counter(name.lower() for name in train.classes)
    alike = [name for name in train.classes if lower[name.lower()] > 1]
    notes += [f"classes that differ only by case: {_few(alike)}"] if alike else []
    notes += [_ONE_CLASS] if len(train.classes) == 1 else []
    unused = [name for name in scan.TEST_PARTS if (root / name).is_dir() and root / name != test.root]
    notes += [f"{test.root.name}/ holds the test images, and {name}/ is not used" for name in unused]
    return "; ".join(notes)


def _dark_note(largest: int, count: int) -> str:
    """Say that images of 16 bits are nearly black, and what makes them bright."""
    scale = f"; multiply them by {1 << 16 - largest.bit_length()} for white" if largest else ""
    seen = f"the largest value in {count} of the training images is {largest:,}, and white is 65,535 in 16 bits"
    return f"{seen}: they are nearly black{scale}"


def _few(words: Sequence[object]) -> str:
    """List up to five words."""
    return ", ".join(map(str, words[:5])) + (f" ... ({len(words)} in all)" if len(words) > 5 else "")


def _npz_file(path: Path) -> Dataset:
    stamp = _stamp(path)
    channels, height, width = _check_images(path)
    values = {part: _labels(path, f"y_{part}") for part in ("train", "test")}
    names = label_reader.classes(values["train"], values["test"], str(path), ("y_train", "y_test"))
    labels = {part: np.searchsorted(names, of_part) for part, of_part in values.items()}
    counts = {part: tuple(np.bincount(of_part, minlength=len(names)).tolist()) for part, of_part in labels.items()}
    renamed = not np.array_equal(names, np.arange(len(names)))

    frames = npz.array(path, "frames").reshape(-1) if "frames" in npz.names(path) else np.zeros(0, np.int64)
    images = len(labels["train"])
    if frames.dtype.kind not in "iu" or len(frames) == 1 or ((frames < 0) | (frames >= images)).any():
        raise ConfigError(str(path), f"frames must hold two or more places in x_train, whole numbers below {images}")

    def load(_: Path, train: bool) -> Arrays:
        from hebb.data import sources

        images = sources.npz_arrays(path, train)[0]
        if _stamp(path) != stamp:
            raise ConfigError(str(path), "has changed since its labels were read", hint="start again")
        return images, labels["train" if train else "test"]

    return Dataset(
        name=f"npz:{path}",
        frames=len(frames),
        order=lambda _: frames.astype(np.int64),
        channels=channels,
        height=height,
        width=width,
        classes=len(names),
        train=len(labels["train"]),
        per_class=counts["train"],
        test=len(labels["test"]),
        test_per_class=counts["test"],
        summary=f"the arrays of {path}",
        class_names=tuple(names.tolist()) if renamed else (),
        note=f"classes 0 to {len(names) - 1} are the labels {_few(names.tolist())}" if renamed else "",
        load=load,
    )


def _labels(path: Path, name: str) -> np.ndarray:
    """Read labels: int64 (N,) or text (N,)."""
    values = label_reader.read(npz.array(path, name), str(path), name)
    return values if values.dtype.kind == "U" else values.astype(np.int64)


def _check_images(path: Path) -> tuple[int, int, int]:
    """Return (C, H, W) of both parts, from the headers; raise for parts that a run could not read."""
    shapes = {}
    for part in ("train", "test"):
        shape, kind = npz.header(path, f"x_{part}")
        if kind != np.uint8:
            hint = _TO_UINT8.get(kind.kind, "0 is black and 255 white: scale, round, astype")
            raise ConfigError(str(path), f"x_{part} must be uint8, got {kind}", hint=hint)
        shapes[part] = npz.image_shape(shape, str(path))
        count = label_reader.count(npz.header(path, f"y_{part}")[0])
        if count != shape[0]:
            raise ConfigError(str(path), f"y_{part} must hold one label for each image, got {count} for {shape[0]:,}")
    if shapes["train"] != shapes["test"]:
        sizes = (f"{c} x {h} x {w}" for c, h, w in shapes.values())
        raise ConfigError(str(path), "x_train and x_test must hold images of one size, got {} and {}".format(*sizes))
    return shapes["train"]
