"""Small images in tables and in figures.

Shapes: n images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hebb.analysis import style
from hebb.storage import tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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


def gallery(frame: pd.DataFrame, title: str, columns: int, cell: float) -> Figure:
    """Draw the images of a frame row by row, each stretched to its own range and ``cell`` inches wide."""
    shown = tiles.stretched(torch.from_numpy(of(frame)))
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = style.figure(width=max(cell * columns + 0.4, style.TITLE), height=cell * rows + 0.5)
    show(axes, shown, columns)
    axes.set_title(title)
    return figure


def picture(axes: Axes, image: Tensor) -> None:
    """Draw one image (C, H, W) with values in [0, 1] and C = 1 or 3, without axes."""
    array = image.detach().cpu().permute(1, 2, 0).numpy()
    axes.imshow(array.squeeze(2) if array.shape[2] == 1 else array, cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
