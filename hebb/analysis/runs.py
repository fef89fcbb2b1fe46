"""Stored runs as data: read from their folders, chosen by what they are, laid out one line a run.

found = runs.read([Path("hebb_data/hebb/search/demo")])
found.check()                      # refuse what is not finished
frame = runs.frame(found.runs, "test_acc", ["b0.layer.lr"])
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hebb.config import overrides, serialise
from hebb.config.domains import Choice
from hebb.config.registry import Value
from hebb.config.specs import RunConfig
from hebb.core.errors import ConfigError
from hebb.storage import folders
from hebb.storage.journal import Journal

if TYPE_CHECKING:
    import pandas as pd

METRICS = (
    *("train_acc", "val_acc", "test_acc", "train_loss", "val_loss", "test_loss"),
    *("convergence", "R1", "lr", "images_per_second"),
)
"""What a row of ``metrics.jsonl`` measures."""
COLUMNS = ("run", "search", "preset", "dataset", "mode", "trained", "hidden", "seed", "seconds")
"""What ``frame`` says of every run, beside values at override paths and metrics."""


def check_metric(name: str) -> None:
    """Refuse a metric that no row has."""
    if name not in METRICS:
        raise ConfigError("--metric", f"unknown '{name}'", given=name, choices=METRICS)


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """A finished run.

    Attributes:
        folder: its run folder.
        search: name of the search it belongs to, or None.
        choice: the values of the search space, by override path; empty for a single run.
        config: all that decided its bits.
        rows: the rows of ``metrics.jsonl``.
        metrics: the last row.
        probes: the readouts of its blocks: block, kind, train_acc, val_acc, test_acc.
        geometry: the numbers of its representations.
        seconds: how long it took.
    """

    folder: Path
    search: str | None
    choice: Choice
    config: RunConfig
    rows: Sequence[folders.Row] = field(repr=False)
    metrics: folders.Row = field(repr=False)
    probes: Sequence[Mapping[str, Any]] = field(repr=False)
    geometry: Sequence[Mapping[str, Any]] = field(repr=False)
    seconds: float

    @property
    def preset(self) -> str:
        """Name of the network."""
        return self.config.network.name

    @property
    def dataset(self) -> str:
        """Name of the labelled dataset."""
        return self.config.dataset_sup.dataset

    @property
    def seed(self) -> int:
        """The seed."""
        return self.config.seed

    @property
    def trained(self) -> str:
        """The blocks that learnt: ``all``, or ``b1 b2``."""
        chosen = self.config.training_blocks
        return "all" if chosen is None else " ".join(f"b{i}" for i in chosen)

    @property
    def hidden(self) -> int:
        """Number of blocks below the last one."""
        return len(self.config.network.blocks) - 1

    @functools.cached_property
    def values(self) -> Mapping[str, Value | None]:
        """Every value of the config by override path."""
        return overrides.values(self.config)

    def value(self, path: str) -> Value | None:
        """Return the value at an override path (``b0.layer.lr``, ``b*.method``, ``dataset_sup.epochs``).

        Raises:
            ConfigError: when the run has no such value, or its blocks do not share one.
        """
        try:
            return overrides.value_at(self.values, path)
        except KeyError:
            problem = f"'{path}' is not one value of this run"
            raise ConfigError(str(self.folder), problem, given=path, choices=self.values) from None

    def has(self, path: str) -> bool:
        """Tell whether ``value`` has an answer."""
        try:
            overrides.value_at(self.values, path)
        except KeyError:
            return False
        return True

    def measured(self, metric: str) -> float:
        """Return the last value of a metric in percent or its own unit; NaN where it was never measured."""
        check_metric(metric)
        last = self.metrics.get(metric)
        found = folders.value_of(list(self.rows), metric) if last is None else float(last)
        return math.nan if found is None else found


@dataclass(frozen=True, kw_only=True)
class UnfinishedRun:
    """A run that is not finished.

    Attributes:
        folder: its run folder.
        state: ``interrupted`` (or it goes on now), ``stopped`` (by a scheduler), ``failed`` or ``never started``.
    """

    folder: Path
    state: str


@dataclass(frozen=True, kw_only=True)
class StoredRuns:
    """What lies in the folders that were named: finished runs, and those that are not."""

    runs: tuple[StoredRun, ...]
    missing: tuple[UnfinishedRun, ...]

    def check(self) -> None:
        """Refuse what is not finished, by name."""
        if self.missing:
            raise ConfigError(
                "runs", self.unfinished(), hint="finish them (--resume-run, --restore), or leave them out: --partial"
            )

    def unfinished(self) -> str:
        """Say in a line which runs are not finished; empty when all are."""
        if not self.missing:
            return ""
        names = [f"{m.folder.name} ({m.state})" for m in self.missing]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        return f"{len(names)} of {len(names) + len(self.runs)} runs are not finished: {', '.join(names[:5])}{more}"


def read(places: Iterable[Path], where: str = "runs") -> StoredRuns:
    """Read every run in or below the given folders, each once, sorted by folder.

    A folder is that of a run, of a search, or any that holds such. Runs that a search planned and that never
    started are missing too.

    Raises:
        ConfigError: for a folder that does not exist or holds no run, and for a stored file that cannot be read.
    """
    finished: dict[Path, StoredRun] = {}
    missing: dict[Path, UnfinishedRun] = {}
    for place in places:
        if not place.is_dir():
            raise ConfigError(where, f"{place} is not a folder")
        inside = place.resolve()
        planned = {folder: plan for folder, plan in _planned(inside).items() if folder.is_relative_to(inside)}
        there = [path.parent for path in sorted(inside.rglob(folders.CONFIG))]
        if not there and not planned:
            raise ConfigError(where, f"{place} holds no run")
        for folder in dict.fromkeys([*there, *planned]):
            choice, fate = planned.get(folder, ({}, None))
            state = folders.state(folder)
            if state == "finished":
                finished.setdefault(folder, read_run(folder, choice))
            else:
                fate = fate or ("interrupted" if state == "interrupted" else "never started")
                missing.setdefault(folder, UnfinishedRun(folder=folder, state=fate))
    return StoredRuns(
        runs=tuple(finished[folder] for folder in sorted(finished)),
        missing=tuple(missing[folder] for folder in sorted(missing)),
    )


def read_run(folder: Path, choice: Choice | None = None) -> StoredRun:
    """Read a finished run; ``choice`` holds the values of the search space, where a search chose them."""
    config = folders.read_json(folder / folders.CONFIG)
    result = folders.read_json(folder / folders.RESULT)
    if not isinstance(config, dict) or not isinstance(result, dict) or not isinstance(result.get("metrics"), dict):
        raise ConfigError(str(folder), "is not the folder of a run")
    config.pop("phases", None)
    rows = folder / folders.METRICS
    if not rows.exists():
        raise ConfigError(str(rows), "no such file")
    above = folder.parent
    return StoredRun(
        folder=folder,
        search=above.parent.name if above.name == folders.TRIALS else None,
        choice=choice or {},
        config=serialise.run_from_json(config, str(folder / folders.CONFIG)),
        rows=folders.read_rows(rows),
        metrics=result["metrics"],
        probes=result.get("probes", []),
        geometry=result.get("geometry", []),
        seconds=float(result.get("seconds", math.nan)),
    )


def _planned(inside: Path) -> dict[Path, tuple[Choice, str | None]]:
    """Return what searches around and below a folder planned: run folder, its choice, and why it ended early."""
    around = [p / folders.SEARCH for p in (inside.parent.parent, inside.parent) if (p / folders.SEARCH).exists()]
    found: dict[Path, tuple[Choice, str | None]] = {}
    for path in (*around, *sorted(inside.rglob(folders.SEARCH))):
        data = folders.read_json(path)
        if not isinstance(data, dict) or not isinstance(data.get("trials"), list):
            raise ConfigError(str(path), "is not the description of a search")
        journal = Journal.load(path.parent)
        choices = {str(trial["name"]): trial["choice"] for trial in data["trials"]}
        choices |= {f"{group}-s{seed}": c for group, c in journal.chosen.items() for seed in data.get("seeds", ())}
        for name, choice in choices.items():
            ended = {name, name.rpartition("-s")[0]}
            fate = "failed" if ended & set(journal.failed) else "stopped" if ended & set(journal.stopped) else None
            found[path.parent / folders.TRIALS / name] = choice, fate
    return found


def select(
    runs: Iterable[StoredRun],
    *,
    presets: Sequence[str] = (),
    datasets: Sequence[str] = (),
    values: Mapping[str, str] | None = None,
) -> tuple[StoredRun, ...]:
    """Keep the runs of these networks and datasets, with these values at override paths, as ``--set`` writes them.

    Raises:
        ConfigError: when nothing is left; it lists what there was.
    """
    runs = tuple(runs)
    for flag, wanted, name in (("--preset", presets, "preset"), ("--dataset", datasets, "dataset")):
        there = {getattr(run, name) for run in runs}
        for word in wanted:
            if word not in there:
                raise ConfigError(flag, f"no run of '{word}'", given=word, choices=sorted(there))
        runs = tuple(run for run in runs if not wanted or getattr(run, name) in wanted)
    for path, text in (values or {}).items():
        having = tuple(run for run in runs if run.has(path))
        if not having:
            paths = dict.fromkeys(path for run in runs for path in run.values)
            raise ConfigError("--where", f"no run has a '{path}'", given=path, choices=paths)
        kept = tuple(run for run in having if _written(run.value(path)) == _number(text))
        if not kept:
            there = {str(run.value(path)) for run in having}
            raise ConfigError(f"--where {path}", f"no run with '{text}'", given=text, choices=sorted(there))
        runs = kept
    return runs


def _written(value: Value | None) -> float | str:
    """Return a value in the form in which texts are compared with it."""
    return _number(str(value))


def _number(text: str) -> float | str:
    words = {"true": 1.0, "false": 0.0}
    try:
        return words[text.lower()] if text.lower() in words else float(text)
    except ValueError:
        return text.lower()


def varying(runs: Sequence[StoredRun]) -> list[str]:
    """Return the override paths in which the runs differ, other than their seed; an absent one differs."""
    paths = dict.fromkeys(path for run in runs for path in run.values)
    missing = object()
    return [p for p in paths if p != "seed" and len({run.values.get(p, missing) for run in runs}) > 1]


def groups(runs: Sequence[StoredRun]) -> list[str]:
    """Return what tells runs apart that are no replicates.

    Preset and dataset, mode and trained blocks where they differ, and the paths in which runs of one preset differ.
    """
    found: dict[str, None] = {}
    for preset in dict.fromkeys(run.preset for run in runs):
        found |= dict.fromkeys(varying([run for run in runs if run.preset == preset]))
    told = [name for name in ("mode", "trained") if len({_of(run, name) for run in runs}) > 1]
    return ["preset", "dataset", *told, *(path for path in found if all(path in run.values for run in runs))]


def labels(runs: Sequence[StoredRun], by: Sequence[str] | None = None) -> list[str]:
    """Name every run by its group: by its search where each group is one, else by the values in which groups differ.

    Args:
        runs: the runs.
        by: columns of ``COLUMNS`` or override paths; None takes ``groups``.
    """
    columns = groups(runs) if by is None else list(by)
    keys = [tuple(_of(run, name) for name in columns) for run in runs]
    pairs = {(key, run.search) for key, run in zip(keys, runs, strict=True)}
    if all(run.search for run in runs) and len(pairs) == len(set(keys)) == len({search for _, search in pairs}):
        return [str(run.search) for run in runs]
    told = [i for i in range(len(columns)) if len({key[i] for key in keys}) > 1]
    if not told:
        return [run.preset for run in runs]
    plain = ("preset", "dataset", "search", "mode")
    return [", ".join(str(key[i]) if columns[i] in plain else f"{columns[i]}={key[i]}" for i in told) for key in keys]


def _of(run: StoredRun, column: str) -> object:
    if column == "run":
        return run.folder.name
    if column == "mode":
        return run.config.mode
    if column == "search":
        return run.search or ""
    return getattr(run, column) if column in COLUMNS else run.value(column)


def schedule(run: StoredRun) -> str:
    """Name how the rate of the first block changes."""
    if run.value("b0.layer.adaptive"):
        return "norm-dependent rate"
    return f"{run.value('b0.layer.lr_decay')} decay"


def frame(
    runs: Sequence[StoredRun], metrics: Iterable[str] = METRICS, paths: Iterable[str] | None = None
) -> pd.DataFrame:
    """Lay runs out one a line: ``COLUMNS``, values at paths, metrics.

    Args:
        runs: the runs.
        metrics: names from ``METRICS``.
        paths: override paths that become columns; None takes those in which the runs differ.
    """
    import pandas as pd

    chosen = varying(runs) if paths is None else list(paths)
    lines = [
        {
            **{name: _of(run, name) for name in COLUMNS[:-1]},
            **{path: run.values.get(path) if paths is None else run.value(path) for path in chosen},
            **{metric: run.measured(metric) for metric in metrics},
            "seconds": run.seconds,
        }
        for run in runs
    ]
    return pd.DataFrame(lines)


def history(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """Lay out every row of ``metrics.jsonl``: run, preset, seed and the columns of the row."""
    import pandas as pd

    return pd.DataFrame(
        [
            {"run": run.folder.name, "search": run.search or "", "preset": run.preset, "seed": run.seed, **row}
            for run in runs
            for row in run.rows
        ]
    )
