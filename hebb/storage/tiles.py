"""Lays out many small images as one: each stretched to its own range, with a gap between them.

Shapes: n images, C channels, H height, W width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def stretched(images: Tensor) -> Tensor:
    """Scale each image (n, C, H, W) so that its lowest value is 0 and its highest 1; a constant image becomes 0."""
    low, high = images.flatten(1).amin(1), images.flatten(1).amax(1)
    span = (high - low).clamp(min=1e-12)
    return (images - low.view(-1, 1, 1, 1)) / span.view(-1, 1, 1, 1)


def visible(images: Tensor) -> Tensor:
    """Return images (n, C, H, W) of 1 or 3 channels unchanged, others as their mean over channels."""
    return images if images.shape[1] in (1, 3) else images.mean(dim=1, keepdim=True)


def tiled(images: Tensor, columns: int | None = None) -> Tensor:
    """Lay out images (n, C, H, W) row by row as one (C, H', W'), with a white line one pixel wide around each.

    Args:
        images: values in [0, 1].
        columns: images in a row; None makes the layout nearly square.
    """
    n, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    image = torch.ones(channels, rows * (height + 1) + 1, columns * (width + 1) + 1)
    for i in range(n):
        top, left = (i // columns) * (height + 1) + 1, (i % columns) * (width + 1) + 1
        image[:, top : top + height, left : left + width] = images[i]
    return image
