"""The labels of an ``.npz`` file, in the ways people store them. Never imports torch.

Shapes: N labels, K classes.
"""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np

from hebb.core.errors import ConfigError
from hebb.data import npz


def count(path: Path, part: str) -> int:
    """Return N of ``y_train`` or ``y_test``, from its header."""
    shape, _ = npz.header(path, f"y_{part}")
    return shape[0] if _one_hot(shape) else prod(shape)


def read(path: Path, part: str) -> np.ndarray:
    """Read ``y_train`` or ``y_test``: int64 (N,) or text (N,).

    Numbers must be whole and >= 0. Floats and booleans become whole numbers, and one-hot rows (N, K) their places.
    """
    name = f"y_{part}"
    stored = npz.array(path, name)
    if _one_hot(stored.shape):
        return _places(path, name, stored)
    values = stored.reshape(-1)
    if not len(values):
        raise ConfigError(str(path), f"{name} must hold labels, and it is empty")
    if values.dtype.kind in "US":
        return values.astype(str)
    if values.dtype.kind not in "iufb":
        raise ConfigError(str(path), f"{name} must hold labels, whole numbers >= 0 or text, got {values.dtype}")
    wrong = values[~((values >= 0) & (values <= np.iinfo(np.int64).max // 2) & (values == np.floor(values)))]
    if len(wrong):
        raise ConfigError(str(path), f"{name} must hold labels, whole numbers >= 0, got {wrong[0]}")
    return values.astype(np.int64)


def classes(path: Path, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the labels of the training images, each once and sorted (K,): label k is class k.

    Raises:
        ConfigError: when the test images have a label that the training images lack.
    """
    if train.dtype.kind != test.dtype.kind:
        raise ConfigError(str(path), "y_train and y_test must both hold numbers, or both text")
    names = np.unique(train)
    foreign = np.setdiff1d(test, names)
    if len(foreign):
        raise ConfigError(
            str(path),
            f"y_test holds class {foreign[0]}, and y_train has no image of it",
            given=str(foreign[0]) if names.dtype.kind == "U" else None,
            choices=map(str, names.tolist()),
        )
    return names


def _one_hot(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and min(shape) > 1


def _places(path: Path, name: str, rows: np.ndarray) -> np.ndarray:
    """Return the place of the one in each row (N, K)."""
    if rows.dtype.kind not in "iufb" or not ((rows == 0) | (rows == 1)).all() or (rows.sum(axis=1) != 1).any():
        raise ConfigError(
            str(path), f"{name} must hold one label for each image, or one-hot rows, got {rows.dtype} {rows.shape}"
        )
    places: np.ndarray = rows.argmax(axis=1)
    return places
