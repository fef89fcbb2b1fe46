"""Two views of an image for rules that compare them: each image drawn on its own, one batch at a time, on its device.

    1. resized crop     area ``view_area`` to 1, aspect 3/4 to 4/3, mirrored with probability ``view_flip``
    2. other colours    with probability ``view_colour``: brightness, contrast, saturation (factor 0.2 to 1.8) and hue
                        (-0.2 to 0.2 turns), in random order
    3. no colour        with probability ``view_gray``
    4. blur             with probability ``view_blur``: Gaussian of deviation 0.1 to 2 pixels

This is the recipe of SimCLR (Chen et al. 2020) as Halvagal & Zenke (2023) use it; the probabilities are those of
``DataSpec``. Images with one channel have no saturation and no hue. Images are float x (B, C, H, W) in [0, 1], and the
generator is on their device. Nothing waits for the device: an image that an operation skips gets its identity.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hebb.config.data_spec import DataSpec
from hebb.data import augmentation

FACTOR = (0.2, 1.8)
"""Range of the factors of brightness, contrast and saturation: 1 +- 0.8."""
HUE = 0.2
"""Largest turn of the hue, in turns."""
SIGMA = (0.1, 2.0)
"""Range of the deviation of the blur, in pixels."""
GRAY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in the brightness of a pixel (ITU-R 601)."""
_SEXTANTS = (5.0, 3.0, 1.0)
"""n of red, green and blue in ``turn_hue``."""
_BRIGHTNESS, _CONTRAST, _SATURATION = range(3)


@dataclass(frozen=True)
class RandomView:
    """Draws one view of every image; the head of the module explains the attributes."""

    area: float
    flip: float
    colour: float
    gray: float
    blur: float

    @classmethod
    def of(cls, spec: DataSpec) -> RandomView:
        """Return the views that a dataset asks for."""
        return cls(spec.view_area, spec.view_flip, spec.view_colour, spec.view_gray, spec.view_blur)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return a view of each image, (B, C, H, W) -> (B, C, H, W) in [0, 1]."""
        x = augmentation.resized_crop(x, generator, least=self.area, mirror=self.flip)
        x = jitter(x, generator, self.colour)
        x = grayscale(x, generator, self.gray)
        return blur(x, generator, self.blur)


def jitter(x: Tensor, generator: torch.Generator, probability: float) -> Tensor:
    """Change brightness, contrast, saturation and hue of some images, each in an order of its own.

    The first three blend an image with a reference: black, its mean brightness, its gray image. So three
    blends are done before the hue is turned and three after it; each image takes its first 0 to 3 blends before and
    the rest after.
    """
    count, device = len(x), x.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    chosen = uniform(count, 1) < probability
    factors = FACTOR[0] + (FACTOR[1] - FACTOR[0]) * uniform(count, 3)
    factors = torch.where(chosen, factors, 1.0)
    turns = torch.where(chosen, HUE * (2 * uniform(count, 1) - 1), 0.0)
    blends = uniform(count, 3).argsort(dim=1)  # (B, 3): the operation at each place
    turned_at = (4 * uniform(count, 1)).floor()  # how many of them come before the hue
    strength = factors.gather(1, blends)
    for i in range(3):
        x = blend(x, blends[:, i], torch.where(turned_at > i, strength[:, i : i + 1], 1.0))
    x = turn_hue(x, turns)
    for i in range(3):
        x = blend(x, blends[:, i], torch.where(turned_at > i, 1.0, strength[:, i : i + 1]))
    return x


def blend(x: Tensor, operation: Tensor, factor: Tensor) -> Tensor:
    """Return f x + (1 - f) reference, clipped to [0, 1], with the reference of each image's operation.

    Args:
        x: (B, C, H, W).
        operation: (B,) 0 brightness (black), 1 contrast (mean of the gray image), 2 saturation (gray image).
        factor: (B, 1); 1 leaves the image as it is.
    """
    operation, factor = operation.view(-1, 1, 1, 1), factor.view(-1, 1, 1, 1)
    gray = luminance(x)  # (B, 1, H, W)
    mean = gray.mean(dim=(2, 3), keepdim=True)
    reference = torch.where(operation == _SATURATION, gray, torch.where(operation == _CONTRAST, mean, 0.0))
    return torch.lerp(reference.expand_as(x), x, factor).clamp_(0, 1)


def luminance(x: Tensor) -> Tensor:
    """Return the gray image (B, 1, H, W): the mean over channels unless there are three."""
    if x.shape[1] != 3:
        return x.mean(dim=1, keepdim=True)
    return (x * _channels(GRAY, x.device)).sum(dim=1, keepdim=True)


@functools.cache
def _channels(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """Return a number for each channel (3, 1, 1); it is sent to a device once, because the host waits for that."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(3, 1, 1)


