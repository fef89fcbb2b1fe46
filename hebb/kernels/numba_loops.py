"""The loops of this folder but those of the classifier (``linear_readout``), compiled by numba.

They stand in one file, with the functions that they call: numba compiles a loop anew when its file has changed, and
does not look at others.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hebb.kernels import private_torch, team
from hebb.kernels.compiling import REORDERS, SharedLoop, compiled

_LN2 = math.log(2)
_LOG_1, _LOG_3, _LOG_5, _LOG_7, _LOG_9 = (np.float32(2 / _LN2 / odd) for odd in (1, 3, 5, 7, 9))
# 2^r = 1 + r (a + r (b + ...)): the polynomial of its degree whose largest relative error for |r| <= 1/2 is the least
_TWO_TO_1, _TWO_TO_2, _TWO_TO_3 = np.float32(0.6931472029), np.float32(0.2402264791), np.float32(0.05550332471)
_TWO_TO_4, _TWO_TO_5, _TWO_TO_6 = np.float32(0.009618437358), np.float32(0.001339887445), np.float32(0.00015353362)
_ROUND = np.float32(3 << 22)  # float32 numbers near it are whole, one for each step of their bits
_ROOT_HALF = np.int32(0x3F3504F3)  # the bits of sqrt(1/2)
_MANTISSA = np.int32(23)  # bits of a float32 below its exponent
_BIAS = np.int32(127)  # of that exponent
_LEAST = np.float32(2.0**-126)
_ONE = np.float32(1)
_NONE = np.float32(0)
_LOWEST, _LARGEST, _HIGHEST = np.float32(-127), np.float32(127), np.float32(128)  # exponents: of 0, finite, of infinity
_INFINITY = np.float32(math.inf)
_LOG2_E = np.float32(1 / _LN2)
_LEAST_WHOLE, _LARGEST_WHOLE = np.int32(-(2**31)), np.int32(2**31 - 1)
_BLOCK = 96
"""Numbers of a row that a loop takes at once: as their count is known, none of them is left over for slower code.

