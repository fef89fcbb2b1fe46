"""Random masks for dropout.

Shapes: any; a mask has the shape of the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hebb.kernels import loops

EIGHTS = (np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1) * np.uint8(2)).view(np.int64).ravel()
"""For each byte the eight factors of a fair dropout, one for each bit: 0 or 2 as int8, packed into one number."""


class Noise:
    """Random masks for dropout, on the device of the data.

    On the CPU the bits come from numpy's SFC64, which fills a mask ten times (p = 1/2: fifty times) as fast as
    torch's serial Bernoulli sampler. On a GPU they come from torch's generator there. The object can be pickled and
    copied.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._host = np.random.Generator(np.random.SFC64(seed))
        self._device: torch.Generator | None = None

    def draw_from(self, generator: torch.Generator) -> None:
        """Draw from a generator of the device that outlives this object; it starts as this object's own would."""
        self._device = generator.manual_seed(self.seed)

    def go_on_with(self, generator: torch.Generator | None) -> None:
        """Draw what comes next from another generator."""
        self._device = generator

    def drop_out(self, x: Tensor, drop: float) -> Tensor:
        """Return x with elements zeroed with probability ``drop`` and the others divided by 1 - drop."""
        if drop == 0.5 and x.is_contiguous() and loops.pays(x):
            return loops.select(x, self.bits(x.numel()), EIGHTS)
        factors = self.factors(x.shape, drop, x.device)
        if x.requires_grad or x.dtype != factors.dtype:
            return x * factors
        return factors.mul_(x)

    def factors(self, shape: Sequence[int], drop: float, device: torch.device) -> Tensor:
        """Return the factors of dropout: 0 with probability ``drop``, else 1/(1 - drop)."""
        if device.type == "cpu" and drop == 0.5:
            return self._fair(shape)
        # via int8, because converting booleans is eight times as slow
        return self.keep_mask(shape, drop, device).view(torch.int8).to(torch.float32).mul_(1 / (1 - drop))

    def _fair(self, shape: Sequence[int]) -> Tensor:
        """Return 0 or 2 for each element, from one random bit each."""
        count = math.prod(shape)
        eights = torch.from_numpy(EIGHTS).index_select(0, torch.from_numpy(self.bits(count)).int())
        return eights.view(torch.int8)[:count].float().view(*shape)

    def bits(self, count: int) -> np.ndarray:
        """Return at least ``count`` random bits on the CPU, as bytes: the factors of a fair dropout (``EIGHTS``)."""
        words = self._host.bit_generator.random_raw(-(-count // 64))  # a third of the time of ``bytes``
        return np.asarray(words).astype("<u8", copy=False).view(np.uint8)

    def keep_mask(self, shape: Sequence[int], drop: float | Tensor, device: torch.device) -> Tensor:
        """Return a boolean mask, False with probability ``drop``.

        The probability is a number or a tensor that broadcasts; on the CPU it is rounded to 1/65536.
        """
        if device.type == "cpu":
            words = self._host.integers(0, 1 << 16, size=tuple(shape), dtype=np.uint16)
            if isinstance(drop, Tensor):
                bound = (drop.detach() * 65536).round().to(torch.int32)
                return torch.from_numpy(words.astype(np.int32)) >= bound
            return torch.from_numpy(words >= np.uint16(min(65535, round(drop * 65536))))
        if self._device is None:
            self._device = torch.Generator(device=device)
            self._device.manual_seed(self.seed)
        return torch.rand(tuple(shape), generator=self._device, device=device) >= drop

    def __getstate__(self) -> dict[str, object]:
        return {"seed": self.seed, "_host": self._host, "_device": None}
