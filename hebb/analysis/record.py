"""Write a record of finished runs, which ``evidence`` reads: one line a seed, the config, and the published number."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hebb.analysis import evidence, groups
from hebb.analysis import runs as stored
from hebb.analysis.evidence import RECORD, Claim, Published
from hebb.analysis.runs import StoredRun
from hebb.config import serialise
from hebb.core import documents
from hebb.core.errors import ConfigError
from hebb.storage import folders

if TYPE_CHECKING:
    import pandas as pd

CONFIG = ".config.json"
"""Ending of the file with the config of a run."""
_VERSIONS = ("torch", "torchvision", "numpy", "ray")


def lines(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """Return one line for each seed, in ascending order: the last measurements of each run, and its time in seconds.

    Raises:
        ConfigError: when the runs differ in more than the seed, or two have the same seed.
    """
    import pandas as pd

    groups.check_seeds(runs, "--where")
    if len({run.config.resume_sha256 for run in runs}) > 1:
        problem = "start from different checkpoints, and the config of a record names one"
        raise ConfigError("runs", problem, hint="--name starts another set")
    measured = [name for name in stored.METRICS if any(run.metrics.get(name) is not None for run in runs)]
    rows = [{"seed": r.seed, **{name: r.metrics.get(name) for name in measured}, "seconds": r.seconds} for r in runs]
    return pd.DataFrame(rows).sort_values("seed", ignore_index=True)


def subject(run: StoredRun) -> str:
    """Return network and dataset of a run."""
    return f"{run.preset}, {run.dataset}"


def page(
    runs: Sequence[StoredRun],
    title: str | None,
    claims: Sequence[Claim],
    files: str,
    folder: Path,
    *,
    alone: bool = True,
) -> str:
    """Return the ``record.yaml`` of a folder with the claims of runs that ``lines`` accepts.

    What the folder already claims stays, but for the claims of the same files. Those leave their place to the new ones,
    and ``headline`` and ``others`` to the one of the same column.

    Args:
        runs: the runs.
        title: title of the record; by default the one it has, or network and dataset.
        claims: their claims.
        files: name of their CSV and config, without the endings.
        folder: the folder, which may be a record already.
        alone: whether the CSV holds no lines but those of the runs.

    Raises:
        ConfigError: when not all runs, those of claims that stay included, were made on one known machine.
    """
    environments = [folders.read_json(run.folder / folders.ENVIRONMENT) for run in runs]
    if not all(isinstance(one, dict) and isinstance(one.get("machine"), dict) for one in environments):
        raise ConfigError(str(runs[0].folder / folders.ENVIRONMENT), "does not describe the machine")
    if len({json.dumps(one["machine"], sort_keys=True) for one in environments}) > 1:
        raise ConfigError("runs", "were made on different machines", hint="make a record for each machine")
    machine = environments[0]["machine"]
    written = max((run.folder / folders.RESULT).stat().st_mtime for run in runs)
    data = {
        "title": title or subject(runs[0]),
        "date": datetime.date.fromtimestamp(written),
        "machine": {
            "processor": machine.get("processor"),
            "cores": machine.get("cores"),
            "threads": runs[0].config.threads,
            "gpu": machine.get("gpu") or "none",
        },
        "versions": _versions(environments),
        "claims": [_written(claim) for claim in claims],
    }
    if (folder / RECORD).exists():
        data = _joined(folder, data, f"{files}.csv", title, alone=alone)
    return documents.yaml_text(data)


def _joined(folder: Path, new: Mapping[str, Any], runs: str, title: str | None, *, alone: bool) -> dict[str, Any]:
    """Return the record of a folder with the claims of a new one in place of those of the CSV ``runs``.

    It keeps its title and its date, by which the folder is named.
    """
    path = folder / RECORD
    old = documents.as_object(documents.read_yaml(path), str(path))
    listed = old.get("claims")
    before = [claim for claim in listed if isinstance(claim, dict)] if isinstance(listed, list) else []
    kept = [claim for claim in before if claim.get("runs") != runs]
    replaced = [claim for claim in before if claim.get("runs") == runs]
    by_column = {claim.get("column"): claim for claim in replaced}
    claims = [{**claim, **_typed(by_column.pop(claim["column"], {}))} for claim in new["claims"]]
    for column, claim in by_column.items():
        if typed := _typed(claim):
            raise ConfigError(
                str(path),
                f"would lose {' and '.join(typed)} of its claim of {column}",
                hint="move or delete them first",
            )
    place = before.index(replaced[0]) if replaced else len(kept)
    if alone and not kept and not any(held.name != runs for held in folder.glob("*.csv")):
        machine = old.get("machine")
        return {
            **new,
            "machine": {**(machine if isinstance(machine, dict) else {}), **new["machine"]},
            "claims": claims,
        }
    evidence.read_one(folder)  # what stays must be whole
    for kind in ("machine", "versions"):
        for key, value in new[kind].items():
            if key != "commit" and not str(value).startswith(str(old[kind].get(key, value))):  # 3.11 stands for 3.11.7
                raise ConfigError(
                    str(path),
                    f"these runs have {key} {value}, its own {old[kind][key]}",
                    hint="--out names another folder",
                )
    commits = {one for data in (old, new) for one in str(data["versions"].get("commit", "")).split(", ") if one}
    return {
        **old,
        "title": title or old["title"],
        "machine": {**new["machine"], **old["machine"]},
        "versions": {
            **new["versions"],
            **old["versions"],
            **({"commit": ", ".join(sorted(commits))} if commits else {}),
        },
        "claims": [*kept[:place], *claims, *kept[place:]],
    }


def _typed(claim: Mapping[str, Any]) -> dict[str, Any]:
    """Return what only a person writes into a claim."""
    return {key: claim[key] for key in ("headline", "others") if key in claim}


def _versions(environments: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the versions of the first run, and the commits of all of them."""
    first = environments[0]
    versions = {"python": first.get("python"), **{name: first.get("versions", {}).get(name) for name in _VERSIONS}}
    commits = {f"{str(one.get('commit'))[:10]}{' with changes' if one.get('dirty') else ''}" for one in environments}
    versions["commit"] = ", ".join(sorted(commits))
    return {name: version for name, version in versions.items() if version}


