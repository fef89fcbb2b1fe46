"""How the runs of a search are named, which are also the names of their folders: ``<configuration>-s<seed>``.

The configuration is a hash. Those on all training images, at the end of a search, begin with ``final-``. The members of
a pack of any run are named likewise, after the run.
"""

from __future__ import annotations

FINAL = "final"
"""What the names of runs on all training images begin with."""
_SEED = "-s"


def of(configuration: str, seed: int, *, final: bool = False) -> str:
    """Return the name of a run."""
    return f"{FINAL}-{configuration}{tail(seed)}" if final else f"{configuration}{tail(seed)}"


def tail(seed: int) -> str:
    """Return what the name of a run with a seed ends with."""
    return f"{_SEED}{seed}"


def configuration(name: str) -> str:
    """Return the part of a name that the seeds of a configuration share; empty for a name without a seed."""
    return name.rpartition(_SEED)[0]


def seed(name: str) -> int | None:
    """Return the seed in a name; None for a name without one."""
    head, _, digits = name.rpartition(_SEED)
    return int(digits) if head and digits.isdecimal() else None


def chosen(final: str) -> str:
    """Return the configuration of a run on all training images."""
    return configuration(final).removeprefix(f"{FINAL}-")


def is_final(name: str) -> bool:
    """Tell whether a run, or the group that it belongs to, is on all training images."""
    return name.startswith(f"{FINAL}-")
