"""Ray Tune's searchers and schedulers, made from a search config."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from hebb.config.domains import Axis, Choice
from hebb.config.search_space import SchedulerSpec, SearchPlan
from hebb.config.vocabulary import DomainKind, Goal, Sampler, Scheduler
from hebb.core.seeds import derive
from hebb.tuning import (
    ray_session,  # noqa: F401  # before Ray, which reads its environment when it is imported
    samplers,
)
from hebb.tuning.search import Search
from hebb.tuning.suggestions import SCORE, STEP, Number, Parameters, parameters_of, point_of

# isort: split
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    TrialScheduler,
)
from ray.tune.search import Searcher

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from hebb.tuning.optuna_search import Attributes
    from hebb.tuning.studies import Study

_TENTH = 10
"""Points from which on a tenth of them is one."""


class _OptunaTrial(Protocol):
    """What we use of a trial of Optuna's."""

    def suggest_categorical(self, name: str, choices: Sequence[int]) -> int: ...

    def suggest_int(self, name: str, low: int, high: int) -> int: ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float: ...


def of_search(
    search: Search, earlier: Sequence[Parameters], study: Study | None = None, attributes: Attributes | None = None
) -> Searcher:
    """Return the searcher of a search, which may have several objectives, constraints, and a warm start.

    It first repeats what was suggested ``earlier``, and draws again what it drew for those points. So it then suggests
    what it would have suggested without a break, if it learns the results in the same order.

    Args:
        search: the search.
        earlier: what it has suggested before.
        study: keeps the study; None for one in memory.
        attributes: of a point, in a study that is kept.
    """
    plan = search.spec.plan
    if plan.sampler is None:
        return _hyperopt(search.spec.axes, search.mode, earlier, _seed(plan))
    if study is None:
        return _optuna(plan.sampler, search, earlier)
    kept = {"storage": study.storage, "study_name": study.begin(), "attributes": attributes}
    return _optuna(plan.sampler, search, earlier, **kept)


def _seed(plan: SearchPlan) -> int:
    return derive(plan.seed, "searcher", epoch=0) % 2**32


def _optuna(sampler: Sampler, search: Search, earlier: Sequence[Parameters], **kept: Any) -> Searcher:
    """Return Optuna's searcher; ``kept`` says where its study is kept."""
    import optuna

    from hebb.tuning import optuna_search

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warm, space = _earlier_trials(search), Space(search.spec.axes)
    bounds = optuna_search.for_sampler(sampler) if search.constraints else {}
    kept["sampler"] = _sampler(sampler, search, earlier, warm, **bounds)
    searcher: optuna_search.QuietOptunaSearch
    if search.several or search.constraints:
        searcher = optuna_search.ParetoSearch(space, search.objectives, search.constraints, **kept)
    else:
        kind = optuna_search.GpSearch if sampler == Sampler.GP else optuna_search.QuietOptunaSearch
        searcher = kind(space, metric=SCORE, mode=search.mode.value, **kept)
    searcher.remember(warm)
    return searcher


def _earlier_trials(search: Search) -> list[FrozenTrial]:
    """Return the warm start of a search as finished trials."""
    if not search.warm.points:
        return []
    from hebb.tuning import optuna_search

    axes = search.spec.axes
    parameters = [parameters_of(axes, point.choice) for point in search.warm.points]
    return optuna_search.earlier_trials(search, parameters, {axis.name: _distribution(axis) for axis in axes})


def _sampler(
    sampler: Sampler, search: Search, earlier: Sequence[Parameters], warm: Sequence[FrozenTrial], **settings: Any
) -> BaseSampler:
    """Return the sampler of Optuna, which first repeats what was suggested earlier, after the trials of a warm start.

    CMA-ES begins at those trials by an argument, with the distribution of their best tenth: few are repeated until the
    best of them is a tenth. The other samplers read them of the study.
    """
    from hebb.tuning import optuna_search

    if warm and sampler == Sampler.CMAES:
        settings["source_trials"] = list(warm) * -(-_TENTH // len(warm))
    built = samplers.build(sampler, _seed(search.spec.plan), **settings)
    return optuna_search.repeating(built, earlier, after=len(warm))


def _distribution(axis: Axis) -> BaseDistribution:
    """Return the distribution from which ``_suggested`` draws."""
    from optuna import distributions

    if axis.listed:
        return distributions.CategoricalDistribution(list(range(axis.count())))
    if axis.count():
        return distributions.IntDistribution(0, axis.count() - 1)
    return distributions.FloatDistribution(axis.low, axis.high, log=axis.kind == DomainKind.LOGUNIFORM)


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
    searcher = HyperOptSearch(
        space,
        metric=SCORE,
        mode=mode.value,
        points_to_evaluate=[dict(p) for p in earlier] or None,
        random_state_seed=seed,
        **samplers.HYPEROPT,
    )
    for _ in earlier:
        searcher.rstate.randint(2**31 - 1)  # a number that it draws for each point, but for those it is given
    return searcher


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
