"""Loops on threads of Python's own, which sleep while they have nothing to do; OpenMP's spin first.

They take the parts of a loop one after the other, so that a thread whose core is busy elsewhere does fewer of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

_MOST_PARTS = 16
"""Most parts of a loop for each thread. Parts get smaller, so that all threads end at about the same time."""


def run(loop: Callable[..., object], *arguments: object, items: int, threads: int) -> None:
    """Run ``loop(*arguments, first, stop)`` over parts of the ``items`` on ``threads`` threads; wait for all."""
    if threads == 1 or items <= 1:
        loop(*arguments, 0, items)
        return
    parts = iter(_parts(items, threads))  # a step of this iterator is atomic
    last = next(parts)

    def work(number: int) -> None:
        for first, stop in parts:
            loop(*arguments, first, stop)
        if number == 0:
            loop(*arguments, *last)  # meanwhile the helpers end, and nobody has to wake this thread

    together(work, threads=threads)


def together(work: Callable[[int], None], *, threads: int, aside: Callable[[], None] | None = None) -> None:
    """Call ``work`` on each of the threads with its number, this one's 0; wait for all.

    A helper that finds no time until number 0 has ended is not called any more; nor must any wait for another that may
    not come, or fail. ``aside`` is called meanwhile: by a helper before its work, or by this thread after its own.
    """

    def work_aside(number: int) -> None:
        if aside is not None:
            aside()
        work(number)

    helpers: list[Future[None]] = []
    try:
        helpers.extend(_helpers(threads - 1).submit(work if i > 1 else work_aside, i) for i in range(1, threads))
        work(0)
        if aside is not None and (not helpers or helpers[0].cancel()):
            aside()
    finally:  # an error does not leave helpers at work on the caller's arrays
        errors = [helper.exception() for helper in helpers if not helper.cancel()]
    for error in filter(None, errors):
        raise error


def _parts(items: int, threads: int) -> list[tuple[int, int]]:
    """Return first and stop of parts of the items, the last part before the others: each takes a share of the rest."""
    least, parts, first = -(-items // (threads * _MOST_PARTS)), [], 0
    while first < items:
        stop = min(items, first + max(least, (items - first) // threads))
        parts.append((first, stop))
        first = stop
    return [parts[-1], *parts[:-1]]


_SMALL = np.float32(1e-20)  # its square is subnormal, or 0
_pools: dict[tuple[int, bool], ThreadPoolExecutor] = {}


def _helpers(count: int) -> ThreadPoolExecutor:
    """Return ``count`` threads of this process, which make of subnormal numbers what the calling thread does."""
    key = (count, bool(_SMALL * _SMALL))
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(count, thread_name_prefix="hebb-loop")
    return _pools[key]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # a child has no threads but the one that forked
