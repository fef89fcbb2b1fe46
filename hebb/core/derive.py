"""A number derived from what it is for. Never imports torch."""

from __future__ import annotations

import hashlib


def derive(seed: int, purpose: str, phase: int = 0, block: int = 0, epoch: int = 0) -> int:
    """Return 63 bits that depend on every argument and look independent for different ones."""
    text = f"{seed}/{purpose}/{phase}/{block}/{epoch}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
