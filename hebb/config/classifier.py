"""Training besides network and data: the back-prop optimiser, and when Hebbian phases end early."""

from __future__ import annotations

from dataclasses import dataclass

from hebb.config.vocabulary import ClassifierLoss, Optimiser, Schedule, set_words
from hebb.core.errors import ConfigError

READERS = (
    ("momentum", "optimiser", Optimiser.SGD),
    ("restart", "schedule", Schedule.COSINE),
    ("restart_growth", "schedule", Schedule.COSINE),
    ("decay", "schedule", Schedule.DECAY),
    ("decay_every", "schedule", Schedule.DECAY),
    ("decay_after", "schedule", Schedule.DECAY),
)
"""Fields that one value of another field alone reads: the field, the other one, and its value."""


@dataclass(frozen=True, kw_only=True)
class ClassifierSpec:
    """What back-prop descends, and by which optimiser.

    Attributes:
        loss: ``cross_entropy``, or ``mse``: the mean over samples and classes of (output - one-hot label)^2.
        optimiser: ``adam``, ``adamw``, or ``sgd`` with ``momentum``.
        lr: rate; None takes the least ``lr_sup`` of the blocks that train together.
        momentum: momentum of sgd (no Nesterov, no dampening).
        weight_decay: L2 penalty added to the gradient; with ``adamw`` each update first multiplies all parameters by
            1 - rate times decay.
        schedule: ``step`` (halves at fixed shares of the epochs), ``cosine`` (falls to 0, with restarts), ``decay``
            (is multiplied by ``decay`` every ``decay_every`` epochs, from ``decay_after`` on) or ``constant``.
        restart: epochs of the first cosine cycle; None: one cycle, as long as the phase.
        restart_growth: factor by which each cycle is longer than the one before.
        decay: factor of the rate, above 0 and at most 1.
        decay_every: epochs between two decays.
        decay_after: epochs before the first of these intervals begins.
    """

    loss: ClassifierLoss = ClassifierLoss.CROSS_ENTROPY
    optimiser: Optimiser = Optimiser.ADAM
    lr: float | None = None
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: Schedule = Schedule.STEP
    restart: int | None = None
    restart_growth: int = 2
    decay: float = 0.9
    decay_every: int = 1
    decay_after: int = 0

    def __post_init__(self) -> None:
        set_words(self, "classifier.", loss=ClassifierLoss, optimiser=Optimiser, schedule=Schedule)
        if self.lr is not None and not 0 < self.lr <= 1e30:
            raise ConfigError("classifier.lr", f"must be a number > 0 and <= 1e30, got {self.lr}")
        if not 0 <= self.weight_decay < float("inf"):
            raise ConfigError("classifier.weight_decay", f"must be a number >= 0, got {self.weight_decay}")
        if not 0 <= self.momentum < 1:
            raise ConfigError("classifier.momentum", f"must be a number >= 0 and < 1, got {self.momentum}")
        for name in ("restart", "restart_growth", "decay_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"classifier.{name}", f"must be a whole number >= 1, got {value}")
        if self.decay_after < 0:
            raise ConfigError("classifier.decay_after", f"must be a whole number >= 0, got {self.decay_after}")
        if not 0 < self.decay <= 1:
            raise ConfigError("classifier.decay", f"must be a number > 0 and <= 1, got {self.decay}")

    def check(self) -> None:
        """Raise for values that would do nothing; called once all of them are set."""
        for name, key, reader in READERS:
            value = getattr(self, key)
            if getattr(self, name) != getattr(ClassifierSpec, name) and value != reader:
                raise ConfigError(
                    f"classifier.{name}",
                    f"does nothing for {'' if key == 'optimiser' else 'schedule '}{value}",
                    hint=f"classifier.{key}={reader} reads it",
                )
        if self.restart is None and self.restart_growth != ClassifierSpec.restart_growth:
            raise ConfigError("classifier.restart_growth", "does nothing for one cycle", hint="set classifier.restart")


@dataclass(frozen=True, kw_only=True)
class StopSpec:
    """When a Hebbian phase ends before its epochs are over. Both criteria are checked after each epoch.

    c of an update is max_i |sum_j |w_ij|^p - 1| over the neurons of a block (Krotov & Hopfield's convergence).

    Attributes:
        convergence: end when every block's last c is below this; None: never.
        patience: end when no block's c has fallen below its minimum for this many epochs' worth of updates; None:
            never.
    """

    convergence: float | None = None
    patience: float | None = None

    def __post_init__(self) -> None:
        for name in ("convergence", "patience"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"stop.{name}", f"must be a number > 0, got {value}")

    @property
    def active(self) -> bool:
        """Whether a phase can end early at all."""
        return (self.convergence, self.patience) != (None, None)
