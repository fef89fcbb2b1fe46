"""Ray's searcher for Optuna, without its false alarms, and with failures that a Gaussian process can take."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from hebb.config.objectives import Constraint, Objective
from hebb.config.vocabulary import Goal, Sampler
from hebb.core import extras
from hebb.tuning import ray_session  # noqa: F401  # before Ray, which reads its environment when it is imported
from hebb.tuning.steps import WORST
from hebb.tuning.suggestions import SCORE

# isort: split
from optuna.samplers import BaseSampler
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

_FALSE_ALARMS = (
    "Define-by-run function passed",  # the time is that of the model, which suggests while our function asks
    "Clip non-finite values",  # an infinite score counts as the worst finite one, which is what we ask for
    "GPSampler cannot handle infinite values",  # the same before Optuna 5
)


class Repeating(BaseSampler):
    """Suggests what was suggested before, and then what another sampler does, which draws for every point.

    Points that Optuna is given beforehand would leave its sampler where it began, and be drawn a second time.
    """

    def __init__(self, sampler: BaseSampler, earlier: Sequence[Mapping[str, int | float]]) -> None:
        self._sampler, self._earlier = sampler, [dict(point) for point in earlier]

    def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
        """Return the domains that are drawn together."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        """Draw the domains that are drawn together."""
        drawn = self._sampler.sample_relative(study, trial, search_space)
        return {name: self._value(trial, name, value) for name, value in drawn.items()}

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        """Draw any other domain."""
        drawn = self._sampler.sample_independent(study, trial, param_name, param_distribution)
        return self._value(trial, param_name, drawn)

    def _value(self, trial: Any, name: str, drawn: Any) -> Any:
        return self._earlier[trial.number].get(name, drawn) if trial.number < len(self._earlier) else drawn

    def before_trial(self, study: Any, trial: Any) -> None:
        """Let the sampler prepare."""
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        """Let the sampler learn what it keeps of its own."""
        self._sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Let the sampler draw other numbers."""
        self._sampler.reseed_rng()


def repeating(sampler: BaseSampler, earlier: Sequence[Mapping[str, int | float]]) -> BaseSampler:
    """Return a sampler that first suggests what was suggested ``earlier``."""
    return Repeating(sampler, earlier) if earlier else sampler


class QuietOptunaSearch(OptunaSearch):
    """Ray's searcher for Optuna."""

    def suggest(self, trial_id: str) -> Any:
        """Return the next point."""
        with warnings.catch_warnings():
            for message in _FALSE_ALARMS:
                warnings.filterwarnings("ignore", message)
            return super().suggest(trial_id)


class GpSearch(QuietOptunaSearch):
    """Ray's searcher for a Gaussian process, which models scores and not ranks.

    A loss of 1e9 stands for a failure; beside it the losses of all useful networks would be equal.
    """

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Learn the score of a point, or that it failed."""
        if result and result.get(SCORE, 0.0) >= WORST:
            result = {**result, SCORE: math.inf}
        super().on_trial_complete(trial_id, result, error)


_EXCESS = "excess"
"""Attribute of a point with the amounts by which it breaks each bound, for Optuna before 5."""
_SET = 5
"""Optuna from which a point itself is told its constraints."""


def for_sampler(sampler: Sampler) -> dict[str, Any]:
    """Return the argument by which a sampler of an older Optuna reads constraints; 5 reads them of the points."""
    if int((extras.version("optuna") or "0").split(".")[0]) >= _SET or sampler in (Sampler.RANDOM, Sampler.CMAES):
        return {}
    return {"constraints_func": _excess_of}


def _excess_of(trial: Any) -> Sequence[float]:
    return list(trial.user_attrs.get(_EXCESS, ()))


class ParetoSearch(QuietOptunaSearch):
    """Ray's searcher for Optuna with several objectives, bounds that points must keep, or both.

    A point that failed, or was never trained, has no value of its own. It is given the worst value of the others, and
    no huge number, which a sampler that models values would fit; without others Optuna leaves the point out.
    """

    def __init__(self, space: Any, objectives: Sequence[Objective], bounds: Sequence[Constraint], **more: Any) -> None:
        modes = [one.mode.value for one in objectives]
        several = len(modes) > 1
        # Ray demands of every report the keys named here, and only the end of a run has all objectives
        metric = [SCORE] * len(modes) if several else SCORE
        super().__init__(space, metric=metric, mode=modes if several else modes[0], **more)
        self._objectives, self._bounds = tuple(objectives), tuple(bounds)
        self._worst: dict[str, float] = {}

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Learn the objectives of a point, and by how much it breaks each bound."""
        values: list[float | None] = [None]
        if result and not error:
            means = self._means(result)
            self._constrain(trial_id, [bound.excess(means.get(bound.metric)) for bound in self._bounds])
            values = [self._value(one, means.get(one.metric)) for one in self._objectives]
        if None in values:
            self._ot_study.tell(self._ot_trials[trial_id], state=TrialState.FAIL)
        else:
            self._ot_study.tell(self._ot_trials[trial_id], values)
        self._completed_trials.add(trial_id)

    def _means(self, result: Mapping[str, Any]) -> dict[str, float]:
        """Return what a report says, whose dictionaries Ray has flattened."""
        first, mark = self._objectives[0].metric, "beside/"
        means = {name.removeprefix(mark): value for name, value in result.items() if name.startswith(mark)}
        if not {"failed", "left_out"} & set(result) and SCORE in result:
            means[first] = result[SCORE]
        return means

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Learn nothing of a point that goes on; no pruner of Optuna is used."""

    def _value(self, objective: Objective, value: float | None) -> float | None:
        """Return a value that a model can take: a number, else the worst so far; None where there is none."""
        name = objective.metric
        if value is None or not math.isfinite(value) or value >= WORST:
            return self._worst.get(name)
        worst = min if objective.mode == Goal.MAX else max
        self._worst[name] = worst(value, self._worst.get(name, value))
        return value

    def _constrain(self, trial_id: str, excess: Sequence[float]) -> None:
        trial = self._ot_trials[trial_id]
        if not hasattr(trial, "set_constraint"):
            trial.set_user_attr(_EXCESS, list(excess))
            return
        for bound, amount in zip(self._bounds, excess, strict=True):
            trial.set_constraint(str(bound), amount)
