"""Early stop of a Hebbian phase: the stopping rules of Krotov & Hopfield's layers, open to every learning rule.

Shapes: L layers that learn in the phase; weights of a layer w_ij, one row i per neuron.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hebb.config.classifier import StopSpec
from hebb.config.phase import Phase, PhaseKind
from hebb.config.specs import RunConfig
from hebb.nn.hebb_layer import HebbLayer
from hebb.nn.model import Network


class Watch:
    """Follows c = max_i |sum_j |w_ij|^p - 1| of the learning layers from update to update, on their device.

    An update is an improvement when the c of any layer falls below that layer's minimum so far. An equal c does not
    count: a neuron that never wins keeps c constant and must not keep the phase alive.

    Args:
        spec: stopping rules.
        layers: layers that learn in the phase.
        epoch: number of updates in an epoch.
    """

    def __init__(self, spec: StopSpec, layers: Sequence[HebbLayer], epoch: int) -> None:
        self.spec, self.layers, self.epoch = spec, layers, epoch
        device = layers[0].weight.device
        self._last = torch.full((len(layers),), torch.inf, device=device)  # (L,)
        self._least = self._last.clone()
        self._waited = torch.zeros((), dtype=torch.int64, device=device)

    @torch.no_grad()
    def update(self) -> None:
        """Measure the weights after an update."""
        torch.stack([layer.norm_error() for layer in self.layers], out=self._last)
        improved = (self._last < self._least).any()
        torch.minimum(self._least, self._last, out=self._least)
        self._waited.add_(1).masked_fill_(improved, 0)

    def done(self) -> bool:
        """Return whether the phase ends; called at the end of each epoch."""
        limit, patience = self.spec.convergence, self.spec.patience
        converged = limit is not None and bool((self._last < limit).all())
        return converged or (patience is not None and int(self._waited) >= patience * self.epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a continued run needs."""
        return {"least": self._least.tolist(), "waited": int(self._waited)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._least.copy_(torch.tensor(state["least"]))
        self._waited.fill_(state["waited"])


def watch_of(config: RunConfig, phase: Phase, network: Network) -> Watch | None:
    """Return the early stop of a phase; None when the phase has none."""
    if phase.kind != PhaseKind.HEBBIAN or not config.stop.active:
        return None
    layers = [layer for i, layer in network.hebbian() if i in phase.blocks]
    return Watch(config.stop, layers, phase.updates // phase.epochs)
