"""What the machine gives: memory and how the process keeps it, threads."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_MADV_HUGEPAGE = 14  # of sys/mman.h
_KEPT, _HEAP = 2 << 30, 1 << 30


@functools.cache
def keep_freed_memory() -> None:
    """Let the C library keep freed memory, and put its heap on huge pages.

    A Hebbian step allocates and frees a dozen arrays of a few megabytes each. By default the kernel hands out each one
    as pages of 4 kB that it must clear first, which takes longer than the arithmetic; and on such scattered pages the
    arithmetic itself is up to a third slower than on pages of 2 MB. Up to 2 GB of freed memory stays with the process.
    Nothing changes where the C library is not glibc, or where the kernel grants no huge pages on request.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return
    for largest in (_HEAP, 32 << 20):  # the second is the most that older versions accept
        if library.mallopt(_M_MMAP_THRESHOLD, largest):
            break
    library.mallopt(_M_TRIM_THRESHOLD, _KEPT)
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    heap = library.malloc(_HEAP - 1)  # addresses only: untouched, it takes no memory
    if heap:
        _ask_for_huge_pages(heap, _HEAP)
        library.free(heap)  # it stays the end of the heap, from which arrays are cut


@functools.cache
def is_intel() -> bool:
    """Tell whether the processor is one of Intel's."""
    try:
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        described = platform.processor()
    return "GenuineIntel" in described


def use_huge_pages(tensor: torch.Tensor) -> torch.Tensor:
    """Request huge pages for a large CPU tensor that has not been written to yet, and return it."""
    if sys.platform.startswith("linux") and tensor.device.type == "cpu":
        _ask_for_huge_pages(tensor.data_ptr(), tensor.nbytes)
    return tensor


def _ask_for_huge_pages(address: int, size: int) -> None:
    """Advise the kernel; a refusal does not matter."""
    page = os.sysconf("SC_PAGE_SIZE")
    first = -(-address // page) * page
    ctypes.CDLL(None).madvise(
        ctypes.c_void_p(first), ctypes.c_size_t((address + size - first) // page * page), _MADV_HUGEPAGE
    )


def wait_for(device: torch.device) -> None:
    """Let the device finish, so that a measured time is the time of the work."""
    if device.type == "cpu":
        return
    import torch

    if device.type == "mps":
        torch.mps.synchronize()
    else:
        getattr(torch, device.type).synchronize(device)


def upload(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return ``x`` on a device. A copy to a GPU goes through pinned memory, so that the host does not wait for it."""
    if device.type == "cuda" and x.device.type == "cpu" and not x.is_pinned():
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


def gpu_name(index: int = 0) -> str | None:
    """Return the name of a GPU; None on a machine without one."""
    import torch

    if torch.xpu.is_available():
        return torch.xpu.get_device_name(index)
    if torch.backends.mps.is_available():
        return f"GPU of {platform.processor() or 'a Mac'}"
    return torch.cuda.get_device_name(index) if torch.cuda.is_available() else None


def free_memory(device: torch.device) -> int:
    """Return the bytes that can still be allocated on a device; on the CPU, without swapping."""
    if device.type == "cuda":
        import torch

        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for new tensors
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    if device.type == "xpu":
        import torch

        return int(torch.xpu.mem_get_info(device)[0])
    room = _container_room()
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return min(room, int(lines["MemAvailable"].split()[0]) * 1024)
    return min(room, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)  # no count of what is free


def _container_room() -> int:
    """Return what the memory limit of the control group leaves; ``sys.maxsize`` without a limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return sys.maxsize
    return sys.maxsize if limit == "max" else max(0, int(limit) - int(used))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
