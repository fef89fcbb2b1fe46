"""Random variation of training images: one batch at a time, on its device, each image drawn on its own.

Each function takes float images x (B, C, H, W) in [0, 1] and a generator on their device.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from hebb.config.vocabulary import Augmentation
from hebb.core.errors import ConfigError
from hebb.kernels import precision

Augment = Callable[[Tensor, torch.Generator], Tensor]
PADDING = 4
"""Pixels by which ``crop`` shifts an image at most."""
SCALE = (0.08, 1.0)
"""Share of the image's area that a resized crop shows (Szegedy et al. 2015, and torchvision's default)."""
RATIO = (3 / 4, 4 / 3)
"""Width of a resized crop divided by its height."""
_TRIES = 10


def make(kind: Augmentation, noise_std: float, shape: tuple[int, ...], where: str) -> Augment:
    """Return the augmentation that an entry names, for images of (C, H, W)."""
    if kind != Augmentation.NOISE and noise_std:
        raise ConfigError(where, f"noise_std cannot be combined with augmentation by {kind}", hint="leave it out")
    if kind == Augmentation.CROP and min(shape[1:]) <= PADDING:
        raise ConfigError(where, f"images must be larger than {PADDING} pixels for augmentation, got {shape}")
    kinds: dict[Augmentation, Augment] = {
        Augmentation.CROP: crop,
        Augmentation.RESIZED_CROP: resized_crop,
        Augmentation.NOISE: functools.partial(noise, std=noise_std),
    }
    return kinds[kind]


def noise(x: Tensor, generator: torch.Generator, std: float) -> Tensor:
    """Add Gaussian noise to every pixel; the values are not clipped."""
    return x + std * torch.randn(x.shape, generator=generator, device=x.device)


def crop(x: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to 4 pixels each way over the reflected border, and mirror every other image.

    This is the crop of the image padded by reflection, without the padded copy: one gather.
    """
    count, channels, height, width = x.shape
    shift = torch.randint(-PADDING, PADDING + 1, (2, count, 1), generator=generator, device=x.device)
    mirrored = mirrors(count, generator, x.device)[:, None]
    rows = _reflected(torch.arange(height, device=x.device) + shift[0], height)  # (B, H)
    columns = torch.arange(width, device=x.device)
    columns = _reflected(torch.where(mirrored, columns.flip(0), columns) + shift[1], width)  # (B, W)
    place = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, -1).expand(-1, channels, -1)
    return x.flatten(2).gather(2, place).view_as(x)


def mirrored(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror every other image."""
    return torch.where(mirrors(len(x), generator, x.device)[:, None, None, None], x.flip(-1), x)


def mirrors(count: int, generator: torch.Generator, device: torch.device, share: float = 0.5) -> Tensor:
    """Draw which images of a batch are mirrored: (B,) booleans, each true with probability ``share``."""
    return torch.rand(count, generator=generator, device=device) < share


def _reflected(place: Tensor, side: int) -> Tensor:
    """Reflect places -side < i < 2 side - 1 into the image: -1 becomes 1, and side becomes side - 2."""
    return (side - 1) - ((side - 1) - place.abs()).abs()


def resized_crop(x: Tensor, generator: torch.Generator, least: float = SCALE[0], mirror: float = 0.5) -> Tensor:
    """Enlarge a box of random area (a share from ``least`` to 1) and aspect to the whole image, and mirror some.

    The law of the boxes and the filter (bilinear, antialiased) are torchvision's ``RandomResizedCrop``. The filter
    is separable, so a batch of different boxes is two matrix products: rows (B, H, H) x (B, C, H, W)
    columns (B, W, W). The boxes are cut from the image at the size the network sees, not at that of the file.
    """
    count, _, height, width = x.shape
    top, left, tall, wide = boxes(count, height, width, generator, x.device, least)
    mirrored = mirrors(count, generator, x.device, mirror)[:, None, None]  # (B, 1, 1)
    rows, columns = _filter(top, tall, height), _filter(left, wide, width)
    columns = torch.where(mirrored, columns.flip(1), columns)
    return rows[:, None] @ x @ columns[:, None].transpose(2, 3)


def boxes(
    count: int, height: int, width: int, generator: torch.Generator, device: torch.device, least: float = SCALE[0]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw boxes as (top, left, height, width), each (B,) whole numbers.

    A box that does not fit is drawn again; after ten attempts the largest central box of a legal aspect is taken.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device, dtype=precision.widest(device))

    area = height * width * (least + (SCALE[1] - least) * uniform(count, _TRIES))
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    ratio = torch.exp(low + (high - low) * uniform(count, _TRIES))
    tall, wide = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (tall >= 1) & (tall <= height) & (wide >= 1) & (wide <= width)
    first = fits.int().argmax(dim=1, keepdim=True)  # the first that fits
    fitting = fits.any(dim=1)
    tall = torch.where(fitting, tall.gather(1, first)[:, 0], min(height, round(width / RATIO[0])))
    wide = torch.where(fitting, wide.gather(1, first)[:, 0], min(width, round(height * RATIO[1])))
    place = uniform(2, count)
    top = torch.where(fitting, (place[0] * (height - tall + 1)).floor(), ((height - tall) / 2).floor())
    left = torch.where(fitting, (place[1] * (width - wide + 1)).floor(), ((width - wide) / 2).floor())
    return top, left, tall, wide


def _filter(start: Tensor, length: Tensor, side: int) -> Tensor:
    """Return the weights (B, side, side) that map the pixels [start, start + length) to ``side`` pixels.

    Output pixel i looks at centre start + (i + 1/2) length/side with a triangle that is one pixel wide, or
    length/side pixels when the box is larger than the output.
    """
    pixel = torch.arange(side, device=start.device, dtype=start.dtype)
    scale = (length / side)[:, None, None]  # (B, 1, 1)
    begin, end = start[:, None, None], (start + length)[:, None, None]
    centre = begin + (pixel[:, None] + 0.5) * scale  # (B, side, 1)
    weight = (1 - (pixel + 0.5 - centre).abs() / scale.clamp(min=1)).clamp(min=0)  # (B, side, side)
    weight *= (pixel >= begin) & (pixel < end)
    return (weight / weight.sum(dim=2, keepdim=True)).float()
