"""More seeds for a set of runs that a record has: its claims stay, and so do the lines of its CSV."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hebb.analysis import groups, record
from hebb.analysis.evidence import Claim, by_seed
from hebb.analysis.record_metric import RecordMetric
from hebb.analysis.runs import StoredRun
from hebb.config import serialise
from hebb.core import documents
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd


def metrics(path: Path, frame: pd.DataFrame) -> list[RecordMetric]:
    """Return the metrics of the CSV of a set of runs that ``record.lines`` of more runs, which will replace it, lacks.

    Raises:
        ConfigError: for a column of the CSV that the runs do not have.
    """
    old = by_seed(path)
    further = {column: RecordMetric.of_column(column) for column in old if column not in frame}
    for column, metric in further.items():
        if metric is None:
            raise ConfigError(path.name, f"runs have no '{column}', which it has", hint="--name starts another file")
    return [metric for metric in further.values() if metric is not None]


def with_kept(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return the lines of more runs with those of a CSV whose seeds they lack, in ascending order of seeds.

    The runs of a record may lie on another disk by now; a column that is new is empty in their lines.
    """
    import pandas as pd

    old = by_seed(path)
    old = old[~old["seed"].isin(frame["seed"])]
    joined = pd.concat([frame, old.dropna(axis="columns", how="all")]) if len(old) else frame
    return joined[list(frame.columns)].sort_values("seed", ignore_index=True)


def claims(
    frame: pd.DataFrame, files: str, claims: Sequence[Claim], folder: Path, run: StoredRun, why: str | None = None
) -> list[Claim]:
    """Return the claims of a set of runs, with the values of the lines in place of their own.

    Args:
        frame: the lines of all runs.
        files: name of their files.
        claims: the claims of those files.
        folder: the record.
        run: one of the runs.
        why: the reason of a claim that has none yet, or of the only claim.

    Raises:
        ConfigError: when the run is no seed of the configuration in the record, or a difference needs a reason.
    """
    configs = {claim.config for claim in claims if claim.config is not None} | {f"{files}{record.CONFIG}"}
    for name in sorted(configs):
        path = folder / name
        if path.exists() and groups.configuration(serialise.run_from_json(documents.read_json(path), name)) != (
            groups.configuration(run.config)
        ):
            raise ConfigError(
                "runs", f"{run.folder.name} is no seed of the configuration in {name}", hint="--name starts another set"
            )
    only = len(claims) == 1
    return [
        dataclasses.replace(
            record.claim(
                frame,
                files,
                old.what,
                old.unit,
                old.column,
                old.published,
                why if why is not None and (only or old.why is None) else old.why,
            ),
            headline=old.headline,
            others=old.others,
        )
        for old in claims
    ]
