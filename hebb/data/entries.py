"""The registered datasets. A new dataset is one entry here.

Sizes and counts are part of the entry, so that shapes and the number of updates need no file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hebb.config.registry import DATASETS, Dataset
from hebb.config.vocabulary import Augmentation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hebb.data.sources import Arrays
    from hebb.data.stores import Store


def _torchvision(class_name: str) -> Callable[[Path, bool], Arrays]:
    def load(folder: Path, train: bool) -> Arrays:
        from hebb.data import sources

        return sources.torchvision_images(class_name, folder, train)

    return load


def _digits(folder: Path, train: bool) -> Arrays:
    from hebb.data import sources

    return sources.digits(train)


def _loaded(name: str, *first: str) -> Callable[[Path, bool], Arrays]:
    """Return a function that calls ``sources.<name>`` with ``first`` before its own arguments."""

    def load(folder: Path, train: bool) -> Arrays:
        from hebb.data import sources

        arrays: Arrays = getattr(sources, name)(*first, folder, train)
        return arrays

    return load


def _opened(name: str, *first: str) -> Callable[[Path, str, tuple[int, int, int]], Store]:
    """Return a function that calls ``sources.<name>`` with ``first`` before its own arguments."""

    def open_store(folder: Path, split: str, shape: tuple[int, int, int]) -> Store:
        from hebb.data import sources

        store: Store = getattr(sources, name)(*first, folder, split, shape)
        return store

    return open_store


def _rooms(folder: Path, split: str, shape: tuple[int, int, int]) -> Store:
    from hebb.data import shapes3d

    return shapes3d.rooms(folder, split, shape)


def _folder(path: str, where: str) -> Dataset:
    from hebb.data import own

    return own.folder(path, where)


def _arrays(name: str, where: str) -> Dataset:
    from hebb.data import memory

    return memory.entry(name, where)


def _npz_file(path: str, where: str) -> Dataset:
    from hebb.data import own

    return own.npz_file(path, where)


_MNIST_COUNTS = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
_MNIST_TEST_COUNTS = (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
_DIGITS_COUNTS = (151, 161, 143, 131, 147, 154, 150, 136, 127, 138)
_DIGITS_TEST_COUNTS = (27, 21, 34, 52, 34, 28, 31, 43, 47, 42)
_IMAGENETTE_COUNTS = (963, 955, 993, 858, 941, 956, 961, 931, 951, 960)
_IMAGENETTE_TEST_COUNTS = (387, 395, 357, 386, 409, 394, 389, 419, 399, 390)
_CIFAR10 = ((0.4914, 0.4824, 0.4467), (0.2471, 0.2435, 0.2616))
_STL10 = ((0.43, 0.42, 0.39), (0.27, 0.26, 0.27))
_CIFAR_SETTLE = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TINY_MEAN, _TINY_STD = (0.4803, 0.4481, 0.3976), (0.2764, 0.2689, 0.2816)
_SVHN_COUNTS = (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659)
_SVHN_TEST_COUNTS = (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595)

for _entry in (
    Dataset(
        name="Digits",
        channels=1,
        height=8,
        width=8,
        classes=10,
        train=1438,
        per_class=_DIGITS_COUNTS,
        test=359,
        test_per_class=_DIGITS_TEST_COUNTS,
        summary="scikit-learn's handwritten digits, 8x8; bundled, needs no download",
        augmentation=Augmentation.NOISE,
        load=_digits,
    ),
    Dataset(
        name="MNIST",
        channels=1,
        height=28,
        width=28,
        classes=10,
        train=60000,
        per_class=_MNIST_COUNTS,
        test=10000,
        test_per_class=_MNIST_TEST_COUNTS,
        summary="handwritten digits, 28x28",
        augmentation=Augmentation.NOISE,
        load=_torchvision("MNIST"),
    ),
    Dataset(
        name="FashionMNIST",
        channels=1,
        height=28,
        width=28,
        classes=10,
        train=60000,
        test=10000,
        summary="articles of clothing, 28x28",
        load=_torchvision("FashionMNIST"),
    ),
    Dataset(
        name="KMNIST",
        channels=1,
        height=28,
        width=28,
        classes=10,
        train=60000,
        test=10000,
        summary="ten characters of old Japanese books, 28x28",
        augmentation=Augmentation.NOISE,
        load=_torchvision("KMNIST"),
    ),
    *(
        Dataset(
            name=f"EMNIST{split.title()}",
            channels=1,
            height=28,
            width=28,
            classes=classes,
            train=train,
            test=test,
            summary=f"{what}, 28x28",
            augmentation=Augmentation.NOISE,
            load=_loaded("emnist", split),
        )
        for split, what, classes, train, test in (
            ("balanced", "handwritten digits and letters, 47 classes", 47, 112800, 18800),
            ("letters", "handwritten letters, large and small in one class", 26, 124800, 20800),
            ("digits", "handwritten digits, more of them than in MNIST", 10, 240000, 40000),
        )
    ),
    Dataset(
        name="SVHN",
        channels=3,
        height=32,
        width=32,
        classes=10,
        train=73257,
        per_class=_SVHN_COUNTS,
        test=26032,
        test_per_class=_SVHN_TEST_COUNTS,
        summary="digits of house numbers, in colour, 32x32",
        augmentation=Augmentation.NOISE,
        load=_loaded("svhn"),
    ),
    Dataset(
        name="CIFAR10",
        channels=3,
        height=32,
        width=32,
        classes=10,
        train=50000,
        test=10000,
        summary="natural images, 10 classes, 32x32",
        standard=_CIFAR10,
        statistics=_CIFAR_SETTLE,
        load=_torchvision("CIFAR10"),
    ),
    Dataset(
        name="CIFAR100",
        channels=3,
        height=32,
        width=32,
        classes=100,
        train=50000,
        test=10000,
        summary="natural images, 100 classes, 32x32",
        statistics=_CIFAR_SETTLE,
        load=_torchvision("CIFAR100"),
    ),
    Dataset(
        name="STL10",
        channels=3,
        height=96,
        width=96,
        classes=10,
        train=5000,
        test=8000,
        unlabeled=100000,
        summary="natural images with 100,000 unlabelled ones, 96x96",
        standard=_STL10,
        open=_opened("stl10"),
    ),
    Dataset(
        name="Shapes3D",
        channels=3,
        height=64,
        width=64,
        classes=4,
        train=468000,
        test=12000,
        frames=64000 * 17,
        summary="rendered rooms, six factors (the label is the shape), with sequences; 3dshapes.h5 or .npz, 64x64",
        open=_rooms,
    ),
    Dataset(
        name="ImageNette",
        channels=3,
        height=160,
        width=160,
        classes=10,
        train=9469,
        per_class=_IMAGENETTE_COUNTS,
        test=3925,
        test_per_class=_IMAGENETTE_TEST_COUNTS,
        summary="ten easy classes of ImageNet",
        augmentation=Augmentation.RESIZED_CROP,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        open=_opened("imagenette"),
    ),
    Dataset(
        name="TinyImageNet",
        channels=3,
        height=64,
        width=64,
        classes=200,
        train=100000,
        test=10000,
        summary="natural images, 200 classes of ImageNet, 64x64",
        mean=_TINY_MEAN,
        std=_TINY_STD,
        open=_opened("tiny_imagenet"),
    ),
    Dataset(
        name="ImageNet",
        channels=3,
        height=256,
        width=256,
        classes=1000,
        train=1281167,
        test=50000,
        summary="ILSVRC 2012",
        augmentation=Augmentation.RESIZED_CROP,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        open=_opened("imagenet"),
    ),
    *(
        Dataset(
            name=f"ImageNetV2{kind}",
            channels=3,
            height=256,
            width=256,
            classes=1000,
            train=10000,
            test=10000,
            summary=f"new test images for ImageNet, {kind}",
            augmentation=Augmentation.RESIZED_CROP,
            mean=_IMAGENET_MEAN,
            std=_IMAGENET_STD,
            open=_opened("imagenet_v2", kind),
        )
        for kind in ("MatchedFrequency", "Threshold07", "TopImages")
    ),
):
    DATASETS.register(_entry)
DATASETS.register_reader(
    "folder",
    _folder,
    form="folder:PATH",
    summary="your own images: train/CLASS/* and test/CLASS/* (or val/CLASS/*) below a folder",
)
DATASETS.register_reader("memory", _arrays)
DATASETS.register_reader(
    "npz",
    _npz_file,
    form="npz:FILE",
    summary="your own arrays: x_train (uint8), y_train, x_test and y_test in an .npz file",
)
