"""How numba compiles the loops of this folder, and how torch's threads share them.

Only the modules of this folder import this one, and late: numba takes a third of a second to import, and compiling a
loop takes a second or two the first time on a machine (then it is cached in a file).

A loop is ordinary compiled code of one thread, which takes its first item and the item after its last. Several threads
share one in three ways. ``own_threads.run`` gives them parts as they come. ``own_threads.together`` calls a loop on
each, which takes parts by ``add`` and need not return to Python between two batches. A ``SharedLoop`` gives torch's
threads their shares of the rows; numba would add a second pool of OpenMP's threads. What a loop computes does not
depend on who does a part; a sum over rows does on the number of threads that share them.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from llvmlite import binding
from numba import types
from numba.extending import intrinsic

from hebb.kernels import private_torch, team

REORDERS = frozenset({"contract", "reassoc", "nsz"})
"""Sums may take any order; infinities and NaN keep their meaning."""

_PREFERS_256 = "prefer-256-bit"  # a feature of LLVM

_OPTIONS: dict[str, Any] = {"boundscheck": False, "error_model": "numpy"}

Loop = TypeVar("Loop", bound=Callable[..., object])


def _use_widest_vectors() -> None:
    """Let numba compile for vectors of 512 bits where they cost no clock.

    LLVM prefers 256 bits on Intel's processors, since the first ones with 512 slowed down for them. Those that also
    compute in float16 do not, and a classifier's epoch takes a tenth less. A user's own choice for numba stands.
    """
    chosen: Any = numba.config
    if chosen.CPU_FEATURES is not None or chosen.CPU_NAME is not None or not chosen.ENABLE_AVX:
        return
    features = binding.get_host_cpu_features()
    if features.get("avx512fp16"):
        features[_PREFERS_256] = False
        chosen.CPU_FEATURES = features.flatten()


_use_widest_vectors()


def _cached(make: Callable[[bool], Any]) -> Any:
    """Return what ``make`` compiles, kept in a file if it can be."""
    try:
        return make(True)
    except RuntimeError:  # no folder is writable
        return make(False)


def compiled(*, fastmath: frozenset[str] = frozenset({"contract"}), inline: bool = False) -> Callable[[Loop], Loop]:
    """Compile a loop; the result is cached beside its file or in the user's cache folder, if either is writable.

    A function with a loop that several others call, or Python too, is compiled ``inline``, as part of each caller. A
    process could otherwise have two copies of it under one name, that of its own file and that in the caller's, whose
    sums differ in the last digit; which of them a caller got would depend on what the process loaded first.
    """

    def compile_loop(loop: Loop) -> Loop:
        options = _OPTIONS | {"nogil": True, "inline": "always" if inline else "never", "fastmath": set(fastmath)}
        function: Loop = _cached(lambda cache: numba.njit(cache=cache, **options)(loop))
        return function

    return compile_loop


def _typed_add(typing_context: Any, numbers: Any, place: Any, number: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, *values = arguments
        target = builder.gep(context.make_array(signature.args[0])(context, builder, array).data, values[:1])
        return builder.atomic_rmw("add", target, values[1], "seq_cst")

    return types.int64(numbers, types.int64, types.int64), generate


add: Any = intrinsic(_typed_add)
"""``add(numbers, place, number)`` adds to one of the int64 that threads share, and returns what it was before."""

if hasattr(os, "sched_yield"):
    give_way: Any = types.ExternalFunction("sched_yield", types.int32())
    """Lets another process have the core, if one waits for it."""
else:

    @compiled(inline=True)
    def give_way() -> None:
        """Do nothing, where the system has no such call."""


@dataclass(frozen=True)
class LoopTask:
    """What a shared loop is to do.

    Attributes:
        record: the numbers, which may differ from run to run, and the addresses of the matrices.
        values: the matrices, so that they live as long.
    """

    record: np.ndarray
    values: list[object]

    @functools.cached_property
    def address(self) -> int:
        """Where the record lies."""
        return self.record.ctypes.data


class SharedLoop:
    """A loop over items, such as the rows of matrices, that torch's threads share.

    Args:
        loop: is called by each thread with the address of a record, and does its share of the items. The record has the
            ``rows`` and ``columns`` of the first matrix, the addresses of all, and numbers.
        matrices: names of the matrices.
        numbers: names and types of the numbers.
    """

    def __init__(self, loop: Callable[[Any], None], *matrices: str, **numbers: np.dtype | type[np.generic]) -> None:
        self._loop, self._matrices = loop, matrices
        addresses = dict.fromkeys(("rows", "columns", *matrices), np.intp)
        self._record = np.dtype([*addresses.items(), *numbers.items()], align=True)

    @functools.cached_property
    def _address(self) -> int:
        functions = team.functions() | private_torch.mkl()
        for name, address in functions.items():  # compiled code, also in a file, refers to them by name
            binding.add_symbol(name, address)
        pointer: Any = types.CPointer
        signature = types.void(pointer(numba.from_dtype(self._record)))
        options = _OPTIONS | {"fastmath": set(REORDERS)}
        return int(_cached(lambda cache: numba.cfunc(signature, cache=cache, **options)(self._loop)).address)

    def __call__(self, **values: torch.Tensor | float | Sequence[int]) -> None:
        """Run the loop on matrices, which are contiguous, and numbers."""
        self.run(self.task(**values))

    def task(self, **values: torch.Tensor | float | Sequence[int]) -> LoopTask:
        """Return what the loop is to do with these matrices and numbers, for many runs."""
        record, first = np.zeros(1, self._record), values[self._matrices[0]]
        assert isinstance(first, torch.Tensor)
        values |= {"rows": first.shape[0], "columns": first.shape[1]}
        assert values.keys() == set(self._record.names or ())
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                assert value.is_contiguous()
                value = value.data_ptr()
            record[name] = value
        return LoopTask(record, list(values.values()))

    def run(self, task: LoopTask, *, alone: bool = False) -> None:
        """Run the loop, ``alone`` on the calling thread."""
        team.run(self._address, task.address, alone=alone)
