"""What a search found, as its page and its tables show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hebb.analysis import style
from hebb.analysis.fates import Tally
from hebb.config.catalog import Catalog
from hebb.tuning import question, verdict
from hebb.tuning.search import Search, Trial

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class SearchReport:
    """A search as its page shows it.

    Attributes:
        search: the search, with the runs that a model-based algorithm chose.
        runs: a line for each run that finished or was stopped.
        ranking: a line for each configuration with finished runs, best first; those that lack seeds come last.
        leading: the best configuration, which finished on every seed, and those of the same mean; by several metrics
            those on the front. May be empty.
        tally: what became of the runs.
        final: a line for the runs of the winner, or of each point of the front, on all images; empty in a sweep.
        importance: a line for each hyper-parameter.
        failed: reasons by configuration.
        stopped: configurations that a scheduler stopped.
        fates: for each configuration with runs that did not run to the end, what became of them.
        to_come: runs that a model-based algorithm has yet to choose.
        commands: the commands that began and continued the search.
        catalog: its presets and datasets.
    """

    search: Search
    runs: pd.DataFrame
    ranking: pd.DataFrame
    leading: Sequence[str]
    tally: Tally
    final: pd.DataFrame
    importance: pd.DataFrame
    failed: Mapping[str, str]
    stopped: Sequence[str]
    fates: Mapping[str, str]
    to_come: int
    commands: Sequence[str]
    catalog: Catalog

    @property
    def question(self) -> str:
        """What the search asks."""
        return question.of_search(self.search, style.unit(self.search.metric))

    def values_of(self, label: str) -> Mapping[int, float]:
        """Return the metric of a configuration by seed."""
        return verdict.values_of(self.runs, self.search.metric)[label]

    @property
    def best(self) -> Trial:
        """A finished trial of the first configuration."""
        label = self.ranking.iloc[0]["configuration"]
        return next(trial for trial in self.search.trials if trial.label == label and trial.finished)
