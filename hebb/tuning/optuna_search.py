"""Ray's searcher for Optuna, without its false alarms, and with failures that a Gaussian process can take."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

from hebb.tuning.searchers import SCORE
from hebb.tuning.steps import WORST

# isort: split
from ray.tune.search.optuna import OptunaSearch

_FALSE_ALARMS = (
    "Define-by-run function passed",  # the time is that of the model, which suggests while our function asks
    "Clip non-finite values",  # an infinite score counts as the worst finite one, which is what we ask for
    "GPSampler cannot handle infinite values",  # the same before Optuna 5
)


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
