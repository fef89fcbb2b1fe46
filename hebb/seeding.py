"""Random numbers: every generator is derived from what it is for, never from another's state.

``derive(seed, purpose, phase, block, epoch)`` is a pure function, so a generator that starts an epoch needs
no stored state: resuming at an epoch gives the bits of the uninterrupted run.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hebb.derive import derive

__all__ = ["Noise", "derive", "generator"]


def generator(
    seed: int, purpose: str, phase: int = 0, block: int = 0, epoch: int = 0, device: str = "cpu"
) -> torch.Generator:
    """Return a torch generator for this purpose on ``device``."""
    made = torch.Generator(device=device)
    made.manual_seed(derive(seed, purpose, phase, block, epoch))
    return made


class Noise:
    """Random masks for dropout, on the device of the data.

    On the CPU the bits come from numpy's SFC64, which fills a mask ten times (p = 1/2: fifty times) as fast as
    torch's serial Bernoulli sampler; on a GPU from torch's generator there. The object pickles and copies.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._host = np.random.Generator(np.random.SFC64(seed))
        self._device: torch.Generator | None = None
        self._rows: Tensor | None = None

    def dropout(self, like: Tensor, drop: float) -> Tensor:
        """Return factors of the shape of ``like``: 0 with probability ``drop``, else 1/(1 - drop)."""
        if like.device.type == "cpu" and drop == 0.5:
            return self._fair(like)
        # by way of int8: the conversion of booleans is eight times as slow
        return self.keep_mask(like, drop).view(torch.int8).to(like.dtype).mul_(1 / (1 - drop))

    def _fair(self, like: Tensor) -> Tensor:
        """Return 0 or 2 for each element, one random bit for each: a byte picks a row of eight factors."""
        if self._rows is None:
            bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)  # (256, 8)
            self._rows = torch.from_numpy(bits).float() * 2
        count = like.numel()
        drawn = torch.frombuffer(bytearray(self._host.bytes(-(-count // 8))), dtype=torch.uint8)
        return F.embedding(drawn.int(), self._rows).flatten()[:count].view(like.shape).to(like.dtype)

    def keep_mask(self, like: Tensor, drop: float | Tensor) -> Tensor:
        """Return a boolean mask of the shape of ``like``, False with probability ``drop``.

        The probability is a number or a tensor that broadcasts; on the CPU it is rounded to 1/65536.
        """
        if like.device.type == "cpu":
            words = self._host.integers(0, 1 << 16, size=like.shape, dtype=np.uint16)
            if isinstance(drop, Tensor):
                bound = (drop.detach() * 65536).round().to(torch.int32)
                return torch.from_numpy(words.astype(np.int32)) >= bound
            return torch.from_numpy(words >= np.uint16(min(65535, round(drop * 65536))))
        if self._device is None:
            self._device = torch.Generator(device=like.device)
            self._device.manual_seed(self.seed)
        return torch.rand(like.shape, generator=self._device, device=like.device) >= drop

    def __getstate__(self) -> dict[str, object]:
        return {"seed": self.seed, "_host": self._host, "_device": None, "_rows": None}
