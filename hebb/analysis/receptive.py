"""The receptive field of a neuron, from the shapes alone.

Position i of a convolution or pool with kernel k, stride s, padding p and dilation d reads the positions
i s - p to i s - p + d (k - 1) below it. Repeated down to the image, this gives the receptive field of a layer's
pre-activation u: its side, and for each neuron the box of pixels that u depends on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hebb.config.shapes import BlockShapes
from hebb.config.specs import BlockSpec

WHOLE = ("flatten", "maxnorm")
"""Operations after which a neuron sees the whole image."""


@dataclass(frozen=True)
class Box:
    """Pixels from ``top`` to ``bottom`` and from ``left`` to ``right``, without the last ones."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class _Window:
    """A convolution or pool along one side of the map."""

    kernel: int
    stride: int
    padding: int
    dilation: int = 1
    mode: str = "zeros"

    def below(self, positions: set[int], side: int) -> set[int]:
        """Return the positions below, out of ``side``, that these ones read."""
        steps = range(0, self.dilation * self.kernel, self.dilation)
        read = {i * self.stride - self.padding + step for i in positions for step in steps}
        return {self._real(i, side) for i in read} - {-1}

    def _real(self, position: int, side: int) -> int:
        """Return the pixel at a position of the padded map; -1 for a padding zero."""
        last = side - 1
        if 0 <= position <= last:
            return position
        return {
            "reflect": -position if position < 0 else 2 * last - position,
            "replicate": 0 if position < 0 else last,
            "circular": position % side,
        }.get(self.mode, -1)


def sees_all(blocks: Sequence[BlockSpec], block: int) -> bool:
    """Tell whether every neuron of ``block`` sees the whole image, because a map was flattened below."""
    return any(name in WHOLE for spec in blocks[: block + 1] for name in spec.operations)


def side(blocks: Sequence[BlockSpec], block: int) -> int:
    """Return the side, in pixels, of the receptive field of the convolution of ``block``, away from the borders."""
    pixels = 1
    for window in _downwards(blocks, block):
        pixels = (pixels - 1) * window.stride + window.dilation * (window.kernel - 1) + 1
    return pixels


def box(blocks: Sequence[BlockSpec], shapes: Sequence[BlockShapes], block: int, row: int, column: int) -> Box:
    """Return the pixels that the pre-activation of ``block`` at (row, column) depends on.

    It is the smallest box around them. Where padding repeats or reflects pixels, the pixels themselves count. The mean
    over channels that a triangle subtracts is taken at one position, so it does not matter.

    Args:
        blocks: the network.
        shapes: shapes of its blocks.
        block: number of the block.
        row: row in the map of its layer; 0 for a fully connected layer.
        column: column in that map.
    """
    _, height, width = shapes[0].into
    if sees_all(blocks, block):
        return Box(0, 0, height, width)
    rows, columns = {row}, {column}
    sides = _sides(blocks, shapes, block)
    for window, (tall, wide) in zip(_downwards(blocks, block), sides, strict=True):
        rows, columns = window.below(rows, tall), window.below(columns, wide)
    return Box(min(rows), min(columns), max(rows) + 1, max(columns) + 1)


def reach(blocks: Sequence[BlockSpec], shapes: Sequence[BlockShapes], block: int, row: int, column: int) -> Box:
    """Return the whole receptive field of ``block`` at (row, column), which may reach over the borders of the image.

    All places of a map have fields of one size, ``side``; ``box`` is what lies inside the image.
    """
    _, height, width = shapes[0].into
    if sees_all(blocks, block):
        return Box(0, 0, height, width)
    top, left = row, column
    for window in _downwards(blocks, block):
        top, left = top * window.stride - window.padding, left * window.stride - window.padding
    size = side(blocks, block)
    return Box(top, left, top + size, left + size)


def _downwards(blocks: Sequence[BlockSpec], block: int) -> list[_Window]:
    """List the convolutions and pools from the pre-activation of ``block`` down to the image."""
    windows = []
    for i in range(block, -1, -1):
        pool, layer = blocks[i].pool, blocks[i].layer
        if i < block and pool is not None:
            windows.append(_Window(pool.kernel_size, pool.stride, pool.padding))
        if layer.arch == "CNN":
            windows.append(
                _Window(layer.kernel_size, layer.stride, layer.padding, layer.dilation, mode=layer.padding_mode)
            )
    return windows


def _sides(blocks: Sequence[BlockSpec], shapes: Sequence[BlockShapes], block: int) -> list[tuple[int, int]]:
    """Return (height, width) of the map that each window of ``_downwards`` reads."""
    sides = []
    for i in range(block, -1, -1):
        if i < block and blocks[i].pool is not None:
            sides.append((shapes[i].layer_out[1], shapes[i].layer_out[2]))
        sides.append((shapes[i].layer_in[1], shapes[i].layer_in[2]))
    return sides
