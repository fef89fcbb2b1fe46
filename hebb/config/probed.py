"""What the probes of a run need of the images they read: checked before the first update, not after the last.

The plan checks it by the numbers of the dataset's entry, and the trainer once more by the labels that were read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hebb.config.data_spec import batches
from hebb.config.registry import DATASETS
from hebb.config.rule import HebbianRule
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import Part, ProbeKind, Role
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from hebb.config.phase import Phase

NEIGHBOURS = 10
"""k of the nearest-neighbour probe."""
SHORT_EPOCHS, SHORT_BATCH = 20, 512
"""Training of the ``short`` probe."""


@dataclass(frozen=True, kw_only=True)
class ProbedImages:
    """The training images that probes are fitted on.

    Attributes:
        dataset: name, for messages.
        images: their number.
        classes: the number of different labels among them.
        unlabelled: how many have no label.
        labels: every label is smaller than this.
    """

    dataset: str
    images: int
    classes: int
    unlabelled: int
    labels: int


def role(phases: Iterable[Phase]) -> Role:
    """Return whose images the probes read: ``sup`` if a phase learns from them, else those of the last phase."""
    names = [phase.data for phase in phases]
    return Role.SUP if Role.SUP in names else names[-1]


def stated(config: RunConfig, phases: Iterable[Phase]) -> ProbedImages:
    """Return the images of the probes by the numbers of the dataset's entry."""
    spec = config.datasets[role(phases)]
    entry = DATASETS.get(spec.dataset, "dataset")
    images = min(config.probe_samples, spec.train_samples())
    unlabelled = images if spec.split == Part.UNLABELED else int(spec.split == Part.TRAIN_UNLABELED)  # 1: some
    return ProbedImages(
        dataset=spec.dataset,
        images=images,
        classes=entry.classes if spec.classes is None else len(spec.classes),
        unlabelled=unlabelled,
        labels=entry.classes,
    )


def short_updates(images: int) -> int:
    """Return the number of steps of the short probe."""
    return SHORT_EPOCHS * batches(images, SHORT_BATCH)


def check(config: RunConfig, probed: ProbedImages) -> None:
    """Raise for a probe that cannot be fitted on these images."""
    for kind in config.probes:
        problem = _problem(kind, config, probed)
        if problem is not None:
            raise ConfigError(f"--probe {kind}", f"{problem} of {probed.dataset}", hint="leave it out")


def hebbian(config: RunConfig) -> bool:
    """Tell whether one of the blocks that are probed has a Hebbian rule, whose neurons can have labels."""
    blocks = config.network.blocks
    probed = range(len(blocks) - 1) if config.probe_blocks is None else config.probe_blocks
    return any(isinstance(blocks[i].layer.rule, HebbianRule) for i in probed)


def check_linear(where: str, probed: ProbedImages) -> None:
    """Raise unless a linear probe can be fitted on these images; ``where`` asks for it."""
    problem = _fitted(probed) or _two_classes(probed)
    if problem is not None:
        raise ConfigError(where, f"{problem} of {probed.dataset}")


def _problem(kind: ProbeKind, config: RunConfig, probed: ProbedImages) -> str | None:
    """Return what a probe lacks, up to the name of the dataset."""
    match kind:
        case ProbeKind.GEOMETRY:
            return None
        case ProbeKind.NEURON:
            return "needs labels, got the unlabelled images" if probed.unlabelled == probed.images else None
        case ProbeKind.LINEAR:
            return _fitted(probed) or _two_classes(probed)
        case ProbeKind.KNN:
            few = probed.images < NEIGHBOURS
            return _fitted(probed) or (
                f"needs {NEIGHBOURS} training images or more, got {probed.images}" if few else None
            )
        case ProbeKind.SHORT:
            more = probed.labels > config.classes
            return _fitted(probed) or (
                f"needs labels below {config.classes}, got {probed.labels - 1}" if more else None
            )


def _fitted(probed: ProbedImages) -> str | None:
    return "needs a label of every image, got unlabelled images" if probed.unlabelled else None


def _two_classes(probed: ProbedImages) -> str | None:
    if probed.classes > 1:
        return None if probed.images > 1 else "needs training images of two classes or more, got one image"
    return "needs training images of two classes or more, got one class"
