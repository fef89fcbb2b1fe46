"""What a search hears of a run, and at which steps. Imports neither Ray nor torch."""

from __future__ import annotations

from dataclasses import dataclass

from hebb.config import plan
from hebb.config.specs import RunConfig

RADII = ("convergence", "R1")
"""Metrics of Hebbian phases; the others come from the classifier's."""


@dataclass(frozen=True)
class Steps:
    """The steps of a run that a search hears: its probes, then the epochs of the phase that gives the metric.

    Attributes:
        phase: number of that phase.
        probed: numbers of the Hebbian phases after which a probe is made.
        epochs: epochs of the phase.
    """

    phase: int
    probed: tuple[int, ...]
    epochs: int

    @property
    def count(self) -> int:
        """Steps of a whole run."""
        return len(self.probed) + self.epochs


def of_run(config: RunConfig, metric: str, probe_every: int) -> Steps:
    """Return the steps of a run.

    Accuracy and loss come from the last phase, in which the classifier learns; radii from the last Hebbian one.

    Args:
        config: the run.
        metric: what is reported.
        probe_every: a quick probe is made after every so many Hebbian phases; 0 makes none.
    """
    phases = plan.phases(config)
    with_radii = [i for i, phase in enumerate(phases) if phase.kind in (plan.PhaseKind.HEBBIAN, plan.PhaseKind.JOINT)]
    learning = [i for i, phase in enumerate(phases) if phase.kind != plan.PhaseKind.CALIBRATE]
    heard = ((with_radii if metric in RADII else []) or learning or [len(phases) - 1])[-1]
    below = [i for i in range(heard) if phases[i].kind == plan.PhaseKind.HEBBIAN]
    return Steps(heard, tuple(below[probe_every - 1 :: probe_every]) if probe_every else (), phases[heard].epochs)
