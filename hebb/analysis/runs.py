"""Stored runs as data: read from their folders, selected by their config, laid out one line a run.

stored = runs.read([Path("hebb_data/hebb/search/demo")])
stored.check()                     # raise when a run is not finished
frame = runs.frame(stored.runs, ["test_acc"], ["b0.layer.lr"])
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hebb.analysis import fates, run_costs
from hebb.analysis.fates import Fate, Tally
from hebb.config import controls, overrides, serialise
from hebb.config.domains import Choice
from hebb.config.fields import Value
from hebb.config.objectives import COSTS
from hebb.config.specs import RunConfig
from hebb.core import commands
from hebb.core.errors import ConfigError
from hebb.core.words import counted
from hebb.storage import curves as learning_curves
from hebb.storage import finished, folders
from hebb.storage.curves import Point
from hebb.storage.journal import Journal

if TYPE_CHECKING:
    import pandas as pd

METRICS = (
    *("train_acc", "val_acc", "test_acc", "train_loss", "val_loss", "test_loss"),
    *("convergence", "R1", "lr", "images_per_second"),
)
"""Columns of ``metrics.jsonl`` that hold measurements."""
COLUMNS = ("run", "search", "preset", "dataset", "mode", "trained", "hidden", "seed", "seconds")
"""Columns of every line of ``frame``, beside values at override paths and metrics."""


def check_metric(name: str, others: Sequence[str] = (), where: str = "--metric") -> None:
    """Raise for a metric that is neither a column of ``metrics.jsonl`` nor a cost nor one of the ``others``."""
    names = (*METRICS, *COSTS, *others)
    if name not in names:
        raise ConfigError(where, f"unknown '{name}'", given=name, choices=names)


def trained_blocks(config: RunConfig) -> str:
    """Name the blocks that a run trains: ``all``, or ``b1 b2``."""
    blocks = config.training_blocks
    return "all" if blocks is None else " ".join(f"b{i}" for i in blocks)


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """A finished run.

    Attributes:
        folder: its run folder.
        search: name of the search it belongs to, or None.
        choice: the values of the search space, by override path; empty for a single run.
        config: everything that decided its bits.
        rows: the rows of ``metrics.jsonl``.
        metrics: the last row.
        probes: the readouts of its blocks: block, kind, train_acc, val_acc, test_acc.
        geometry: measures of its representations.
        seconds: how long it took.
    """

    folder: Path
    search: str | None
    choice: Choice
    config: RunConfig
    rows: Sequence[folders.Row] = field(repr=False)
    metrics: folders.Row = field(repr=False)
    probes: Sequence[Mapping[str, object]] = field(repr=False)
    geometry: Sequence[Mapping[str, object]] = field(repr=False)
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
        """Seed of the run."""
        return self.config.seed

    @property
    def trained(self) -> str:
        """The blocks that were trained: ``all``, or ``b1 b2``."""
        return trained_blocks(self.config)

    @property
    def hidden(self) -> int:
        """Number of blocks below the last one."""
        return len(self.config.network.blocks) - 1

    @functools.cached_property
    def values(self) -> Mapping[str, Value | None]:
        """Every value of the config, by override path, and which control the run is in its search."""
        arm = {path: value for path, value in self.choice.items() if path == controls.PATH}
        return overrides.values(self.config) | arm

    @functools.cached_property
    def points(self) -> list[Point]:
        """The points of its learning curves, in order."""
        return learning_curves.read(self.folder)

    def value(self, path: str, where: str | None = None) -> Value | None:
        """Return the value at an override path (``b0.layer.lr``, ``b*.method``, ``dataset_sup.epochs``).

        ``where`` is the flag that named the path.

        Raises:
            ConfigError: when the run has no value there, or its blocks have different ones.
        """
        try:
            return overrides.value_at(self.values, path)
        except KeyError:
            problem = (
                f"has no single value at '{path}'"
                if where is None
                else f"{self.folder.name} has no single value at '{path}'"
            )
            raise ConfigError(where or str(self.folder), problem, given=path, choices=self.values) from None

    def number(self, path: str) -> float:
        """Return the number at an override path.

        Raises:
            ConfigError: when there is no value, or it is not a number.
        """
        value = self.value(path)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(str(self.folder), f"{path} must be a number, got '{value}'")
        return float(value)

    def has(self, path: str) -> bool:
        """Tell whether the run has a single value at this path."""
        try:
            overrides.value_at(self.values, path)
        except KeyError:
            return False
        return True

    def measured(self, metric: str) -> float:
        """Return the last value of a metric, or a cost, in percent or in its own unit; NaN if it was never measured."""
        check_metric(metric)
        if metric in COSTS:
            return run_costs.of_records(self.config, self.seconds, self.folder, [metric])[metric]
        last = self.metrics.get(metric)
        value = folders.value_of(self.rows, metric) if last is None else float(last)
        return math.nan if value is None else value


@dataclass(frozen=True, kw_only=True)
class UnfinishedRun:
    """A run that is not finished.

    Attributes:
        folder: its run folder.
        fate: why it is not finished.
    """

    folder: Path
    fate: Fate


@dataclass(frozen=True, kw_only=True)
class StoredRuns:
    """The runs in some folders.

    Attributes:
        runs: the finished ones.
        unfinished: the others, with those that a search planned and never started.
        damaged: for each run or search with a file that cannot be read, the error that says which and why.
    """

    runs: tuple[StoredRun, ...]
    unfinished: tuple[UnfinishedRun, ...]
    damaged: tuple[ConfigError, ...] = ()

    def check(self) -> None:
        """Raise when a run is damaged or not finished, and name it."""
        if self.damaged:
            more = f" (and {len(self.damaged) - 1} more)" if len(self.damaged) > 1 else ""
            where, _, problem = str(self.damaged[0]).partition(": ")
            raise ConfigError(where, f"{problem}{more}", hint="--partial leaves out what cannot be read")
        if self.unfinished:
            resume, search = commands.name("resume"), commands.name("search")
            finishes = f"{resume} DIR finishes a run, {search} --restore DIR a search; "
            hint = f"{'' if self.tally.complete else finishes}--partial leaves them out"
            raise ConfigError("runs", self.describe_unfinished(), hint=hint)

    @property
    def tally(self) -> Tally:
        """How many ran to the end, and how many had which other fate."""
        return fates.tally([*(None for _ in self.runs), *(run.fate for run in self.unfinished)])

    def describe_damaged(self) -> str:
        """Name what cannot be read, one line each; empty when there is nothing."""
        return "\n".join("cannot be read: " + str(error).splitlines()[0] for error in self.damaged)

    def describe_unfinished(self) -> str:
        """Say in one line which runs did not run to the end, and why; empty when all did."""
        left = [f"{run.folder.name} ({run.fate})" for run in self.unfinished if run.fate in fates.LEFT]
        stopped, failed = (
            [run.folder.name for run in self.unfinished if run.fate == fate] for fate in (Fate.STOPPED, Fate.FAILED)
        )
        kinds = (("not finished", left), ("stopped early by the scheduler", stopped), ("failed", failed))
        total = counted(len(self.runs) + len(self.unfinished), "run")
        return "; ".join(f"{what}, {len(names)} of {total}: {_some(names)}" for what, names in kinds if names)


def _some(names: Sequence[str]) -> str:
    """List the first five names, and count the others."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def read(places: Iterable[Path], where: str = "runs") -> StoredRuns:
    """Read every run in or below some folders, each once, sorted by folder.

    A folder may be that of a run or a search, or hold any number of them.

    Raises:
        ConfigError: for a folder that does not exist or holds no run.
    """
    damaged: dict[str, ConfigError] = {}
    finished: dict[Path, StoredRun] = {}
    unfinished: dict[Path, UnfinishedRun] = {}
    for place in places:
        if not place.is_dir():
            raise ConfigError(where, f"{place} is not a folder")
        inside = place.resolve()
        plans = _planned(inside, damaged)
        planned = {folder: plan for folder, plan in plans.items() if folder.is_relative_to(inside)}
        begun = [path.parent for path in sorted(inside.rglob(folders.CONFIG))]
        if not begun and not planned:
            raise ConfigError(where, f"{place} holds no run")
        for folder in dict.fromkeys([*begun, *planned]):
            choice, fate = planned.get(folder, ({}, None))
            state = folders.state(folder)
            if state == folders.FolderState.FINISHED:
                try:
                    finished.setdefault(folder, read_run(folder, choice))
                except (ConfigError, OSError, TypeError, ValueError) as error:
                    fault = (
                        error if isinstance(error, ConfigError) else ConfigError(str(folder), f"is damaged: {error}")
                    )
                    damaged[str(fault)] = fault
            else:
                early = fate or _ended(folder)
                ongoing = Fate.INTERRUPTED if state == folders.FolderState.INTERRUPTED else Fate.NEVER_STARTED
                unfinished.setdefault(folder, UnfinishedRun(folder=folder, fate=early or ongoing))
    if damaged and not finished and not unfinished:
        raise next(iter(damaged.values()))
    return StoredRuns(
        runs=tuple(finished[folder] for folder in sorted(finished)),
        unfinished=tuple(unfinished[folder] for folder in sorted(unfinished)),
        damaged=tuple(damaged.values()),
    )