def turn_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of each image (B, 3, H, W) by ``turns`` (B, 1), from -0.5 to 0.5; other images stay.

    In HSV with hue h, value v = max and chroma c = max - min, the channel n = 5, 3, 1 of red, green, blue is
    v - c max(0, min(k, 4 - k, 1)) with k = (n + 6 h) mod 6.
    """
    if x.shape[1] != 3:
        return x
    value, low = x.amax(dim=1), x.amin(dim=1)  # (B, H, W)
    chroma = value - low
    red, green, blue = x.unbind(dim=1)
    safe = torch.where(chroma > 0, chroma, 1.0)
    sextant = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sextant = sextant + 6 * turns.view(-1, 1, 1)
    k = (_channels(_SEXTANTS, x.device) + sextant[:, None]).remainder(6)  # (B, 3, H, W)
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp_(0, 1)


def grayscale(x: Tensor, generator: torch.Generator, probability: float) -> Tensor:
    """Remove the colours of some images."""
    chosen = torch.rand((len(x), 1, 1, 1), generator=generator, device=x.device) < probability
    return torch.where(chosen, luminance(x), x)


def blur(x: Tensor, generator: torch.Generator, probability: float) -> Tensor:
    """Blur some images, each by a Gaussian of its own deviation, over the reflected border.

    The kernel is a tenth of the image's side, made odd: 3 pixels at 32, 9 at 96, and none below 20.
    """
    reach = kernel_size(x.shape[-1]) // 2
    if reach == 0:
        return x
    draws = torch.rand((2, len(x), 1), generator=generator, device=x.device)
    sigma = SIGMA[0] + (SIGMA[1] - SIGMA[0]) * draws[0]
    offset = torch.arange(-reach, reach + 1, device=x.device)
    weights = torch.exp(-0.5 * (offset / sigma).square())  # (B, k)
    weights = weights / weights.sum(dim=1, keepdim=True)
    weights = torch.where(draws[1] < probability, weights, (offset == 0).float())
    for dim in (2, 3):
        sides = (reach, reach, 0, 0) if dim == 3 else (0, 0, reach, reach)
        padded, side = F.pad(x, sides, mode="reflect"), x.shape[dim]
        x = torch.zeros_like(x)
        for i in range(2 * reach + 1):
            x.addcmul_(padded.narrow(dim, i, side), weights[:, i].view(-1, 1, 1, 1))
    return x


def kernel_size(side: int) -> int:
    """Return the side of the blur's kernel for images of ``side`` pixels."""
    return side // 10 | 1


def zoomed(x: Tensor, factor: float) -> Tensor:
    """Enlarge images by ``factor`` and cut out their centre at the size they had: bilinear, antialiased."""
    height, width = x.shape[2:]
    large = (int(height * factor), int(width * factor))
    top, left = (round((big - small) / 2) for big, small in zip(large, (height, width), strict=True))
    x = F.interpolate(x, size=large, mode="bilinear", antialias=True)
    return x[:, :, top : top + height, left : left + width]
