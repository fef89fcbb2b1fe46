"""Small datasets written in the formats of the real ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def stl10(folder: Path, train: int = 20, test: int = 12, unlabeled: int = 30) -> dict[str, np.ndarray]:
    """Write STL-10's binary files and return the images of each part, (N, 3, 96, 96) as a person sees them."""
    base = folder / "stl10_binary"
    base.mkdir(parents=True)
    rng = np.random.default_rng(1)
    images = {}
    for part, count in (("train", train), ("test", test), ("unlabeled", unlabeled)):
        images[part] = rng.integers(0, 256, (count, 3, 96, 96), dtype=np.uint8)
        images[part].transpose(0, 1, 3, 2).tofile(base / f"{part}_X.bin")  # column after column
        if part != "unlabeled":
            (np.arange(count) % 10 + 1).astype(np.uint8).tofile(base / f"{part}_y.bin")
    (base / "class_names.txt").write_text("\n".join(f"class{i}" for i in range(10)))
    return images


def classes(
    root: Path,
    names: Iterable[str],
    each: int = 3,
    size: tuple[int, int] = (20, 16),
    ending: str = "png",
    mode: str = "RGB",
) -> None:
    """Write ``each`` images of (width, height) into every ``root/<name>``; the class says which rows are bright."""
    rng = np.random.default_rng(len(root.name))
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(each):
            shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
            pixels = rng.integers(0, 60, shape, dtype=np.uint8)
            pixels[label % 3 :: 3] += 150
            Image.fromarray(pixels).save(root / name / f"{name}_{i}.{ending}")


def folder(root: Path, names: Iterable[str] = ("cat", "dog"), test: str = "test", **options: object) -> Path:
    """Write a dataset of two classes, nine training and four test images each."""
    classes(root / "train", names, **{"each": 9, **options})  # type: ignore[arg-type]
    classes(root / test, names, **{"each": 4, **options})  # type: ignore[arg-type]
    return root


def keras(path: Path, shape: tuple[int, ...] = (16, 20, 3), train: int = 30, test: int = 12, classes: int = 3) -> Path:
    """Write an ``.npz`` file in the Keras layout; the class of an image says which of its rows are bright."""
    rng = np.random.default_rng(2)
    arrays = {}
    for part, count in (("train", train), ("test", test)):
        labels = np.arange(count) % classes
        arrays[f"x_{part}"] = rng.integers(0, 60, (count, *shape), dtype=np.uint8)
        arrays[f"y_{part}"] = labels
        for image, label in zip(arrays[f"x_{part}"], labels, strict=True):
            image[label % 3 :: 3] += 150
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def idx(path: Path, array: np.ndarray) -> None:
    """Write an array of bytes in the format of MNIST and its kin."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def tiny_imagenet(folder: Path, names: Iterable[str], each: int = 2, size: tuple[int, int] = (64, 64)) -> Path:
    """Write Tiny ImageNet as its archive unpacks, with one validation image of each class in another order."""
    root = folder / "tiny-imagenet-200"
    names = list(names)
    for name in names:
        classes(root / "train" / name, ["images"], each, size, "JPEG")
        (root / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t0\t63\t63\n")
    (root / "val").mkdir()
    classes(root / "val", ["images"], len(names), size, "JPEG")
    lines = [f"images_{i}.JPEG\t{name}\t0\t0\t62\t62\n" for i, name in enumerate(reversed(names))]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    return root
