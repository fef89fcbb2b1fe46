"""Features: the output of the frozen blocks below a phase, computed once and kept if there is room.

Keeping them does not change them. They are always computed in chunks of the phase's batch size, the last one padded,
because the last bits of a convolution may depend on the size of its batch, and on where its input lies.

Shapes: N images of a split, B images of a chunk, C channels, H height, W width; features are (N, C, H, W) or (N, M).
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hebb.config.phase import Phase
from hebb.config.specs import RunConfig
from hebb.core import machine
from hebb.data.images import Finish, Images, Split
from hebb.kernels.channels_last import Conv2d
from hebb.nn.layers import ConvHebbLayer
from hebb.nn.model import Network

_SHARE = 0.8
"""Fraction of the free memory that features may take; the rest is for the batches."""


@dataclass(kw_only=True)
class Room:
    """Space in which features may be kept.

    Attributes:
        file_limit: bytes that may go into files.
        folder: folder of the files, which have no name and vanish with the process; None writes no files.
        trials: number of runs that share the machine.
        trials_on_gpu: number of runs that share a GPU.
    """

    file_limit: int
    folder: Path | None
    trials: int = 1
    trials_on_gpu: int = 1

    def take(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        order: torch.memory_format = torch.contiguous_format,
    ) -> Tensor | None:
        """Return an empty tensor on the device, in memory or in a file; None when it fits nowhere."""
        if order == torch.channels_last:
            features = self.take((shape[0], *shape[2:], shape[1]), dtype, device)
            return None if features is None else features.permute(0, 3, 1, 2)
        size = prod(shape) * dtype.itemsize
        for place in dict.fromkeys((device, torch.device("cpu"))):
            sharing = self.trials if place.type == "cpu" else self.trials_on_gpu
            if size <= _SHARE * machine.free_memory(place) / sharing:
                # zeroed at once, by all threads: page faults batch by batch take half as long again
                return machine.use_huge_pages(torch.empty(shape, dtype=dtype, device=place)).zero_()
        return self._map(shape, dtype, size)

    def _map(self, shape: tuple[int, ...], dtype: torch.dtype, size: int) -> Tensor | None:
        if self.folder is None or size > self.file_limit / self.trials:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)  # a full disk raises here, and crashes later
                else:
                    file.truncate(size)
            except OSError:
                return None
            mapped = np.memmap(file, np.uint8, "r+", shape=(size,))
        self.file_limit -= size * self.trials
        return torch.from_numpy(mapped).view(dtype).view(shape)


@dataclass(kw_only=True)
class Shelf:
    """One tensor for the training features of all members of a pack, so that a batch of all of them is one gather.

    Attributes:
        members: number of members; they take their parts in turn.
    """

    members: int
    _stacked: Tensor | None = None
    _taken: int = 0

    def take(
        self, room: Room, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return a member's part (N, ...) and the whole (S N, ...); None and None when the whole fits nowhere.

        Args:
            room: space of the member; its share of the memory is that of one of ``members``.
            shape: of a part.
            dtype: as of ``Room.take``.
            device: as of ``Room.take``.
        """
        if self._taken == 0:
            alone, on_gpu = (max(1, trials // self.members) for trials in (room.trials, room.trials_on_gpu))
            whole = replace(room, trials=alone, trials_on_gpu=on_gpu)
            self._stacked = whole.take((self.members * shape[0], *shape[1:]), dtype, device)
        self._taken += 1
        if self._stacked is None:
            return None, None
        return self._stacked[(self._taken - 1) * shape[0] : self._taken * shape[0]], self._stacked


class Watcher(Protocol):
    """Receives the progress of computing features."""

    def features(self, phase: Phase, images: int) -> None:
        """Called before the features of ``images`` images are computed for the phase."""

    def progress(self, images: int) -> None:
        """Called when the features of ``images`` more images are computed."""


def inputs(
    network: Network,
    phase: Phase,
    data: Images,
    config: RunConfig,
    room: Room | None,
    watcher: Watcher,
    shelf: Shelf | None = None,
) -> Images:
    """Return the splits as the lowest block of the phase receives them.

    Args:
        network: while the splits are read, its frozen blocks must stay unchanged and in evaluation mode.
        phase: phase that reads the features.
        data: images.
        config: config of the run.
        room: space for the features; None computes them for every batch.
        watcher: receives the progress.
        shelf: memory of the training features that the members of a pack share.
    """
    if phase.first == 0:
        return data
    frozen = Frozen(network, phase.first, phase.batch_size, getattr(torch, config.feature_dtype))
    kept = room if phase.keeps_features else None

    def behind(split: Split, tell: Callable[[int], None], shelf: Shelf | None = None) -> Split:
        streamed = replace(split, finish=Behind(frozen, split.finish))
        stored = None if kept is None else _keep(_versions(split, frozen), frozen, kept, tell, shelf)
        return streamed if stored is None else stored

    # a run with validation images reads the test images once, at its end
    early = [data.train, data.test if data.val is None else data.val]
    if kept is not None:
        watcher.features(phase, sum(len(split) for whole in early for split in _versions(whole, frozen)))
    first, second = behind(early[0], watcher.progress, shelf), behind(early[1], watcher.progress)
    return Images(
        train=first,
        val=None if data.val is None else second,
        read_test=lambda: second if data.val is None else behind(data.test, lambda _: None),
        sha256=data.sha256,
        contents=data.contents,
    )


@dataclass(frozen=True)
class Frozen:
    """The blocks below ``first``: images -> features, rounded to ``dtype``."""

    network: Network
    first: int
    chunk: int
    dtype: torch.dtype

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W) or (N, M)."""
        pieces = [self._features(piece) for piece in x.split(self.chunk)]
        features = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return self.rounded(features).contiguous(memory_format=self.order)

    def _features(self, piece: Tensor) -> Tensor:
        features: Tensor = self.network(self.filled(piece), stop=self.first)
        return features[: len(piece)]

    def filled(self, x: Tensor, dim: int = 0) -> Tensor:
        """Pad images along ``dim`` to a whole chunk, in one piece of memory whether or not any were missing."""
        missing = self.chunk - x.shape[dim]
        if not missing:
            return x.contiguous()  # a zoomed image is a part of a larger one
        return torch.cat([x, x.new_zeros(*x.shape[:dim], missing, *x.shape[dim + 1 :])], dim=dim)

    def rounded(self, features: Tensor) -> Tensor:
        """Round features to the number type in which they are kept."""
        return features.to(self.dtype).to(torch.float32)

    @property
    def order(self) -> torch.memory_format:
        """The memory order that the block above reads fastest."""
        layer = self.network[self.first].layer
        channels_last = isinstance(layer, ConvHebbLayer | Conv2d) and layer.channels_last
        return torch.channels_last if channels_last else torch.contiguous_format


@dataclass(frozen=True)
class Behind:
    """The last step of a batch that is read behind frozen blocks: that of the images, then the blocks."""

    frozen: Frozen
    finish: Finish | None

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W) or (B, M)."""
        return self.frozen(x if self.finish is None else self.finish(x))


def _versions(split: Split, frozen: Frozen) -> list[Split]:
    """Return what a training epoch may read of a split behind the frozen blocks; nothing where it is new each time."""
    finishes = [split.finish, Mirrored(split.finish)][: split.versions]
    return [replace(split, augment=None, finish=Behind(frozen, finish)) for finish in finishes]


@dataclass(frozen=True)
class Mirrored:
    """The last step of a batch of mirror images."""

    finish: Finish | None

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x.flip(-1) if self.finish is None else self.finish(x.flip(-1))


def _keep(
    versions: Sequence[Split], frozen: Frozen, room: Room, tell: Callable[[int], None], shelf: Shelf | None
) -> Split | None:
    """Compute and keep the features of a split; None when there is no room.

    Args:
        versions: the split, and where a training epoch varies it, the other versions of its images.
        frozen: the blocks below.
        room: space for the features.
        tell: called with the number of images of each batch.
        shelf: memory that the members of a pack share; only images of one version lie there.
    """
    kept: Tensor | None = None
    stacked: Tensor | None = None
    done = 0
    for x, _ in itertools.chain.from_iterable(split.batches(frozen.chunk) for split in versions):
        if kept is None:
            place = (sum(map(len, versions)), *x.shape[1:]), frozen.dtype, x.device
            # torch.vmap knows one order of the dimensions, so a shelf does too
            if shelf is None or len(versions) > 1:
                kept = room.take(*place, frozen.order)
            else:
                kept, stacked = shelf.take(room, *place)
            if kept is None:
                return None
        kept[done : done + len(x)] = x
        done += len(x)
        tell(len(x))
    if kept is None:
        return None
    return Split(kept, versions[0].labels, stacked=stacked, mirrored=len(versions) > 1)
