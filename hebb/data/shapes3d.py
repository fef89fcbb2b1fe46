"""3D Shapes: rendered rooms in which six factors vary, and sequences in which one of them moves.

    <dataset dir>/3dshapes.h5 or 3dshapes.npz     array ``images`` (480000, 64, 64, 3) uint8

Image i is point i of the grid of factors, the last factor running fastest: floor, wall and object hue,
scale, shape, orientation (Burgess & Kim 2018). The label is the shape. The split ``sequences`` holds 64,000
trajectories of 17 frames (Halvagal & Zenke 2023). Each starts at random and moves one factor other than the shape by
one step a frame, or by two in one trajectory of four or five; hues are cyclic, scale and orientation turn back at their
ends. A fixed permutation of each hue's values makes neighbours in time unlike in colour. Consecutive frames are a pair,
also where one trajectory ends and the next begins.

Test images are those of one room in forty, each with all four shapes; the sequences use all images.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hebb.config.vocabulary import Part
from hebb.core.errors import ConfigError, HebbError
from hebb.data import npz
from hebb.data.stores import Digest, Shape, resize, update_labels

SIZES = (10, 10, 10, 8, 4, 15)
"""Values of each factor."""
HUES, SHAPE = 3, 4
"""The first three factors are hues, and the fourth from 0 is the shape."""
TRAJECTORIES, LENGTH = 64000, 17
_PIECE = 2000
_SEED = 3


@dataclass(frozen=True)
class Rooms:
    """The images of one part, read from the file in pieces.

    Attributes:
        path: the file.
        places: int64 (N,), sorted: their places in the file.
        labels: int64 (N,), the shape.
        shape: (C, H, W) of the images it gives.
        frames: places of a sequence in time order.
    """

    path: Path
    places: Tensor
    labels: Tensor
    shape: Shape
    frames: Tensor | None = None

    def read(self, index: Tensor) -> Tensor:
        """See ``hebb.data.stores.Store``; an ``.h5`` file is never in memory as a whole."""
        places = self.places[index]
        out = torch.empty((len(places), *self.shape), dtype=torch.uint8)
        with _opened(self.path) as images:
            for start in range(0, len(images), _PIECE):
                low, high = torch.searchsorted(places, torch.tensor([start, start + _PIECE])).tolist()
                if low < high:
                    piece = torch.from_numpy(np.ascontiguousarray(images[start : start + _PIECE]))
                    out[low:high] = resize(piece.permute(0, 3, 1, 2)[places[low:high] - start], self.shape)
        return out

    def update(self, digest: Digest) -> None:
        """See ``hebb.data.stores.Store``; name and size stand in for 6 GB of pixels."""
        digest.update(f"{self.path.name} {self.path.stat().st_size}".encode())
        update_labels(digest, self.labels)
        if self.frames is not None:
            update_labels(digest, self.frames)


def rooms(folder: Path, split: str, shape: Shape, sizes: tuple[int, ...] = SIZES) -> Rooms:
    """Return the images of a split of ``3dshapes.h5`` or ``3dshapes.npz`` in ``folder``."""
    path = next((p for p in (folder / "3dshapes.h5", folder / "3dshapes.npz") if p.exists()), None)
    if path is None:
        raise HebbError(
            f"dataset 'Shapes3D': not found in {folder}\n"
            "put 3dshapes.h5 (or .npz: images, labels) there, or point --data-dir or $HEBB_DATASETS at its folder"
        )
    count = int(np.prod(sizes))
    with _opened(path) as images:
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != count or images.shape[3] != 3:
            raise ConfigError(
                str(path), f"images must be uint8 ({count}, H, W, 3), got {images.dtype} {tuple(images.shape)}"
            )
    number = torch.arange(count)
    kinds = number // sizes[-1] % sizes[SHAPE]
    if split == Part.SEQUENCES:
        walked = torch.from_numpy(trajectories(np.random.default_rng(_SEED), TRAJECTORIES, LENGTH, sizes))
        return Rooms(path, number, kinds, shape, walked)
    places = number[held_out(sizes) != (split == Part.TRAIN)]
    return Rooms(path, places, kinds[places], shape)


def held_out(sizes: tuple[int, ...] = SIZES) -> Tensor:
    """Mark the test images (count,): one in forty of the rooms, each with all its shapes."""
    count, kinds, last = int(np.prod(sizes)), sizes[SHAPE], sizes[-1]
    number = torch.arange(count)
    room = number // (kinds * last) * last + number % last  # all factors but the shape
    marked = torch.zeros(count // kinds, dtype=torch.bool)
    marked[np.random.default_rng(_SEED).permutation(len(marked))[: len(marked) // 40]] = True
    return marked[room]


def trajectories(rng: np.random.Generator, count: int, length: int, sizes: tuple[int, ...] = SIZES) -> np.ndarray:
    """Draw trajectories and return the places of their frames, one trajectory after the other: (count length,)."""
    state = np.stack([rng.integers(size, size=count) for size in sizes], axis=1)  # (T, 6)
    moves = rng.choice([i for i in range(len(sizes)) if i != SHAPE], size=count)
    step = rng.choice([-1, 1], size=count)
    step[np.unique(rng.integers(count, size=count // 4))] *= 2
    hue, end, rows = moves < HUES, np.array(sizes)[moves], np.arange(count)
    walked = np.empty((count, length, len(sizes)), dtype=np.int64)
    for t in range(length):
        walked[:, t] = state
        moved = state[rows, moves] + step
        turned = ~hue & ((moved < 0) | (moved >= end))
        state[rows, moves] = np.where(hue, moved % end, moved.clip(0, end - 1))
        step[turned] *= -1
    for i in range(HUES):
        walked[:, :, i] = rng.permutation(sizes[i])[walked[:, :, i]]
    return np.asarray(np.ravel_multi_index(tuple(walked.reshape(-1, len(sizes)).T), sizes))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Yield the array of images; for an ``.h5`` file a view that reads what is indexed."""
    if path.suffix == ".npz":
        yield npz.array(path, "images")
        return
    try:
        h5py = importlib.import_module("h5py")
    except ImportError:
        raise HebbError(f"{path.name} is read by h5py, which is not installed\npip install h5py") from None
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ConfigError(str(path), "is truncated or not an .h5 file", hint=str(error).splitlines()[0]) from None
    with file:
        if "images" not in file:
            raise ConfigError(str(path), "lacks images", given="images", choices=list(file))
        yield file["images"]
