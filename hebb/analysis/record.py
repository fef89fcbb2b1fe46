"""A record of finished runs, as ``evidence`` reads it: one line a seed, what made them, and the number beside ours."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import yaml

from hebb.analysis import runs as stored
from hebb.analysis.evidence import Claim, Published
from hebb.analysis.runs import StoredRun
from hebb.config import serialise
from hebb.core.errors import ConfigError
from hebb.storage import folders

if TYPE_CHECKING:
    import pandas as pd

CONFIG = "record.config.json"
RUNS = "record.csv"
_VERSIONS = ("torch", "torchvision", "numpy", "ray")


def lines(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """Return one line for each seed, in their order: what the last row of each run measured, and its time in seconds.

    Raises:
        ConfigError: when the runs differ in more than the seed, or two have the same one.
    """
    import pandas as pd

    first = runs[0]
    for run in runs[1:]:
        if _comparable(run) != _comparable(first):
            paths = stored.varying((first, run))
            what = f" ({' '.join(paths)})" if paths else ""
            raise ConfigError(
                "runs",
                f"{first.folder.name} and {run.folder.name} are not seeds of one configuration{what}",
                hint="--where chooses one, as in --where b0.layer.lr=0.05",
            )
    seeds = [run.seed for run in runs]
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    if twice is not None:
        raise ConfigError("runs", f"two have seed {twice}")
    measured = [name for name in stored.METRICS if any(run.metrics.get(name) is not None for run in runs)]
    found = [{"seed": r.seed, **{name: r.metrics.get(name) for name in measured}, "seconds": r.seconds} for r in runs]
    return pd.DataFrame(found).sort_values("seed", ignore_index=True)


def _comparable(run: StoredRun) -> object:
    return dataclasses.replace(run.config, seed=0, pack=(), device="auto", threads=1)


def page(runs: Sequence[StoredRun], title: str, claims: Sequence[Claim]) -> str:
    """Return the ``record.yaml`` of runs that ``lines`` accepts, made on one machine."""
    told = [folders.read_json(run.folder / folders.ENVIRONMENT) for run in runs]
    if not all(isinstance(one, dict) and isinstance(one.get("machine"), dict) for one in told):
        raise ConfigError(str(runs[0].folder / folders.ENVIRONMENT), "does not say on what machine it ran")
    machines = {json.dumps(one["machine"], sort_keys=True) for one in told}
    if len(machines) > 1:
        raise ConfigError("runs", "were made on different machines", hint="a record for each says which is which")
    machine = told[0]["machine"]
    versions = {"python": told[0].get("python")}
    versions |= {name: told[0].get("versions", {}).get(name) for name in _VERSIONS}
    commits = {f"{str(one.get('commit'))[:10]}{' with changes' if one.get('dirty') else ''}" for one in told}
    versions["commit"] = ", ".join(sorted(commits))
    written = max((run.folder / folders.RESULT).stat().st_mtime for run in runs)
    data = {
        "title": title,
        "date": datetime.date.fromtimestamp(written),
        "machine": {
            "processor": machine.get("processor"),
            "cores": machine.get("cores"),
            "threads": runs[0].config.threads,
            "gpu": machine.get("gpu") or "none",
        },
        "versions": {name: version for name, version in versions.items() if version},
        "claims": [_written(claim) for claim in claims],
    }
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)


def claim(
    found: pd.DataFrame, what: str, unit: str, column: str, published: Published, why: str | None = None
) -> Claim:
    """Return what a record claims: a column of ``lines`` beside a published number.

    Raises:
        ConfigError: for a column that the runs have no value in, or a difference that wants a reason.
    """
    if column not in found or found[column].isna().any():
        raise ConfigError("--metric", f"not every run has '{column}'", given=column, choices=list(found.columns[1:-1]))
    made = Claim(
        what=what,
        unit=unit,
        published=published,
        command="\n".join(f"python multi_layer.py --run-config {CONFIG} --set seed={seed}" for seed in found["seed"]),
        config=CONFIG,
        runs=RUNS,
        column=column,
        why=why,
        values=dict(zip(found["seed"], found[column], strict=True)),
    )
    made.check("--why", "say why")
    return made


def _written(claim: Claim) -> dict[str, Any]:
    """Return what a record.yaml says of a claim: everything but our values, which the CSV has."""
    told = {key: value for key, value in dataclasses.asdict(claim).items() if key != "values" and value is not None}
    return {**told, "published": {key: value for key, value in told["published"].items() if value is not None}}


def config(run: StoredRun) -> str:
    """Return the ``config.json`` that repeats a run."""
    return json.dumps(serialise.to_json(run.config), indent=1) + "\n"