def _ended(folder: Path) -> Fate | None:
    """Return why the search around a run ended it early, which holds for a winner's final runs too."""
    search = folder.parent.parent
    inside = folder.parent.name == folders.TRIALS and (search / folders.SEARCH).exists()
    return fates.ended(Journal.load(search), folder.name) if inside else None


def read_run(folder: Path, choice: Choice | None = None) -> StoredRun:
    """Read a finished run; ``choice`` holds the values that a search chose for it."""
    config = folders.read_json(folder / folders.CONFIG)
    result = folders.read_json(folder / folders.RESULT)
    if not isinstance(config, dict) or not isinstance(result, dict) or not isinstance(result.get("metrics"), dict):
        raise ConfigError(str(folder), "is not a run folder")
    config.pop("phases", None)
    rows = finished.rows(folder)
    above = folder.parent
    return StoredRun(
        folder=folder,
        search=above.parent.name if above.name == folders.TRIALS else None,
        choice=choice or {},
        config=serialise.run_from_json(config, str(folder / folders.CONFIG)),
        rows=rows,
        metrics=result["metrics"],
        probes=result.get("probes", []),
        geometry=result.get("geometry", []),
        seconds=float(result.get("seconds", math.nan)),
    )


def _planned(inside: Path, damaged: dict[str, ConfigError]) -> dict[Path, tuple[Choice, Fate | None]]:
    """Return the runs that searches around and below a folder planned: folder, choice, and why it ended early."""
    around = [p / folders.SEARCH for p in (inside.parent.parent, inside.parent) if (p / folders.SEARCH).exists()]
    planned: dict[Path, tuple[Choice, Fate | None]] = {}
    below = (path for path in sorted(inside.rglob(folders.SEARCH)) if path.parent.name != folders.LOCKS)
    for path in (*around, *below):
        try:
            data = folders.read_json(path)
        except ConfigError as error:
            damaged[str(error)] = error
            continue
        if not isinstance(data, dict) or not isinstance(data.get("trials"), list):
            damaged[str(path)] = ConfigError(str(path), "does not describe a search")
            continue
        journal = Journal.load(path.parent)
        for name, choice in journal.planned(data).items():
            planned[path.parent / folders.TRIALS / name] = choice, fates.ended(journal, name)
    return planned


