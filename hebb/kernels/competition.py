"""The neurons of a convolution compete for each pixel, and sum y x for their weights, in one pass over the pixels.

Blocks of pixels stay in the cache of a core, from their patches to their products with y. A convolution, a softmax and
a gradient, one after the other, write and read all of u and y, and let the threads wait for each other three times. The
first layer of 4SoftHebbCnnCIFAR takes 1.4 ms in place of 1.9 on two threads, and 3.0 in place of 8.0 beside a process
that keeps one of their cores busy; with one channel in place of three it takes 0.6 in place of 1.9.

Shapes: B batch, C_in input channels, C_out neurons, H, W input and H', W' output sizes, k side of a filter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hebb.kernels import loops, private_torch, team

_WEIGHTS = 1 << 18
"""Most weights: with their change they are to stay in the cache of a core, beside a block."""

_BLOCK, _STEP = 512, 128
"""Most pixels of a block, and what their count is a multiple of."""

_NUMBERS = 1 << 18
"""Numbers of a block, of its patches, u and y, as far as its pixels can be fewer."""

_COPIED = 16
"""Numbers of a line of a patch that are copied at once, of which a line of an image must have as many."""

_FACTORS = torch.tensor((0, 1), dtype=torch.float32, device="cpu")  # of what a product is added to, and of the product
_LETTERS = torch.tensor(tuple(b"NT"), dtype=torch.uint8, device="cpu")  # a matrix as it is, and transposed


@dataclass(frozen=True)
class Competed:
    """What a competition leaves.

    Attributes:
        u: the answers (B, C_out, H', W'); without numbers where nobody reads them.
        change: sum_b y x over all pixels, in the shape of the weights.
        mass: sum of the positive numbers of y for each neuron (C_out,).
        pixels: how many there are, B H' W'.
    """

    u: Tensor
    change: Tensor
    mass: Tensor
    pixels: int


def pays(x: Tensor, weight: Tensor, stride: int) -> bool:
    """Whether ``compete`` can compute this, and takes less time than its parts."""
    neurons, (rows, columns) = len(weight), output_size(x, weight.shape[2], stride)
    if min(rows, columns) < 1 or x.shape[1] != weight.shape[1]:
        return False  # torch says what is wrong
    if weight.numel() > _WEIGHTS or len(x) * rows * columns * neurons < loops.WORTH or not private_torch.mkl():
        return False
    if x.shape[3] * x.shape[1] < _COPIED or not loops.pays_between(x, passes=neurons):
        return False
    last = torch.channels_last
    return all(private_torch.is_readable(t) and t.is_contiguous(memory_format=last) for t in (x, weight))


def compete(x: Tensor, weight: Tensor, stride: int, beta: float, *, signed: bool, unread: bool) -> Competed:
    """Let the neurons compete for each pixel: u = x * weight without padding, y the softmax of beta u over the neurons.

    Args:
        x: (B, C_in, H, W), channels last.
        weight: (C_out, C_in, k, k), channels last.
        stride: of the convolution.
        beta: the inverse temperature, positive.
        signed: y has the other sign where u is below the largest of its pixel.
        unread: nobody reads u.
    """
    from hebb.kernels import numba_loops

    (neurons, channels, side, _), (rows, columns) = weight.shape, output_size(x, weight.shape[2], stride)
    pixels, inputs, threads = len(x) * rows * columns, channels * side**2, team.threads()
    block = min(_BLOCK, max(_NUMBERS // (inputs + 2 * neurons) // _STEP, 1) * _STEP)
    u = x.new_empty(0 if unread else pixels, neurons)
    changes = x.new_zeros(threads, neurons, inputs)
    sizes = torch.tensor([(neurons, inputs, 0)] * threads, dtype=torch.int32, device=x.device)
    sums = x.new_zeros(threads, neurons, dtype=torch.float64)
    numba_loops.COMPETE(
        weight=weight.permute(0, 2, 3, 1).view(neurons, inputs),
        sums=sums,
        changes=changes,
        scratch=x.new_empty(threads, block * (inputs + 2 * neurons)),
        sizes=sizes,
        factors=_FACTORS,
        letters=_LETTERS,
        x=x.data_ptr(),
        u=0 if unread else u.data_ptr(),
        pixels=pixels,
        in_rows=x.shape[2],
        in_columns=x.shape[3],
        out_rows=rows,
        out_columns=columns,
        channels=channels,
        side=side,
        stride=stride,
        block=block,
        beta=beta,
        signed=signed,
    )
    total = changes.sum(dim=0) if threads > 1 else changes[0]
    change = total.view(neurons, side, side, channels).permute(0, 3, 1, 2)
    maps = u.view(-1, rows, columns, neurons).permute(0, 3, 1, 2)
    return Competed(maps, change, sums.sum(dim=0).float(), pixels)


def output_size(x: Tensor, side: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Return H' and W' of a convolution without padding."""
    reach = dilation * (side - 1) + 1
    height, width = ((length - reach) // stride + 1 for length in x.shape[2:])
    return height, width
