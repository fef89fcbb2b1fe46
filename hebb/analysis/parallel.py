"""Parallel coordinates: every configuration of a search as a line through its values to its metric."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from hebb.analysis.importance import value_of
from hebb.config.domains import Axis, Choice

LEAST = 3
"""Least number of hyper-parameters; of fewer, the metric over each of them says more."""


def compute(axes: Sequence[Axis], choices: Sequence[Choice], means: Sequence[float], metric: str) -> pd.DataFrame:
    """Return one line a configuration: a column for every axis whose values differ, and the metric.

    A value is None where a configuration has none.
    """
    columns = {axis.name: [value_of(axis, choice) for choice in choices] for axis in axes}
    shown = {name: values for name, values in columns.items() if len(set(map(str, values))) > 1}
    return pd.DataFrame({**{k: pd.Series(v, dtype=object) for k, v in shown.items()}, metric: list(means)})
