"""The user's own datasets, ``folder:PATH`` and ``npz:PATH``. Never imports torch.

Size, channels, classes and counts are read from the data. The name holds the absolute path, so that it means the
same in another process and in a stored ``config.json``.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hebb.config.registry import Dataset
from hebb.config.vocabulary import Augmentation, Part
from hebb.core.errors import ConfigError, within
from hebb.data import npz, scan

if TYPE_CHECKING:
    from hebb.data.sources import Arrays
    from hebb.data.stores import Files


def folder(path: str, where: str) -> Dataset:
    """Return the entry of a folder with ``train/<class>/*`` and ``test/<class>/*`` or ``val/<class>/*``."""
    with within(where):
        return _folder(Path(path).expanduser().resolve())


def npz_file(path: str, where: str) -> Dataset:
    """Return the entry of an ``.npz`` file with x_train, y_train, x_test and y_test.

    An array ``frames`` (whole numbers, the places in x_train of the frames of a film) adds the split ``sequences``.
    """
    with within(where):
        return _npz_file(Path(path).expanduser().resolve())


@functools.cache
def _folder(root: Path) -> Dataset:
    where = f"folder:{root}"
    train, test = (scan.part(root, part, where) for part in (True, False))
    channels, height, width = scan.image_shape(train, where)
    if scan.image_shape(test, where)[1:] != (height, width):
        height = width = 0

    def open_files(_: Path, split: str, shape: tuple[int, int, int]) -> Files:
        from hebb.data.stores import Files

        return Files(scan.part(root, split == Part.TRAIN, where), shape)

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
        open=open_files,
    )


@functools.cache
def _npz_file(path: Path) -> Dataset:
    shape, kind = npz.header(path, "x_train")
    if kind != np.uint8:
        raise ConfigError(str(path), f"images must be uint8, got {kind}")
    channels, height, width = npz.image_shape(shape, str(path))
    labels = {part: npz.array(path, f"y_{part}").reshape(-1) for part in ("train", "test")}
    for part, values in labels.items():
        if values.dtype.kind not in "iu" or not len(values) or values.min() < 0:
            raise ConfigError(str(path), f"y_{part} must hold labels, whole numbers >= 0")
    classes = 1 + max(int(values.max()) for values in labels.values())
    counts = {part: tuple(np.bincount(values, minlength=classes).tolist()) for part, values in labels.items()}

    frames = npz.array(path, "frames").reshape(-1) if "frames" in npz.names(path) else np.zeros(0, np.int64)
    if frames.dtype.kind not in "iu" or len(frames) == 1 or ((frames < 0) | (frames >= shape[0])).any():
        raise ConfigError(str(path), f"frames must hold two or more places in x_train, whole numbers below {shape[0]}")

    def load(_: Path, train: bool) -> Arrays:
        from hebb.data import sources

        return sources.npz_arrays(path, train)

    return Dataset(
        name=f"npz:{path}",
        frames=len(frames),
        order=lambda _: frames.astype(np.int64),
        channels=channels,
        height=height,
        width=width,
        classes=classes,
        train=len(labels["train"]),
        per_class=counts["train"],
        test=len(labels["test"]),
        test_per_class=counts["test"],
        summary=f"the arrays of {path}",
        load=load,
    )
