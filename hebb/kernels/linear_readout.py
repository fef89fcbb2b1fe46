"""Loops of a linear classifier that learns by Adam from features in memory.

A batch needs its rows gathered, dropout, two products and Adam. Each as an operation of its own moves the rows through
memory four times. Here a block of ``WIDTH`` features at a time goes through all of them while it is in the cache: the
gradient and Adam of one batch, then the rows, the dropout and the answers of the next, whose weights are now known.
Only the sum over the blocks and the loss stand between two batches.

Shapes: B images of a batch, R = B rounded up to a multiple of ``ROWS``, C classes, N images, M features, K blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hebb.kernels import own_threads
from hebb.kernels.compiling import REORDERS, compiled

WIDTH = 768
"""Features of a block: two rows of it and the weights of ten classes take 36 kB, about the innermost cache."""
_LINE = 16  # numbers in a line of the cache
STRIDE = WIDTH + _LINE
"""Numbers from one row of a block to the next; a power of two would put all rows in the same lines of the cache."""
ROWS = 8
"""Rows whose gradients are added at once."""

_BYTE = 8  # features that share a byte of random bits
_NONE = np.float32(0)
_LEAST = np.float32(2.0**-126)

# entries of ``adam``
STEP, ROOT, EPSILON, KEEP_MEAN, NEW_MEAN, KEEP_SQUARE, NEW_SQUARE, DECAY = range(8)


def on_threads(*arguments: np.ndarray, threads: int, aside: Callable[[], None]) -> None:
    """Call ``learn_and_answer`` with the arguments for all blocks, of which the last argument has one row each.

    ``aside`` is called meanwhile.
    """
    own_threads.run(learn_and_answer, *arguments, items=len(arguments[-1]), threads=threads, aside=aside)


@compiled(fastmath=REORDERS)
def learn_and_answer(
    weight: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    adam: np.ndarray,
    slopes: np.ndarray,
    rows: np.ndarray,
    features: np.ndarray,
    places: np.ndarray,
    drawn: np.ndarray,
    eights: np.ndarray,
    answers: np.ndarray,
    first: int,
    stop: int,
) -> None:
    """Learn from the batch in ``rows``, then replace it by the next batch and answer that.

    Args:
        weight: (C, M), changed in place.
        mean: (C, M) first moment of Adam, changed in place.
        square: (C, M) second moment, changed in place.
        adam: constants of this update; ``STEP``, ... name its entries. Empty: nothing is learnt.
        slopes: (R, C) gradient of the loss by the outputs, for the batch in ``rows``.
        rows: (K, R, STRIDE) features behind dropout, from the start of a cache line; rows from B on are zeroed.
        features: (N, M) of all images.
        places: (B,) rows of ``features``, the next batch; empty: there is none.
        drawn: uint8 (B M / 8,) random bits of its dropout; empty: nothing is dropped.
        eights: (256,) int64, for each byte of ``drawn`` the memory of eight int8 factors.
        answers: (K, R, C) part of each block in the outputs of the next batch, without the bias.
        first: first block.
        stop: the block after the last.
    """
    count = weight.shape[1]
    gradient = _aligned(weight.shape[0] * STRIDE).reshape(weight.shape[0], STRIDE)
    factors = np.empty(WIDTH // _BYTE, np.int64)
    for k in range(first, stop):
        low, high = k * WIDTH, min(count, (k + 1) * WIDTH)
        if adam.size:
            _sum_gradient(rows[k], slopes, gradient, high - low)
            for c in range(weight.shape[0]):
                own = gradient[c, : high - low]
                _adam(own, weight[c, low:high], mean[c, low:high], square[c, low:high], adam)
        for b in range(places.size):
            bits = drawn[(b * count + low) // _BYTE : (b * count + high) // _BYTE]
            _drop_out(features[places[b], low:high], bits, eights, factors, rows[k, b])
        if places.size:
            rows[k, places.size :] = _NONE
            _answer(rows[k], weight, low, high, answers[k])


@compiled()
def _aligned(size: int) -> np.ndarray:
    """Return float32 numbers, the first at the start of a cache line: vectors across two lines take twice the time."""
    numbers = np.empty(size + _LINE, np.float32)
    first = (-numbers.ctypes.data // 4) % _LINE
    return numbers[first : first + size]


@compiled(fastmath=REORDERS)
def _drop_out(
    source: np.ndarray, bits: np.ndarray, eights: np.ndarray, factors: np.ndarray, target: np.ndarray
) -> None:
    """Set target to the source times the factors that ``bits`` pick, or to the source where there are no bits."""
    if not bits.size:
        for i in range(source.size):
            target[i] = source[i]
        return
    for i in range(bits.size):
        factors[i] = eights[bits[i]]
    single = factors.view(np.int8)
    for i in range(source.size):
        target[i] = source[i] * np.float32(single[i])


@compiled(fastmath=REORDERS)
def _answer(rows: np.ndarray, weight: np.ndarray, low: int, high: int, answers: np.ndarray) -> None:
    """Set answers (R, C) to the products of the rows with the weights; two rows and five classes fill the registers."""
    classes = weight.shape[0]
    for b in range(0, rows.shape[0], 2):
        x, y = rows[b, : high - low], rows[b + 1, : high - low]
        for c in range(0, classes - 4, 5):
            w0, w1, w2 = weight[c, low:high], weight[c + 1, low:high], weight[c + 2, low:high]
            w3, w4 = weight[c + 3, low:high], weight[c + 4, low:high]
            x0 = x1 = x2 = x3 = x4 = y0 = y1 = y2 = y3 = y4 = _NONE
            for i in range(high - low):
                x0 += x[i] * w0[i]
                x1 += x[i] * w1[i]
                x2 += x[i] * w2[i]
                x3 += x[i] * w3[i]
                x4 += x[i] * w4[i]
                y0 += y[i] * w0[i]
                y1 += y[i] * w1[i]
                y2 += y[i] * w2[i]
                y3 += y[i] * w3[i]
                y4 += y[i] * w4[i]
            answers[b, c], answers[b, c + 1], answers[b, c + 2] = x0, x1, x2
            answers[b, c + 3], answers[b, c + 4] = x3, x4
            answers[b + 1, c], answers[b + 1, c + 1], answers[b + 1, c + 2] = y0, y1, y2
            answers[b + 1, c + 3], answers[b + 1, c + 4] = y3, y4
        for c in range(classes - classes % 5, classes):
            w0 = weight[c, low:high]
            x0 = y0 = _NONE
            for i in range(high - low):
                x0 += x[i] * w0[i]
                y0 += y[i] * w0[i]
            answers[b, c], answers[b + 1, c] = x0, y0


@compiled(fastmath=REORDERS)
def _sum_gradient(rows: np.ndarray, slopes: np.ndarray, gradient: np.ndarray, count: int) -> None:
    """Set gradient (C, ...) to slopes^T rows, for ``count`` features; ``ROWS`` rows for each pass over it."""
    classes = slopes.shape[1]
    gradient[:] = _NONE
    for b in range(0, rows.shape[0], 8):
        x0, x1, x2, x3 = rows[b, :count], rows[b + 1, :count], rows[b + 2, :count], rows[b + 3, :count]
        x4, x5, x6, x7 = rows[b + 4, :count], rows[b + 5, :count], rows[b + 6, :count], rows[b + 7, :count]
        for c in range(classes):
            s0, s1, s2, s3 = slopes[b, c], slopes[b + 1, c], slopes[b + 2, c], slopes[b + 3, c]
            s4, s5, s6, s7 = slopes[b + 4, c], slopes[b + 5, c], slopes[b + 6, c], slopes[b + 7, c]
            own = gradient[c, :count]
            for i in range(count):
                upper = s0 * x0[i] + s1 * x1[i] + s2 * x2[i] + s3 * x3[i]
                own[i] += upper + s4 * x4[i] + s5 * x5[i] + s6 * x6[i] + s7 * x7[i]


@compiled(fastmath=REORDERS)
def _adam(gradient: np.ndarray, weight: np.ndarray, mean: np.ndarray, square: np.ndarray, adam: np.ndarray) -> None:
    """Update one row of weights as torch's Adam does, its own weight decay included.

    Moments below 2^-126 become 0. The mean of a silent feature halves every seven updates, and numbers that small slow
    a processor down (a third here, more on others); the weight does not feel them.
    """
    step, root, epsilon, decay = adam[STEP], adam[ROOT], adam[EPSILON], adam[DECAY]
    keep_mean, new_mean = adam[KEEP_MEAN], adam[NEW_MEAN]
    keep_square, new_square = adam[KEEP_SQUARE], adam[NEW_SQUARE]
    for i in range(gradient.size):
        slope = gradient[i] + decay * weight[i]
        m = keep_mean * mean[i] + new_mean * slope
        v = keep_square * square[i] + new_square * slope * slope
        m = _NONE if abs(m) < _LEAST else m
        v = _NONE if v < _LEAST else v
        mean[i], square[i] = m, v
        weight[i] -= step * m / (np.sqrt(v) * root + epsilon)


@compiled(fastmath=REORDERS)
def judge(
    answers: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    adam: np.ndarray,
    labels: np.ndarray,
    slopes: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Add up a batch's outputs, compare them with the labels, and update the bias.

    Args:
        answers: (K, R, C), the parts of the blocks in the outputs.
        bias: (C,), changed in place; empty where the classifier has none.
        mean: (C,) first moment of the bias, changed in place.
        square: (C,) second moment of the bias, changed in place.
        adam: constants of this update.
        labels: (B,).
        slopes: (R, C), set to the gradient of the mean cross-entropy by the outputs; 0 for rows from B on.
        sums: float64 (2,) to which the loss of all images and the right answers are added.
    """
    images, classes = labels.size, answers.shape[2]
    total = 0.0
    slopes[:] = _NONE
    for b in range(images):
        output = slopes[b]
        for k in range(answers.shape[0]):
            for c in range(classes):
                output[c] += answers[k, b, c]
        for c in range(bias.size):
            output[c] += bias[c]
        best = 0
        for c in range(classes):
            best = c if output[c] > output[best] else best
        sums[1] += best == labels[b]
        total += _cross_entropy(output, output[best], labels[b])
        for c in range(classes):
            output[c] /= np.float32(images)
    sums[0] += total
    if bias.size:
        slope = np.zeros(classes, np.float32)
        for b in range(images):
            for c in range(classes):
                slope[c] += slopes[b, c]
        _adam(slope, bias, mean, square, adam)


@compiled()
def _cross_entropy(output: np.ndarray, top: np.float32, label: int) -> float:
    """Return -log softmax(output)_label and replace the output by its slope, softmax - one-hot."""
    own, total = float(output[label]), 0.0
    for c in range(output.size):
        output[c] = np.exp(output[c] - top)
        total += output[c]
    for c in range(output.size):
        output[c] = np.float32(output[c] / total)
    output[label] -= np.float32(1)
    return math.log(total) - (own - float(top))
