"""CPU operations in one pass over memory where torch takes several; they pay from ``WORTH`` elements on.

Steps of states, of which a network makes a hundred thousand, pay from ``WORTH_A_STEP`` on.

Shapes: B batch, C channels, M rows; the loops of powers and dropout see one flat row of elements.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import numpy as np
import torch
from torch import Tensor

from hebb.kernels import own_threads, private_torch, team

WORTH = 1 << 19
"""Elements from which a loop is worth its import and its call."""

WORTH_A_STEP = 1 << 11
"""Hidden states of a batch from which the steps of an epoch or two are worth the import."""

WORTH_SHARING = 1 << 13
"""Hidden states of a batch that several threads step sooner than one."""

_SUMS = "_positive_sums"  # attribute of the answer of a softmax: the sums of its columns, and its version then

_LIBRARY = torch.library.Library("hebb", "FRAGMENT")
_LIBRARY.define("power(Tensor u, float exponent) -> Tensor")
_LIBRARY.define("softmax(Tensor u, float beta, bool signed) -> Tensor")
_LIBRARY.define("positive_sums(Tensor rows) -> Tensor")


def pays(x: Tensor, passes: int = 1) -> bool:
    """Whether a loop applies to x and is worth it, as one that saves ``passes``; the loops have no gradient."""
    return passes * x.numel() >= WORTH and _plain(x)


def _plain(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and not x.requires_grad


def _is_bare(x: Tensor) -> bool:
    """Whether a loop may read x at once; by way of an operation, torch takes some 30 microseconds more."""
    return private_torch.is_readable(x) and not x.requires_grad


def pays_between(x: Tensor, passes: int = 1) -> bool:
    """Whether a loop over the rows of x is worth it between two operations of torch, as one that saves ``passes``.

    It is not where torch's threads share the rows and a loop cannot run on them (``hebb.kernels.team``). A compiled
    graph fuses its own passes.
    """
    return not torch.compiler.is_compiling() and pays(x, passes) and team.threads() == torch.get_num_threads()


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
    own_threads.run(numba_loops.select, *arguments, items=-(-x.numel() // 8), threads=torch.get_num_threads())
    return out


def power(u: Tensor, exponent: float) -> Tensor:
    """Return relu(u)^exponent, for a positive exponent.

    The relative error is at most 2e-7 (1 + |exponent log2 u|). Elements below 2^-126 give 0, and so may a power
    below 2^-126.
    """
    answer: Tensor = (_power if _is_bare(u) else torch.ops.hebb.power)(u, exponent)
    return answer


@torch.library.impl(_LIBRARY, "power", "CPU")
def _power(u: Tensor, exponent: float) -> Tensor:
    from hebb.kernels import numba_loops

    if not _in_memory(u).is_contiguous():
        u = u.contiguous()
    out = torch.empty_like(u)
    arguments = (_in_memory(u).numpy().reshape(-1), np.float32(exponent), _in_memory(out).numpy().reshape(-1))
    own_threads.run(numba_loops.power, *arguments, items=u.numel(), threads=torch.get_num_threads())
    return out


def _in_memory(x: Tensor, like: Tensor | None = None) -> Tensor:
    """View x with its dimensions in memory order, or in that of another tensor."""
    order = x if like is None else like
    return x.permute(sorted(range(x.dim()), key=order.stride, reverse=True))


@torch.library.register_fake("hebb::power", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _like(u: Tensor, exponent: float) -> Tensor:
    return torch.empty_like(u)


@torch.library.register_vmap("hebb::power", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _power_of_pack(
    info: object, batched: tuple[int | None, None], u: Tensor, exponent: float
) -> tuple[Tensor, int | None]:
    """Take the powers of all members of a pack at once."""
    return power(u, exponent), batched[0]


def softmax(u: Tensor, beta: float, *, signed: bool = False) -> Tensor:
    """Return the softmax of beta u over dimension 1, for a positive beta.

    The relative error of a share s is at most 1e-7 (4 + 2 |log2 s| + C/500), as far as s is at least 2^-126; smaller
    ones are 0 or subnormal.

    Args:
        u: (M, C).
        beta: the inverse temperature.
        signed: give the other sign where u is below the largest of its row.
    """
    answer: Tensor = (_softmax if _is_bare(u) else torch.ops.hebb.softmax)(u, beta, signed)
    return answer


@torch.library.impl(_LIBRARY, "softmax", "CPU")
def _softmax(u: Tensor, beta: float, signed: bool) -> Tensor:
    from hebb.kernels import numba_loops

    u = u.contiguous()
    out, sums = torch.empty_like(u), _no_sums(u)
    numba_loops.SOFTMAX(u=u, beta=beta, signed=signed, out=out, sums=sums)
    if not out.is_inference():  # such a tensor does not tell whether it was changed
        setattr(out, _SUMS, (sums, out._version))
    return out


def _no_sums(rows: Tensor) -> Tensor:
    """Return what each thread adds to: zeros, (threads, C)."""
    return rows.new_zeros(team.threads(), rows.shape[1], dtype=torch.float64)


def _counted(rows: Tensor) -> Tensor | None:
    """Return the positive sums (threads, C) of rows that are all of a softmax, if no operation has changed it."""
    whole = rows if rows._base is None else rows._base
    sums, version = getattr(whole, _SUMS, (None, 0))
    same = rows.shape == whole.shape and rows.is_contiguous()
    return sums if sums is not None and same and whole._version == version else None


@torch.library.register_fake("hebb::softmax", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _like_rows(u: Tensor, beta: float, signed: bool) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


@torch.library.register_vmap("hebb::softmax", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _softmax_of_pack(
    info: object, batched: tuple[int | None, None, None], u: Tensor, beta: float, signed: bool
) -> tuple[Tensor, int | None]:
    """Let the rows of all members of a pack compete at once."""
    members = u.movedim(batched[0] or 0, 0)  # (S, M, C)
    return softmax(members.flatten(0, 1), beta, signed=signed).view_as(members), 0


def positive_mass(y: Tensor) -> Tensor:
    """Return the sum of the positive numbers of each channel of (B, C) or (B, C, H, W), as (C,)."""
    if pays_between(y):
        return positive_sums(y if y.dim() == 2 else y.permute(0, 2, 3, 1).reshape(-1, y.shape[1]))
    each = y.relu()
    if y.dim() > 2:  # image by image: a thread then sums what its cache still holds, in a third of the time
        each = each.sum(dim=(2, 3))
    return each.sum(dim=0)


def positive_sums(rows: Tensor) -> Tensor:
    """Return the sum of the positive numbers of each column of (M, C)."""
    answer: Tensor = (_positive_sums if _is_bare(rows) else torch.ops.hebb.positive_sums)(rows)
    return answer


@torch.library.impl(_LIBRARY, "positive_sums", "CPU")
def _positive_sums(rows: Tensor) -> Tensor:
    from hebb.kernels import numba_loops

    sums = _counted(rows)
    if sums is None:
        rows, sums = rows.contiguous(), _no_sums(rows)
        numba_loops.POSITIVE_SUMS(y=rows, out=sums)
    return sums.sum(dim=0).float()


@torch.library.register_fake("hebb::positive_sums", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _like_columns(rows: Tensor) -> Tensor:
    return rows.new_empty(rows.shape[1])


@torch.library.register_vmap("hebb::positive_sums", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _positive_sums_of_pack(info: object, batched: tuple[int | None], rows: Tensor) -> tuple[Tensor, int | None]:
    """Sum the columns of each member of a pack."""
    members = rows.movedim(batched[0] or 0, 0)  # (S, M, C)
    return torch.stack([positive_sums(member) for member in members]), 0


def decay(change: Tensor, weight: Tensor, factors: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """Subtract factors weight from change in place; where a loop does not pay, change nothing and return None.

    It stands for four or six passes of torch, so it pays from half the elements on.

    Args:
        change: (C, ...), changed.
        weight: in the shape and the order of memory of change.
        factors: (C,), one for a row; None stands for the sums of change weight over each row.

    Returns:
        The largest magnitude of the new change, (), and the norm of each row of the weights, (C,).
    """
    if not pays_between(change, passes=2):
        return None
    tensors = (change, weight) if factors is None else (change, weight, factors)
    if not all(map(_is_bare, tensors)):
        return None
    rows, weights = (_in_memory(x, like=change) for x in (change, weight))
    if not rows.is_contiguous() or not weights.is_contiguous() or change.stride(0) * len(change) < change.numel():
        return None
    from hebb.kernels import numba_loops

    rows, weights = rows.view(len(change), -1), weights.view(len(change), -1)
    peaks, squares = change.new_empty(len(change)), change.new_empty(len(change))
    multiples = peaks if factors is None else factors.contiguous()  # not read without factors
    numba_loops.DECAY(
        change=rows, weight=weights, factors=multiples, given=factors is not None, peaks=peaks, squares=squares
    )
    return peaks.amax(), squares.sqrt_()


class Transfer(Enum):
    """Functions f of a neuron's state that ``state_step`` has."""

    RELU = "max(z, 0)"
    SIGMOID = "1/(1 + exp(-z))"