Fewer than about 48 are unrolled before they could become vectors; rows of 96 take half the time, others gain as well.
"""
_CHANNELS = 192
"""Channels that are transformed at once: sixteen rows of them stay in the innermost cache."""
_SUM = 128
"""Numbers that are added in single precision before their sum joins one of double precision."""
_WORD = 4
"""Bytes of a float32, and of an int32."""
_COPIED = 64
"""Bytes that are copied at once: a count that the compiler knows becomes one move of a vector."""


_carray: Any = numba.carray  # type: ignore[attr-defined]
_thread_number: Any = types.ExternalFunction(team.THREAD_NUMBER, types.int32())
_threads: Any = types.ExternalFunction(team.THREADS, types.int32())
_set_mkl_threads: Any = types.ExternalFunction(private_torch.MKL_THREADS, types.int32(types.int32))
_multiply: Any = types.ExternalFunction(private_torch.MKL_PRODUCT, types.void(*[types.voidptr] * 13))
_copy: Any = types.ExternalFunction("memcpy", types.voidptr(types.voidptr, types.voidptr, types.intp))


@compiled(inline=True)
def _share(rows: int) -> tuple[int, int]:
    """Return first and stop of those of the rows which torch gives to the calling thread."""
    number, threads = _thread_number(), _threads()
    some = (rows + threads - 1) // threads
    return min(rows, number * some), min(rows, (number + 1) * some)


def _typed_pointer(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


_pointer: Any = intrinsic(_typed_pointer)
"""Makes a pointer of an address."""


@compiled(inline=True)
def _matrix(address: int, rows: int, columns: int) -> np.ndarray:
    """Return the float32 numbers at an address, row by row."""
    numbers: np.ndarray = _carray(_pointer(address), (rows, columns), np.float32)
    return numbers


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
    """Return 2^y for -127 <= y <= 128; 0 for -127, and NaN for NaN.

    It is the power of the nearest whole number, at most 127, times 2^r by a polynomial with a relative error of 2e-8
    for |r| <= 1/2, and of 6e-6 next to 128. Rounding adds less than 1e-7.
    """
    whole = min(y + _ROUND, _ROUND + _LARGEST)
    r = y - (whole - _ROUND)
    scale = np.int32((np.float32(whole).view(np.int32) + _BIAS) << _MANTISSA).view(np.float32)
    rest = _TWO_TO_3 + r * (_TWO_TO_4 + r * (_TWO_TO_5 + r * _TWO_TO_6))
    result: np.float32 = scale * (_ONE + r * (_TWO_TO_1 + r * (_TWO_TO_2 + r * rest)))
    return result


@compiled()
def power(u: np.ndarray, exponent: np.float32, out: np.ndarray, first: int, stop: int) -> None:
    """Set out to relu(u)^exponent, by 2^(exponent log2 u)."""
    # u = 2^e m with m in [sqrt(1/2), sqrt(2)); log2 m = 2/ln2 atanh s, s = (m - 1)/(m + 1)
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


@compiled(fastmath=REORDERS, inline=True)
def softmax(
    u: np.ndarray, beta: np.float32, signed: bool, out: np.ndarray, sums: np.ndarray, first: int, stop: int
) -> None:
    """Set out to the softmax of beta u, row by row; if signed, with the other sign where u is not the largest.

    The positive numbers of each column of out (float32) are added to sums (float64) as ``positive_sums`` adds them.
    """
    factor, whole = beta * _LOG2_E, u.shape[1] // _BLOCK * _BLOCK
    positive = np.empty(sums.size, np.float32)
    for start_row in range(first, stop, _SUM):
        positive[:] = _NONE
        for row in range(start_row, min(stop, start_row + _SUM)):
            source, target = u[row], out[row]
            rest, end, end_sums = source[whole:], target[whole:], positive[whole:]
            order = _LEAST_WHOLE
            for start in range(0, whole, _BLOCK):
                some = source[start : start + _BLOCK]
                for i in range(_BLOCK):
                    order = max(order, np.float32(some[i]).view(np.int32))
            for i in range(rest.size):
                order = max(order, np.float32(rest[i]).view(np.int32))
            if order < 0:  # all are negative, and the largest has the least bits
                for i in range(source.size):
                    order = min(order, np.float32(source[i]).view(np.int32))
            top = np.int32(order).view(np.float32)
            total = _NONE
            for start in range(0, whole, _BLOCK):
                some, shares = source[start : start + _BLOCK], target[start : start + _BLOCK]
                for i in range(_BLOCK):
                    value = _power_of_two(max((some[i] - top) * factor, _LOWEST))
                    shares[i] = value
                    total += value
            for i in range(rest.size):
                value = _power_of_two(max((rest[i] - top) * factor, _LOWEST))
                end[i] = value
                total += value
            scale = _ONE / total
            for start in range(0, whole, _BLOCK):
                some, shares = source[start : start + _BLOCK], target[start : start + _BLOCK]
                added = positive[start : start + _BLOCK]
                for i in range(_BLOCK):
                    y = shares[i] * scale
                    y = -y if signed and some[i] < top else y
                    shares[i] = y
                    added[i] += _NONE if y < _NONE else y
            for i in range(rest.size):
                y = end[i] * scale
                y = -y if signed and rest[i] < top else y
                end[i] = y
                end_sums[i] += _NONE if y < _NONE else y
        for i in range(sums.size):
            sums[i] += positive[i]


def _share_softmax(task: Any) -> None:
    it = _carray(task, 1)[0]
    u, out = _matrix(it.u, it.rows, it.columns), _matrix(it.out, it.rows, it.columns)
    sums = _carray(_pointer(it.sums), (_threads(), it.columns), np.float64)
    first, stop = _share(it.rows)
    softmax(u, it.beta, it.signed, out, sums[_thread_number()], first, stop)


SOFTMAX = SharedLoop(_share_softmax, "u", "out", "sums", beta=np.float32, signed=np.bool_)


@compiled(fastmath=REORDERS, inline=True)
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


def _share_positive_sums(task: Any) -> None:
    it = _carray(task, 1)[0]
    sums = _carray(_pointer(it.out), (_threads(), it.columns), np.float64)
    first, stop = _share(it.rows)
    positive_sums(_matrix(it.y, it.rows, it.columns), sums[_thread_number()], first, stop)


POSITIVE_SUMS = SharedLoop(_share_positive_sums, "y", "out")


@compiled(inline=True)
def _copy_patches(it: Any, first: int, stop: int, target: int) -> None:
    """Copy what the pixels from first to stop see to an address, patch by patch.

    A line of a patch is copied with what follows it in the image; the lines after it overwrite that. The last one of a
    patch, after which the image may end, is copied alone.
    """
    size, step = _WORD * it.channels, _WORD * it.channels * it.stride
    line, below, place = it.side * size, it.in_columns * size, first
    while place < stop:
        row, column = divmod(place, it.out_columns)
        image, row = divmod(row, it.out_rows)
        some = min(it.out_columns - column, stop - place)
        corner = it.x + (image * it.in_rows + row * it.stride) * below + column * step
        for _ in range(some):
            source = corner
            for _ in range(it.side - 1):
                for i in range(0, line, _COPIED):
                    _copy(_pointer(target + i), _pointer(source + i), _COPIED)
                source += below
                target += line
            _copy(_pointer(target), _pointer(source), line)
            target += line
            corner += step
        place += some


def _share_compete(task: Any) -> None:
    it = _carray(task, 1)[0]
    neurons, inputs, number = it.rows, it.columns, _thread_number()
    sums = _carray(_pointer(it.sums), (_threads(), neurons), np.float64)[number]
    change = _pointer(it.changes + _WORD * number * neurons * inputs)
    patches = it.scratch + _WORD * number * it.block * (inputs + 2 * neurons)
    own_u = patches + _WORD * it.block * inputs  # what is copied behind the last patch lies here until u does
    y = own_u + _WORD * it.block * neurons
    # MKL, like Fortran, takes everything by its address, and matrices column by column: as their transposes. The memory
    # is the caller's, since numba frees an array of which nothing but the address is still in use.
    row = it.sizes + _WORD * number * 3
    sizes = _carray(_pointer(row), 3, np.int32)
    n, k, m = _pointer(row), _pointer(row + _WORD), _pointer(row + 2 * _WORD)  # neurons, inputs, pixels
    zero, one = _pointer(it.factors), _pointer(it.factors + _WORD)
    plain, turned = _pointer(it.letters), _pointer(it.letters + 1)
    before = _set_mkl_threads(np.int32(1))  # a share is one thread's
    first, stop = _share(it.pixels)
    for start in range(first, stop, it.block):
        some = min(it.block, stop - start)
        sizes[2] = some
        u = own_u if it.u == 0 else it.u + _WORD * start * neurons
        _copy_patches(it, start, start + some, patches)
        # u = patches weight^T, and the change gains y^T patches
        _multiply(turned, plain, n, m, k, one, _pointer(it.weight), k, _pointer(patches), k, zero, _pointer(u), n)
        softmax(_matrix(u, some, neurons), it.beta, it.signed, _matrix(y, some, neurons), sums, 0, some)
        _multiply(plain, turned, k, n, m, one, _pointer(patches), k, _pointer(y), n, one, change, k)
    _set_mkl_threads(before)


COMPETE = SharedLoop(
    _share_compete,
    "weight",
    "sums",
    "changes",
    "scratch",
    "sizes",
    "factors",
    "letters",
    **dict.fromkeys(("x", "u", "pixels", "in_rows", "in_columns", "out_rows", "out_columns"), np.intp),
    **dict.fromkeys(("channels", "side", "stride", "block"), np.intp),
    beta=np.float32,
    signed=np.bool_,
)
"""Lets the neurons of a convolution compete for each pixel, by the softmax of beta u, in blocks of pixels.

