"""Loops of a linear classifier that learns by Adam from features in memory.

A batch needs its rows gathered, dropout, two products and Adam. Each as an operation of its own moves the rows through
memory four times. Here a block of ``WIDTH`` features at a time goes through all of them while it is in the cache: the
gradient and Adam of one batch, then the rows, the dropout and the answers of the next, whose weights are now known.
Only the sum over the blocks and the loss stand between two batches. Threads go from batch to batch without a return to
Python, which cost a tenth of the time: by then its code and data had left the cache.

Shapes: B images of a batch, R = B rounded up to a multiple of ``ROWS``, C classes, N images, M features, K blocks,
S steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hebb.kernels import own_threads
from hebb.kernels.compiling import REORDERS, add, compiled, give_way

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
CONSTANTS = 8
STEP, ROOT, EPSILON, KEEP_MEAN, NEW_MEAN, KEEP_SQUARE, NEW_SQUARE, DECAY = range(CONSTANTS)


def on_threads(*arguments: Any, steps: range, threads: int, aside: Callable[[], None]) -> None:
    """Call ``learn`` with the arguments and these steps on each of the threads, and meanwhile ``aside``."""
    blocks = -(-arguments[0].shape[1] // WIDTH)
    ended, taken = np.zeros(len(steps) + _LINE, np.int64), np.zeros(len(steps) * blocks + 1, np.int64)
    work: Any = learn
    arguments += (steps.start, steps.stop, ended, taken, threads)
    own_threads.together(lambda number: work(*arguments, number), threads=threads, aside=aside)


@compiled(fastmath=REORDERS)
def learn(
    weight: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    bias: np.ndarray,
    bias_mean: np.ndarray,
    bias_square: np.ndarray,
    adam: np.ndarray,
    features: np.ndarray,
    places: np.ndarray,
    labels: np.ndarray,
    batch: int,
    drawn: np.ndarray,
    eights: np.ndarray,
    rows: np.ndarray,
    slopes: np.ndarray,
    answers: np.ndarray,
    sums: np.ndarray,
    start: int,
    stop: int,
    ended: np.ndarray,
    taken: np.ndarray,
    threads: int,
    number: int,
) -> None:
    """Make steps ``start`` to ``stop`` - 1 of an epoch, together with other threads.

    Step i compares the answers to batch i - 1 with their labels, learns from them, and answers batch i, block by block;
    the first only answers, and the last, behind the last batch, only learns. A thread takes the blocks of its own share
    one by one, then those that others have not come to. The thread that comes first begins the first of these steps,
    and the one that ends the last block of a step the next: no thread waits for one that may never come.

    Args:
        weight: (C, M), changed in place.
        mean: (C, M) first moment of Adam, changed in place.
        square: (C, M) second moment, changed in place.
        bias: (C,), changed in place; empty where the classifier has none.
        bias_mean: (C,) first moment of the bias, changed in place.
        bias_square: (C,) second moment of the bias, changed in place.
        adam: (S, ``CONSTANTS``) those of the update of each of these steps, by ``STEP``, ...; step 0 reads none.
        features: (N, M) of all images.
        places: (N,) rows of ``features`` in the order of the epoch.
        labels: (N,) in that order.
        batch: B.
        drawn: uint8 (S, B M / 8 or more) random bits of the dropout of each of these batches; (S, 0): none is dropped.
        eights: (256,) int64, for each byte of ``drawn`` the memory of eight int8 factors.
        rows: (K, R, STRIDE) features behind dropout, from the start of a cache line; rows from B on do not count.
        slopes: (R, C) gradient of the loss by the outputs, for the batch in ``rows``.
        answers: (K, R, C) part of each block in the outputs of the batch in ``rows``, without the bias.
        sums: float64 (S, 2), to which the loss of all images and the right answers are added.
        start: first of these steps.
        stop: the step after the last.
        ended: zeros (S + 16,), the blocks of each step that are done; the last, in a line of the cache that nobody else
            changes, counts the steps that have begun.
        taken: zeros (S K + 1,), whether somebody took a block; the last, the beginning.
        threads: how many there are.
        number: which of them this is. Number 0 returns when all is done.
    """
    blocks, steps, begun = len(rows), stop - start, len(ended) - 1
    gradient = _aligned(weight.shape[0] * STRIDE).reshape(weight.shape[0], STRIDE)
    factors = np.empty(WIDTH // _BYTE, np.int64)
    for step in range(steps):
        low, high = (start + step) * batch, min(len(places), (start + step + 1) * batch)
        learnt = labels[max(0, low - batch) : low]
        if step == 0 and not add(taken, len(taken) - 1, 1):
            _begin(answers, bias, bias_mean, bias_square, adam[0], learnt, slopes, sums[0], ended)
        while add(ended, begun, 0) <= step:
            give_way()
        for turn in range(blocks):
            k = of_turn(turn, blocks, threads, number)
            if add(taken, step * blocks + k, 1):
                continue
            if len(learnt):
                _learn_block(k, weight, mean, square, adam[step], rows[k], slopes, gradient)
            if low < high:
                images, bits = places[low:high], drawn[step]
                _answer_block(k, weight, features, images, bits, eights, factors, rows[k], answers[k])
            if add(ended, step, 1) == blocks - 1 and step + 1 < steps:
                after = labels[low:high]
                _begin(answers, bias, bias_mean, bias_square, adam[step + 1], after, slopes, sums[step + 1], ended)
    while number == 0 and add(ended, steps - 1, 0) < blocks:
        give_way()


@compiled()
def of_turn(turn: int, blocks: int, threads: int, number: int) -> int:
    """Return the block that a thread tries to take in its turn: its own share upwards, then the others' downwards."""
    first = number * blocks // threads
    own = (number + 1) * blocks // threads - first
    return first + turn if turn < own else (first - 1 - (turn - own)) % blocks


