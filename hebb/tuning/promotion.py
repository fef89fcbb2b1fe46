"""``rungs`` as a scheduler of Ray Tune: trials pause at a rung, and the best go on from their checkpoints.

Ray starts whatever is pending, and counts paused trials among those that limit the others. So no trial begins before
its turn: ``OnDemand`` stands before the list of groups, or before a searcher, and gives a new trial when a place is
free and no paused one is promotable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hebb.config.search_space import SchedulerSpec
from hebb.config.vocabulary import Goal
from hebb.tuning import (
    ray_session,  # noqa: F401  # before Ray, which reads its environment when it is imported
)
from hebb.tuning.rungs import Rungs
from hebb.tuning.suggestions import SCORE, STEP

# isort: split
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController


class Promotion(TrialScheduler):
    """Pauses trials at their rungs, and chooses which one goes on.

    Args:
        spec: grace and reduction.
        last: the last step of the longest trial.
        mode: whether the largest or the least score is best.
        places: trials at the same time.
        total: trials of the search.
        runs: seeds of a trial.
    """

    _supports_buffered_results = False

    def __init__(self, spec: SchedulerSpec, last: int, mode: Goal, places: int, total: int, runs: int) -> None:
        super().__init__()
        self.rungs = Rungs(spec.grace, spec.reduction, last, mode)
        self.places, self.total, self.runs = places, total, runs
        self.begun, self.ended = 0, False
        self.active: dict[str, Trial] = {}
        self.waiting: dict[str, Trial] = {}

    def grows(self) -> bool:
        """Whether a new trial is to begin: a place is free, and nothing is promotable."""
        return self._free() and self.rungs.promotable() is None

    def _free(self) -> bool:
        return len(self.active) < self.places

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        """A trial begins, or is tried again after a mishap."""
        self.active[trial.trial_id] = trial

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Pause a trial that has reached its next rung."""
        if "failed" in result or "left_out" in result or "halt" in result:
            return str(TrialScheduler.CONTINUE)
        if not self.rungs.report(trial.trial_id, int(result[STEP]), float(result[SCORE])):
            return str(TrialScheduler.CONTINUE)
        self.waiting[trial.trial_id] = self.active.pop(trial.trial_id)
        return str(TrialScheduler.PAUSE)

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """A trial failed; one that is tried again is added again."""
        self._over(trial)

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        """A trial has reached its end, or repeated what it reported before it was stopped in an earlier session."""
        whole = result.get("kind") == "end" and result.get("n") == self.runs
        self.ended = self.ended or (whole and "failed" not in result)
        self._over(trial)

    def on_trial_remove(self, tune_controller: TuneController, trial: Trial) -> None:
        """A paused trial is stopped for good."""
        self._over(trial)

    def _over(self, trial: Trial) -> None:
        self.active.pop(trial.trial_id, None)
        self.waiting.pop(trial.trial_id, None)
        self.rungs.leave(trial.trial_id)

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """Return the paused trial that goes on; once nothing can, stop all that wait."""
        pending = next((trial for trial in self.active.values() if trial.status == Trial.PENDING), None)
        if pending is not None:
            return pending
        dry = not self.active and self.begun >= self.total and self.rungs.promotable() is None
        name = self.rungs.foremost() if dry and not self.ended else self.rungs.promotable() if self._free() else None
        if name is not None and self.waiting[name].status == Trial.PAUSED:  # else its checkpoint is being written
            self.rungs.leave(name)
            self.active[name] = self.waiting.pop(name)
            return self.active[name]
        if dry and name is None:
            for trial in list(self.waiting.values()):
                if trial.status == Trial.PAUSED:
                    tune_controller.stop_trial(trial)
        return None

    def debug_string(self) -> str:
        """Say what this is, for Ray."""
        return "asha-promotion"


class OnDemand(Searcher):
    """Gives a trial when the scheduler has a place for it.

    Args:
        scheduler: which says so.
        inner: a searcher, or names of groups in their order.
    """

    def __init__(self, scheduler: Promotion, inner: Searcher | Sequence[str]) -> None:
        super().__init__(metric=SCORE, mode=scheduler.rungs.mode.value)
        self.scheduler, self.inner = scheduler, inner

    def suggest(self, trial_id: str) -> Any:
        """Return the parameters of a new trial; None while there is no place for one."""
        if not self.scheduler.grows():
            return None
        count = self.scheduler.begun
        parameters: Any
        if isinstance(self.inner, Searcher):
            parameters = self.inner.suggest(trial_id)
        else:
            parameters = {"group": self.inner[count]} if count < len(self.inner) else Searcher.FINISHED
        if parameters == Searcher.FINISHED:
            self.scheduler.total = count
        elif parameters is not None:
            self.scheduler.begun += 1
        return parameters

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Pass on the space."""
        if isinstance(self.inner, Searcher):
            self.inner.set_search_properties(metric, mode, config, **spec)
        return True

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass on a report."""
        if isinstance(self.inner, Searcher):
            self.inner.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass on the end of a trial."""
        if isinstance(self.inner, Searcher):
            self.inner.on_trial_complete(trial_id, result=result, error=error)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Store nothing: a continued search is a new one for Ray."""

    def get_state(self) -> dict[str, Any]:
        """Store nothing, as ``save_to_dir``."""
        return {}
