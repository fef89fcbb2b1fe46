"""What Ray Tune is given to choose and to stop: searchers and schedulers made from a search config."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    TrialScheduler,
)
from ray.tune.search import Searcher

from hebb.config.domains import Axis, Choice
from hebb.config.search_space import SchedulerSpec, SearchPlan
from hebb.core.errors import ConfigError
from hebb.core.seeds import derive

Parameters = dict[str, Any]
"""What a searcher suggests: by the name of a domain the place of a point, or the value of an interval."""

STEP, SCORE = "step", "score"
"""Keys of a report that schedulers and searchers read."""
_STARTUP = 10  # random points before a model is fitted


def check_installed(algorithm: str) -> None:
    """Refuse an algorithm whose package is missing."""
    if algorithm in ("optuna", "hyperopt") and importlib.util.find_spec(algorithm) is None:
        extra = "search" if algorithm == "optuna" else "hyperopt"
        raise ConfigError("search, algorithm", f"{algorithm} is not installed", hint=f"pip install -e '.[{extra}]'")


def choice_of(axes: Sequence[Axis], parameters: Parameters) -> Choice:
    """Return the point of the space that a searcher suggests; domains that do not exist there are left out."""
    choice: Choice = {}
    for axis in axes:
        if axis.active(choice):
            choice.update(_point(axis, parameters[axis.name]))
    return choice


def _point(axis: Axis, value: Any) -> Choice:
    count = axis.count()
    return axis.point((int(value) + 0.5) / count) if count else {axis.name: float(value)}


def searcher(plan: SearchPlan, axes: Sequence[Axis], mode: str, earlier: list[Parameters]) -> Searcher:
    """Return a model-based searcher that first suggests what was suggested ``earlier``, in that order.

    Its random numbers depend on how much that is: otherwise a continued search would draw its first points again.
    """
    seed = derive(plan.seed, "searcher", epoch=len(earlier)) % 2**32
    if plan.algorithm == "optuna":
        return _optuna(axes, mode, earlier, seed)
    return _hyperopt(axes, mode, earlier, seed)


def _optuna(axes: Sequence[Axis], mode: str, earlier: list[Parameters], seed: int) -> Searcher:
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    return OptunaSearch(
        _Space(tuple(axes)), metric=SCORE, mode=mode, points_to_evaluate=[dict(p) for p in earlier] or None, seed=seed
    )


@dataclass(frozen=True)
class _Space:
    """The space as Optuna asks for it, a value at a time; an object because Ray pickles its searchers."""

    axes: tuple[Axis, ...]

    def __call__(self, trial: Any) -> None:
        choice: Choice = {}
        for axis in self.axes:
            if axis.active(choice):
                choice.update(_point(axis, _suggested(trial, axis)))


def _suggested(trial: Any, axis: Axis) -> Any:
    if axis.listed:
        return trial.suggest_categorical(axis.name, list(range(axis.count())))
    if axis.count():
        return trial.suggest_int(axis.name, 0, axis.count() - 1)
    return trial.suggest_float(axis.name, axis.low, axis.high, log=axis.kind == "loguniform")


def _hyperopt(axes: Sequence[Axis], mode: str, earlier: list[Parameters], seed: int) -> Searcher:
    """HyperOpt models every domain everywhere: what it suggests for one that does not exist is not used."""
    import math

    from hyperopt import hp
    from ray.tune.search.hyperopt import HyperOptSearch

    logging.getLogger("hyperopt").setLevel(logging.ERROR)
    space = {}
    for axis in axes:
        if axis.listed:
            space[axis.name] = hp.choice(axis.name, list(range(axis.count())))
        elif axis.count():
            space[axis.name] = hp.randint(axis.name, axis.count())
        elif axis.kind == "loguniform":
            space[axis.name] = hp.loguniform(axis.name, math.log(axis.low), math.log(axis.high))
        else:
            space[axis.name] = hp.uniform(axis.name, axis.low, axis.high)
    return HyperOptSearch(
        space,
        metric=SCORE,
        mode=mode,
        points_to_evaluate=[dict(p) for p in earlier] or None,
        n_initial_points=_STARTUP,
        random_state_seed=seed,
    )


def plain(parameters: Parameters) -> Parameters:
    """Return parameters as JSON takes them; HyperOpt gives numpy numbers."""
    return {name: value.item() if hasattr(value, "item") else value for name, value in parameters.items()}


def scheduler(spec: SchedulerSpec, most: int) -> TrialScheduler:
    """Return the scheduler; ``most`` is the last step of a group."""
    if spec.name == "asha":
        return AsyncHyperBandScheduler(
            time_attr=STEP, max_t=most, grace_period=spec.grace, reduction_factor=spec.reduction
        )
    if spec.name == "hyperband":
        return HyperBandScheduler(time_attr=STEP, max_t=most, reduction_factor=spec.reduction)
    if spec.name == "median":
        # a trial that waited for others to be compared with would load its data anew each time it goes on
        return MedianStoppingRule(time_attr=STEP, grace_period=spec.grace, min_time_slice=float("inf"))
    return FIFOScheduler()
