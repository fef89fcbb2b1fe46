"""The runs of two searches side by side: the same configuration and seed, and how their results differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hebb.config import domains
from hebb.core.errors import ConfigError
from hebb.storage import finished, folders, run_names
from hebb.storage.journal import Journal

_OF_TIME = ("images_per_second",)


class Trial(NamedTuple):
    """One run of a search.

    Attributes:
        label: the values of its configuration; those of a final run, on all training images, say so.
        seed: its seed.
    """

    label: str
    seed: int


@dataclass(frozen=True)
class Pair:
    """A configuration that both searches have finished with the same seeds, to another result.

    Attributes:
        metric: what differs.
        label: its values.
        n: number of seeds in common.
        left: mean of the metric over these, in the first search.
        right: mean in the second one.
        difference: mean of the differences seed by seed, second minus first.
        low: lower end of its 95 % interval; None below three seeds, and where all differences are equal.
        high: upper end.
    """

    metric: str
    label: str
    n: int
    left: float
    right: float
    difference: float
    low: float | None
    high: float | None


def metrics(rows: Sequence[folders.Row]) -> list[str]:
    """Return what rows measure that is the same whenever it is measured again."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if name not in finished.PLACE and name not in _OF_TIME]


def trials(folder: Path, search: Mapping[str, object]) -> dict[Trial, Path]:
    """Return the folder of every run that a search planned, or that its algorithm chose, and of the final runs."""
    listed = search.get("trials")
    if not isinstance(listed, list) or not all(
        isinstance(t, dict) and {"name", "seed", "choice"} <= set(t) for t in listed
    ):
        raise ConfigError(str(folder / folders.SEARCH), "does not hold the trials of a search")
    planned = {
        name: (domains.label(choice, digits=None), seed)
        for name, choice in Journal.load(folder).planned(search).items()
        if (seed := run_names.seed(name)) is not None
    }
    labels = {run_names.configuration(name): label for name, (label, _) in planned.items()}
    final = {
        path.name: (f"final runs of {labels.get(run_names.chosen(path.name), 'a configuration that is gone')}", seed)
        for path in sorted((folder / folders.TRIALS).glob(f"{run_names.FINAL}-*"))
        if (seed := run_names.seed(path.name)) is not None
    }
    return {Trial(*one): folder / folders.TRIALS / name for name, one in (planned | final).items()}


def is_finished(run: Path) -> bool:
    """Tell whether a run has its result."""
    return (run / folders.RESULT).exists()


def lacking(left: Mapping[Trial, Path], right: Mapping[Trial, Path]) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield the runs that one search has and the other has not, or has not finished, and what each says of them."""
    for trial in dict.fromkeys([*left, *right]):
        sides = [_state(side.get(trial)) for side in (left, right)]
        if sides[0] != sides[1]:
            yield f"{trial.label} seed {trial.seed}", sides[0], sides[1]


def _state(run: Path | None) -> str | None:
    return None if run is None else "finished" if is_finished(run) else "not finished"


def pairs(left: Mapping[Trial, Path], right: Mapping[Trial, Path]) -> Iterator[Pair]:
    """Compare the runs that both searches finished: what differs, by metric and configuration, over common seeds."""
    shared = [trial for trial in left if trial in right and is_finished(left[trial]) and is_finished(right[trial])]
    scores = [{trial: _last(side[trial]) for trial in shared} for side in (left, right)]
    names = dict.fromkeys(name for side in scores for last in side.values() for name in last)
    for metric in names:
        both = [trial for trial in shared if all(metric in side[trial] for side in scores)]
        for label in dict.fromkeys(trial.label for trial in both):
            sides = [{t.seed: side[t][metric] for t in both if t.label == label} for side in scores]
            if sides[0] != sides[1]:
                yield _pair(metric, label, sides[0], sides[1])


def _last(run: Path) -> dict[str, float]:
    """Return the last value of everything that a finished run has measured."""
    rows = finished.rows(run)
    values = {name: folders.value_of(rows, name) for name in metrics(rows)}
    return {name: value for name, value in values.items() if value is not None}


def _pair(metric: str, label: str, left: Mapping[int, float], right: Mapping[int, float]) -> Pair:
    from hebb.analysis import compare

    means = [math.fsum(side.values()) / len(side) for side in (left, right)]
    ends: list[float] = [math.nan, math.nan]
    if len(left) > 1:
        line = compare.of_values({"A": left, "B": right}, metric).iloc[0]
        ends = [float(line["low"]), float(line["high"])]
    low, high = (end if math.isfinite(end) else None for end in ends)
    return Pair(metric, label, len(left), means[0], means[1], means[1] - means[0], low, high)
