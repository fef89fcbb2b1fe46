"""The order in which the neurons of a block are shown: what was learned first.

Shapes: N neurons.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hebb.nn.blocks import Block


def of_block(block: Block, share: Tensor | None = None) -> Tensor:
    """Return the neurons of a block: ``by_learning`` where it is Hebbian, else ``by_deviation``; share (N,) of wins."""
    hebb = block.hebb
    return by_deviation(block.weight) if hebb is None else by_learning(hebb.radius(), hebb.r1_threshold, share)


def by_deviation(weight: Tensor) -> Tensor:
    """Return the neurons of a weight (N, ...) by falling standard deviation; equal ones keep their order."""
    return weight.detach().flatten(1).std(dim=1, correction=0).sort(descending=True, stable=True).indices.cpu()


def by_learning(radius: Tensor, threshold: float, share: Tensor | None = None) -> Tensor:
    """Return the neurons so that what was learned comes first.

    Those whose radius (N,) is within ``threshold`` of 1 come first, by their share of the wins (N,), if it is given;
    the others follow, radius nearest 1 first. Neurons that win nothing come last.
    """
    distance = (radius.detach() - 1).abs().cpu().double()
    wins = torch.zeros_like(distance) if share is None else share.cpu().double()
    idle = torch.zeros(len(distance), dtype=torch.bool) if share is None else wins == 0
    near = distance < threshold

    def key(i: int) -> tuple[bool, bool, float, float]:
        return bool(idle[i]), not near[i], -float(wins[i]) if near[i] else 0.0, float(distance[i])

    return torch.tensor(sorted(range(len(distance)), key=key), dtype=torch.int64)
