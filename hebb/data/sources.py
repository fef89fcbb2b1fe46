"""Where images come from: ``.npz`` files, torchvision, image folders, scikit-learn.

Tried in order: ``<folder>/<name in lower case>.npz`` in the Keras layout (x_train, y_train, x_test, y_test), then
the dataset's own loader, which downloads what is missing where torchvision can.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import os
import pickle
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hebb.config import hooks
from hebb.config.registry import Dataset
from hebb.config.vocabulary import Part
from hebb.core import locks
from hebb.core.errors import ConfigError, HebbError, cause_of
from hebb.data import npz, scan
from hebb.data.stores import Arrays as ArrayStore
from hebb.data.stores import Binary, Files, Shape, Store

_REASON = 120  # characters of an error of torchvision
Arrays = tuple[np.ndarray, np.ndarray]
"""Images uint8 (N, H, W) or (N, H, W, C) or (N, C, H, W), and labels (N,)."""
_KERAS = "x_train, y_train, x_test, y_test"
IMAGENETTE = {160: ("160px", "imagenette2-160"), 320: ("320px", "imagenette2-320"), 10**6: ("full", "imagenette2")}
"""Shorter side of the images -> torchvision's name of the archive, and its folder."""
IMAGENET_V2 = {
    "MatchedFrequency": "imagenetv2-matched-frequency-format-val",
    "Threshold07": "imagenetv2-threshold0.7-format-val",
    "TopImages": "imagenetv2-top-images-format-val",
}
"""The folders that the archives of ImageNetV2 unpack to; their subfolders are called 0 to 999."""


def store(entry: Dataset, folder: Path, split: str, shape: Shape) -> Store:
    """Return the images of one of ``entry.splits``, read as (C, H, W) of ``shape``."""
    in_file = _npz_path(entry, folder).exists() and Part.UNLABELED not in split and not entry.frames
    if entry.open is not None and not in_file:
        opened: Store = entry.open(folder, split, shape)
        return opened
    images, labels = read(entry, folder, train=split in (Part.TRAIN, Part.SEQUENCES))
    frames = None
    if split == Part.SEQUENCES:
        assert entry.order is not None
        frames = torch.from_numpy(entry.order(folder))
    return ArrayStore(images, labels, shape, frames)


def read(entry: Dataset, folder: Path, train: bool) -> tuple[Tensor, Tensor]:
    """Return uint8 images (N, C, H, W) and int64 labels (N,) of the training or test split that arrays hold."""
    path = _npz_path(entry, folder)
    if path.exists():
        return _checked(entry, npz_arrays(path, train), str(path), train)
    assert entry.load is not None, "opened by store"
    arrays = entry.load(folder, train)
    if not isinstance(arrays, tuple) or len(arrays) != 2 or not all(isinstance(a, np.ndarray) for a in arrays):
        got = f"({', '.join(type(a).__name__ for a in arrays)})" if isinstance(arrays, tuple) else type(arrays).__name__
        raise hooks.broken(entry, "load", f"must return arrays (images, labels), got {got}")
    return _checked(entry, arrays, hooks.where(entry, "load", f"dataset '{entry.name}'"), train)


def _npz_path(entry: Dataset, folder: Path) -> Path:
    return folder / f"{entry.name.lower()}.npz"


def _checked(entry: Dataset, arrays: Arrays, where: str, train: bool) -> tuple[Tensor, Tensor]:
    images, labels = arrays
    labels = labels.reshape(-1)
    if images.dtype != np.uint8:
        raise ConfigError(where, f"images must be uint8, got {images.dtype}")
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] != entry.channels:
        images = images.transpose(0, 3, 1, 2)
    shape = (entry.channels, entry.height, entry.width)
    if images.ndim != 4 or images.shape[1:] != shape or len(images) != len(labels):
        sizes = ", ".join(map(str, shape))
        raise ConfigError(where, f"images must be (N, {sizes}) with N labels, got {images.shape} and {labels.shape}")
    if not len(labels):
        raise ConfigError(where, f"holds no {'training' if train else 'test'} image")
    if labels.dtype.kind not in "iu":
        raise ConfigError(where, f"labels must be whole numbers, got {labels.dtype}")
    if not 0 <= labels.min() <= labels.max() < entry.classes:
        raise ConfigError(where, f"labels must be 0 to {entry.classes - 1}, got {labels.min()} to {labels.max()}")
    return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.astype(np.int64))


