"""What a record takes from a run: a metric at its end, or after epochs of its last phase."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hebb.analysis import replicates
from hebb.analysis.runs import METRICS
from hebb.config.objectives import COSTS
from hebb.core.errors import ConfigError
from hebb.core.words import counted

if TYPE_CHECKING:
    import pandas as pd

    from hebb.analysis.runs import StoredRun

_COLUMN = re.compile(r"(?P<metric>.+?)_(?P<epochs>\d+(_to_\d+)?)")
_EPOCHS = re.compile(r"(?P<first>\d{1,9})(-(?P<last>\d{1,9}))?")


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
    def read(cls, text: str) -> Epochs | None:
        """Read ``50`` or ``11-20``; None for other words, epoch 0, or a range that ends before it begins."""
        match = _EPOCHS.fullmatch(text)
        if match is None:
            return None
        first, last = int(match["first"]), int(match["last"] or match["first"])
        return cls(first, last) if 1 <= first <= last else None

    def words(self) -> str:
        """Return what follows the name of a metric."""
        if self.first == self.last:
            return f" after {counted(self.first, 'epoch')}"
        return f", mean of epochs {self.first} to {self.last}"


@dataclasses.dataclass(frozen=True)
class RecordMetric:
    """A metric of a run as a record has it.

    Attributes:
        name: a column of ``metrics.jsonl``, or a cost.
        epochs: the epochs over which it is averaged; None: the value at the end of the run.
    """

    name: str
    epochs: Epochs | None = None

    @classmethod
    def of_column(cls, column: str) -> RecordMetric | None:
        """Return the metric that has this column; None if there is none."""
        if column in (*METRICS, *COSTS):
            return cls(column)
        match = _COLUMN.fullmatch(column)
        epochs = Epochs.read(match["epochs"].replace("_to_", "-")) if match else None
        if match is None or epochs is None:
            return None
        metric = cls(match["metric"], epochs)
        return metric if metric.measured and metric.column == column else None

    @property
    def measured(self) -> bool:
        """Whether runs measure it after their epochs, where it needs that."""
        return self.epochs is None or self.name in METRICS

    @property
    def column(self) -> str:
        """Its column in the CSV of a record."""
        if self.epochs is None:
            return self.name
        first, last = self.epochs.first, self.epochs.last
        return f"{self.name}_{first}" + (f"_to_{last}" if last > first else "")

    def value(self, run: StoredRun) -> float:
        """Return its value in a run; NaN where nothing was measured at the end."""
        return run.measured(self.name) if self.epochs is None else _over(self.epochs, self.name, run)


def _over(epochs: Epochs, name: str, run: StoredRun) -> float:
    """Return the mean of a metric over epochs of a run."""
    last = {row["epoch"]: row for row in run.rows if row["phase"] == run.rows[-1]["phase"]}
    values = []
    for epoch in range(epochs.first, epochs.last + 1):
        value = last.get(epoch, {}).get(name)
        if value is None:
            raise ConfigError(
                "--epochs",
                f"{run.folder.name} has no {name} after epoch {epoch} of its last phase",
                hint="dataset_sup.print_freq=1 measures after every epoch",
            )
        values.append(float(value))
    return sum(values) / len(values)


def joined(frame: pd.DataFrame, runs: Sequence[StoredRun], metrics: Sequence[RecordMetric]) -> pd.DataFrame:
    """Return the frame, which has a line for each seed, with a column for each metric that it lacks.

    Raises:
        ConfigError: when no run measured one, or one of them not after these epochs.
    """
    by_seed = {run.seed: run for run in runs}
    columns = {
        metric.column: [metric.value(by_seed[seed]) for seed in frame["seed"]]
        for metric in metrics
        if metric.column not in frame
    }
    for column, values in columns.items():
        if all(map(math.isnan, values)):
            raise replicates.unmeasured(column)
    return frame.assign(**columns)
