"""The loops of ``hebb.kernels.loops``, compiled by numba.

Only that module imports this one, and late: numba takes a third of a second to import, and compiling a loop takes a
second or two the first time on a machine (then it is cached in a file).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import numba
import numpy as np

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

_ONE_AT_A_TIME = threading.Lock()
"""Without OpenMP numba uses threads of its own, which end the process when two loops run at once."""


def _compiled(loop: Callable[..., None]) -> Callable[..., None]:
    """Compile a loop; the result is cached beside this file or in the user's cache folder, if either is writable."""

    def compiled(cache: bool) -> Callable[..., None]:
        function: Callable[..., None] = numba.njit(
            cache=cache, parallel=True, fastmath={"contract"}, boundscheck=False
        )(loop)
        return function

    try:
        return compiled(cache=True)
    except RuntimeError:  # no folder is writable
        return compiled(cache=False)


def run(loop: Callable[..., None], *arguments: object, threads: int) -> None:
    """Run a loop on ``threads`` threads, or as many as numba has; the loop takes that number as its last argument."""
    threads = min(threads, numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    with _ONE_AT_A_TIME:
        numba.set_num_threads(threads)
        loop(*arguments, threads)


@_compiled
def select(x: np.ndarray, drawn: np.ndarray, eights: np.ndarray, out: np.ndarray, parts: int) -> None:
    """Set out to x times factors; each byte of ``drawn`` picks eight, stored in one number of ``eights``."""
    count = -(-x.size // 8)
    for part in numba.prange(parts):
        first, last = part * count // parts, (part + 1) * count // parts
        kept = np.empty(256, np.int64)  # factors of 2,048 numbers, in the innermost cache
        factors = kept.view(np.int8)
        for start in range(first, last, 256):
            some = min(256, last - start)
            for i in range(some):
                kept[i] = eights[drawn[start + i]]
            stop = min(8 * (start + some), x.size)
            source, target = x[8 * start : stop], out[8 * start : stop]
            for i in range(stop - 8 * start):
                target[i] = source[i] * np.float32(factors[i])


@_compiled
def power(u: np.ndarray, exponent: np.float32, out: np.ndarray, parts: int) -> None:
    """Set out to relu(u)^exponent, by 2^(exponent log2 u)."""
    # u = 2^e m with m in [sqrt(1/2), sqrt(2)); log2 m = 2/ln2 atanh s, s = (m - 1)/(m + 1); 2^r by its series
    for part in numba.prange(parts):
        first, last = part * u.size // parts, (part + 1) * u.size // parts
        source, target = u[first:last], out[first:last]
        for i in range(last - first):
            v = source[i]
            bits = np.float32(v).view(np.int32)
            e = np.int32(np.int32(bits - _ROOT_HALF) >> _MANTISSA)
            m = np.int32(bits - (e << _MANTISSA)).view(np.float32)
            s = (m - _ONE) / (m + _ONE)
            q = s * s
            log = np.float32(e) + s * (_LOG_1 + q * (_LOG_3 + q * (_LOG_5 + q * (_LOG_7 + q * _LOG_9))))
            y = min(max(exponent * log, _LOWEST), _HIGHEST)
            whole = min(np.floor(y + _HALF), _LARGEST)
            r = y - whole
            scale = np.int32((np.int32(whole) + _BIAS) << _MANTISSA).view(np.float32)
            series = _EXP_3 + r * (_EXP_4 + r * (_EXP_5 + r * (_EXP_6 + r * _EXP_7)))
            result = scale * (_ONE + r * (_EXP_1 + r * (_EXP_2 + r * series)))
            result = result if v < _INFINITY and y < _HIGHEST else _INFINITY
            result = result if v >= _LEAST else _NONE  # last, because the log of a negative number is arbitrary
            target[i] = result if v == v else v
