"""What a record takes from a run: a metric at its end, or after epochs of its last phase."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hebb.analysis.runs import METRICS
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from hebb.analysis.runs import StoredRun

_COLUMN = re.compile(r"(?P<metric>.+?)_(?P<first>\d{1,9})(_to_(?P<last>\d{1,9}))?")
_RANGE = re.compile(r"(?P<first>\d{1,9})(-(?P<last>\d{1,9}))?")


@dataclasses.dataclass(frozen=True)
class Epochs:
    """Epochs of the last phase, over which a metric is averaged; counted from 1.

    Attributes:
        first: the first.
        last: the last, included.
    """

    first: int
    last: int

    @classmethod
    def read(cls, text: str, pattern: re.Pattern[str] = _RANGE) -> Epochs | None:
        """Read ``50`` or ``11-20``; None for other words, epoch 0, or a range that ends before it begins."""
        match = pattern.fullmatch(text)
        if match is None:
            return None
        first, last = int(match["first"]), int(match["last"] or match["first"])
        return cls(first, last) if 1 <= first <= last else None

    def words(self) -> str:
        """Return what stands behind the name of a quantity."""
        if self.first == self.last:
            return f" after {self.first} epoch{'' if self.first == 1 else 's'}"
        return f", mean of epochs {self.first} to {self.last}"


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A number of each run.

    Attributes:
        metric: column of ``metrics.jsonl``, or a cost.
        epochs: the epochs whose mean counts; None: what the run ended with.
    """

    metric: str
    epochs: Epochs | None = None

    @classmethod
    def of_column(cls, column: str) -> Quantity | None:
        """Return the quantity with epochs whose column is this; None if there is none."""
        match = _COLUMN.fullmatch(column)
        epochs = Epochs.read(column, _COLUMN)
        quantity = cls(match["metric"], epochs) if match is not None and epochs is not None else None
        return quantity if quantity is not None and quantity.measured and quantity.column == column else None

    @property
    def measured(self) -> bool:
        """Whether runs measure it as often as it needs."""
        return self.epochs is None or self.metric in METRICS

    @property
    def column(self) -> str:
        """Its column in the CSV of a record."""
        if self.epochs is None:
            return self.metric
        first, last = self.epochs.first, self.epochs.last
        return f"{self.metric}_{first}" + (f"_to_{last}" if last > first else "")


def _over(epochs: Epochs, metric: str, run: StoredRun) -> float:
    """Return the mean of a metric of a run over epochs."""
    last = {row["epoch"]: row for row in run.rows if row["phase"] == run.rows[-1]["phase"]}
    values = []
    for epoch in range(epochs.first, epochs.last + 1):
        value = last.get(epoch, {}).get(metric)
        if value is None:
            raise ConfigError(
                "--epochs",
                f"{run.folder.name} has no {metric} after epoch {epoch} of its last phase",
                hint="dataset_sup.print_freq=1 measures after every epoch",
            )
        values.append(float(value))
    return sum(values) / len(values)


def with_epochs(frame: pd.DataFrame, runs: Sequence[StoredRun], quantities: Sequence[Quantity]) -> pd.DataFrame:
    """Return the frame, which has a line for each seed, with a column for each quantity that has epochs.

    Raises:
        ConfigError: when a run did not measure one.
    """
    by_seed = {run.seed: run for run in runs}
    columns = {
        quantity.column: [_over(quantity.epochs, quantity.metric, by_seed[seed]) for seed in frame["seed"]]
        for quantity in quantities
        if quantity.epochs is not None
    }
    return frame.assign(**columns)
