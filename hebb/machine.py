"""What the machine gives: memory, and how the process keeps it."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT, _MAPPED = 1 << 30, 256 << 20


def keep_freed_memory() -> None:
    """Let the C library keep what is freed instead of giving it back to the kernel after every operation.

    A Hebbian step makes and frees a dozen arrays of some megabytes; by default each comes from the kernel as pages
    that must be cleared first, which takes longer than the arithmetic. Up to 1 GB of freed memory stays with the
    process. Without effect where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_MMAP_THRESHOLD, _MAPPED)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT)


def free_memory(device: torch.device) -> int:
    """Return the bytes that can still be allocated on a device; for the CPU without swapping."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = _container_room()
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return min(found, int(lines["MemAvailable"].split()[0]) * 1024)
    return min(found, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)  # no count of what is free


def _container_room() -> int:
    """Return what the memory limit of the control group leaves, or a number without meaning where there is none."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return sys.maxsize
    return sys.maxsize if limit == "max" else max(0, int(limit) - int(used))
