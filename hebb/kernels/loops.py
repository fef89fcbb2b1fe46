"""CPU operations in one pass over memory where torch takes several; they pay from ``WORTH`` elements on.

Shapes: B batch, C channels; a loop itself sees one flat row of elements.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

WORTH = 1 << 19
"""Elements from which a loop is worth its import and its call."""

_LIBRARY = torch.library.Library("hebb", "FRAGMENT")
_LIBRARY.define("power(Tensor u, float exponent) -> Tensor")


def pays(x: Tensor) -> bool:
    """Whether a loop applies to x and is worth it; the loops have no gradient."""
    return x.numel() >= WORTH and x.device.type == "cpu" and x.dtype == torch.float32 and not x.requires_grad


def select(x: Tensor, drawn: np.ndarray, eights: np.ndarray) -> Tensor:
    """Return x times factors; each byte of ``drawn`` picks eight of them.

    Args:
        x: contiguous.
        drawn: uint8, one for every eight elements of x.
        eights: (256,) int64, each the memory of eight int8 factors.
    """
    from hebb.kernels import numba_loops

    out = torch.empty_like(x)
    arguments = (x.numpy().reshape(-1), drawn, eights, out.numpy().reshape(-1))
    numba_loops.run(numba_loops.select, *arguments, items=-(-x.numel() // 8), threads=torch.get_num_threads())
    return out


def power(u: Tensor, exponent: float) -> Tensor:
    """Return relu(u)^exponent, for a positive exponent.

    The relative error is at most 1e-7 (2 + |exponent log2 u|). Elements below 2^-126 give 0, and so may a power
    below 2^-126.
    """
    answer: Tensor = torch.ops.hebb.power(u, exponent)
    return answer


@torch.library.impl(_LIBRARY, "power", "CPU")
def _power(u: Tensor, exponent: float) -> Tensor:
    from hebb.kernels import numba_loops

    if not _in_memory(u).is_contiguous():
        u = u.contiguous()
    out = torch.empty_like(u)
    arguments = (_in_memory(u).numpy().reshape(-1), np.float32(exponent), _in_memory(out).numpy().reshape(-1))
    numba_loops.run(numba_loops.power, *arguments, items=u.numel(), threads=torch.get_num_threads())
    return out


def _in_memory(x: Tensor) -> Tensor:
    """View x with its dimensions in memory order."""
    return x.permute(sorted(range(x.dim()), key=x.stride, reverse=True))


@torch.library.register_fake("hebb::power", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _like(u: Tensor, exponent: float) -> Tensor:
    return torch.empty_like(u)


@torch.library.register_vmap("hebb::power", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _power_of_pack(
    info: object, batched: tuple[int | None, None], u: Tensor, exponent: float
) -> tuple[Tensor, int | None]:
    """Take the powers of all members of a pack at once."""
    return power(u, exponent), batched[0]
