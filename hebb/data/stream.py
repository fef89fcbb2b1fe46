"""Images that do not fit into memory: decoded by worker processes while the device computes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.context import BaseContext

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hebb.core.errors import HebbError
from hebb.data.stores import Files


class Stream:
    """Image files in any order; the bits do not depend on the number of workers.

    The first read starts the workers, which live as long as the stream.
    """

    def __init__(self, files: Files, workers: int, *, pin: bool = False) -> None:
        self.files = files
        self._plan = _Plan(len(files))
        self._loader: DataLoader[Tensor | HebbError] = DataLoader(
            _Items(files),
            batch_sampler=self._plan,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=_stack,
            pin_memory=pin,
            generator=torch.Generator(),  # it draws a seed for each worker: not from torch's global generator
            multiprocessing_context=_context() if workers else None,
        )

    def __len__(self) -> int:
        return len(self.files)

    def read(self, batch_size: int, order: Tensor | None = None) -> Iterator[Tensor]:
        """Yield uint8 batches (B, C, H, W) on the CPU: the images at ``order`` (n,), or all as stored."""
        self._plan.batches = (torch.arange(len(self)) if order is None else order.cpu()).split(batch_size)
        for batch in self._loader:
            if isinstance(batch, HebbError):
                raise batch
            yield batch


class _Plan:
    """The batches of the next pass: lists of places."""

    def __init__(self, count: int) -> None:
        self.batches: tuple[Tensor, ...] = (torch.arange(count),)

    def __iter__(self) -> Iterator[list[int]]:
        return (batch.tolist() for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Items(Dataset[Tensor | HebbError]):
    """What a worker decodes. It returns an error; a raised one would arrive as a page of traceback."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def __getitem__(self, i: int) -> Tensor | HebbError:
        try:
            return self._files[i]
        except HebbError as error:
            return error


def _stack(items: list[Tensor | HebbError]) -> Tensor | HebbError:
    images = []
    for item in items:
        if isinstance(item, HebbError):
            return item
        images.append(item)
    return torch.stack(images)


def workers() -> int:
    """Return the number of worker processes of this run: one per thread, at most one per core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(torch.get_num_threads(), cores)


def _context() -> BaseContext:
    """Start workers from a clean process: a fork of this one, with its threads and its GPU, can hang."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, not once by each worker
    return context
