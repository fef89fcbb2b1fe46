"""What a record takes from a run: a metric at its end, or after epochs of its last phase."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from hebb.analysis.runs import StoredRun

_COLUMN = re.compile(r"(?P<metric>.+?)_(?P<first>\d+)(_to_(?P<last>\d+))?")
_RANGE = re.compile(r"(?P<first>\d+)(-(?P<last>\d+))?")


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
    def parse(cls, text: str) -> Epochs:
        """Read ``50``, or ``11-20``.

        Raises:
            ValueError: for other words, epoch 0, or a range that ends before it begins.
        """
        match = _RANGE.fullmatch(text)
        epochs = cls(int(match["first"]), int(match["last"] or match["first"])) if match else cls(0, 0)
        if not 1 <= epochs.first <= epochs.last:
            raise ValueError(text)
        return epochs

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def words(self) -> str:
        """Return what stands behind the name of a quantity."""
        if self.first == self.last:
            return f"after {self.first} epoch{'' if self.first == 1 else 's'}"
        return f"as the mean of epochs {self.first} to {self.last}"


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
    def of_column(cls, column: str, plain: Sequence[str]) -> Quantity | None:
        """Return the quantity of a column of a record, ``plain`` if it is one of those; None if it is none."""
        match = _COLUMN.fullmatch(column)
        if column in plain or match is None:
            return cls(column) if column in plain else None
        return cls(match["metric"], Epochs(int(match["first"]), int(match["last"] or match["first"])))

    @property
    def column(self) -> str:
        """Its column in the CSV of a record."""
        if self.epochs is None:
            return self.metric
        first, last = self.epochs.first, self.epochs.last
        return f"{self.metric}_{first}" + (f"_to_{last}" if last > first else "")

    def of(self, run: StoredRun) -> float:
        """Return its value, for a quantity with epochs.

        Raises:
            ConfigError: when the run did not measure it then.
        """
        assert self.epochs is not None
        last = {row["epoch"]: row for row in run.rows if row["phase"] == run.rows[-1]["phase"]}
        values = []
        for epoch in range(self.epochs.first, self.epochs.last + 1):
            value = last.get(epoch, {}).get(self.metric)
            if value is None:
                raise ConfigError(
                    "--epochs",
                    f"{run.folder.name} has no {self.metric} after epoch {epoch} of its last phase",
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
    columns = {q.column: [q.of(by_seed[seed]) for seed in frame["seed"]] for q in quantities if q.epochs is not None}
    return frame.assign(**columns)
