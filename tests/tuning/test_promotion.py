"""Asynchronous successive halving by promotion: who waits, who goes on, and in which order; without Ray's loop.

Without it a good configuration could be left behind at a rung, or a search wait for ever.
"""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace
from typing import Any

import pytest

from hebb.config.search_space import SchedulerSpec
from hebb.config.vocabulary import Goal, Scheduler
from hebb.tuning.rungs import Rungs


def run_alone(scores: list[float], rungs: Rungs) -> list[tuple[int, int]]:
    """Run trials on one worker as algorithm 2 says; return (trial, step where it stopped or paused) in their order."""
    done: dict[str, int] = {}
    order = []
    fresh = iter(range(len(scores)))
    while True:
        name = rungs.promotable()
        if name is None:
            new = next(fresh, None)
            if new is None:
                return order
            name, done[str(new)] = str(new), 0
        else:
            rungs.leave(name)
        while done[name] < rungs.last:
            done[name] += 1
            if rungs.report(name, done[name], scores[int(name)]):
                break
        order.append((int(name), done[name]))


def test_the_order_of_a_search_by_hand() -> None:
    """Six configurations, rungs at 1 and 2 of 4 steps, one of two goes on: worked out by hand from algorithm 2.

    Two at rung 0: the better, 1, goes to rung 1, where it is alone. Trial 2 makes three, of which floor(3 / 2) = 1 goes
    on, and that one did. Trial 3 makes four: the best two are 3 and 1, so 3 follows, and of the two at rung 1 it is the
    better: it runs to the end. Trial 4 is the worst of five; trial 5 makes six, so a third goes on, which is 5. Of the
    three at rung 1 one goes on, and that is still 3.
    """
    scores = [10.0, 30.0, 20.0, 50.0, 0.0, 25.0]
    first = [(0, 1), (1, 1), (1, 2), (2, 1), (3, 1), (3, 2), (3, 4), (4, 1), (5, 1), (5, 2)]
    assert run_alone(scores, Rungs(1, 2, 4, Goal.MAX)) == first
    assert run_alone([-score for score in scores], Rungs(1, 2, 4, Goal.MIN)) == first


def test_a_paper_sized_bracket() -> None:
    """27 configurations, reduction 3, rungs 1, 3 and 9 of 27 steps, as the paper's bracket 0.

    In whatever order they come, the nine best of all 27 leave the lowest rung, as in successive halving that waits for
    all, and of those at each rung the best third go on. Some that looked good early go on beside them.
    """
    for seed in range(20):
        scores = [float(score) for score in range(27)]
        random.Random(seed).shuffle(scores)
        rungs = Rungs(1, 3, 27, Goal.MAX)
        ends = dict(run_alone(scores, rungs))  # the last step of each
        best = sorted(range(27), key=lambda trial: -scores[trial])
        assert all(ends[trial] >= 3 for trial in best[:9])
        assert ends[best[0]] == 27
        for level, above in itertools.pairwise((1, 3, 9, 27)):
            there = [trial for trial in best if ends[trial] >= level]
            assert all(ends[trial] >= above for trial in there[: len(there) // 3]), (
                "nobody who may go on is left behind"
            )


def test_no_score_is_the_worst() -> None:
    rungs = Rungs(1, 2, 4, Goal.MAX)
    assert rungs.report("a", 1, float("nan"))
    assert rungs.report("b", 1, -5.0)
    assert rungs.promotable() == "b"


def test_a_step_that_jumps_over_a_rung_waits_at_the_first() -> None:
    """A pack of seeds reports every other step."""
    rungs = Rungs(1, 3, 27, Goal.MAX)
    assert rungs.levels == [1, 3, 9]
    assert rungs.report("a", 2, 1.0)
    assert not rungs.report("a", 2, 1.0)
    assert rungs.report("a", 4, 1.0)


class Ray:
    """What a scheduler uses of Ray's controller: it stops what is paused."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.stopped: list[str] = []

    def stop_trial(self, trial: Any) -> None:
        trial.status = "TERMINATED"
        self.stopped.append(trial.trial_id)
        self.scheduler.on_trial_remove(self, trial)


SCORES = {"a": 1.0, "b": 3.0, "c": 2.0, "d": 5.0, "e": 4.0}


@pytest.mark.parametrize("places", [1, 2])
@pytest.mark.parametrize("reduction", [2, 9])
def test_the_scheduler_never_waits_for_ever(places: int, reduction: int) -> None:
    """Every group ends, no more than the places run at once, and what nobody promotes is stopped once nothing runs.

    One of nine goes on: no rung of five promotes any, yet the best is trained to its end, or a search had no winner.
    """
    from hebb.tuning.promotion import OnDemand, Promotion

    spec = SchedulerSpec(name=Scheduler.ASHA_PROMOTION, grace=1, reduction=reduction)
    scheduler = Promotion(spec, 4, Goal.MAX, places, len(SCORES), 1)
    demand, ray = OnDemand(scheduler, list(SCORES)), Ray(scheduler)
    steps = dict.fromkeys(SCORES, 0)
    trials: dict[str, Any] = {}
    finished = []
    for number in range(1000):
        parameters = demand.suggest(str(number))
        if parameters not in (None, "FINISHED"):
            trial = SimpleNamespace(trial_id=parameters["group"], status="PENDING")
            trials[trial.trial_id] = trial
            scheduler.on_trial_add(ray, trial)
        chosen: Any = scheduler.choose_trial_to_run(ray)
        if chosen is not None:
            assert chosen is trials[chosen.trial_id]
            assert chosen.status in ("PENDING", "PAUSED")
            chosen.status = "RUNNING"
        running = [trial for trial in trials.values() if trial.status == "RUNNING"]
        assert len(running) <= places
        for trial in running:
            name = trial.trial_id
            steps[name] += 1
            report = {"step": steps[name], "score": SCORES[name], "n": 1, "kind": "backprop"}
            if scheduler.on_trial_result(ray, trial, report) == "PAUSE":
                trial.status = "PAUSED"
            elif steps[name] == 4:
                trial.status = "TERMINATED"
                finished.append(name)
                scheduler.on_trial_complete(ray, trial, {**report, "kind": "end"})
        if len(trials) == len(SCORES) and all(trial.status == "TERMINATED" for trial in trials.values()):
            break
    assert sorted([*finished, *ray.stopped]) == sorted(SCORES)
    assert "d" in finished, "the best ran to the end"
    assert steps["a"] == 1
    assert reduction == 2 or finished == ["d"]


def test_a_trial_that_failed_frees_its_place() -> None:
    from hebb.tuning.promotion import OnDemand, Promotion

    spec = SchedulerSpec(name=Scheduler.ASHA_PROMOTION)
    scheduler = Promotion(spec, 9, Goal.MAX, 1, 2, 1)
    demand, ray = OnDemand(scheduler, ["a", "b"]), Ray(scheduler)
    trial: Any = SimpleNamespace(trial_id="a", status="RUNNING")
    assert demand.suggest("a") == {"group": "a"}
    scheduler.on_trial_add(ray, trial)
    assert demand.suggest("b") is None
    assert scheduler.on_trial_result(ray, trial, {"step": 1, "score": 0.0, "failed": "it diverged"}) == "CONTINUE"
    scheduler.on_trial_error(ray, trial)
    assert demand.suggest("b") == {"group": "b"}
    assert demand.suggest("c") == "FINISHED"
