"""Where images come from: ``.npz`` files, torchvision, scikit-learn.

Tried in order: ``<folder>/<name in lower case>.npz`` in the Keras layout (x_train, y_train, x_test, y_test), then
the dataset's own loader, which downloads what is missing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hebb.errors import ConfigError, HebbError
from hebb.registry import Dataset

Arrays = tuple[np.ndarray, np.ndarray]
"""Images uint8 (N, H, W) or (N, H, W, C) or (N, C, H, W), and labels (N,)."""


def read(entry: Dataset, folder: Path, train: bool) -> tuple[Tensor, Tensor]:
    """Return uint8 images (N, C, H, W) and int64 labels (N,) of the training or test split."""
    path = folder / f"{entry.name.lower()}.npz"
    if path.exists():
        arrays = _npz(path, train)
        where = str(path)
    elif entry.load is None:
        raise ConfigError(
            f"dataset '{entry.name}'",
            "has no loader yet",
            hint=f"put {path.name} (x_train, y_train, x_test, y_test) into {folder}",
        )
    else:
        arrays = entry.load(folder, train)
        where = f"dataset '{entry.name}'"
    return _checked(entry, arrays, where)


def _checked(entry: Dataset, arrays: Arrays, where: str) -> tuple[Tensor, Tensor]:
    images, labels = arrays
    labels = labels.reshape(-1)
    if images.dtype != np.uint8:
        raise ConfigError(where, f"images are {images.dtype}, uint8 is wanted")
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] != entry.channels:
        images = images.transpose(0, 3, 1, 2)
    wanted = (entry.channels, entry.height, entry.width)
    if images.ndim != 4 or images.shape[1:] != wanted or len(images) != len(labels):
        raise ConfigError(where, f"images are {images.shape}, labels {labels.shape}; (N, {wanted}) is wanted")
    if len(labels) and not 0 <= labels.min() <= labels.max() < entry.classes:
        raise ConfigError(where, f"labels run from {labels.min()} to {labels.max()}, not 0 to {entry.classes - 1}")
    return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.astype(np.int64))


def _npz(path: Path, train: bool) -> Arrays:
    suffix = "train" if train else "test"
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return file[f"x_{suffix}"], file[f"y_{suffix}"]
    except KeyError:
        raise ConfigError(
            str(path), f"lacks x_{suffix} or y_{suffix}", hint="Keras layout: x_train y_train x_test y_test"
        ) from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(str(path), "is truncated or not an .npz file", hint=str(error).splitlines()[0]) from None


def digits(train: bool) -> Arrays:
    """Return scikit-learn's digits; every fifth image is a test image."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # grey levels 0..16
    chosen = (np.arange(len(images)) % 5 != 4) == train
    return images[chosen], bunch.target[chosen]


def torchvision_images(class_name: str, folder: Path, train: bool) -> Arrays:
    """Return a torchvision dataset as arrays, downloading it into ``folder`` when it is absent."""
    declare_missing_operators()
    from torchvision import datasets

    kind = getattr(datasets, class_name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = kind(root=str(folder), train=train, download=True)
    except (OSError, RuntimeError) as error:
        raise HebbError(
            f"dataset '{class_name}': not found in {folder} and it could not be downloaded ({type(error).__name__})\n"
            f"put {class_name.lower()}.npz (x_train, y_train, x_test, y_test) or torchvision's files there, "
            "or point --data-dir or $HEBB_DATASETS at them"
        ) from None
    images = found.data.numpy() if isinstance(found.data, Tensor) else np.asarray(found.data)
    return images, np.asarray(found.targets)


def declare_missing_operators() -> None:
    """Let torchvision load beside a CPU-only torch.

    Its wheel is built against a CUDA torch. Where its compiled operators cannot load, importing it dies on the
    registration of fake kernels for ``nms`` and ``qnms``. Only the pure-Python datasets and transforms are used
    here, so declaring the two signatures is enough.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations or _operators_known():
        return
    compiled = Path(next(iter(spec.submodule_search_locations))) / "_C.so"
    with contextlib.suppress(OSError, RuntimeError):
        torch.ops.load_library(str(compiled))
    if not _operators_known():
        _LIBRARY.append(torch.library.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            _LIBRARY[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_LIBRARY: list[torch.library.Library] = []  # a library's operators vanish with the object


def _operators_known() -> bool:
    try:
        torch.ops.torchvision.nms  # noqa: B018  (the look-up itself raises)
    except (AttributeError, RuntimeError):
        return False
    return True
