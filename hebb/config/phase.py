"""A phase: one stage of training, which a training mode of ``plan`` makes and ``train.run`` executes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hebb.config.data_spec import batches
from hebb.config.vocabulary import Role


class PhaseKind(StrEnum):
    """How the blocks of a phase learn; the values are those of ``metrics.jsonl``."""

    HEBBIAN = "hebbian"
    """Each block learns by its own rule or loss."""
    BACKPROP = "backprop"
    """The blocks follow the gradient of the network's loss."""
    JOINT = "joint"
    """Some blocks learn as in HEBBIAN and some as in BACKPROP, on the same batches."""
    CALIBRATE = "calibrate"
    """No block learns: one pass over the data estimates the batch statistics of frozen blocks."""
    SETTLE = "settle"
    """All blocks of a settling network learn together."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stage of training.

    Attributes:
        kind: how the blocks learn.
        blocks: the blocks that learn (or are calibrated), in order.
        data: dataset that the phase reads, ``sup`` or ``unsup``.
        epochs, batch_size, print_freq: as in ``DataSpec``; a calibration has one epoch.
        updates: number of weight updates.
        schedule: T of the scheduled Hebbian rates, epochs * samples / batch, not rounded.
        lr: rate of the back-prop optimiser in the first epoch; None: no such optimiser.
        views: number of views of each image in a batch.
    """

    kind: PhaseKind
    blocks: tuple[int, ...]
    data: Role
    epochs: int
    batch_size: int
    print_freq: int
    updates: int
    schedule: float
    lr: float | None
    views: int = 1

    @property
    def first(self) -> int:
        """The lowest block that takes part in an update; those below are frozen."""
        return self.blocks[0]

    @property
    def descends(self) -> bool:
        """Whether an optimiser descends the loss of the whole network."""
        return self.kind in (PhaseKind.BACKPROP, PhaseKind.JOINT)

    def updates_per_epoch(self, images: int) -> int:
        """Return the number of batches in an epoch over ``images`` images."""
        return batches(images, self.batch_size)

    def evaluates(self, epoch: int) -> bool:
        """Tell whether an epoch, counted from 0, is evaluated and reported."""
        return epoch in (0, self.epochs - 1) or (epoch + 1) % self.print_freq == 0

    @property
    def keeps_features(self) -> bool:
        """Whether to cache the output of the frozen blocks below: several epochs read the same output."""
        return self.first > 0 and self.epochs > 1 and self.views == 1

    @property
    def top(self) -> int:
        """The highest block that takes part in an update."""
        return self.blocks[-1]

    def describe(self) -> str:
        """Name the phase: ``hebbian b0``."""
        return f"{self.kind} {' '.join(f'b{i}' for i in self.blocks)}"
