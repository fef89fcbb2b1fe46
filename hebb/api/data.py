"""The data that a run or a search is given: the name of a dataset, or arrays in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hebb.config.catalog import Catalog
from hebb.config.data_spec import DataSpec
from hebb.core.errors import ConfigError
from hebb.data import memory, own
from hebb.data.memory import ArrayData

Data = str | Sequence[Any]
"""A name that ``--dataset`` takes, or arrays: ``(x, y)`` or ``(x, y, x_test, y_test)``."""


@dataclass(frozen=True)
class NamedData:
    """Both datasets of a run, and the arrays that must live as long as it."""

    sup: DataSpec
    unsup: DataSpec
    arrays: tuple[ArrayData, ...]

    @property
    def classes(self) -> np.ndarray | None:
        """The labels of the supervised arrays, as they were given; None for a dataset with a name."""
        return next((data.classes for data in self.arrays if data.name == self.sup.dataset), None)


def named(
    catalog: Catalog,
    data: Data,
    data_unsup: Data | None,
    *,
    epochs: int | None,
    epochs_unsup: int | None,
    validation: float,
) -> NamedData:
    """Return the datasets of the supervised and the unsupervised phases, with their epochs and validation share."""
    arrays: list[ArrayData] = []
    own.look_again()
    sup = _spec(catalog, data, "data", arrays)
    unsup = sup if data_unsup is None else _spec(catalog, data_unsup, "data_unsup", arrays)
    return NamedData(
        replace(sup, epochs=sup.epochs if epochs is None else epochs, validation=validation or sup.validation),
        replace(
            unsup,
            epochs=unsup.epochs if epochs_unsup is None else epochs_unsup,
            validation=validation or unsup.validation,
        ),
        tuple(arrays),
    )


def _spec(catalog: Catalog, data: Data, where: str, arrays: list[ArrayData]) -> DataSpec:
    if isinstance(data, str):
        return catalog.dataset(data, where)
    if where == "data_unsup" and not isinstance(data, tuple | list):
        data = (data,)  # images alone: nothing reads their labels
    if not isinstance(data, tuple | list):
        raise ConfigError(where, f"must be a name, (x, y) or (x, y, x_test, y_test), got {type(data).__name__}")
    if len(data) == 1 and where == "data":
        raise ConfigError(where, "must be (x, y) or (x, y, x_test, y_test), got images without labels")
    arrays.append(memory.register(data, where))
    return DataSpec(dataset=arrays[-1].name)
