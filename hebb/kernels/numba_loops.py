"""The loops of ``hebb.kernels``, compiled by numba, and the threads that run them.

Only the modules of this folder import this one, and late: numba takes a third of a second to import, and compiling a
loop takes a second or two the first time on a machine (then it is cached in a file).

A loop is ordinary compiled code of one thread, which takes its first item and the item after its last. The threads
are Python's own, which sleep while they have nothing to do; OpenMP's spin first, and numba would add a second pool of
them to torch's. They take the parts of a loop one after the other, so that a thread whose core is busy elsewhere does
fewer of them. What a loop computes does not depend on who does a part.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import binding

_MOST_PARTS = 16
"""Most parts of a loop for each thread. Parts get smaller, so that all threads end at about the same time."""

_LN2 = math.log(2)
_LOG_1, _LOG_3, _LOG_5, _LOG_7, _LOG_9 = (np.float32(2 / _LN2 / odd) for odd in (1, 3, 5, 7, 9))
_EXP_1, _EXP_2, _EXP_3, _EXP_4, _EXP_5, _EXP_6, _EXP_7 = (np.float32(_LN2**k / math.factorial(k)) for k in range(1, 8))
_ROOT_HALF = np.int32(0x3F3504F3)  # the bits of sqrt(1/2)
_MANTISSA = np.int32(23)  # bits of a float32 below its exponent
_BIAS = np.int32(127)  # of that exponent
_LEAST = np.float32(2.0**-126)
_HALF = np.float32(0.5)
_ONE = np.float32(1)
_NONE = np.float32(0)
_LOWEST, _LARGEST, _HIGHEST = np.float32(-127), np.float32(127), np.float32(128)  # exponents: of 0, finite, of infinity
_INFINITY = np.float32(math.inf)
_LOG2_E = np.float32(1 / _LN2)
_LEAST_WHOLE, _LARGEST_WHOLE = np.int32(-(2**31)), np.int32(2**31 - 1)
_SUM = 128
"""Numbers that are added in single precision before their sum joins one of double precision."""

REORDERS = frozenset({"contract", "reassoc", "nsz"})
"""Sums may take any order; infinities and NaN keep their meaning."""

_PREFERS_256 = "prefer-256-bit"  # a feature of LLVM

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


def compiled(*, fastmath: frozenset[str] = frozenset({"contract"})) -> Callable[[Loop], Loop]:
    """Compile a loop; the result is cached beside its file or in the user's cache folder, if either is writable."""

    def njit(loop: Loop, cache: bool) -> Loop:
        compiler = numba.njit(nogil=True, fastmath=set(fastmath), boundscheck=False, error_model="numpy", cache=cache)
        function: Loop = compiler(loop)  # type: ignore[assignment]
        return function

    def compile_loop(loop: Loop) -> Loop:
        try:
            return njit(loop, cache=True)
        except RuntimeError:  # no folder is writable
            return njit(loop, cache=False)

    return compile_loop


def run(
    loop: Callable[..., object],
    *arguments: object,
    items: int,
    threads: int,
    aside: Callable[[], None] | None = None,
) -> None:
    """Run ``loop(*arguments, first, stop)`` over parts of the ``items`` on ``threads`` threads; wait for all.

    ``aside`` is called meanwhile, by one of the threads that help.
    """
    if threads == 1 or items <= 1:
        loop(*arguments, 0, items)
        if aside is not None:
            aside()
        return
    parts = iter(_parts(items, threads))  # a step of this iterator is atomic
    last = next(parts)

    def work() -> None:
        for first, stop in parts:
            loop(*arguments, first, stop)

    def work_aside() -> None:
        if aside is not None:
            aside()
        work()

    helpers = [_helpers(threads - 1).submit(work if i else work_aside) for i in range(threads - 1)]
    try:
        work()
        loop(*arguments, *last)  # meanwhile the helpers end, and nobody has to wake this thread
        if helpers[0].cancel():
            work_aside()
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


@compiled()
def select(x: np.ndarray, drawn: np.ndarray, eights: np.ndarray, out: np.ndarray, first: int, stop: int) -> None:
    """Set out to x times factors, byte by byte of ``drawn``: each picks eight, stored in one number of ``eights``."""
    kept = np.empty(256, np.int64)  # factors of 2,048 numbers, in the innermost cache
    factors = kept.view(np.int8)
    for start in range(first, stop, 256):
        some = min(256, stop - start)
        for i in range(some):
            kept[i] = eights[drawn[start + i]]
        end = min(8 * (start + some), x.size)
        source, target = x[8 * start : end], out[8 * start : end]
        for i in range(end - 8 * start):
            target[i] = source[i] * np.float32(factors[i])