def select(
    runs: Iterable[StoredRun],
    *,
    presets: Sequence[str] = (),
    datasets: Sequence[str] = (),
    values: Mapping[str, str] | None = None,
) -> tuple[StoredRun, ...]:
    """Return the runs of these networks and datasets, with these values at override paths, as ``--set`` writes them.

    Raises:
        ConfigError: when no run is left; it lists the values that the runs have.
    """
    runs = tuple(runs)
    for flag, words, name in (("--preset", presets, "preset"), ("--dataset", datasets, "dataset")):
        names = {getattr(run, name) for run in runs}
        for word in words:
            if word not in names:
                raise ConfigError(flag, f"no run of '{word}'", given=word, choices=sorted(names))
        runs = tuple(run for run in runs if not words or getattr(run, name) in words)
    for path, text in (values or {}).items():
        runs = _with_value(runs, path, text)
    return runs


def _with_value(runs: tuple[StoredRun, ...], path: str, text: str) -> tuple[StoredRun, ...]:
    """Return the runs whose value at ``path`` is the one that ``text`` writes."""
    candidates = tuple(run for run in runs if run.has(path))
    if not candidates:
        paths = dict.fromkeys(path for run in runs for path in run.values)
        raise ConfigError("--where", f"no run has a value at '{path}'", given=path, choices=paths)
    kept = tuple(run for run in candidates if comparable(str(run.value(path))) == comparable(text))
    if not kept:
        values = {str(run.value(path)) for run in candidates}
        raise ConfigError(f"--where {path}", f"no run with '{text}'", given=text, choices=sorted(values))
    return kept


