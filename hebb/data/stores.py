"""Where images are stored: arrays in memory, STL-10's binary files, image files. Read by index as uint8.

Shapes: N images of a store, n images read, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hebb.core.errors import ConfigError
from hebb.data import decode
from hebb.data.scan import Listing

Shape = tuple[int, int, int]
"""(C, H, W)."""
_PIECE = 250
"""Images read or resized at a time, held besides the result."""


class Digest(Protocol):
    """What this module needs of a ``hashlib`` object."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Feed bytes."""


class Store(Protocol):
    """Images and labels of one part of a dataset.

    Attributes:
        labels: int64 (N,); -1 where there is none.
        shape: (C, H, W) of the images it returns; images stored in another size are resized.
    """

    @property
    def labels(self) -> Tensor:
        """Return the labels."""
        ...

    @property
    def shape(self) -> Shape:
        """Return (C, H, W)."""
        ...

    def read(self, index: Tensor) -> Tensor:
        """Return the images at the places ``index`` (n,), sorted, as uint8 (n, C, H, W)."""
        ...

    def update(self, digest: Digest) -> None:
        """Feed everything that decides the images and labels, chosen or not, to a ``hashlib`` object."""
        ...


def pieces(count: int) -> list[range]:
    """Cut the places of ``count`` files into what a thread takes at a time."""
    return [range(start, min(start + 100, count)) for start in range(0, count, 100)]


def resize(images: Tensor, shape: Shape) -> Tensor:
    """Resize images (N, C, H, W) to (H, W) of ``shape``: bilinear, antialiased, without keeping the aspect."""
    if images.shape[1:] == shape:
        return images
    out = torch.empty((len(images), *shape), dtype=images.dtype)
    for start in range(0, len(images), _PIECE):
        piece = images[start : start + _PIECE]
        out[start : start + _PIECE] = F.interpolate(piece, size=shape[1:], mode="bilinear", antialias=True)
    return out


def update_labels(digest: Digest, labels: Tensor) -> None:
    """Feed labels to a ``hashlib`` object."""
    digest.update(str(tuple(labels.shape)).encode())
    digest.update(labels.contiguous().numpy().data)


@dataclass(frozen=True)
class Arrays:
    """Images in memory: uint8 or float32 (N, C, H, W) of any size; ``frames`` are places in time order."""

    images: Tensor
    labels: Tensor
    shape: Shape
    frames: Tensor | None = None

    def read(self, index: Tensor) -> Tensor:
        """See ``Store``; a read of all images in the right size makes no copy."""
        return resize(self.images if len(index) == len(self.images) else self.images[index], self.shape)

    def update(self, digest: Digest) -> None:
        """See ``Store``."""
        digest.update(str(tuple(self.images.shape)).encode())
        digest.update(self.images.contiguous().numpy().data)
        update_labels(digest, self.labels)
        if self.frames is not None:
            update_labels(digest, self.frames)


@dataclass(frozen=True)
class Binary:
    """Files of raw pixels, one image after the other, each channel by columns: the format of STL-10.

    They are read in pieces and not mapped: the pages of a mapped file would count as memory beside the tensor.

    Attributes:
        files: read as one sequence.
        stored: (C, H, W) of the images in the files.
    """

    files: tuple[Path, ...]
    labels: Tensor
    stored: Shape
    shape: Shape

    def read(self, index: Tensor) -> Tensor:
        """See ``Store``; peak memory is that of the result and one piece."""
        out = torch.empty((len(index), *self.shape), dtype=torch.uint8)
        for first, piece in self._pieces(index):
            low, high = torch.searchsorted(index, torch.tensor([first, first + len(piece)])).tolist()
            out[low:high] = resize(piece[index[low:high] - first], self.shape)
        return out

    def _pieces(self, index: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield (place of the first image, images (n, C, H, W)) of every piece with an image at ``index``."""
        pieces = set((index // _PIECE).tolist())
        channels, height, width = self.stored
        values, first = prod(self.stored), 0
        for path in self.files:
            count = path.stat().st_size // values
            for start in range(0, count, _PIECE):
                n = min(_PIECE, count - start)
                if pieces & {(first + start) // _PIECE, (first + start + n - 1) // _PIECE}:
                    raw = np.fromfile(path, np.uint8, n * values, offset=start * values)
                    columns = torch.from_numpy(raw).view(n, channels, width, height)
                    yield first + start, columns.transpose(2, 3)
            first += count

    def update(self, digest: Digest) -> None:
        """See ``Store``."""
        for path in self.files:
            with open(path, "rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
        update_labels(digest, self.labels)


@dataclass(frozen=True)
class Files:
    """Image files (JPEG, PNG, ...), decoded when they are read and resized to ``shape``.

    Attributes:
        native: (H, W) that every image must have; None resizes whatever size it has.
    """

    listing: Listing
    shape: Shape
    native: tuple[int, int] | None = None

    @property
    def labels(self) -> Tensor:
        """See ``Store``."""
        return torch.from_numpy(self.listing.labels)

    def __len__(self) -> int:
        return len(self.listing.names)

    def __getitem__(self, i: int) -> Tensor:
        """Decode image i: uint8 (C, H, W)."""
        path = self.listing.path(i)
        pixels = decode.pixels(path, self.shape[0])
        if self.native is not None and pixels.shape[:2] != self.native:
            sizes = (f"{width}x{height}" for height, width in (pixels.shape[:2], self.native))
            raise ConfigError(
                str(path),
                "is an image of {}, and the others are {}".format(*sizes),
                hint="--set dataset_sup.size=64 dataset_unsup.size=64 resizes all",
            )
        planes = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)
        return resize(planes[None], self.shape)[0]

    def subset(self, index: Tensor) -> Files:
        """Return the store of the images at ``index``."""
        chosen = index.numpy()
        names, labels = self.listing.names[chosen], self.listing.labels[chosen]
        return replace(self, listing=replace(self.listing, names=names, labels=labels))

    def read(self, index: Tensor) -> Tensor:
        """See ``Store``; decoded by as many threads as torch may use, because Pillow lets them run side by side."""
        out = torch.empty((len(index), *self.shape), dtype=torch.uint8)

        def decode(places: Sequence[int]) -> None:
            for place in places:
                out[place] = self[int(index[place])]

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for _ in pool.map(decode, pieces(len(index))):
                pass
        return out

    def update(self, digest: Digest) -> None:
        """See ``Store``. Names and sizes stand in for the content: reading all of ImageNet would take an hour."""
        sizes = self.listing.sizes_and_times()[:, 0].tolist()
        for name, size in zip(self.listing.names.tolist(), sizes, strict=True):
            digest.update(b"%s %d\n" % (name, size))
        update_labels(digest, self.labels)
