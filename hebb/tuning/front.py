"""The points of the Pareto front of a search, as strings to paste and as numbers. Imports neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from hebb.config.catalog import Catalog
from hebb.storage import folders
from hebb.tuning import results, search_folder, trials
from hebb.tuning.observer import FrontPoint
from hebb.tuning.search import Search


def points(search: Search, ranking: pd.DataFrame, catalog: Catalog) -> tuple[FrontPoint, ...]:
    """Return the configurations on the front, best by the first metric first; ``ranking`` is that of ``ranked``."""
    lines = ranking[ranking["front"]]
    return tuple(
        FrontPoint(
            number=number,
            trial=(trial := results.trial_of(search, str(line["configuration"]))),
            network=trials.network_string(trial, catalog),
            changes=tuple(trials.other_changes(trial.choice)),
            values={one.metric: results.value_of(line, one.metric, search) for one in search.objectives},
        )
        for number, line in enumerate(lines.to_dict("records"), 1)
    )


def absent(numbers: Sequence[int], present: Sequence[int]) -> str:
    """Say that the front lacks points that were to be trained again, and which ones it has."""
    lacking = f"no point {' or '.join(map(str, numbers))}"
    return f"--final-points: the front has {lacking}; it has {' '.join(map(str, present)) or 'none'}"


def write(
    search: Search,
    members: Sequence[FrontPoint],
    among: int,
    final: Mapping[str, Mapping[str, object]] | None = None,
) -> None:
    """Write ``front.json``.

    Args:
        search: the search.
        members: the points of its front.
        among: number of configurations that were compared: those that a scheduler stopped, or that failed, were not.
        final: records of the final runs, by the label of the configuration.
    """
    final = final or {}
    record = {
        "objectives": {one.metric: one.mode for one in search.objectives},
        "constraints": list(map(str, search.constraints)),
        "among": among,
        "configurations": len(search.trials) // len(search.seeds),
        "seeds": list(search.seeds),
        "left_out": dict(search.left_out),
        "points": [
            {
                "number": point.number,
                "configuration": point.trial.choice,
                "network": point.network,
                "changes": list(point.changes),
                "values": dict(point.values),
                **({"final": final[point.trial.label]} if point.trial.label in final else {}),
            }
            for point in members
        ],
    }
    folders.write_json(search.folder / search_folder.FRONT, record)
