"""Who ranks where in a competition: +1 for the first, another sign for the k-th. No rule of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_EXACT = 1 << 24  # a float32 counts no further
_WORTH_A_THREAD = 1 << 18  # values that take half a millisecond to sort, several times the start of a thread


def first_and_kth(u: Tensor, k: int, delta: float) -> Tensor:
    """Return y of the shape of u (B, C, ...): 1 for the largest of dimension 1, -delta for the k-th largest, else 0.

    Exactly two neurons of each sample have y other than 0, also among equals. On the CPU this costs a maximum, a
    partial sort of values by numpy, whose kernels are vectorised, and three passes: torch's ``topk``, which sorts
    pairs of value and place, takes three times as long. Rows with equals among the ranks go through ``topk``.
    """
    import torch

    from hebb.kernels.private_torch import is_batched

    rows = u.movedim(1, -1)  # (B, ..., C): no copy when u lies in memory channels last
    shape, count = rows.shape, rows[..., 0].numel()
    rows = rows.reshape(count, -1)
    host = u.device.type == "cpu" and u.dtype in (torch.float32, torch.float64)
    if not host or is_batched(u) or torch.compiler.is_compiling() or count >= _EXACT:
        return _by_topk(rows, k, delta).view(shape).movedim(-1, 1)
    top, kth = rows.amax(dim=1, keepdim=True), kth_largest(rows, k)
    y = torch.eq(rows, kth, out=torch.empty_like(rows))
    won = torch.eq(rows, top, out=torch.empty_like(rows))
    equals = y.sum() != count or won.sum() != count or bool((top == kth).any())
    tied = (y.sum(dim=1) != 1) | (won.sum(dim=1) != 1) | (top == kth).squeeze(1) if equals else None
    torch.sub(won, y, alpha=delta, out=y)
    if tied is not None:
        y[tied] = _by_topk(rows[tied], k, delta)
    return y.view(shape).movedim(-1, 1)


def kth_largest(rows: Tensor, k: int) -> Tensor:
    """Return the k-th largest value of each row of (N, C) as (N, 1), in as many threads as torch uses."""
    import numpy as np
    import torch

    place, threads = rows.shape[1] - k, torch.get_num_threads()
    kth = torch.empty((len(rows), 1), dtype=rows.dtype)

    def part(piece: Tensor, into: Tensor) -> None:
        into.copy_(torch.from_numpy(np.partition(piece.numpy(), place, axis=1)[:, place : place + 1]))

    if threads == 1 or rows.numel() < _WORTH_A_THREAD * threads:
        part(rows.detach(), kth)
        return kth
    with ThreadPoolExecutor(threads) as pool:  # numpy lets go of the interpreter while it sorts
        list(pool.map(part, rows.detach().chunk(threads), kth.chunk(threads)))
    return kth


def lower_median(maps: Tensor) -> Tensor:
    """Return the lower median over images of maps (N, C, ...), as (C, ...); images of NaN are left out.

    On the CPU by ``kth_largest``, which takes a quarter of the time of torch's own.
    """
    import torch

    from hebb.kernels.private_torch import is_batched

    host = maps.device.type == "cpu" and maps.dtype in (torch.float32, torch.float64)
    if not host or is_batched(maps) or torch.compiler.is_compiling():
        return maps.nanmedian(dim=0).values
    absent = maps.flatten(1)[:, 0].isnan()
    if absent.all():  # the run diverges
        return maps.nanmedian(dim=0).values
    seen = maps[~absent] if absent.any() else maps
    count, order = len(seen), sorted(range(1, seen.dim()), key=seen.stride, reverse=True)  # as they lie in memory
    places = seen.permute(*order, 0)
    median = kth_largest(places.reshape(-1, count), count - (count - 1) // 2).view(places.shape[:-1])
    return median.permute([order.index(i) for i in range(1, seen.dim())])


def _by_topk(rows: Tensor, k: int, delta: float) -> Tensor:
    import torch

    ranked = rows.topk(k, dim=1).indices  # (N, k)
    y = torch.zeros_like(rows).scatter(1, ranked[:, -1:], -delta)
    return y.scatter(1, ranked[:, :1], 1.0)
