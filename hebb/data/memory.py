"""Images that a program holds in memory: ``memory:CxHxW/CLASSES/TRAIN+TEST/DIGEST``. Never imports torch.

``register`` gives arrays such a name. The name says everything that shapes a network and counts its updates, so a
stored ``config.json`` can be read by a process without the arrays; only training and evaluation need them.

Shapes: N images, C channels, H height, W width, D values of an image without rows and columns.
"""

from __future__ import annotations

import hashlib
import re
import warnings
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hebb.config.registry import Dataset
from hebb.config.vocabulary import Augmentation, Part
from hebb.core.errors import ConfigError
from hebb.data import labels, npz

if TYPE_CHECKING:
    from hebb.data.stores import Shape, Store

PREFIX = "memory"
_NAME = re.compile(r"(?P<shape>[0-9]+x[0-9]+x[0-9]+)/(?P<classes>[0-9]+)/(?P<train>[0-9]+)\+(?P<test>[0-9]+)/[0-9a-f]+")
_DIGITS = 16  # of the digest in a name


@dataclass(frozen=True, eq=False)
class ArrayData:
    """Arrays that networks can be trained on while this object exists.

    Attributes:
        name: what ``DataSpec.dataset`` calls them.
        classes: the label of each class, as it was given, in the order of the network's outputs.
        x_train, x_test: uint8 or float32 (N, C, H, W); ``x_test`` may be empty.
        y_train, y_test: int64 (N,), places in ``classes``; -1 where there are no labels.
    """

    name: str
    classes: np.ndarray
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


_REGISTERED: weakref.WeakValueDictionary[str, ArrayData] = weakref.WeakValueDictionary()


def register(arrays: Sequence[Any], where: str = "data") -> ArrayData:
    """Name arrays, so that a config can refer to them; they are forgotten with the object that is returned.

    Args:
        arrays: ``(x, y)`` or ``(x, y, x_test, y_test)``; ``(x,)`` for images without labels. Images are (N, H, W),
            (N, H, W, C), (N, C, H, W) or (N, D). uint8 is divided by 255 when it is read; floats are taken as they are.
            Labels are whole numbers or words, (N,), or one-hot rows (N, K).
        where: the argument, as an error names it.

    Raises:
        ConfigError: for arrays of another shape or type, and for values that are not finite.
    """
    if len(arrays) not in (1, 2, 4):
        raise ConfigError(where, f"must be (x, y) or (x, y, x_test, y_test), got {len(arrays)} arrays")
    x = images(arrays[0], f"{where}, x")
    y = None if len(arrays) == 1 else _labels(arrays[1], len(x), where, "y")
    x_test = images(arrays[2], f"{where}, x_test") if len(arrays) == 4 else x[:0]
    if x_test.shape[1:] != x.shape[1:] or x_test.dtype != x.dtype:
        ours, theirs = (f"{'x'.join(map(str, a.shape[1:]))} {a.dtype}" for a in (x, x_test))
        raise ConfigError(where, f"x_test must be like x, {ours}, got {theirs}")
    if y is None:
        return _register(np.zeros(1, np.int64), x, np.full(len(x), -1), x_test, np.zeros(0, np.int64))
    y_test = _labels(arrays[3], len(x_test), where, "y_test") if len(arrays) == 4 else y[:0]
    classes = labels.classes(y, y_test, where, ("y", "y_test"))
    train, test = (np.searchsorted(classes, of_part).astype(np.int64) for of_part in (y, y_test))
    return _register(classes, x, train, x_test, test)


