"""An epoch: its position in the run, its scores, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from hebb.config.phase import Phase
from hebb.core import seeds
from hebb.energy.diagnostics import Look
from hebb.nn.model import Network
from hebb.nn.noise import Noise
from hebb.training.early_stop import Watch

Progress = Callable[[int], None]
"""Called with the number of images of each batch, or of some batches together."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Position of an epoch in its run; every generator of the epoch derives from it.

    Attributes:
        seed: the run's seed.
        phase: what is trained.
        phase_index: number of the phase in the run.
        epoch: number of the epoch in the phase, from 0.
    """

    seed: int
    phase: Phase
    phase_index: int
    epoch: int

    def order(self) -> torch.Generator:
        """Return the generator that shuffles the images."""
        return seeds.generator(self.seed, "order", self.phase_index, 0, self.epoch)

    def augmentation(self, device: torch.device) -> torch.Generator:
        """Return the generator of the augmentation, on the device of the images."""
        return seeds.generator(self.seed, "augmentation", self.phase_index, 0, self.epoch, str(device))

    def set_noise(self, network: Network) -> None:
        """Give every block its dropout noise of this epoch."""
        for i in range(len(network)):
            seed = seeds.derive(self.seed, "dropout", self.phase_index, i, self.epoch)
            network[i].set_noise(Noise(seed))
        for _, local in network.local():  # every block draws the same orders
            local.positives = seeds.generator(self.seed, "positives", self.phase_index, 0, self.epoch)


@dataclass(frozen=True)
class Scores:
    """Scores of an epoch; None for what the epoch does not measure.

    Attributes:
        loss: mean per sample.
        accuracy: in percent.
        rate: mean learning rate of the layers of a settling network.
        looks: measurements of a settling network during the epoch.
    """

    loss: float | None = None
    accuracy: float | None = None
    rate: float | None = None
    looks: tuple[Look, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EpochEnd:
    """A finished epoch.

    Attributes:
        phase, index, epoch: the phase, its number in the run, and the number of the epoch, from 0.
        last: whether the phase ends with this epoch.
        seconds: duration.
        optimiser, watch: optimiser and early stop of the phase, if it has them.
    """

    phase: Phase
    index: int
    epoch: int
    last: bool
    seconds: float
    optimiser: torch.optim.Optimizer | None
    watch: Watch | None

    @property
    def reported(self) -> bool:
        """Whether this epoch is evaluated and reported."""
        return self.last or self.phase.evaluates(self.epoch)