Each thread adds y x to its row of ``changes``, and the positive numbers of y to its row of ``sums``; u is the address
of the answers, or 0 if nobody reads them. ``scratch`` and ``sizes`` (int32: neurons, inputs, and a place for the pixels
of a block) have a row for each thread, too; ``factors`` are 0 and 1, ``letters`` N and T (uint8).
"""


@compiled(fastmath=REORDERS, inline=True)
def decay(
    change: np.ndarray,
    weight: np.ndarray,
    factors: np.ndarray,
    given: bool,
    peaks: np.ndarray,
    squares: np.ndarray,
    first: int,
    stop: int,
) -> None:
    """Subtract factors weight from change, row by row; note its largest magnitude and the sum of the squared weights.

    Factors that are not given are the products of the rows of change and weight.
    """
    for row in range(first, stop):
        steps, weights = change[row], weight[row]
        factor = factors[row, 0] if given else _product(steps, weights)
        order, total = np.int32(0), _NONE
        for i in range(steps.size):
            w = weights[i]
            step = steps[i] - factor * w
            steps[i] = step
            total += w * w
            order = max(order, np.int32(np.float32(step).view(np.int32) & _LARGEST_WHOLE))  # NaN has the largest bits
        peaks[row, 0], squares[row, 0] = np.int32(order).view(np.float32), total


@compiled(fastmath=REORDERS, inline=True)
def _product(a: np.ndarray, b: np.ndarray) -> np.float32:
    """Return the sum of a b."""
    total = _NONE
    for i in range(a.size):
        total += a[i] * b[i]
    return total


def _share_decay(task: Any) -> None:
    it = _carray(task, 1)[0]
    change, weight = _matrix(it.change, it.rows, it.columns), _matrix(it.weight, it.rows, it.columns)
    factors, peaks = _matrix(it.factors, it.rows, 1), _matrix(it.peaks, it.rows, 1)
    squares = _matrix(it.squares, it.rows, 1)
    first, stop = _share(it.rows)
    decay(change, weight, factors, it.given, peaks, squares, first, stop)


DECAY = SharedLoop(_share_decay, "change", "weight", "factors", "peaks", "squares", given=np.bool_)


@compiled(fastmath=REORDERS, inline=True)
def _add_four(numbers: np.ndarray, places: np.ndarray, factors: np.ndarray, out: np.ndarray) -> None:
    """Set out to the sum of four stretches of numbers times a factor each."""
    of_a, of_b, of_c, of_d = factors[0], factors[1], factors[2], factors[3]
    a, b = numbers[places[0] : places[0] + out.size], numbers[places[1] : places[1] + out.size]
    c, d = numbers[places[2] : places[2] + out.size], numbers[places[3] : places[3] + out.size]
    for i in range(out.size):
        out[i] = of_a * a[i] + of_b * b[i] + of_c * c[i] + of_d * d[i]


def _share_sandwiches(task: Any) -> None:
    it = _carray(task, 1)[0]
    images, rows, columns, outputs, inputs, channels = it.sizes
    source = _carray(_pointer(it.source), it.source_size, np.float32)
    target = _carray(_pointer(it.target), it.target_size, np.float32)
    factors, last = _matrix(it.factors, 4, 4), inputs - 1  # zeros follow in each row of factors
    half, places = np.empty(16 * _CHANNELS, np.float32), np.empty(4, np.intp)
    first, stop = _share(images * rows * columns)
    for item in range(first, stop):
        row, column = divmod(item, columns)
        image, row = divmod(row, rows)
        start = image * it.source_strides[0] + row * it.source_strides[1] + column * it.source_strides[2]
        end = image * it.target_strides[0] + row * it.target_strides[1] + column * it.target_strides[2]
        for channel in range(0, channels, _CHANNELS):
            some = min(_CHANNELS, channels - channel)
            for j in range(inputs):
                for k in range(4):
                    places[k] = start + channel + min(k, last) * it.source_strides[3] + j * it.source_strides[4]
                for i in range(outputs):
                    place = (4 * i + j) * _CHANNELS
                    _add_four(source, places, factors[i], half[place : place + some])
            for i in range(outputs):
                for k in range(4):
                    places[k] = (4 * i + min(k, last)) * _CHANNELS
                for j in range(outputs):
                    place = end + channel + i * it.target_strides[3] + j * it.target_strides[4]
                    _add_four(half, places, factors[j], target[place : place + some])


_SIX = np.dtype((np.intp, 6))

SANDWICHES = SharedLoop(
    _share_sandwiches,
    "factors",
    sizes=_SIX,
    source=np.intp,
    source_size=np.intp,
    source_strides=_SIX,
    target=np.intp,
    target_size=np.intp,
    target_strides=_SIX,
)
"""Sets each square of target, (B, h, w, m, m, C), to L d L^T of a square d of source, (B, h, w, n, n, C).