@compiled()
def _power_of_two(y: np.float32) -> np.float32:
    """Return 2^y for -127 <= y <= 128, by the series of 2^r with |r| <= 1/2; 0 for -127, and NaN for NaN."""
    whole = min(np.floor(y + _HALF), _LARGEST)
    r = y - whole
    scale = np.int32((np.int32(whole) + _BIAS) << _MANTISSA).view(np.float32)
    series = _EXP_3 + r * (_EXP_4 + r * (_EXP_5 + r * (_EXP_6 + r * _EXP_7)))
    result: np.float32 = scale * (_ONE + r * (_EXP_1 + r * (_EXP_2 + r * series)))
    return result


@compiled()
def power(u: np.ndarray, exponent: np.float32, out: np.ndarray, first: int, stop: int) -> None:
    """Set out to relu(u)^exponent, by 2^(exponent log2 u)."""
    # u = 2^e m with m in [sqrt(1/2), sqrt(2)); log2 m = 2/ln2 atanh s, s = (m - 1)/(m + 1); 2^r by its series
    source, target = u[first:stop], out[first:stop]
    for i in range(stop - first):
        v = source[i]
        bits = np.float32(v).view(np.int32)
        e = np.int32(np.int32(bits - _ROOT_HALF) >> _MANTISSA)
        m = np.int32(bits - (e << _MANTISSA)).view(np.float32)
        s = (m - _ONE) / (m + _ONE)
        q = s * s
        log = np.float32(e) + s * (_LOG_1 + q * (_LOG_3 + q * (_LOG_5 + q * (_LOG_7 + q * _LOG_9))))
        y = min(max(exponent * log, _LOWEST), _HIGHEST)
        result = _power_of_two(y)
        result = result if v < _INFINITY and y < _HIGHEST else _INFINITY
        result = result if v >= _LEAST else _NONE  # last, because the log of a negative number is arbitrary
        target[i] = result if v == v else v


@compiled(fastmath=REORDERS)
def softmax(u: np.ndarray, beta: np.float32, signed: bool, out: np.ndarray, first: int, stop: int) -> None:
    """Set out to the softmax of beta u, row by row; if signed, with the other sign where u is not the largest."""
    for row in range(first, stop):
        source, target = u[row], out[row]
        top = _largest(source)
        scale = _ONE / _exponentials(source, top, beta * _LOG2_E, target)
        for i in range(source.size):
            y = target[i] * scale
            target[i] = -y if signed and source[i] < top else y


@compiled(fastmath=REORDERS)
def _largest(row: np.ndarray) -> np.float32:
    """Return the largest number of a row, as the largest whole number of the same bits; an unsigned NaN is larger."""
    top = _LEAST_WHOLE
    for i in range(row.size):
        bits = np.float32(row[i]).view(np.int32)
        top = max(top, np.int32(bits ^ ((bits >> np.int32(31)) & _LARGEST_WHOLE)))
    return np.int32(top ^ ((top >> np.int32(31)) & _LARGEST_WHOLE)).view(np.float32)


@compiled(fastmath=REORDERS)
def _exponentials(source: np.ndarray, top: np.float32, factor: np.float32, target: np.ndarray) -> np.float32:
    """Set target to 2^(factor (source - top)), and return the sum."""
    total = _NONE
    for i in range(source.size):
        value = _power_of_two(max((source[i] - top) * factor, _LOWEST))
        target[i] = value
        total += value
    return total


@compiled(fastmath=REORDERS)
def positive_sums(rows: np.ndarray, out: np.ndarray, first: int, stop: int) -> None:
    """Add the positive numbers of each column (float32) to out (float64)."""
    some = np.empty(out.size, np.float32)
    for start in range(first, stop, _SUM):
        some[:] = _NONE
        for row in range(start, min(stop, start + _SUM)):
            source = rows[row]
            for i in range(out.size):
                some[i] += _NONE if source[i] < _NONE else source[i]  # a NaN is kept
        for i in range(out.size):
            out[i] += some[i]


@compiled()
def _sigmoid(y: np.float32) -> np.float32:
    """Return 1/(1 + exp(-y)); NaN for NaN."""
    share: np.float32 = _ONE / (_ONE + _power_of_two(min(max(-_LOG2_E * y, _LOWEST), _LARGEST)))
    return share if y == y else y


@compiled()
def step_states(
    z: np.ndarray,
    drive: np.ndarray,
    e: np.ndarray,
    slope: np.ndarray,
    f: np.ndarray,
    sigmoid: bool,
    size: np.float32,
    first: int,
    stop: int,
) -> None:
    """Move z by size (f' slope - e), set f to the sigmoid or the relu of z, and e to z - drive.

    The last columns of z, which f does not have, stay as they are.
    """
    for row in range(first, stop):
        state, still, error, push, rate = z[row], drive[row], e[row], slope[row], f[row]
        for i in range(rate.size):
            r = rate[i]
            force = push[i] * (r - r * r) if sigmoid else (push[i] if r > _NONE else _NONE)
            y = state[i] + size * (force - error[i])
            state[i], error[i] = y, y - still[i]
            rate[i] = _sigmoid(y) if sigmoid else (_NONE if y < _NONE else y)  # a NaN is kept
        for i in range(rate.size, state.size):
            error[i] = state[i] - still[i]
