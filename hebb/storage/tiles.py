"""Many small images: each stretched to its own range, or coloured on one scale, laid out as one with gaps between them.

Shapes: n images, C channels, H height, W width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CLIPPED = 0.995
"""Share of the weights |w| at which the colours end, so that one large weight does not fade the others."""
_ENDS = ((0.020, 0.19, 0.38), (0.97, 0.97, 0.97), (0.50, 0.23, 0.03))
"""Colours (0 to 1) of the lowest weight, of 0, and of the highest: blue, white and brown, which the colour-blind tell
apart."""
_WIDTH, _STRIP = 480, 26
"""Least width in pixels of a picture that is enlarged to be looked at, and height of the scale below it."""


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


def reach(images: Tensor) -> float:
    """Return the weight at the end of the colours of images (n, C, H, W)."""
    return float(images.double().abs().quantile(_CLIPPED)) if images.numel() < 1 << 24 else float(images.abs().max())


def coloured(images: Tensor, end: float) -> Tensor:
    """Return images (n, C, H, W) of weights from -end to end as (n, 3, H, W) in [0, 1]: three channels as they are."""
    scaled = (images / end).clamp(-1, 1)
    if images.shape[1] == 3:
        return (scaled + 1) / 2
    low, middle, high = (torch.tensor(colour).view(1, 3, 1, 1) for colour in _ENDS)
    return torch.where(scaled < 0, middle + scaled * (middle - low), middle + scaled * (high - middle))


def with_scale(image: Tensor, end: float, words: str) -> Tensor:
    """Return a picture (3, H, W), enlarged to be looked at, above its scale: the weights at both ends, and words."""
    import numpy as np
    from PIL import Image, ImageDraw

    factor = max(1, round(_WIDTH / image.shape[2]))
    large = image.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    width = max(large.shape[2], _WIDTH)
    ramp = coloured(torch.linspace(-end, end, 90).view(1, 1, 1, 90), end)[0].expand(3, 10, 90)
    strip = Image.fromarray(np.full((_STRIP, width, 3), 255, dtype="uint8"))
    draw, middle = ImageDraw.Draw(strip), _STRIP / 2
    start = f"-{end:.2g}"
    left = 6 + int(draw.textlength(start)) + 6
    draw.text((6, middle), start, fill="black", anchor="lm")
    strip.paste(Image.fromarray((255 * ramp.permute(1, 2, 0)).round().byte().numpy()), (left, _STRIP // 2 - 5))
    draw.text((left + 96, middle), f"{end:.2g}", fill="black", anchor="lm")
    draw.text((left + 150, middle), words, fill="black", anchor="lm")
    whole = torch.ones(3, large.shape[1] + _STRIP, width)
    whole[:, : large.shape[1], : large.shape[2]] = large
    whole[:, large.shape[1] :] = torch.from_numpy(np.array(strip)).permute(2, 0, 1) / 255
    return whole
