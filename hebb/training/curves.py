"""Learning curves inside an epoch: the blocks of a phase, measured after a few of its updates.

    convergence, R1, radius_mean    of the radii, as in the record of an epoch (rules that have radii)
    winner_share                    largest share of the positive gate mass since the point before, in percent
    winners                         1 / sum_i s_i^2 of these shares: the neurons that share the wins, if equally
    weight_change                   |w - w'| / |w'| with the weights w' at the point before, over the whole layer
    recent_loss, recent_acc         means over the updates since the point before (rules that have a loss)

A step does nothing more for it: gates and losses are the sums that it keeps anyway. A point costs a few passes over
the weights, a copy of them, and one wait for the device. Nothing is drawn and nothing of the network is written to, so
the bits stay as they are. Every epoch ends with a point, so no interval reaches from one epoch into the next, and a
run that continues from a checkpoint measures what an uninterrupted one does.

Shapes: C neurons of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from hebb.config.phase import Phase, PhaseKind
from hebb.kernels.precision import doubles
from hebb.nn.blocks import Block
from hebb.nn.model import Network
from hebb.storage.curves import Point, Tell
from hebb.training.epoch import Epoch

POINTS = 50
"""Points of a phase where the config does not say how many."""
SPACING = 10
"""Updates between two of them at least: a point costs about a third of a small update, and less of a large one."""

Measures = dict[tuple[str, str], Tensor]
"""Numbers on the device, by block (an empty word for the phase) and name."""


def places(phase: Phase, updates: int, points: int | None) -> list[int]:
    """Return after which updates of an epoch its points lie, counted from 1; the last is its end.

    Args:
        phase: the phase. A calibration has no updates, and a settling network has measurements of its own.
        updates: updates of an epoch.
        points: points of the phase; None takes ``POINTS``, ``SPACING`` updates apart or more, and 0 none.
    """
    if points == 0 or phase.kind in (PhaseKind.CALIBRATE, PhaseKind.SETTLE):
        return []
    most = max(1, updates // SPACING) if points is None else updates
    count = min(-(-(POINTS if points is None else points) // phase.epochs), most)
    return [-(-updates * i // count) for i in range(1, count + 1)]


class Totals(Protocol):
    """The sums of an epoch with a loss (``hebb.training.engine.Sums``)."""

    @property
    def loss(self) -> Tensor:
        """Sum of the losses of all images."""

    hits: Tensor
    samples: int


class Curves:
    """Follows the updates of an epoch, of one run or of all members of a pack, and measures where a point is due.

    Args:
        networks: the networks of the members.
        at: the epoch.
        places: what ``places`` returned.
        before: updates of the run before this epoch.
        tells: receive the points of each member; None for a member without a record.
    """

    def __init__(
        self, networks: Sequence[Network], at: Epoch, places: Sequence[int], before: int, tells: Sequence[Tell | None]
    ) -> None:
        self._networks, self._at, self._before, self._tells = networks, at, before, tells
        self._places = list(places)
        self._updates = 0
        self._members: list[_Member] = []

    @torch.no_grad()
    def begin(self) -> None:
        """Take down how the epoch starts, and measure the radii if the phase starts with it."""
        if not self._places:
            return
        tells = enumerate(zip(self._networks, self._tells, strict=True))
        self._members = [_Member(net, self._at.phase, i, tell) for i, (net, tell) in tells if tell is not None]
        if self._at.epoch == 0:
            self._tell(0, [member.measures(_Block.states) for member in self._members])

    @property
    def due(self) -> tuple[int, ...]:
        """After which updates of the epoch its remaining points lie."""
        return tuple(self._places)

    def update(self, totals: Totals | None = None, count: int = 1) -> None:
        """Count updates, and measure if a point is due after them; ``totals`` are the sums of the epoch so far."""
        self._updates += count
        if self._places and self._updates == self._places[0]:
            del self._places[0]
            self._measure(totals)

    @torch.no_grad()
    def _measure(self, totals: Totals | None) -> None:
        measured = [{**m.measures(_Block.states, _Block.changes), **m.means(totals)} for m in self._members]
        self._tell(self._at.epoch + 1, measured)

    def _tell(self, epoch: int, measured: Sequence[Measures]) -> None:
        """Copy the numbers of all members to the host at once, and pass them on as points."""
        tensors = [tensor for measures in measured for tensor in measures.values()]
        if not tensors:
            return
        numbers = iter(torch.stack([doubles(tensor) for tensor in tensors]).tolist())
        for member, measures in zip(self._members, measured, strict=True):
            blocks: dict[str, dict[str, float]] = {}
            for (block, name), tensor in measures.items():
                number = next(numbers)
                blocks.setdefault(block, {})[name] = number if tensor.is_floating_point() else int(number)
            member.tell(
                Point(
                    update=self._before + self._updates,
                    phase=self._at.phase_index,
                    kind=str(self._at.phase.kind),
                    epoch=epoch,
                    recent=blocks.pop("", {}),
                    blocks=blocks,
                )
            )


class _Member:
    """The blocks of a phase in one network, and its part of the sums of an epoch."""

    def __init__(self, network: Network, phase: Phase, place: int, tell: Tell) -> None:
        self.tell, self._place = tell, place
        self._blocks = {f"b{i}": _Block(network[i]) for i in phase.blocks}
        self._loss, self._hits, self._samples = torch.zeros(()), torch.zeros(()), 0

    def measures(self, *functions: Callable[[_Block], dict[str, Tensor]]) -> Measures:
        """Measure every block by the functions."""
        return {
            (name, key): tensor
            for name, block in self._blocks.items()
            for function in functions
            for key, tensor in function(block).items()
        }

    def means(self, totals: Totals | None) -> Measures:
        """Return the mean loss and accuracy since the last call: of the network, else the sum of the local losses."""
        if totals is None:
            local = [loss for block in self._blocks.values() if (loss := block.loss) is not None]
            return {("", "recent_loss"): torch.stack(local).sum()} if local else {}
        loss, hits = (doubles(sums.view(-1)[self._place].clone()) for sums in (totals.loss, totals.hits))
        count = totals.samples - self._samples
        means = {"recent_loss": (loss - self._loss) / count, "recent_acc": 100 * (hits - self._hits) / count}
        self._loss, self._hits, self._samples = loss, hits, totals.samples
        return {("", name): mean for name, mean in means.items()}


class _Block:
    """A block and what it was at the point before.

    Attributes:
        loss: mean of its local loss between the last two points; None if it has none.
    """

    def __init__(self, block: Block) -> None:
        self._block = block
        self.loss: Tensor | None = None
        self._weight = block.weight.detach().clone()
        self._norm = torch.linalg.vector_norm(self._weight)
        self._mass = None if block.hebb is None else block.hebb.gate_mass.clone()  # (C,)
        self._updates, self._sums = 0, dict[str, Tensor]()

    def states(self) -> dict[str, Tensor]:
        """Measure the radii, of a rule that has them."""
        layer = self._block.hebb
        if layer is None:
            return {}
        radius = layer.radius()
        return {
            "convergence": layer.convergence(radius),
            "R1": layer.converged(radius),
            "radius_mean": radius.mean(),
        }

    def changes(self) -> dict[str, Tensor]:
        """Measure the weights against those of the last call, and the wins and local losses since."""
        return {"weight_change": self._weight_change(), **self._wins(), **self._losses()}

    def _weight_change(self) -> Tensor:
        weight = self._block.weight.detach()
        torch.sub(weight, self._weight, out=self._weight)
        change: Tensor = torch.linalg.vector_norm(self._weight) / self._norm
        self._norm = torch.linalg.vector_norm(self._weight.copy_(weight))
        return change

    def _wins(self) -> dict[str, Tensor]:
        layer = self._block.hebb
        if layer is None or self._mass is None:
            return {}
        mass = layer.gate_mass.clone()
        share = mass - self._mass
        share = share / share.sum().clamp(min=torch.finfo(share.dtype).tiny)
        self._mass = mass
        squares = share.square().sum()
        return {"winner_share": 100 * share.amax(), "winners": share.sum() / squares.where(squares > 0, 1.0)}

    def _losses(self) -> dict[str, Tensor]:
        local = self._block.local
        if local is None or local.updates == self._updates:
            return {}
        sums, count = {name: total.clone() for name, total in local.sums().items()}, local.updates - self._updates
        means = {name: (total - self._sums.get(name, 0.0)) / count for name, total in sums.items()}
        self._updates, self._sums, self.loss = local.updates, sums, means["loss"]
        return {f"recent_{name}": mean for name, mean in means.items()}
