"""ZCA whitening: decorrelates pixels and changes the images as little as possible.

Shapes: B batch, n images of a piece, C channels, H height, W width, D = C H W values of an image.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from hebb.config.data_spec import SMOOTHING
from hebb.core import files, machine
from hebb.core.errors import ConfigError

MOST_VALUES = 8192
"""Most values of an image: the covariance takes their square in memory, its eigenvectors their cube in time."""


@dataclass(frozen=True)
class Kind:
    """Which whitening: the c of ``Whitening``, and whether mean and std are those of a pixel or of its channel."""

    smoothing: float = SMOOTHING
    pixels: bool = False


BY_CHANNEL = Kind()
"""The whitening of the SoftHebb presets."""


@dataclass(frozen=True)
class Whitening:
    """z = (x - mean) / std, then z U (s + c)^-1/2 U^T with the covariance U s U^T of z: one affine map.

    The constant c keeps directions of little variance from being blown up.

    Attributes:
        matrix: float32 (D, D), D = C H W.
        offset: float32 (D,).
    """

    matrix: Tensor
    offset: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Whiten images in [0, 1], (B, C, H, W) -> (B, C, H, W)."""
        return torch.addmm(self.offset, x.flatten(1), self.matrix).view_as(x)

    def to(self, device: torch.device) -> Whitening:
        """Return the whitening on ``device``."""
        return Whitening(self.matrix.to(device), self.offset.to(device))


def fitted(
    pieces: Callable[[], Iterator[Tensor]],
    shape: tuple[int, int, int],
    kind: Kind,
    key: str,
    cache: Path | None,
    where: str,
) -> Whitening:
    """Return the whitening of these images, from the cache if it holds it.

    Args:
        pieces: yields all uint8 images in pieces (n, C, H, W); called only when the cache has nothing.
        shape: (C, H, W).
        kind: which whitening.
        key: digest of the images, which names the file.
        cache: folder of stored whitenings; None stores nothing.
        where: the place an error names.
    """
    if prod(shape) > MOST_VALUES:
        values = prod(shape)
        raise ConfigError(
            where,
            f"zca needs a matrix of {values:,} x {values:,} for images of {'x'.join(map(str, shape))}",
            hint=f"choose a size with at most {MOST_VALUES:,} values an image",
        )
    key += "" if kind == BY_CHANNEL else f"/{kind}"
    path = None if cache is None else cache / f"zca-{hashlib.sha256(key.encode()).hexdigest()[:20]}.pt"
    whitening = None if path is None else _stored(path)
    if whitening is None:
        whitening = fit(pieces(), shape, kind)
        if path is not None:
            _store(path, whitening)
    return whitening


def fit(pieces: Iterator[Tensor], shape: tuple[int, int, int], kind: Kind = BY_CHANNEL) -> Whitening:
    """Fit to uint8 images, on the CPU.

    The sums of pixels and of their products are whole numbers below 2^53, which double precision adds without an
    error in any order; the rest runs on one thread. So the bits do not depend on threads or on pieces, and a
    stored whitening is the one that would be fitted.
    """
    values, count = prod(shape), 0
    total = torch.zeros(values, dtype=torch.float64)
    products = torch.zeros(values, values, dtype=torch.float64)
    for piece in pieces:
        flat = piece.cpu().flatten(1).double()  # (n, D)
        total += flat.sum(dim=0)
        products.addmm_(flat.T, flat)
        count += len(flat)
    with machine.one_thread():
        return _whitening(total, products, count, shape, kind)


def _whitening(total: Tensor, products: Tensor, count: int, shape: tuple[int, int, int], kind: Kind) -> Whitening:
    """Turn the sums (D,) and the sums of products (D, D) of uint8 pixels into a whitening."""
    area = 1 if kind.pixels else prod(shape[1:])
    parts = prod(shape) // area
    mean = (total.view(parts, area).sum(dim=1) / (count * area)).repeat_interleave(area)
    square = (products.diagonal().view(parts, area).sum(dim=1) / (count * area)).repeat_interleave(area)
    std = (square - mean**2).sqrt()
    std[std == 0] = 1  # without contrast
    covariance = products.sub_(torch.outer(total, total / count)) / max(count - 1, 1)
    covariance /= torch.outer(std, std)
    s, u = torch.linalg.eigh(covariance)
    zca = (u / (s.clamp(min=0) + kind.smoothing).sqrt()) @ u.T
    matrix = zca / std[:, None]  # of pixels from 0 to 255
    return Whitening(matrix=(matrix * 255).float(), offset=(-mean @ matrix).float())


def _store(path: Path, whitening: Whitening) -> None:
    """Write to a temporary file and rename, so that another process reads all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replaced(path) as (temporary,), open(temporary, "wb") as file:
        torch.save({"matrix": whitening.matrix, "offset": whitening.offset}, file)


def _stored(path: Path) -> Whitening | None:
    """Read a stored whitening; None if it cannot be read, and the same bits are then fitted again."""
    try:
        return Whitening(**torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError):
        return None
    except (pickle.UnpicklingError, zipfile.BadZipFile):
        return None