def comparable(text: str) -> float | str:
    """Return a written value in a form in which 0.10 equals 0.1 and true equals 1."""
    words = {"true": 1.0, "false": 0.0}
    try:
        return words[text.lower()] if text.lower() in words else float(text)
    except ValueError:
        return text.lower()


def varying(runs: Sequence[StoredRun]) -> list[str]:
    """Return the override paths at which the runs differ, except the seed; a path that some runs lack counts."""
    paths = dict.fromkeys(path for run in runs for path in run.values)
    absent = object()
    return [p for p in paths if p != "seed" and len({run.values.get(p, absent) for run in runs}) > 1]


def value_in(run: StoredRun, column: str) -> object:
    """Return the value of a run in a column of ``COLUMNS`` or at an override path."""
    if column in _CELLS:
        return _CELLS[column](run)
    return getattr(run, column) if column in COLUMNS else run.value(column, "--by")


_CELLS: Mapping[str, Callable[[StoredRun], str]] = {
    "run": lambda run: run.folder.name,
    "mode": lambda run: run.config.mode,
    "search": lambda run: run.search or "",
}
"""Columns that are no attribute of a run under that name."""


def schedule(run: StoredRun) -> str:
    """Name the learning-rate schedule of the first block."""
    if run.value("b0.layer.adaptive"):
        return "norm-dependent rate"
    return f"{run.value('b0.layer.lr_decay')} decay"


def frame(
    runs: Sequence[StoredRun],
    metrics: Iterable[str] = METRICS,
    paths: Iterable[str] | None = None,
    *,
    lacking: bool = False,
) -> pd.DataFrame:
    """Lay runs out one a line: ``COLUMNS``, values at paths, metrics.

    Args:
        runs: the runs.
        metrics: names from ``METRICS``.
        paths: override paths that become columns; None takes those at which the runs differ.
        lacking: leave a cell empty where a run has no value at a path, which is an error otherwise.
    """
    import pandas as pd

    lacking = lacking or paths is None
    columns = varying(runs) if paths is None else list(paths)
    lines = [
        {
            **{name: value_in(run, name) for name in COLUMNS[:-1]},
            **{path: run.values.get(path) if lacking else run.value(path, "--by") for path in columns},
            **{metric: run.measured(metric) for metric in metrics},
            "seconds": run.seconds,
        }
        for run in runs
    ]
    return pd.DataFrame(lines)
