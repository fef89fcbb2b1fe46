"""A dataset ready to train on: uint8 images resident on the device, split by ``DataSpec``, batched by index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hebb import seeding
from hebb.config import DataSpec
from hebb.data import sources
from hebb.errors import ConfigError
from hebb.registry import DATASETS


@dataclass(frozen=True)
class Split:
    """Images and labels of one split.

    Attributes:
        images: uint8 (N, C, H, W) on the device; or float features (N, ...) of frozen blocks.
        labels: int64 (N,) on the device.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, labels) in the order of ``generator``, or as stored; the last batch may be smaller.

        x is float in [0, 1]; features pass as they are.
        """
        order = None
        if generator is not None:
            order = torch.randperm(len(self), generator=generator).to(self.labels.device)
        for start in range(0, len(self), batch_size):
            stop = start + batch_size
            if order is None:
                yield as_float(self.images[start:stop]), self.labels[start:stop]
            else:
                index = order[start:stop]
                yield as_float(self.images[index]), self.labels[index]


def as_float(images: Tensor) -> Tensor:
    """Return pixels in [0, 1]."""
    return images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images


@dataclass(frozen=True)
class Images:
    """The splits of one dataset.

    Attributes:
        train, test: splits; ``val`` is None without validation.
        sha256: digest of all arrays that were read, before subset and validation split.
    """

    train: Split
    val: Split | None
    test: Split
    sha256: str


def load(spec: DataSpec, folder: Path, split_seed: int, device: torch.device) -> Images:
    """Read a dataset and split it.

    The training images are shuffled by ``split_seed``; subset, class filter and validation take images by their
    place in that order, so that no image is validation for one configuration and training for another.
    """
    where = f"dataset '{spec.dataset}'"
    for name in ("augmentation", "zca", "size"):
        if getattr(spec, name):
            raise ConfigError(where, f"'{name}' cannot be run yet", hint="choose a variant without it")
    if spec.split != "train":
        raise ConfigError(where, f"split '{spec.split}' cannot be run yet", hint="choose a variant of the train split")
    entry = DATASETS.get(spec.dataset, where)
    images, labels = sources.read(entry, folder, train=True)
    test_images, test_labels = sources.read(entry, folder, train=False)
    order = torch.randperm(len(labels), generator=seeding.generator(split_seed, "split"))
    held = _held_out(len(labels), spec.validation)[: len(order)]
    if spec.classes is not None:
        kept = torch.isin(labels[order], torch.tensor(spec.classes))
        order, held = order[kept], held[kept]
        in_test = torch.isin(test_labels, torch.tensor(spec.classes))
        test_images, test_labels = test_images[in_test], test_labels[in_test]
    if spec.samples is not None:
        order, held = order[: spec.samples], held[: spec.samples]

    def take(index: Tensor) -> Split:
        index = index.sort().values  # as stored: the training order is drawn anew each epoch
        return Split(images[index].to(device), labels[index].to(device))

    if not bool((~held).any()):
        raise ConfigError(where, "no training image is left by classes, samples and validation")
    return Images(
        train=take(order[~held]),
        val=take(order[held]) if spec.validation else None,
        test=Split(test_images.to(device), test_labels.to(device)),
        sha256=_digest(images, labels, test_images, test_labels),
    )


def _held_out(count: int, share: float) -> Tensor:
    """Mark place i when floor((i+1) share) > floor(i share): the share of every beginning of the order."""
    steps = np.floor(np.arange(count + 1) * share + 1e-9)
    return torch.from_numpy(np.diff(steps) > 0)


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
