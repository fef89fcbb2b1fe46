"""Ray Tune's searchers and schedulers, made from a search config."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hebb.config.domains import Axis, Choice
from hebb.config.search_space import SchedulerSpec, SearchPlan
from hebb.config.vocabulary import DomainKind, Goal, Sampler, Scheduler
from hebb.core.seeds import derive
from hebb.tuning import (
    ray_session,  # noqa: F401  # before Ray, which reads its environment when it is imported
    samplers,
)
from hebb.tuning.search import Search
from hebb.tuning.suggestions import SCORE, STEP, Number, Parameters, point_of

# isort: split
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    TrialScheduler,
)
from ray.tune.search import Searcher


class _OptunaTrial(Protocol):
    """What we use of a trial of Optuna's."""

    def suggest_categorical(self, name: str, choices: Sequence[int]) -> int: ...

    def suggest_int(self, name: str, low: int, high: int) -> int: ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float: ...


def of_search(search: Search, earlier: Sequence[Parameters]) -> Searcher:
    """Return the searcher of a search, which may have several objectives or constraints; else as ``searcher``."""
    plan = search.spec.plan
    if plan.sampler is None or not (search.several or search.constraints):
        return searcher(plan, search.spec.axes, search.mode, earlier)
    return _pareto(plan.sampler, search, earlier)


def searcher(plan: SearchPlan, axes: Sequence[Axis], mode: Goal, earlier: Sequence[Parameters]) -> Searcher:
    """Return a model-based searcher that first repeats what was suggested ``earlier``, in that order.

    It draws again what it drew for those points, so it then suggests what it would have suggested without a break, if
    it learns the results in the same order.
    """
    if plan.sampler is not None:
        return _optuna(plan.sampler, axes, mode, earlier, _seed(plan))
    return _hyperopt(axes, mode, earlier, _seed(plan))


def _seed(plan: SearchPlan) -> int:
    return derive(plan.seed, "searcher", epoch=0) % 2**32


def _pareto(sampler: Sampler, search: Search, earlier: Sequence[Parameters]) -> Searcher:
    """Return Optuna's searcher for several objectives, or one with constraints."""
    import optuna

    from hebb.tuning import optuna_search

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    bounds = optuna_search.for_sampler(sampler) if search.constraints else {}
    return optuna_search.ParetoSearch(
        Space(search.spec.axes),
        objectives=search.objectives,
        bounds=search.constraints,
        sampler=optuna_search.repeating(samplers.build(sampler, _seed(search.spec.plan), **bounds), earlier),
    )


def _optuna(sampler: Sampler, axes: Sequence[Axis], mode: Goal, earlier: Sequence[Parameters], seed: int) -> Searcher:
    import optuna

    from hebb.tuning import optuna_search

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    kind = optuna_search.GpSearch if sampler == Sampler.GP else optuna_search.QuietOptunaSearch
    return kind(
        Space(tuple(axes)),
        metric=SCORE,
        mode=mode.value,
        sampler=optuna_search.repeating(samplers.build(sampler, seed), earlier),
    )


@dataclass(frozen=True)
class Space:
    """A space from which Optuna suggests one value at a time; an object because Ray pickles its searchers."""

    axes: tuple[Axis, ...]

    def __call__(self, trial: _OptunaTrial) -> None:
        """Ask for a value of every domain that exists beside those before it."""
        choice: Choice = {}
        for axis in self.axes:
            if axis.active(choice):
                choice.update(point_of(axis, _suggested(trial, axis)))


def _suggested(trial: _OptunaTrial, axis: Axis) -> Number:
    if axis.listed:
        return trial.suggest_categorical(axis.name, list(range(axis.count())))
    if axis.count():
        return trial.suggest_int(axis.name, 0, axis.count() - 1)
    return trial.suggest_float(axis.name, axis.low, axis.high, log=axis.kind == DomainKind.LOGUNIFORM)


def _hyperopt(axes: Sequence[Axis], mode: Goal, earlier: Sequence[Parameters], seed: int) -> Searcher:
    """Return HyperOpt's searcher; it suggests a value for every domain, and those that do not exist are not used."""
    from hyperopt import hp
    from ray.tune.search.hyperopt import HyperOptSearch

    logging.getLogger("hyperopt").setLevel(logging.ERROR)
    space = {}
    for axis in axes:
        if axis.listed:
            space[axis.name] = hp.choice(axis.name, list(range(axis.count())))
        elif axis.count():
            space[axis.name] = hp.randint(axis.name, axis.count())
        elif axis.kind == DomainKind.LOGUNIFORM:
            space[axis.name] = hp.loguniform(axis.name, math.log(axis.low), math.log(axis.high))
        else:
            space[axis.name] = hp.uniform(axis.name, axis.low, axis.high)
    made = HyperOptSearch(
        space,
        metric=SCORE,
        mode=mode.value,
        points_to_evaluate=[dict(p) for p in earlier] or None,
        random_state_seed=seed,
        **samplers.HYPEROPT,
    )
    for _ in earlier:
        made.rstate.randint(2**31 - 1)  # a number that it draws for each point, but for those it is given
    return made


def scheduler(spec: SchedulerSpec, last_step: int) -> TrialScheduler:
    """Return the scheduler of groups that end at ``last_step``."""
    if spec.name == Scheduler.ASHA:
        return AsyncHyperBandScheduler(
            time_attr=STEP, max_t=last_step, grace_period=spec.grace, reduction_factor=spec.reduction
        )
    if spec.name == Scheduler.HYPERBAND:
        return HyperBandScheduler(time_attr=STEP, max_t=last_step, reduction_factor=spec.reduction)
    if spec.name == Scheduler.MEDIAN:
        # pausing a trial until others can be compared with it would make it load its data again
        return MedianStoppingRule(time_attr=STEP, grace_period=spec.grace, min_time_slice=float("inf"))
    return FIFOScheduler()
