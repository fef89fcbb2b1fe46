"""The steps at which a run reports to its search. Imports neither Ray nor torch."""

from __future__ import annotations

from dataclasses import dataclass

from hebb.config import plan
from hebb.config.phase import PhaseKind
from hebb.config.specs import RunConfig

RADII = ("convergence", "R1")
"""Metrics of Hebbian phases; the others are those of the classifier."""
WORST = 1e9
"""The score of a group that cannot go on, where less is better; where more is better, 0 is."""


@dataclass(frozen=True)
class Steps:
    """The steps at which a run reports: its probes, then the epochs of the phase that gives the metric.

    Attributes:
        phase: index of that phase.
        probed: indices of the Hebbian phases that end with a probe.
        epochs: epochs of the phase.
    """

    phase: int
    probed: tuple[int, ...]
    epochs: int

    @property
    def count(self) -> int:
        """The number of steps of a run."""
        return len(self.probed) + self.epochs


def of_run(config: RunConfig, metric: str, probe_every: int) -> Steps:
    """Return the steps of a run.

    Accuracy and loss come from the last phase, in which the classifier learns; radii from the last Hebbian phase.

    Args:
        config: the run.
        metric: what the run reports.
        probe_every: make a quick probe after every so many Hebbian phases; 0 makes none.
    """
    phases = plan.phases(config)
    with_radii = [i for i, phase in enumerate(phases) if phase.kind in (PhaseKind.HEBBIAN, PhaseKind.JOINT)]
    learning = [i for i, phase in enumerate(phases) if phase.kind != PhaseKind.CALIBRATE]
    measured = ((with_radii if metric in RADII else []) or learning or [len(phases) - 1])[-1]
    below = [i for i in range(measured) if phases[i].kind == PhaseKind.HEBBIAN]
    probed = tuple(below[probe_every - 1 :: probe_every]) if probe_every else ()
    return Steps(measured, probed, phases[measured].epochs)
