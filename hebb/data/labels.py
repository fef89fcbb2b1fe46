"""Labels in the ways people store them, in ``.npz`` files and in memory alike. Never imports torch.

Shapes: N labels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from hebb.core.errors import ConfigError

_LARGEST = np.iinfo(np.int64).max // 2


def count(shape: Sequence[int]) -> int:
    """Return N, from the shape of stored labels."""
    return shape[0] if _one_hot(shape) else prod(shape)


def read(stored: np.ndarray, where: str, name: str, *, least: int | None = 0) -> np.ndarray:
    """Return labels (N,), whole numbers in their own type or text.

    Numbers must be whole, as floats or booleans may be too. One-hot rows (N, K) become their places.

    Args:
        stored: (N,), (N, 1), (1, N) or (N, K).
        where: the place an error names.
        name: of the array.
        least: the least legal number; None for any. In files -1 often stands for "no label".
    """
    values = _plain(stored, where, name)
    if _one_hot(values.shape):
        return _places(values, where, name)
    values = values.reshape(-1)
    if not len(values):
        raise ConfigError(where, f"{name} must hold labels, and it is empty")
    if values.dtype.kind in "US":
        return values.astype(str)
    legal = "whole numbers" if least is None else f"whole numbers >= {least}"
    if values.dtype.kind not in "iufb":
        raise ConfigError(where, f"{name} must hold labels, {legal} or text, got {values.dtype}")
    lowest = -_LARGEST if least is None else least
    wrong = values[~((values >= lowest) & (values <= _LARGEST) & (values == np.floor(values)))]
    if len(wrong):
        raise ConfigError(where, f"{name} must hold labels, {legal}, got {wrong[0]}")
    return values


def classes(train: np.ndarray, test: np.ndarray, where: str, names: tuple[str, str]) -> np.ndarray:
    """Return the labels of the training images, each once and sorted (K,): label k is class k.

    Args:
        train: (N,), as ``read`` returns them.
        test: those of the test images; there may be none.
        where: the place an error names.
        names: of both arrays.

    Raises:
        ConfigError: when the test images have a label that the training images lack.
    """
    own = np.unique(train)
    if (train.dtype.kind == "U") != (test.dtype.kind == "U"):
        raise ConfigError(where, f"{names[0]} and {names[1]} must both hold numbers, or both text")
    foreign = np.setdiff1d(test, own)
    if len(foreign):
        raise ConfigError(
            where,
            f"{names[1]} holds class {foreign[0]}, and {names[0]} has no image of it",
            given=str(foreign[0]) if own.dtype.kind == "U" else None,
            choices=map(str, own.tolist()),
        )
    return own


def _plain(stored: np.ndarray, where: str, name: str) -> np.ndarray:
    """Return an array of Python objects as numbers or text."""
    try:
        return np.asarray(stored.tolist()) if stored.dtype.kind == "O" else stored
    except ValueError:
        raise ConfigError(where, f"{name} must hold one label for each image, got rows of several lengths") from None


def _one_hot(shape: Sequence[int]) -> bool:
    return len(shape) == 2 and min(shape) > 1


def _places(rows: np.ndarray, where: str, name: str) -> np.ndarray:
    """Return the place of the one in each row (N, K)."""
    if rows.dtype.kind not in "iufb" or not ((rows == 0) | (rows == 1)).all() or (rows.sum(axis=1) != 1).any():
        raise ConfigError(
            where, f"{name} must hold one label for each image, or one-hot rows, got {rows.dtype} {rows.shape}"
        )
    places: np.ndarray = rows.argmax(axis=1)
    return places