L is (4, 4), of which m rows and n columns count; ``sizes`` are B, h, w, m, n and C.
"""


@compiled()
def _sigmoid(y: np.float32) -> np.float32:
    """Return 1/(1 + exp(-y)); NaN for NaN."""
    share: np.float32 = _ONE / (_ONE + _power_of_two(min(max(-_LOG2_E * y, _LOWEST), _LARGEST)))
    return share if y == y else y


@compiled(fastmath=REORDERS, inline=True)
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
        if sigmoid:
            for i in range(rate.size):
                r = rate[i]
                y = state[i] + size * (push[i] * (r - r * r) - error[i])
                state[i], error[i], rate[i] = y, y - still[i], _sigmoid(y)
        else:
            for i in range(rate.size):
                y = state[i] + size * ((push[i] if rate[i] > _NONE else _NONE) - error[i])
                state[i], error[i], rate[i] = y, y - still[i], _NONE if y < _NONE else y  # a NaN is kept
        for i in range(rate.size, state.size):
            error[i] = state[i] - still[i]


def _share_step_states(task: Any) -> None:
    it = _carray(task, 1)[0]
    z, drive = _matrix(it.z, it.rows, it.columns), _matrix(it.drive, it.rows, it.columns)
    error, slope = _matrix(it.error, it.rows, it.columns), _matrix(it.slope, it.rows, it.hidden)
    rates = _matrix(it.rates, it.rows, it.hidden)
    first, stop = _share(it.rows)
    step_states(z, drive, error, slope, rates, it.sigmoid, it.size, first, stop)


STEP_STATES = SharedLoop(
    _share_step_states, "z", "drive", "error", "slope", "rates", hidden=np.intp, sigmoid=np.bool_, size=np.float32
)
