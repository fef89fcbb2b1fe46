"""Convolutions with filters of 3 x 3 on the CPU, with four ninths of the multiplications.

Winograd's minimal filtering F(2 x 2, 3 x 3): with a tile d of 4 x 4 inputs and a filter g, the 2 x 2 outputs are

    A^T ((G g G^T) . (B^T d B)) A

which takes 16 products in place of 36. A sums over the channels of the input, so the 16 points of all tiles and filters
make 16 products of matrices. With the gradients e of the 2 x 2 outputs, the gradient of g is the sum over all tiles of

    G^T ((A e A^T) . (B^T d B)) G

The transforms add and halve numbers. Forwards, errors are no larger than those of plain sums over 9 C_in products;
those of the gradient are up to twice as large, and where all products are 0 it is nearly 0. An output that is not
finite makes all four of its tile so.

Source: Lavin & Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, section 4.1.

Shapes: B batch, C_in input channels, C_out neurons, H', W' output sizes, h = ceil(H'/2), w = ceil(W'/2), T tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from hebb.kernels import loops, matmul, private_torch

SIDE = 3
"""Side of a filter."""


def _transform(*rows: tuple[float, float, float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32, device="cpu")  # whatever torch's defaults are: a loop reads them


_NONE = (0, 0, 0, 0)  # filters have no fourth row, outputs two
_B_T = _transform((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_G = _transform((1, 0, 0, 0), (0.5, 0.5, 0.5, 0), (0.5, -0.5, 0.5, 0), (0, 0, 1, 0))
_A_T = _transform((1, 1, 1, 0), (0, 1, -1, -1), _NONE, _NONE)
_A, _G_T = _A_T.T.contiguous(), _G.T.contiguous()

_TILES = 640
"""Tiles that are multiplied at once: memory does not grow with the batch."""

_PAIRS = 1 << 20
"""Pairs of channel and neuron whose filters are multiplied at once."""

_LEAST = 40
"""Neurons or tiles from which on the products save more than the transforms cost, if there is more of all else."""

_LEAST_WITH_GRADIENT = 60
"""The same where the gradient of the input is needed, too, whose products have few outputs."""

_CHANNELS = 1.5
"""How many times as many channels there have to be, each of which is transformed for all neurons."""

_SHARE = 0.6
"""Most that may be left of the multiplications of the outputs; it is 4/9 but for odd sizes, where tiles reach over."""


def pays(x: Tensor, weight: Tensor, y: Tensor | None = None) -> bool:
    """Whether x * w, or the weight gradient for y, takes less time this way, and can be computed so."""
    if torch.is_grad_enabled() and y is not None and y.requires_grad:
        return False
    return _pays(x, weight, _LEAST) and (y is None or private_torch.is_readable(y))


def pays_with_gradient(x: Tensor, weight: Tensor, padding: int) -> bool:
    """Whether ``convolve`` takes less time than torch, and can compute this."""
    return _pays(x.detach(), weight.detach(), _LEAST_WITH_GRADIENT, padding)


def _pays(x: Tensor, weight: Tensor, least: int, padding: int = 0) -> bool:
    if not loops.pays_between(x, passes=len(weight)) or not all(map(private_torch.is_readable, (x, weight))):
        return False
    (rows, columns), edges = _grid(x, padding), 2 * padding - SIDE + 1
    outputs, points = (x.shape[2] + edges) * (x.shape[3] + edges), 16 * rows * columns
    sizes = weight.shape[1] / _CHANNELS, len(weight), len(x) * rows * columns
    if min(sizes) <= 0 or points > _SHARE * SIDE**2 * outputs:
        return False
    return sum(1 / size for size in sizes) <= 1 / least


def convolve(x: Tensor, weight: Tensor, padding: int = 0) -> Tensor:
    """Return x * w for x with zeros around it, with gradients.

    Args:
        x: (B, C_in, H, W).
        weight: (C_out, C_in, 3, 3).
        padding: rows and columns of zeros on each side.

    Returns:
        (B, C_out, H', W').
    """
    u: Tensor = _Convolution.apply(x, weight, padding)  # type: ignore[no-untyped-call]
    return u


class _Convolution(torch.autograd.Function):
    """x * w, for x with zeros around it."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, padding: int) -> Tensor:
        """(B, C_in, H, W), (C_out, C_in, 3, 3) -> (B, C_out, H', W')."""
        return forward(_surround(x, padding), weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        """Keep what the gradients need."""
        *tensors, ctx.padding = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return the gradients of x and w; that of x is a convolution with the turned filters."""
        (x, weight), (y,), padding = ctx.saved_tensors, grads, ctx.padding
        of_x = of_weight = None
        if torch.is_grad_enabled():  # the gradient will be differentiated, too
            of_x = conv2d_input(x.shape, weight, y, padding=padding)
            return of_x, conv2d_weight(x, weight.shape, y, padding=padding), None
        if ctx.needs_input_grad[0]:
            of_x = forward(_surround(y, SIDE - 1 - padding), weight.flip(2, 3).transpose(0, 1))
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(_surround(x, padding), y)
        return of_x, of_weight, None


def _surround(x: Tensor, padding: int) -> Tensor:
    """Return x with zeros on its four sides; a negative padding takes pixels away."""
    return F.pad(x, (padding,) * 4) if padding else x


def forward(x: Tensor, weight: Tensor) -> Tensor:
    """Return x * w, (B, C_in, H' + 2, W' + 2), (C_out, C_in, 3, 3) -> (B, C_out, H', W'); it has no gradient."""
    (rows, columns), (height, width) = _grid(x), x.shape[2:]
    u = x.new_empty(len(x), 2 * rows, 2 * columns, len(weight)).permute(0, 3, 1, 2)
    inputs, filters, outputs = _tiles(x, 4), _filters(weight), _tiles(u, 2)
    for some in _parts(len(weight), _PAIRS // weight.shape[1]):
        kernels = _points(_G, filters[some])
        for part in _tile_parts(inputs):
            products = matmul.linears(_points(_B_T, inputs[part]), kernels)
            target = outputs[part][..., some]
            _sandwich(_A_T, _squares(products, target), target)
    return u[:, :, : height - 2, : width - 2]


def weight_gradient(x: Tensor, y: Tensor) -> Tensor:
    """Return the sum over all patches of y x, (C_out, C_in, 3, 3), channels last.

    Args:
        x: input (B, C_in, H' + 2, W' + 2).
        y: gradient of the output (B, C_out, H', W').
    """
    dw = x.new_empty(y.shape[1], SIDE, SIDE, x.shape[1]).permute(0, 3, 1, 2)
    inputs, gradients, filters = _tiles(x, 4), _tiles(y, 2), _filters(dw)
    for some in _parts(y.shape[1], _PAIRS // x.shape[1]):
        total: Tensor | None = None
        for part in _tile_parts(inputs):
            of_input = _points(_B_T, inputs[part])
            of_output = _points(_A, gradients[part][..., some])
            products = matmul.linears(of_output.mT, of_input.mT)
            total = products if total is None else total.add_(products)
        assert total is not None
        _sandwich(_G_T, _squares(total, filters[some]), filters[some])
    return dw


def _grid(x: Tensor, padding: int = 0) -> tuple[int, int]:
    """Return h and w."""
    height, width = x.shape[2:]
    return (height - 1) // 2 + padding, (width - 1) // 2 + padding


def _tiles(maps: Tensor, side: int) -> Tensor:
    """View maps (B, C, height, width) as tiles (B, h, w, side, side, C) that start two pixels apart; odd sizes grow."""
    if maps.shape[2] % 2 or maps.shape[3] % 2:
        maps = F.pad(maps, (0, maps.shape[3] % 2, 0, maps.shape[2] % 2))
    maps = maps.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    return maps.unfold(1, side, 2).unfold(2, side, 2).permute(0, 1, 2, 4, 5, 3)


def _filters(weight: Tensor) -> Tensor:
    """View weights (C_out, C_in, 3, 3) as (C_out, 1, 1, 3, 3, C_in)."""
    return weight.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)[:, None, None]


def _squares(points: Tensor, like: Tensor) -> Tensor:
    """View the points (16, T, C) of tiles or filters as (B, h, w, 4, 4, C)."""
    return points.view(4, 4, *like.shape[:3], points.shape[2]).permute(2, 3, 4, 0, 1, 5)


def _points(factors: Tensor, squares: Tensor) -> Tensor:
    """Return L d L^T of tiles or filters d, (B, h, w, n, n, C) -> (16, T, C) for L (4, 4), of which n columns count."""
    points = squares.new_empty(16, squares.shape[:3].numel(), squares.shape[5])
    _sandwich(factors, squares, _squares(points, squares))
    return points


def _sandwich(factors: Tensor, source: Tensor, target: Tensor) -> None:
    """Set target to L d L^T of each square d of source, (B, h, w, n, n, C) -> (B, h, w, m, m, C) for L (4, 4)."""
    from hebb.kernels import numba_loops

    assert source.stride(5) == target.stride(5) == 1
    numba_loops.SANDWICHES(
        factors=factors,
        sizes=(*target.shape[:4], *source.shape[4:]),
        source=source.data_ptr(),
        source_size=_reach(source),
        source_strides=source.stride(),
        target=target.data_ptr(),
        target_size=_reach(target),
        target_strides=target.stride(),
    )


def _reach(x: Tensor) -> int:
    """Return the count of numbers in memory from the first to the last of x."""
    return 1 + sum(stride * (size - 1) for stride, size in zip(x.stride(), x.shape, strict=True))


def _parts(length: int, most: int) -> Iterator[slice]:
    """Yield slices of at most ``most`` (and at least one)."""
    step = max(1, most)
    yield from (slice(start, start + step) for start in range(0, length, step))


def _tile_parts(tiles: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield images and rows of about ``_TILES`` tiles: some images, or some rows of one."""
    images, rows, columns = tiles.shape[:3]
    for some in _parts(images, _TILES // (rows * columns)):
        for part in _parts(rows, _TILES // columns):
            yield some, part
