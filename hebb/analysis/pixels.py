"""Small images in tables and in figures.

Shapes: n images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hebb.analysis import style
from hebb.storage import tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_PALE = 0.9
"""Grey of a tile without an image."""


def names(shape: Sequence[int]) -> list[str]:
    """Name the columns of an image's values: ``c0y2x1`` is channel 0, row 2, column 1."""
    channels, height, width = shape
    return [f"c{c}y{y}x{x}" for c in range(channels) for y in range(height) for x in range(width)]


def beside(frame: pd.DataFrame, images: Tensor) -> pd.DataFrame:
    """Append the values of image i of (n, C, H, W) to line i of a frame, one column each."""
    values = pd.DataFrame(images.detach().cpu().flatten(1).numpy(), columns=names(images.shape[1:]))
    return pd.concat([frame.reset_index(drop=True), values], axis=1)


def of(frame: pd.DataFrame) -> np.ndarray:
    """Return the images (n, C, H, W) that ``beside`` appended to a frame."""
    columns = [name for name in frame.columns if name[0] == "c" and "y" in name and "x" in name]
    last = columns[-1]
    channels, rest = last[1:].split("y")
    height, width = rest.split("x")
    shape = int(channels) + 1, int(height) + 1, int(width) + 1
    return np.array(frame[columns], dtype=np.float32).reshape(-1, *shape)


def show(axes: Axes, images: Tensor, columns: int | None = None) -> None:
    """Draw images (n, C, H, W) with values in [0, 1] as a grid; unless C is 1 or 3, the mean over channels."""
    picture(axes, tiles.tiled(tiles.visible(images.detach().cpu()), columns))


def gallery(frame: pd.DataFrame, title: str, columns: int, cell: float, silent: Sequence[bool] | None = None) -> Figure:
    """Draw the images of a frame row by row, each stretched to its own range and ``cell`` inches wide.

    A cross on light grey stands for an image that is the same everywhere, and a frame is around that of any other
    ``silent`` neuron.
    """
    images = torch.from_numpy(of(frame))
    flat = images.flatten(1).amax(1) == images.flatten(1).amin(1)
    framed = torch.zeros_like(flat) if silent is None else torch.tensor(silent) & ~flat
    shown = torch.where(flat.view(-1, 1, 1, 1), _PALE, tiles.stretched(images))
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = style.figure(width=max(cell * columns + 0.4, style.TITLE), height=cell * rows + 0.5)
    show(axes, shown, columns)
    tall, wide = images.shape[2] + 1, images.shape[3] + 1
    for i in (flat | framed).nonzero().flatten().tolist():
        _mark(axes, (i % columns) * wide, (i // columns) * tall, wide, tall, crossed=bool(flat[i]))
    axes.set_title(title)
    axes.set_xlabel(_silence(int(flat.sum()), int(framed.sum()), len(shown)), fontsize=8)
    return figure


def _mark(axes: Axes, left: float, top: float, wide: float, tall: float, *, crossed: bool) -> None:
    """Cross out or frame a tile of ``tiles.tiled``, at a distance of half a pixel."""
    from matplotlib.patches import Rectangle

    look: dict[str, Any] = {"edgecolor": style.COLOURS[1], "linewidth": 1.0, "fill": False}
    if not crossed:
        axes.add_patch(Rectangle((left, top), wide, tall, **look))
        return
    for start, end in ((top + 1, top + tall - 1), (top + tall - 1, top + 1)):
        axes.plot([left + 1, left + wide - 1], [start, end], color=style.COLOURS[1], linewidth=0.8)


def _silence(flat: int, framed: int, total: int) -> str:
    """Say what marks there are."""
    parts = [f"cross: the same everywhere ({flat} of {total})"] if flat else []
    parts += [f"frame: the neuron wins nothing ({framed} of {total})"] if framed else []
    return "; ".join(parts)


def picture(axes: Axes, image: Tensor) -> None:
    """Draw one image (C, H, W) with values in [0, 1] and C = 1 or 3, without axes."""
    array = image.detach().cpu().permute(1, 2, 0).numpy()
    axes.imshow(array.squeeze(2) if array.shape[2] == 1 else array, cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