def claim(
    frame: pd.DataFrame, files: str, what: str, unit: str, column: str, published: Published, why: str | None = None
) -> Claim:
    """Return a claim: a column of ``lines``, in files called ``files``, beside a published number.

    ``why`` is left out where ours lies within the published deviation.

    Raises:
        ConfigError: for a column in which a run has no value, or a large difference without a reason.
    """
    if column not in frame or frame[column].isna().any():
        raise ConfigError("--metric", f"not every run has '{column}'", given=column, choices=list(frame.columns[1:-1]))
    config = f"{files}{CONFIG}"
    claim = Claim(
        what=what,
        unit=unit,
        published=published,
        command="\n".join(f"python multi_layer.py --run-config {config} --set seed={seed}" for seed in frame["seed"]),
        config=config,
        runs=f"{files}.csv",
        column=column,
        why=why,
        values=dict(zip(frame["seed"], frame[column], strict=True)),
    )
    claim.check("--why", "say why with --why")
    return claim if claim.outside or published.sd is None else dataclasses.replace(claim, why=None)


def _written(claim: Claim) -> dict[str, Any]:
    """Return a claim as record.yaml holds it: everything but our values, which are in the CSV."""
    held = {key: value for key, value in dataclasses.asdict(claim).items() if key != "values"}
    entries = {key: value for key, value in held.items() if value is not None and value != ()}
    return {**entries, "published": {key: value for key, value in entries["published"].items() if value is not None}}


def config(run: StoredRun) -> str:
    """Return the ``config.json`` that repeats a run."""
    return json.dumps(serialise.to_json(run.config), indent=1) + "\n"
