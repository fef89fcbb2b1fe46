"""CPU cores, and what OpenMP reads when torch is loaded. Never imports torch."""

from __future__ import annotations

import os

_SPINS = "10000"


def cores() -> int:
    """Return the CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def openmp_settings() -> dict[str, str]:
    """Return the environment variables to set before torch is loaded: how long its idle threads spin before they sleep.

    By default they spin for some milliseconds and hold back other threads that work between two operations. The
    ranking of Krotov & Hopfield's rule does, and takes half the time with this value; a much smaller one slows
    small operations, which then have to wake the threads. A policy or count that the user has set is left alone.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        return {}
    return {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", _SPINS)}
