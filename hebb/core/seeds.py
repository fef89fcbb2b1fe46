"""Random numbers: every generator is derived from what it is for, never from another generator's state.

``derive(seed, purpose, phase, block, epoch)`` is a pure function, so a generator that starts an epoch needs no stored
state: a run resumed at an epoch gives the bits of the uninterrupted run. Importing this module does not import torch.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, purpose: str, phase: int = 0, block: int = 0, epoch: int = 0) -> int:
    """Return 63 bits that depend on every argument and look independent for different ones."""
    text = f"{seed}/{purpose}/{phase}/{block}/{epoch}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(
    seed: int, purpose: str, phase: int = 0, block: int = 0, epoch: int = 0, device: str = "cpu"
) -> torch.Generator:
    """Return a torch generator for this purpose on ``device``."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, purpose, phase, block, epoch))
