"""CorInfoMaxSparse: CorInfoMax with rates held on the l1 ball (Bozkurt et al., NeurIPS 2023, appendix E).

Shapes: N images, n_l neurons of layer l, from n_0 pixels to n_L classes; rates and z are (N, n_1 + ... + n_L).
"""

from __future__ import annotations

import torch
from torch import Tensor

from hebb.energy.corinfomax import CorInfoMax
from hebb.energy.network import PhaseState


class CorInfoMaxSparse(CorInfoMax):
    """CorInfoMax with r = relu(u) and a threshold a >= 0 for each image and layer.

        du   <- du(CorInfoMax) - a;  u <- u + eta_t du;  r <- relu(u)
        v    <- v + lr_threshold (-v + a + sum_i r_i - 1);  a <- relu(v)

    a and v start at 0 in the free phase; later phases keep a and start with v = a.
    """

    def begin(self, like: Tensor, start: PhaseState | None) -> PhaseState:
        """Return the state that a phase starts from, and set the inner variables v of its thresholds."""
        state = super().begin(like, start)
        if start is None:
            state.thresholds = [like.new_zeros(len(like), 1) for _ in self.layers]
        self._inner = [a.clone() for a in state.thresholds]
        return state

    def fire(self, i: int, membrane: Tensor, rates: Tensor, state: PhaseState, eta: float) -> None:
        """Set the rates of layer i, then its threshold, in place."""
        threshold, inner = state.thresholds[i], self._inner[i]
        membrane.sub_(threshold, alpha=eta)
        torch.clamp(membrane, min=0, out=rates)
        rate = self.layers[i].spec.lr_threshold
        excess = rates.sum(dim=1, keepdim=True).add_(threshold).sub_(1)
        inner.mul_(1 - rate).add_(excess, alpha=rate)
        torch.clamp(inner, min=0, out=threshold)