def npz_arrays(path: Path, train: bool) -> Arrays:
    """Return images and labels of one part of a file in the Keras layout."""
    part = "train" if train else "test"
    return npz.array(path, f"x_{part}"), npz.array(path, f"y_{part}")


def digits(train: bool) -> Arrays:
    """Return scikit-learn's digits; every fifth image is a test image."""
    table = _digits()
    images = np.round(table[:, :64].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # grey levels 0..16
    chosen = (np.arange(len(images)) % 5 != 4) == train
    return images[chosen], table[chosen, 64].astype(np.int64)


def _digits() -> np.ndarray:
    """Return scikit-learn's table of digits (N, 65), the labels last, without the two seconds of its import."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if path.exists():
        return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])


def torchvision_images(class_name: str, folder: Path, train: bool) -> Arrays:
    """Return a torchvision dataset as arrays, downloading it into ``folder`` when it is absent."""
    packed = _packed(folder / class_name / "raw", train)
    if packed is not None:
        return packed
    dataset = _torchvision(
        class_name, folder, f"{class_name.lower()}.npz ({_KERAS}) or torchvision's files", train=train
    )
    images = dataset.data.numpy() if isinstance(dataset.data, Tensor) else np.asarray(dataset.data)
    return images, np.asarray(dataset.targets)


def _packed(raw: Path, train: bool) -> Arrays | None:
    """Return images and labels of ``*-ubyte.gz``; None where one is absent or damaged, or torchvision has unpacked it.

    torchvision reads only archives that equal its own to the byte.
    """
    part = "train" if train else "t10k"
    names = [f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"]
    if all((raw / name).exists() for name in names):
        return None
    try:
        images, labels = (_idx(gzip.decompress((raw / f"{name}.gz").read_bytes())) for name in names)
    except (OSError, EOFError, zlib.error, ValueError):
        return None
    return images, labels


def _idx(content: bytes) -> np.ndarray:
    """Return the numbers of a file in the format of MNIST's authors: 0, 0, 8 for uint8, dimensions, their sizes."""
    kind, dimensions = content[:3], content[3] if len(content) > 3 else 0
    start = 4 + 4 * dimensions
    if kind != b"\0\0\x08" or len(content) < start:
        raise ValueError("not an idx file of bytes")
    return np.frombuffer(content, np.uint8, offset=start).reshape(np.frombuffer(content[4:start], ">i4")).copy()


def emnist(split: str, folder: Path, train: bool) -> Arrays:
    """Return a split of EMNIST upright, which its files hold on their side, with labels from 0."""
    layout = f"emnist{split}.npz ({_KERAS}) or torchvision's files"
    dataset = _torchvision("EMNIST", folder, layout, split=split, train=train)
    labels = dataset.targets.numpy()
    return dataset.data.numpy().transpose(0, 2, 1), labels - 1 if split == "letters" else labels


def svhn(folder: Path, train: bool) -> Arrays:
    """Return the street-view house numbers from the files of their authors."""
    layout = f"svhn.npz ({_KERAS}) or train_32x32.mat and test_32x32.mat"
    dataset = _torchvision("SVHN", folder, layout, split="train" if train else "test")
    return dataset.data, dataset.labels


def stl10(folder: Path, split: str, shape: Shape) -> Store:
    """Return STL-10 from its binary files, downloaded and verified by torchvision when they are absent.

    torchvision's own class holds the unlabelled images two or three times on the way to a tensor.
    """
    base = folder / "stl10_binary"
    parts = {Part.VAL: ("test",), Part.TRAIN_UNLABELED: ("train", "unlabeled")}.get(Part(split), (split,))
    files = tuple(base / f"{part}_X.bin" for part in parts)
    label_files = tuple(base / f"{part}_y.bin" for part in parts if part != Part.UNLABELED)
    if not all(path.exists() for path in (*files, *label_files)):
        _torchvision("STL10", folder, "stl10_binary/ (train_X.bin, train_y.bin, unlabeled_X.bin, ...)", split="test")
    values, counts = 3 * 96 * 96, []
    for path in files:
        count, rest = divmod(path.stat().st_size, values)
        if rest or not count:
            raise ConfigError(str(path), f"is truncated: not a whole number of images of {values:,} bytes")
        counts.append(count)
    part_labels = [np.fromfile(path, np.uint8).astype(np.int64) - 1 for path in label_files]  # stored as 1 to 10
    if any(len(labels) and not 0 <= labels.min() <= labels.max() <= 9 for labels in part_labels):
        raise ConfigError(str(base), f"the labels of {' and '.join(parts)} must be 1 to 10")
    part_labels += [np.full(counts[-1], -1)] if Part.UNLABELED in parts else []
    if [len(labels) for labels in part_labels] != counts:
        raise ConfigError(str(base), f"{counts} images and {[len(labels) for labels in part_labels]} labels in {parts}")
    return Binary(files, torch.from_numpy(np.concatenate(part_labels)), (3, 96, 96), shape)


def imagenette(folder: Path, split: str, shape: Shape) -> Files:
    """Return ImageNette's files by torchvision, from the smallest archive whose images need no enlargement.

    A larger archive that is already there is preferred to a download.
    """
    enough = [IMAGENETTE[side] for side in IMAGENETTE if side >= max(shape[1:])]
    size, base = next((names for names in enough if (folder / names[1]).is_dir()), enough[0])
    part = "train" if split == Part.TRAIN else "val"
    dataset = _torchvision("Imagenette", folder, f"{base}/train and {base}/val", split=part, size=size, loader=str)
    root = folder / base / part
    names, labels = zip(*(dataset[i] for i in range(len(dataset))), strict=True)  # the loader gives the path back
    below = np.array([str(Path(name).relative_to(root)).encode() for name in names])
    return Files(scan.Listing(root, tuple(dataset.wnids), below, np.array(labels, dtype=np.int64)), shape)


def tiny_imagenet(folder: Path, split: str, shape: Shape) -> Files:
    """Return Tiny ImageNet's files as its archive unpacks; the validation images, which have labels, are the test part.

    Their folder holds them all, and ``val_annotations.txt`` their classes. One that was sorted into classes does, too.
    """
    root, where = folder / "tiny-imagenet-200", "dataset 'TinyImageNet'"
    if not root.is_dir():
        raise _absent("TinyImageNet", folder, "tiny-imagenet-200/train/<wnid>/images/*.JPEG and .../val")
    listing = scan.part(root, True, where)
    if len(listing.classes) != 200:
        raise ConfigError(str(listing.root), f"must hold 200 classes, got {len(listing.classes)}")
    annotations = root / "val" / "val_annotations.txt"
    if split != Part.TRAIN and annotations.exists():
        listing = scan.annotated(annotations, annotations.parent / "images", listing.classes)
    elif split != Part.TRAIN:
        listing = scan.listing(root / "val", where, listing.classes)
    return Files(listing, shape)


def imagenet(folder: Path, split: str, shape: Shape) -> Files:
    """Return ImageNet's files: ``imagenet/train/<wnid>/*`` and ``imagenet/val/<wnid>/*`` of all 1000 classes."""
    root = folder / "imagenet"
    if not root.is_dir():
        raise _absent("ImageNet", folder, "imagenet/train/<wnid>/*.JPEG and imagenet/val/<wnid>/*.JPEG")
    return _thousand(scan.part(root, split == Part.TRAIN, "dataset 'ImageNet'"), shape)


def imagenet_v2(kind: str, folder: Path, split: str, shape: Shape) -> Files:
    """Return ImageNetV2's files, an evaluation set: every split is the whole of it."""
    root = folder / IMAGENET_V2[kind]
    if not root.is_dir():
        raise _absent(f"ImageNetV2{kind}", folder, f"{root.name}/0 to {root.name}/999, as the archive unpacks,")
    return _thousand(scan.listing(root, f"dataset 'ImageNetV2{kind}'"), shape)


def _thousand(listing: scan.Listing, shape: Shape) -> Files:
    """Raise for a folder that lacks classes: all labels after a gap would be wrong."""
    if len(listing.classes) != 1000:
        raise ConfigError(
            str(listing.root), f"must hold 1000 classes, got {len(listing.classes)}", hint="folder:PATH takes any"
        )
    return Files(listing, shape)


_UNPACKED = {
    "CIFAR10": ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "CIFAR100": ("cifar-100-python", "cifar-100-python.tar.gz"),
    "SVHN": ("train_32x32.mat", "test_32x32.mat"),
    "STL10": ("stl10_binary", "stl10_binary.tar.gz"),
    "Imagenette": tuple(f"{base}{ending}" for _, base in IMAGENETTE.values() for ending in ("", ".tgz")),
}
"""What torchvision writes into the folder for a class, where that is not a folder of its name."""


def _torchvision(class_name: str, folder: Path, layout: str, **arguments: object) -> Any:
    """Make a torchvision dataset, downloading it into ``folder`` when it is absent; one process at a time does."""
    declare_missing_operators()
    from torchvision import datasets

    with _removed_on_failure(folder, class_name):
        try:
            return getattr(datasets, class_name)(root=str(folder), download=True, **arguments)
        except (OSError, RuntimeError) as error:
            cause = cause_of(error)
            if cause is not error:  # an interrupt, or a full disk
                raise cause from None
            text = " ".join(str(error).split())[:_REASON]
            raise _absent(class_name, folder, layout, f" ({type(error).__name__}: {text})") from None
        except (AssertionError, EOFError, ValueError, pickle.UnpicklingError) as error:
            problem = f"the files of {class_name} below it are damaged: {str(error) or type(error).__name__}"
            raise ConfigError(str(folder), problem, hint="remove them; they are then downloaded again") from None


def _absent(name: str, folder: Path, layout: str, reason: str = "") -> HebbError:
    tried = f" and it could not be downloaded{reason}" if reason else ""
    return HebbError(
        f"dataset '{name}': not found in {folder}{tried}\n"
        f"put {layout} there, or point --data-dir or $HEBB_DATASETS at the folder that holds it"
    )


@contextlib.contextmanager
def _removed_on_failure(folder: Path, class_name: str) -> Iterator[None]:
    """Make ``folder`` and hold the lock of a class in it; on failure remove what was made here of its files.

    Half a dataset could be taken for a whole one. A mistyped path is not left behind either, but a folder into which
    another process has put something meanwhile stays.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    writable = os.access(folder, os.W_OK)  # else nothing is downloaded
    try:
        with locks.held(folder / f".{class_name.lower()}.lock") if writable else contextlib.nullcontext():
            paths = [folder / name for name in _UNPACKED.get(class_name, (class_name,))]
            ours = [path for path in paths if not path.exists()]  # whoever held the lock before may have made them
            try:
                yield
            except (HebbError, KeyboardInterrupt):
                for path in ours:
                    shutil.rmtree(path, ignore_errors=True)
                    with contextlib.suppress(OSError):
                        path.unlink()
                raise
    except (HebbError, KeyboardInterrupt):
        for below, _, _ in os.walk(new[-1], topdown=False) if new else ():
            with contextlib.suppress(OSError):
                Path(below).rmdir()
        raise


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
