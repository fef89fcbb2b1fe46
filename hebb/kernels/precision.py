"""Number types: double precision, also where a device has none, and products in a narrow type.

Apple's GPUs and some of Intel's have no double precision. There a number is fetched to the host before it becomes a
float64, and sums are fetched many at a time, so that an update waits for nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_PENDING = 500
"""Numbers that a sum keeps on a device without float64 before it fetches them."""


def has_double(device: torch.device) -> bool:
    """Whether a device knows float64."""
    if device.type == "xpu":
        return bool(torch.xpu.get_device_properties(device).has_fp64)
    return device.type != "mps"


def widest(device: torch.device) -> torch.dtype:
    """Return the widest floating-point type of a device."""
    return torch.float64 if has_double(device) else torch.float32


def doubles(x: Tensor) -> Tensor:
    """Return x in float64: on its device, or on the host where the device has no such type."""
    return x.double() if has_double(x.device) else x.cpu().double()


def rounded(
    kind: torch.dtype | None, x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the factors of a product, and what is added to it, in a number type; None leaves their own."""
    if kind is None:
        return x, weight, bias
    return x.to(kind), weight.to(kind), None if bias is None else bias.to(kind)


class Total:
    """A sum in float64, which a graph may write to: it stays where it is.

    Args:
        shape: of the numbers.
        device: their device.
    """

    def __init__(self, *shape: int, device: torch.device) -> None:
        self._here = has_double(device)
        self._sum = torch.zeros(shape, dtype=torch.float64, device=device if self._here else "cpu")
        self._pending: list[tuple[Tensor, int]] = []

    def add(self, value: Tensor, times: int = 1) -> None:
        """Add ``times`` the value; the product is in double precision too."""
        if self._here:
            self._sum.add_(value, alpha=times)
            return
        self._pending.append((value, times))
        if len(self._pending) == _PENDING:
            self._fetch()

    def memory(self) -> np.ndarray:
        """Return the memory of a sum on the host, to which numbers are added in a tenth of the time of an operation."""
        return self._sum.numpy()

    def zero(self) -> None:
        """Start anew."""
        self._pending.clear()
        self._sum.zero_()

    def value(self) -> Tensor:
        """Return the sum; it changes with the next number."""
        self._fetch()
        return self._sum

    def _fetch(self) -> None:
        if self._pending:
            numbers = torch.stack([value.float() for value, _ in self._pending]).cpu().double()
            times = torch.tensor([times for _, times in self._pending], dtype=torch.float64)
            self._sum += (numbers * times.view(-1, *[1] * (numbers.dim() - 1))).sum(dim=0)
            self._pending.clear()
