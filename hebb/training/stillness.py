"""Blocks whose own rule moves none of their weights in an epoch: a gate of zeros trains as happily as any other.

The weights are copied once an epoch and compared at its end, so a step costs nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hebb.config.phase import Phase, PhaseKind
from hebb.nn.model import Network
from hebb.rules import rates


@dataclass(frozen=True, kw_only=True)
class Still:
    """A block that kept its weights for an epoch.

    Attributes:
        block: its number.
        text: what to tell the user.
    """

    block: int
    text: str


class Stillness:
    """The weights of the blocks that learn by their own rule, as they were before an epoch.

    Args:
        network: the network.
        phase: the phase; a calibration moves no weight by design.
    """

    def __init__(self, network: Network, phase: Phase) -> None:
        self._network, self._phase = network, phase
        blocks = () if phase.kind == PhaseKind.CALIBRATE else phase.blocks
        own = [i for i in blocks if network[i].spec.learns_locally or network[i].spec.settles]
        self._before: dict[int, Tensor] = {i: network[i].weight.detach().clone() for i in own}

    def still(self, epoch: int) -> list[Still]:
        """Return the blocks whose weights all have the value they had; ``epoch`` counts from 0.

        A block whose schedule starts at a rate of 0 is not one of them in that epoch.
        """
        kept = [i for i, before in self._before.items() if torch.equal(before, self._network[i].weight)]
        return [Still(block=i, text=self._text(i, epoch)) for i in kept if not self._waits(i, epoch)]

    def _waits(self, i: int, epoch: int) -> bool:
        """Tell whether the schedule of a local loss has a rate of 0 in this epoch, and in others not."""
        spec = self._network[i].spec
        return spec.local and spec.layer.lr_sup > 0 and not rates.warm_cosine(spec.layer, epoch, self._phase.epochs)

    def _text(self, i: int, epoch: int) -> str:
        spec, count = self._network[i].spec, self._before[i].numel()
        rate = spec.layer.lr_sup if spec.local else spec.layer.lr
        if rate == 0:
            return f"block {i}: its rate is 0, so its {count:,} weights stay as they are"
        return f"warning: block {i}: {spec.layer.method} moved none of its {count:,} weights in epoch {epoch + 1}"
