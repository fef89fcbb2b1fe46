"""Ray's searcher for Optuna, without its false alarms, and with failures that a Gaussian process can take."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hebb.config.domains import label
from hebb.config.objectives import Constraint, Objective
from hebb.config.vocabulary import Goal, Sampler
from hebb.core import extras
from hebb.core.errors import HebbError
from hebb.tuning import ray_session  # noqa: F401  # before Ray, which reads its environment when it is imported
from hebb.tuning.search import EarlierPoint, Search
from hebb.tuning.steps import WORST
from hebb.tuning.suggestions import SCORE

# isort: split
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial
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

    def __init__(self, sampler: BaseSampler, earlier: Sequence[Mapping[str, int | float]], after: int = 0) -> None:
        self._sampler, self._earlier = sampler, {after + i: dict(point) for i, point in enumerate(earlier)}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the domains that are drawn together."""
        space: dict[str, BaseDistribution] = self._sampler.infer_relative_search_space(study, trial)
        return space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, object]:
        """Draw the domains that are drawn together."""
        drawn = self._sampler.sample_relative(study, trial, search_space)
        return {name: self._value(trial, name, value) for name, value in drawn.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> object:
        """Draw any other domain."""
        drawn = self._sampler.sample_independent(study, trial, param_name, param_distribution)
        return self._value(trial, param_name, drawn)

    def _value(self, trial: FrozenTrial, name: str, drawn: object) -> object:
        return self._earlier.get(trial.number, {}).get(name, drawn)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Let the sampler prepare."""
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Let the sampler learn what it keeps of its own."""
        self._sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Let the sampler draw other numbers."""
        self._sampler.reseed_rng()


def repeating(sampler: BaseSampler, earlier: Sequence[Mapping[str, int | float]], after: int = 0) -> BaseSampler:
    """Return a sampler that first suggests what was suggested ``earlier``, behind ``after`` trials of a warm start."""
    return Repeating(sampler, earlier, after) if earlier else sampler


Attributes = Callable[[Mapping[str, Any]], Mapping[str, object]]
"""Gives a point the attributes by which a person reads it in a study that is kept."""


class QuietOptunaSearch(OptunaSearch):
    """Ray's searcher for Optuna.

    Args:
        attributes: of a point, in a study that is kept; None for a study that nobody sees.
        arguments: those of Ray's searcher.
    """

    def __init__(self, *arguments: Any, attributes: Attributes | None = None, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._attributes = attributes
        self._stored = more.get("storage") is not None

    def suggest(self, trial_id: str) -> Any:
        """Return the next point."""
        with warnings.catch_warnings(), _kept(self._stored):
            for message in _FALSE_ALARMS:
                warnings.filterwarnings("ignore", message)
            point = super().suggest(trial_id)
            if self._attributes is not None:
                for name, value in self._attributes(point).items():
                    self._ot_trials[trial_id].set_user_attr(name, value)
            return point

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Learn what a point that goes on has reached."""
        with _kept(self._stored):
            super().on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Learn the score of a point, or that it failed."""
        with _kept(self._stored):
            super().on_trial_complete(trial_id, result, error)
            self._check_kept(trial_id)

    def _check_kept(self, trial_id: str) -> None:
        """Raise where a study that is kept did not take the result of a point: Ray goes on after such an error."""
        if self._attributes is None:
            return
        study, trial = self._ot_study, self._ot_trials[trial_id]
        if not study._storage.get_trial(trial._trial_id).state.is_finished():
            study.tell(trial, state=TrialState.FAIL)  # it had no number, or raises what prevented the other

    def close(self) -> None:
        """Mark the points that an interruption ended as failed, in a study that is kept; their runs are continued."""
        if self._attributes is None:
            return
        with _kept(self._stored):
            for trial_id in self._ot_trials.keys() - self._completed_trials:
                self._ot_study.tell(self._ot_trials[trial_id], state=TrialState.FAIL)

    def remember(self, earlier: Sequence[FrozenTrial]) -> None:
        """Learn what earlier searches measured."""
        with _kept(self._stored):
            self._ot_study.add_trials(earlier)


@contextmanager
def _kept(stored: bool) -> Iterator[None]:
    """Turn a failed write into one clear error. The runs are on disk, so nothing is lost."""
    if not stored:
        yield
        return
    try:
        yield
    except (StorageInternalError, OSError) as error:
        reason = " ".join(str(error.__cause__ or error).split("\n")[0].split())
        raise HebbError(f"--storage: the study can no longer be written: {reason}") from None


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


def _excess_of(trial: FrozenTrial) -> Sequence[float]:
    return list(trial.user_attrs.get(_EXCESS, ()))


def earlier_trials(
    search: Search, parameters: Sequence[Mapping[str, Any]], domains: Mapping[str, BaseDistribution]
) -> list[FrozenTrial]:
    """Return what earlier searches measured as finished trials of Optuna.

    Args:
        search: the search, with its warm start.
        parameters: the values of each point, as Optuna suggests them.
        domains: of all parameters, by name.
    """
    return [
        create_trial(
            values=[point.values[one.metric] for one in search.objectives],
            params=dict(values),
            distributions={name: domains[name] for name in values},
            system_attrs=_generation(search.spec.plan.sampler),
            **_bounded(search, point),
        )
        for point, values in zip(search.warm.points, parameters, strict=True)
    ]


def _generation(sampler: Sampler | None) -> dict[str, int]:
    """Return the mark of the first generation, without which a genetic algorithm does not breed from a point."""
    if sampler != Sampler.NSGA2:
        return {}
    key = getattr(NSGAIISampler, "_get_generation_key", None)  # Optuna 4.3 and newer
    return {key() if key is not None else "nsga2:generation": 0}


def _bounded(search: Search, point: EarlierPoint) -> dict[str, Any]:
    """Return where a point comes from, and by how much it breaks each bound."""
    source = {"warm start": point.search, "configuration": label(point.choice)}
    excess = {str(bound): bound.excess(point.values.get(bound.metric)) for bound in search.constraints}
    if not excess:
        return {"user_attrs": source}
    if hasattr(FrozenTrial, "set_constraint"):
        return {"user_attrs": source, "constraints": excess}
    return {"user_attrs": {**source, _EXCESS: list(excess.values())}}


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
            with _kept(self._stored):
                self._constrain(trial_id, [bound.excess(means.get(bound.metric)) for bound in self._bounds])
            values = [self._value(one, means.get(one.metric)) for one in self._objectives]
        with _kept(self._stored):
            if None in values:
                self._ot_study.tell(self._ot_trials[trial_id], state=TrialState.FAIL)
            else:
                self._ot_study.tell(self._ot_trials[trial_id], values)
        self._completed_trials.add(trial_id)

    def remember(self, earlier: Sequence[FrozenTrial]) -> None:
        """Learn what earlier searches measured, the worst values among it."""
        for trial in earlier:
            for one, value in zip(self._objectives, trial.values, strict=True):
                self._value(one, value)
        super().remember(earlier)

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