def state_step(
    function: Transfer | None, z: Tensor, drive: Tensor, error: Tensor, slope: Tensor, rates: Tensor
) -> Callable[[float], None] | None:
    """Return what moves states z by size (f'(z) slope - error), and sets rates to f(z) and error to z - drive.

    None if the function is none of these, the tensors are not for loops, or too small for one to pay.

    Args:
        function: f.
        z: (N, n), changed.
        drive: (N, n).
        error: (N, n), changed.
        slope: (N, m), m <= n; states from m on do not move.
        rates: (N, m), f(z), changed.
    """
    tensors = {"z": z, "drive": drive, "error": error, "slope": slope, "rates": rates}
    if function is None or rates.numel() < WORTH_A_STEP:
        return None
    if not all(_is_bare(x) and x.is_contiguous() for x in tensors.values()):
        return None
    from hebb.kernels import numba_loops

    sigmoid, alone = function is Transfer.SIGMOID, rates.numel() < WORTH_SHARING
    task = numba_loops.STEP_STATES.task(**tensors, hidden=rates.shape[1], sigmoid=sigmoid, size=0.0)
    sizes = task.record["size"]

    def step(size: float) -> None:
        sizes[0] = size
        numba_loops.STEP_STATES.run(task, alone=alone)

    return step
