"""Asynchronous successive halving in its promotion form: which trials wait at a rung, and which one goes on.

Li, Jamieson, Rostamizadeh, Gonina, Hardt, Recht & Talwalkar 2020, "A system for massively parallel hyperparameter
tuning", algorithm 2. Rung k lies at step r_k = grace * reduction^k. A trial that reaches its next rung waits there,
with its score. Of the n that ever reached rung k, the best floor(n / reduction) are promotable, unless they have left
it; the highest rung with one is served first. Where there is none, a new trial begins. The paper's supply of trials
has no end. Ours has: once nothing is promotable and none is to come, the best of the highest rung goes on all the same,
until one trial has run to its end. Imports neither Ray nor torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hebb.config.vocabulary import Goal


@dataclass
class Rungs:
    """The rungs of a search.

    Attributes:
        grace: step of the lowest rung.
        reduction: one of so many goes on.
        last: the last step of a trial; what has left the highest rung goes on to it.
        mode: whether the largest or the least score is best.
    """

    grace: int
    reduction: int
    last: int
    mode: Goal
    _scores: list[dict[str, float]] = field(default_factory=list)
    _left: list[set[str]] = field(default_factory=list)
    _next: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        step = self.grace
        self.levels: list[int] = []
        while step < self.last:
            self.levels.append(step)
            step *= self.reduction
        self._scores = [{} for _ in self.levels]
        self._left = [set() for _ in self.levels]

    def report(self, name: str, step: int, score: float) -> bool:
        """Take a score; return whether the trial has reached its next rung, where it waits."""
        rung = self._next.get(name, 0)
        if rung == len(self.levels) or step < self.levels[rung]:
            return False
        self._scores[rung][name] = score
        self._next[name] = rung + 1
        return True

    def promotable(self) -> str | None:
        """Return the trial that goes on next; None where every rung lacks one."""
        return self._first(everyone=False)

    def foremost(self) -> str | None:
        """Return the best of those that wait at the highest rung, promotable or not; None where nobody waits."""
        return self._first(everyone=True)

    def _first(self, *, everyone: bool) -> str | None:
        for rung in reversed(range(len(self.levels))):
            ranked = sorted(self._scores[rung], key=lambda name: self._order(self._scores[rung][name]))  # stable
            best = ranked if everyone else ranked[: len(ranked) // self.reduction]
            free = [name for name in best if name not in self._left[rung]]
            if free:
                return free[0]
        return None

    def leave(self, name: str) -> None:
        """Take a trial out of the rung where it waits: it goes on, or has ended."""
        rung = self._next.get(name, 0) - 1
        if rung >= 0:
            self._left[rung].add(name)

    def _order(self, score: float) -> float:
        if not math.isfinite(score):
            return math.inf
        return -score if self.mode == Goal.MAX else score
