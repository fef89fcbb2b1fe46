"""What a search consists of: trials, the groups that are judged as a whole, and the search itself.

Imports neither Ray nor torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hebb.config.domains import Choice
from hebb.config.objectives import Constraint, Objective
from hebb.config.search_space import SearchSpec
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import Goal, Purpose, Scheduler
from hebb.storage import folders, run_names
from hebb.storage.folders import FolderState

Packs = tuple[tuple[int, ...], ...]
"""Seeds that are trained together."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of a search.

    Attributes:
        name: ``<config hash>-s<seed>``, also the name of its folder.
        label: its configuration as a person reads it; listed configurations have different labels.
        choice: the values of the search space, by override path.
        config: the run.
        folder: its run folder.
        fault: why there is no such run, at a point that a model-based algorithm suggested; ``config`` is then that of
            the base, and nothing is trained.
    """

    name: str
    label: str
    choice: Choice
    config: RunConfig
    folder: Path
    fault: str = ""

    @property
    def configuration(self) -> str:
        """The part of the name that all seeds of the configuration share."""
        return run_names.configuration(self.name)

    @property
    def finished(self) -> bool:
        """Whether the run has its result on disk."""
        return folders.state(self.folder) == FolderState.FINISHED

    @property
    def interrupted(self) -> bool:
        """Whether the run has begun and has no result."""
        return folders.state(self.folder) == FolderState.INTERRUPTED


@dataclass(frozen=True, kw_only=True)
class Group:
    """What one worker runs and a scheduler judges as a whole: one run, a pack, or a configuration on its seeds.

    Attributes:
        name: the run's name, with the other seeds of a pack, or the hash of the configuration.
        runs: the runs, trained one after the other or in packs.
    """

    name: str
    runs: tuple[Trial, ...]

    def packs(self) -> list[tuple[Trial, ...]]:
        """List what is trained together: the members of a pack, or one run."""

        def key(trial: Trial) -> tuple[object, ...]:
            return (trial.configuration, trial.config.pack) if trial.config.pack else (trial.name,)

        return [tuple(members) for _, members in itertools.groupby(self.runs, key)]

    @property
    def label(self) -> str:
        """The configuration as a person reads it."""
        return self.runs[0].label

    @property
    def choice(self) -> Choice:
        """The values of the search space."""
        return self.runs[0].choice

    @property
    def fault(self) -> str:
        """Why the configuration cannot be trained; empty where it can."""
        return self.runs[0].fault

    @property
    def finished(self) -> bool:
        """Whether every run has its result on disk."""
        return all(trial.finished for trial in self.runs)


@dataclass(frozen=True, kw_only=True)
class EarlierPoint:
    """A configuration that an earlier search has measured.

    Attributes:
        search: the name of that search.
        choice: its values, as a point of the space of the new search.
        values: the mean over its seeds of every objective and of what is bounded, by name.
    """

    search: str
    choice: Choice
    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """What a model knows before its first point.

    Attributes:
        points: configurations of earlier searches.
        left_out: why others are not among them, by search and label.
    """

    points: tuple[EarlierPoint, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search, resolved and checked.

    Attributes:
        spec: the search config, with its blocks named.
        base: the run that the space changes.
        seeds: the replicates of every configuration.
        metric: what configurations are compared by.
        mode: whether the largest or the least value of it is best.
        folder: where everything is stored.
        trials: one run per configuration and seed; empty until a model-based algorithm has chosen them.
        final_seeds: seeds with which the winner is trained again on all training images; none in a sweep.
        resume_from: checkpoint with the initial weights, if any.
        pack_seeds: how many seeds of a configuration are trained together; 1 trains each by itself.
        packs: the seeds that are trained together; the others are trained by themselves.
        probe_every: report a quick probe after every so many Hebbian phases; 0 makes none.
        others: what they are compared by beside the metric; most searches have none.
        left_out: why configurations are never trained, by label: they break a bound on what is known before.
        final_points: numbers of the points of the front that are trained again; empty for all of them.
        warm: what earlier searches have measured, for the model.
    """

    spec: SearchSpec
    base: RunConfig
    seeds: tuple[int, ...]
    metric: str
    mode: Goal
    folder: Path
    trials: tuple[Trial, ...] = ()
    final_seeds: tuple[int, ...] = ()
    resume_from: Path | None = None
    pack_seeds: int = 1
    packs: Packs = ()
    probe_every: int = 0
    others: tuple[Objective, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    final_points: tuple[int, ...] = ()
    warm: WarmStart = WarmStart()

    @property
    def runs(self) -> int:
        """The number of runs, without the final runs of the winner."""
        return (self.spec.count() - len(self.left_out)) * len(self.seeds)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What configurations are compared by; the first orders the tables, and schedulers stop by it."""
        return (Objective(self.metric, self.mode), *self.others)

    @property
    def several(self) -> bool:
        """Whether configurations are compared by several objectives, so that there is a front and no winner."""
        return bool(self.others)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """The bounds that a configuration must keep."""
        return self.spec.constraints

    @property
    def beside(self) -> tuple[str, ...]:
        """What is measured of every configuration beside the metric, for other objectives and for constraints."""
        names = [*(other.metric for other in self.others), *(bound.metric for bound in self.constraints)]
        return tuple(dict.fromkeys(name for name in names if name != self.metric))

    @property
    def selects(self) -> bool:
        """Whether the search names a winner; a sweep does not."""
        return self.spec.purpose == Purpose.SEARCH

    @property
    def maximises(self) -> bool:
        """Whether more of the metric is better."""
        return self.mode == Goal.MAX

    @property
    def stops_early(self) -> bool:
        """Whether a scheduler stops configurations early."""
        return self.spec.scheduler.name != Scheduler.NONE

    def groups(self) -> list[Group]:
        """List what the workers run."""
        return grouped(self.trials, by_configuration=self.spec.grouped)


def grouped(trials: Iterable[Trial], *, by_configuration: bool) -> list[Group]:
    """Group the runs of each configuration, or else leave every pack and every other run by itself."""
    if not by_configuration:
        return [
            Group(name="+".join([runs[0].name, *(str(trial.config.seed) for trial in runs[1:])]), runs=runs)
            for runs in Group(name="", runs=tuple(trials)).packs()
        ]
    by_name: dict[str, list[Trial]] = {}
    for trial in trials:
        by_name.setdefault(trial.configuration, []).append(trial)
    return [Group(name=name, runs=tuple(runs)) for name, runs in by_name.items()]


def packs_of(seeds: Sequence[int], size: int) -> Packs:
    """Cut the seeds into packs of ``size``; the last one may be smaller, and a single seed is no pack."""
    packs = (tuple(seeds[i : i + size]) for i in range(0, len(seeds), size))
    return tuple(pack for pack in packs if len(pack) > 1)


def final_seeds(seeds: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Return ``count`` seeds that no trial of the search uses."""
    start = max(seeds) + 1
    return tuple(range(start, start + count))
