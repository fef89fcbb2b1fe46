"""Lists the images in a folder with one subfolder per class, without decoding them. Never imports torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hebb.core.errors import ConfigError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Extensions of image files, those of torchvision's ``ImageFolder``."""
HEADERS = 2000
"""Image headers that are read at most; 0.1 ms each."""
_GREY = ("1", "L", "LA", "I", "I;16", "F")


@dataclass(frozen=True)
class Listing:
    """The images of a folder in the order of their labels.

    Attributes:
        root: the folder.
        classes: names of its subfolders; the label of an image is the place of its class.
        names: (N,) bytes, paths below ``root``; an array, because a million strings would be copied to each worker.
        labels: int64 (N,).
    """

    root: Path
    classes: tuple[str, ...]
    names: np.ndarray
    labels: np.ndarray

    def per_class(self) -> tuple[int, ...]:
        """Count the images of each class."""
        return tuple(np.bincount(self.labels, minlength=len(self.classes)).tolist())

    def path(self, i: int) -> Path:
        """Return the path of image i."""
        return self.root / os.fsdecode(bytes(self.names[i]))


def listing(root: Path, where: str, classes: Sequence[str] | None = None) -> Listing:
    """List the images below ``root``, in the order of torchvision's ``ImageFolder``.

    Class names that are all numbers (ImageNetV2) are ordered as numbers; ``ImageFolder`` would put 10 before 2.

    Args:
        root: folder of ``<class>/**/<image>``.
        where: the place an error names.
        classes: the legal classes in label order; None takes the subfolders.
    """
    subfolders = sorted((entry.name for entry in os.scandir(root) if entry.is_dir()), key=_class_order)
    legal = tuple(subfolders if classes is None else classes)
    for name in subfolders:
        if name not in legal:
            raise ConfigError(
                where, f"{root / name} is a class that the training images lack", given=name, choices=legal
            )
    names: list[bytes] = []
    labels: list[int] = []
    for label, name in enumerate(legal):
        for folder, _, files in sorted(os.walk(root / name, followlinks=True)):
            images = sorted(file for file in files if file.lower().endswith(EXTENSIONS))
            names += [os.fsencode(Path(folder, file).relative_to(root)) for file in images]
            labels += [label] * len(images)
    if not names:
        raise ConfigError(where, f"{root} holds no image", hint=f"expected {root.name}/<class>/<image>")
    return Listing(root, legal, np.array(names), np.array(labels, dtype=np.int64))


def _class_order(name: str) -> tuple[int, str]:
    return (int(name) if name.isascii() and name.isdigit() else -1, name)


def image_shape(images: Listing, where: str) -> tuple[int, int, int]:
    """Return (C, H, W) from the headers: C is 1 when all images are grey, H and W are 0 where sizes differ.

    Up to ``HEADERS`` headers are read, at equal distances.
    """
    from PIL import Image, UnidentifiedImageError

    sizes, grey = set(), True
    for i in range(0, len(images.names), -(-len(images.names) // HEADERS)):
        try:
            with Image.open(images.path(i)) as image:
                sizes.add(image.size)
                grey = grey and image.mode in _GREY
        except (OSError, UnidentifiedImageError):
            raise ConfigError(where, f"{images.path(i)} is not an image that can be read") from None
    width, height = sizes.pop() if len(sizes) == 1 else (0, 0)
    return (1 if grey else 3, height, width)


def part(root: Path, train: bool, where: str) -> Listing:
    """List one part of an image folder; the test images have the classes of the training images.

    The test part is called ``test`` or ``val``; some evaluation sets have no training part.
    """
    part_names = ("train",) if train else ("test", "val")
    folder = next((root / name for name in part_names if (root / name).is_dir()), None)
    if folder is None:
        raise ConfigError(
            where,
            f"{root} has no folder '{' or '.join(part_names)}'",
            hint="expected train/<class>/<image> and test/<class>/<image> (or val/)",
        )
    classes = None if train else part(root, True, where).classes
    return listing(folder, where, classes)
