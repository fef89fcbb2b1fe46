"""Which trained models a search keeps: those of its best configuration. Imports neither Ray nor torch.

By several objectives it keeps those on the front. Only the end tells which these are, so until then all models stay.

A configuration is judged when it has finished on every seed. Until then its models stay, so at most those of the best
configuration and of the unfinished ones are on the disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field

from hebb.storage import folders
from hebb.tuning import results
from hebb.tuning.search import Search, Trial


@dataclass
class KeptModels:
    """Removes the models of configurations that cannot be the best one.

    Attributes:
        search: the search.
        best: the runs of the best configuration so far; empty until one has finished on every seed.
    """

    search: Search
    best: tuple[Trial, ...] = ()
    _runs: dict[str, dict[int, Trial]] = field(default_factory=dict)
    _places: dict[str, int] = field(default_factory=dict)
    _score: float | None = None

    def begun(self, runs: Iterable[Trial]) -> None:
        """Take note of runs; the first configuration of equal ones is the best."""
        for trial in runs:
            self._runs.setdefault(trial.configuration, {})[trial.config.seed] = trial
            self._places.setdefault(trial.configuration, len(self._places))

    def ended(self, runs: Iterable[Trial], *, stopped: bool = False) -> None:
        """Judge the configurations of runs that have ended; a ``stopped`` one is out, and never goes on."""
        for name in dict.fromkeys(trial.configuration for trial in runs):
            of_name = tuple(self._runs[name].values())
            if stopped:
                drop(of_name, over=True)
            elif self.search.several:
                continue
            elif len(of_name) == len(self.search.seeds) and all(trial.finished for trial in of_name):
                self._judge(of_name)

    def settle(self, *best: str) -> None:
        """Keep the models of these configurations alone: the search is over, and they are the best ones."""
        for name, of_name in self._runs.items():
            if name not in best:
                drop(of_name.values())

    def _judge(self, runs: tuple[Trial, ...]) -> None:
        if self.best and self.best[0].configuration == runs[0].configuration:
            return  # judged when another of its runs ended
        score = results.score_of(runs, self.search.metric)
        if score is None or not self._feasible(runs):
            drop(runs)
            return
        sign = -1 if self.search.maximises else 1
        if self._score is not None and self._key(runs, sign * score) >= self._key(self.best, sign * self._score):
            drop(runs)
            return
        drop(self.best)
        self.best, self._score = runs, score

    def _feasible(self, runs: tuple[Trial, ...]) -> bool:
        """Tell whether the means of a configuration keep every bound."""
        bounds = self.search.constraints
        means = results.means(runs, list(dict.fromkeys(bound.metric for bound in bounds)))
        return all(bound.holds(means[bound.metric]) for bound in bounds)

    def _key(self, runs: tuple[Trial, ...], score: float) -> tuple[float, int]:
        return score, self._places[runs[0].configuration]


def drop(runs: Iterable[Trial], *, over: bool = False) -> None:
    """Remove the models of finished runs; an unfinished one needs its checkpoint to go on, unless it is ``over``."""
    for trial in runs:
        if trial.finished or over:
            shutil.rmtree(trial.folder / folders.CHECKPOINT.parent, ignore_errors=True)
