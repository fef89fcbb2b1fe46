"""When a Hebbian phase has learnt enough: the stopping rules of Krotov & Hopfield's layers, for every rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hebb.config.classifier import StopSpec
from hebb.config.plan import Phase, PhaseKind
from hebb.config.specs import RunConfig
from hebb.nn.layers import HebbLayer
from hebb.nn.model import Network


class Watch:
    """Follows c = max_i |sum_j |w_ij|^p - 1| of the learning layers from update to update, on their device.

    An update improves when the c of some layer is below the least that layer has had; equal is not below, so that a
    neuron that never wins, and whose c therefore stands still, does not keep a phase alive.

    Args:
        spec: the rules.
        layers: the layers of the phase that learn.
        epoch: updates of one epoch.
    """

    def __init__(self, spec: StopSpec, layers: Sequence[HebbLayer], epoch: int) -> None:
        self.spec, self.layers, self.epoch = spec, layers, epoch
        device = layers[0].weight.device
        self._last = torch.full((len(layers),), torch.inf, device=device)
        self._least = self._last.clone()
        self._waited = torch.zeros((), dtype=torch.int64, device=device)

    @torch.no_grad()
    def update(self) -> None:
        """Look at the weights after an update."""
        self._last = torch.stack([layer.norm_error() for layer in self.layers])
        improved = (self._last < self._least).any()
        self._least = torch.minimum(self._least, self._last)
        self._waited = torch.where(improved, 0, self._waited + 1)

    def done(self) -> bool:
        """Tell, at the end of an epoch, whether the phase ends here."""
        limit, patience = self.spec.convergence, self.spec.patience
        converged = limit is not None and bool((self._last < limit).all())
        return converged or (patience is not None and int(self._waited) >= patience * self.epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return what a continued run needs."""
        return {"least": self._least.tolist(), "waited": int(self._waited)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._least = torch.tensor(state["least"], device=self._least.device)
        self._waited = torch.tensor(state["waited"], device=self._waited.device)


def watch_of(config: RunConfig, phase: Phase, network: Network) -> Watch | None:
    """Return what may end the phase early; None where nothing does."""
    if phase.kind != PhaseKind.HEBBIAN or not config.stop.active:
        return None
    layers = [layer for i, layer in network.hebbian() if i in phase.blocks]
    return Watch(config.stop, layers, phase.updates // phase.epochs)
