"""The largest memory that a run takes, told apart from that of earlier runs of the same process.

On the CPU it is the resident memory of the process, with Python and torch, which are about 0.3 GB; on a GPU what torch
has allocated there. Memory that a run frees stays with the process, so that the next one does not wait for fresh pages
(up to 2 s a GB); a later run of a process can therefore only tell its peak where it is asked to give that memory back.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_CLEAR = Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"  # of proc(5): the peak of the resident memory is set to what is resident now
_STATUS, _PEAK = Path("/proc/self/status"), "VmHWM:"


class PeakMemory:
    """Follows the largest memory from now on.

    Args:
        device: where the run computes.
        before: the peak of an earlier part of the run in bytes; 0 for none, None where it is not known.
        give_back: give the memory that earlier runs of the process have freed back to the machine.
    """

    _begun = False
    """Whether a run of this process has begun."""

    def __init__(self, device: torch.device, before: int | None = 0, *, give_back: bool = False) -> None:
        first, PeakMemory._begun = not PeakMemory._begun, True
        self._device, self._before = device, before
        self._follows = (first or give_back or device.type != "cpu") and _forget(device, give_back)

    def bytes(self) -> int | None:
        """Return the largest memory of the run so far; None where the machine, or the run, cannot tell."""
        if self._before is None or not self._follows:
            return None
        return max(self._before, _peak(self._device))

    def lose(self) -> None:
        """Say that a part of the run was done elsewhere."""
        self._before = None


def can_follow(device: torch.device | str) -> bool:
    """Tell whether a process can tell the peak of a run from those before it."""
    kind = str(device).partition(":")[0]
    return kind in ("cuda", "xpu") or (kind == "cpu" and os.access(_CLEAR, os.W_OK))


def _forget(device: torch.device, give_back: bool) -> bool:
    """Begin anew, and give back the memory that was freed."""
    if not can_follow(device):
        return False
    if give_back:
        gc.collect()
    if device.type != "cpu":
        import torch

        getattr(torch, device.type).reset_peak_memory_stats(device)
        return True
    if give_back and sys.platform.startswith("linux"):
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)
    with contextlib.suppress(OSError):
        _CLEAR.write_text(_FORGET_PEAK, encoding="ascii")
        return True
    return False


def _peak(device: torch.device) -> int:
    if device.type != "cpu":
        import torch

        return int(getattr(torch, device.type).max_memory_allocated(device))
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(_PEAK))
