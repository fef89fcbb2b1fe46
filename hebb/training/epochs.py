"""One epoch of any kind, of one network or of a pack."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hebb.config.plan import PhaseKind
from hebb.data.images import Split
from hebb.nn.model import Network
from hebb.training import early_stop, engine, settling
from hebb.training.engine import Epoch, Progress, Scores
from hebb.training.pack import Pack


def run(
    trained: Network | Pack,
    splits: Sequence[Split],
    epochs: Sequence[Epoch],
    optimiser: torch.optim.Optimizer | None,
    progress: Progress,
    watch: early_stop.Watch | None = None,
) -> list[Scores]:
    """Train, or calibrate, for one epoch; return what it gave each network.

    Args:
        trained: a network, or several.
        splits: what each network reads.
        epochs: which epoch of its run it is for each.
        optimiser: that of the phase.
        progress: told of every batch; of a pack's, once.
        watch: what may end the phase early; a pack has none.
    """
    phase = epochs[0].phase
    if isinstance(trained, Network):
        return [_of_one(trained, splits[0], epochs[0], optimiser, progress, watch)]
    if phase.kind == PhaseKind.CALIBRATE:
        tells = [progress, *[lambda _: None] * (len(splits) - 1)]
        of_members = zip(trained.members, splits, epochs, tells, strict=True)
        return [engine.calibrate(member, split, at, tell) for member, split, at, tell in of_members]
    if not phase.descends:
        return trained.hebbian(splits, epochs, progress)
    assert optimiser is not None
    return trained.backprop(splits, epochs, optimiser, progress)


def _of_one(
    network: Network,
    split: Split,
    at: Epoch,
    optimiser: torch.optim.Optimizer | None,
    progress: Progress,
    watch: early_stop.Watch | None,
) -> Scores:
    """One epoch of a single network."""
    if at.phase.kind == PhaseKind.CALIBRATE:
        return engine.calibrate(network, split, at, progress)
    if at.phase.kind == PhaseKind.SETTLE:
        return settling.settle(network, split, at, optimiser, progress)
    if not at.phase.descends:
        return engine.hebbian(network, split, at, progress, optimiser, watch)
    assert optimiser is not None
    return engine.backprop(network, split, at, optimiser, progress)