@compiled(fastmath=REORDERS)
def _begin(
    answers: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    adam: np.ndarray,
    labels: np.ndarray,
    slopes: np.ndarray,
    sums: np.ndarray,
    ended: np.ndarray,
) -> None:
    """Add up the outputs of the batch before, compare them with the labels, update the bias, and begin the step.

    Args:
        answers: (K, R, C), the parts of the blocks in the outputs.
        bias: (C,), changed in place; empty where the classifier has none.
        mean: (C,) first moment of the bias, changed in place.
        square: (C,) second moment of the bias, changed in place.
        adam: constants of this update.
        labels: (B,); empty: there was no batch before.
        slopes: (R, C), set to the gradient of the mean cross-entropy by the outputs; 0 for rows from B on.
        sums: float64 (2,) to which the loss of all images and the right answers are added.
        ended: its last number counts the steps that have begun.
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
    if images and bias.size:
        slope = np.zeros(classes, np.float32)
        for b in range(images):
            for c in range(classes):
                slope[c] += slopes[b, c]
        _adam(slope, bias, mean, square, adam)
    add(ended, len(ended) - 1, 1)


@compiled(fastmath=REORDERS)
def _learn_block(
    k: int,
    weight: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    adam: np.ndarray,
    rows: np.ndarray,
    slopes: np.ndarray,
    gradient: np.ndarray,
) -> None:
    """Update the weights of a block from the batch in its rows."""
    low, high = k * WIDTH, min(weight.shape[1], (k + 1) * WIDTH)
    _sum_gradient(rows, slopes, gradient, high - low)
    for c in range(weight.shape[0]):
        _adam(gradient[c, : high - low], weight[c, low:high], mean[c, low:high], square[c, low:high], adam)


@compiled(fastmath=REORDERS)
def _answer_block(
    k: int,
    weight: np.ndarray,
    features: np.ndarray,
    places: np.ndarray,
    drawn: np.ndarray,
    eights: np.ndarray,
    factors: np.ndarray,
    rows: np.ndarray,
    answers: np.ndarray,
) -> None:
    """Put the next batch into the rows of a block, behind its dropout, and answer it."""
    count = weight.shape[1]
    low, high = k * WIDTH, min(count, (k + 1) * WIDTH)
    for b in range(places.size):
        bits = drawn[(b * count + low) // _BYTE : (b * count + high) // _BYTE]
        _drop_out(features[places[b], low:high], bits, eights, factors, rows[b])
    _answer(rows, weight, low, high, answers)


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
