"""Compiled loops on the threads of torch's own pool.

torch shares out the rows of a tensor evenly, so that a thread finds the rows it works on in the cache of its core. A
loop on the same threads, with the same shares, finds them there too; threads of another pool would have to fetch half
of them from the other core (the competition of 10 images of the first layer of 4SoftHebbCnnCIFAR takes 0.34 ms here
and 0.52 ms there). OpenMP, whose threads they are, is called as compiled C calls it: Python takes no part in a share.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import torch

from hebb.kernels import private_torch

THREAD_NUMBER, THREADS = "omp_get_thread_num", "omp_get_num_threads"
"""OpenMP's functions that tell a loop its share."""

_ANSWER = ctypes.CFUNCTYPE(ctypes.c_int)
_ALONE = {THREAD_NUMBER: _ANSWER(lambda: 0), THREADS: _ANSWER(lambda: 1)}
_LOOP = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_PARALLEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)


@functools.cache
def _parallel() -> Callable[[int, int, int, int], None] | None:
    """Return what calls a loop on torch's threads; None where another library than OpenMP has them."""
    names = ("GOMP_parallel", *_ALONE, "omp_get_max_threads")
    entries = [private_torch.openmp(name) for name in names]
    if None in entries or "backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    threads, (parallel, *_, most) = torch.get_num_threads(), entries
    if most() != threads:  # torch's threads are those of another copy of OpenMP, loaded before its own
        return None
    return ctypes.cast(parallel, _PARALLEL)


def functions() -> dict[str, int]:
    """Return the addresses of the two functions by name; without OpenMP they tell of one thread."""
    either = {name: private_torch.openmp(name) or alone for name, alone in _ALONE.items()}
    return {name: private_torch.address(function) for name, function in either.items()}


def threads() -> int:
    """Return the number of threads that a loop has: those of torch, or the calling one."""
    return torch.get_num_threads() if _parallel() is not None else 1


def run(loop: int, task: int, *, alone: bool = False) -> None:
    """Call a compiled loop on each of torch's threads, with its task; wait for all.

    Args:
        loop: address of a function of C that takes an address and returns nothing.
        task: address of what the loop is to do.
        alone: call it on this thread only.
    """
    parallel = None if alone else _parallel()
    if parallel is None:
        _LOOP(loop)(task)
    else:
        parallel(loop, task, torch.get_num_threads(), 0)