def _register(classes: np.ndarray, x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> ArrayData:
    """Return the object already registered for the same arrays, or a new one."""
    digest = hashlib.sha256()
    for values in (x, y, x_test, y_test):
        digest.update(f"{values.dtype} {values.shape}".encode())
        digest.update(values.data)
    size = "x".join(map(str, x.shape[1:]))
    name = f"{PREFIX}:{size}/{len(classes)}/{len(x)}+{len(x_test)}/{digest.hexdigest()[:_DIGITS]}"
    data = _REGISTERED.get(name)
    if data is None or not np.array_equal(data.classes, classes):
        data = ArrayData(name=name, classes=classes, x_train=x, y_train=y, x_test=x_test, y_test=y_test)
        _REGISTERED[name] = data
    return data


def registered(name: str) -> ArrayData | None:
    """Return the arrays of this name, if this process has them."""
    return _REGISTERED.get(name)


def adopt(data: ArrayData) -> None:
    """Register arrays that another process has named; they are forgotten with ``data``."""
    _REGISTERED[data.name] = data


def images(values: Any, where: str) -> np.ndarray:
    """Return images as (N, C, H, W), uint8 or float32; rows of D values become images (1, 1, D)."""
    x = _array(values, where)
    if x.dtype.kind == "f":
        x = x.astype(np.float32, copy=False)
        if not np.isfinite(x).all():
            raise ConfigError(where, "must be finite numbers, got NaN or infinity")
        if len(x) and x.max() > 1:
            warnings.warn(
                f"{where}: floats are taken as they are, and these reach {x.max():g}: "
                "divide pixels by their largest value, or pass them as uint8",
                stacklevel=2,
            )
    elif x.dtype == np.bool_:
        x = x.astype(np.float32)
    elif x.dtype != np.uint8:
        hint = "x.astype('uint8') for pixels of 0 to 255; floats are taken as they are"
        raise ConfigError(where, f"must be uint8 or floats, got {x.dtype}", hint=hint)
    if x.ndim == 2:
        x = x[:, None, None, :]
    channels, height, width = npz.image_shape(x.shape, where)
    if x.ndim == 3:
        x = x[:, None]
    elif x.shape[1:] != (channels, height, width):
        x = x.transpose(0, 3, 1, 2)
    if not x.size:
        raise ConfigError(where, f"must hold an image, got {x.shape}")
    return np.ascontiguousarray(x)


def _labels(values: Any, count: int, where: str, name: str) -> np.ndarray:
    """Return labels (N,) in the type in which they were given."""
    y = _array(values, f"{where}, {name}")
    if labels.count(y.shape) != count:
        raise ConfigError(f"{where}, {name}", f"must be {count} labels, one for each image, got {y.shape}")
    return labels.read(y, where, name, least=None) if count else y.reshape(-1)


def _array(values: Any, where: str) -> np.ndarray:
    """Return an array, from anything that NumPy reads; tensors are taken off their graph and device."""
    values = values.detach().cpu() if hasattr(values, "detach") else values
    if np.ma.is_masked(values):
        raise ConfigError(where, "has masked values", hint="fill them (x.filled(0)), or leave these images out")
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise ConfigError(where, f"must be an array, got {type(values).__name__}", hint=str(error)) from None
    if array.ndim == 0:
        raise ConfigError(where, f"must be an array, got {type(values).__name__}")
    if array.dtype == object and array.ndim != 1:
        raise ConfigError(where, f"must be numbers, got {type(values).__name__} of objects")
    return array


def entry(text: str, where: str) -> Dataset:
    """Return the entry of a name without its prefix; the arrays may be in another process."""
    match = _NAME.fullmatch(text)
    if match is None:
        raise ConfigError(where, f"must be the name of arrays in memory, got '{PREFIX}:{text}'")
    name = f"{PREFIX}:{text}"
    channels, height, width = map(int, match["shape"].split("x"))

    def open_arrays(_: object, split: str, shape: Shape) -> Store:
        import torch

        from hebb.data.stores import Arrays

        data = _REGISTERED.get(name)
        if data is None:
            raise ConfigError(
                f"dataset '{name}'",
                "the arrays of this run are not in this process",
                hint="hebb.train with the same arrays trains on them, and continues a run in its folder",
            )
        x, y = (data.x_train, data.y_train) if split == Part.TRAIN else (data.x_test, data.y_test)
        return Arrays(torch.from_numpy(x), torch.from_numpy(y), shape)

    return Dataset(
        name=name,
        channels=channels,
        height=height,
        width=width,
        classes=int(match["classes"]),
        train=int(match["train"]),
        test=int(match["test"]),
        summary="arrays in memory",
        augmentation=Augmentation.CROP,
        open=open_arrays,
    )
