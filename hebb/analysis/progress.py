"""How far a search is, from its folder alone: nothing is written, no plugin is loaded, and it may run elsewhere."""

from __future__ import annotations

import csv
import functools
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from hebb import builtin
from hebb.analysis import fates, pareto, run_costs
from hebb.analysis.fates import Fate, Tally
from hebb.config import costs, domains, objectives, serialise
from hebb.config.objectives import Constraint, Objective
from hebb.config.vocabulary import Goal
from hebb.core import documents, locks
from hebb.core.errors import ConfigError
from hebb.storage import folders, run_names
from hebb.storage.folders import FolderState
from hebb.storage.journal import Journal


class SearchState(StrEnum):
    """Whether a search goes on, and how it ended."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    """It has ended, and runs of it have failed."""
    INTERRUPTED = "interrupted"
    """Nobody runs it, and something of it is left."""


class RunStatus(StrEnum):
    """What a run of a search is doing."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


_STATUSES = {
    None: RunStatus.FINISHED,
    Fate.STOPPED: RunStatus.STOPPED,
    Fate.FAILED: RunStatus.FAILED,
    Fate.INTERRUPTED: RunStatus.INTERRUPTED,
    Fate.NEVER_STARTED: RunStatus.WAITING,
}
_FATES = {status: fate for fate, status in _STATUSES.items()} | {RunStatus.RUNNING: Fate.INTERRUPTED}


@dataclass(frozen=True)
class RunProgress:
    """How far a run is.

    Attributes:
        name: of its folder.
        label: its configuration.
        seed: its seed.
        state: what it is doing.
        phase: its phase, as ``1 backprop b1``; empty before its first row.
        epoch: epochs of that phase that are over, as ``3 of 10``.
        value: the last value of the metric; None before the first.
        beside: of a finished run, what else it is compared by and what must keep a bound, as far as its records tell.
    """

    name: str
    label: str
    seed: int
    state: RunStatus
    phase: str = ""
    epoch: str = ""
    value: float | None = None
    beside: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ConfigurationProgress:
    """A configuration whose runs have all finished.

    Attributes:
        label: its values.
        means: means over its seeds, by metric and cost; those that every run has.
    """

    label: str
    means: Mapping[str, float]


@dataclass(frozen=True)
class SearchProgress:
    """How far a search is.

    Attributes:
        state: whether it goes on, or how it ended.
        holder: the process that runs it; None where none does.
        objectives: what is compared; the first one is that of the values of the runs.
        constraints: bounds that a configuration must keep.
        runs: its runs, in order.
        final: those of a winner that is trained again on all images; their value is ``test_acc``.
        tally: what became of the runs, without final ones.
        quiet: seconds since a record changed last.
    """

    state: SearchState
    holder: str | None
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    runs: tuple[RunProgress, ...]
    final: tuple[RunProgress, ...]
    tally: Tally
    quiet: float

    @property
    def metric(self) -> str:
        """What is compared, or the first of it."""
        return self.objectives[0].metric

    @property
    def several(self) -> bool:
        """Whether configurations are compared by several objectives, so that there is a front."""
        return len(self.objectives) > 1

    @property
    def leading(self) -> RunProgress | None:
        """The finished run with the best value."""
        done = [run for run in self.runs if run.state == RunStatus.FINISHED and run.value is not None]
        return min(done, key=lambda run: self.objectives[0].sign * (run.value or 0.0), default=None)

    @functools.cached_property
    def complete(self) -> tuple[ConfigurationProgress, ...]:
        """The configurations whose runs have all finished with a value and that break no bound, best first."""
        runs: dict[str, list[RunProgress]] = {}
        for run in self.runs:
            runs.setdefault(run_names.configuration(run.name), []).append(run)
        names = [*(one.metric for one in self.objectives), *(bound.metric for bound in self.constraints)]
        done = [_means(of_one, names, self.metric) for of_one in runs.values() if all(map(_has_ended_well, of_one))]
        bounds = [bound for bound in self.constraints if not bound.static]  # what breaks another was never trained
        kept = [one for one in done if all(bound.holds(one.means.get(bound.metric)) for bound in bounds)]
        first = self.objectives[0]
        return tuple(sorted(kept, key=lambda one: first.sign * _mean(one.means[first.metric])))

    @property
    def front(self) -> tuple[ConfigurationProgress, ...]:
        """The configurations that no other beats in every objective, best by the first one first; of one, the best."""
        if not self.several:
            return self.complete[:1]
        points = [[one.sign * _mean(c.means.get(one.metric)) for one in self.objectives] for c in self.complete]
        return tuple(c for c, on_it in zip(self.complete, pareto.front(points), strict=True) if on_it)


def _has_ended_well(run: RunProgress) -> bool:
    return run.state == RunStatus.FINISHED and run.value is not None


def _means(runs: list[RunProgress], names: Iterable[str], metric: str) -> ConfigurationProgress:
    values = [{**run.beside, metric: run.value or 0.0} for run in runs]
    shared = [name for name in dict.fromkeys(names) if all(name in of_run for of_run in values)]
    return ConfigurationProgress(
        runs[0].label, {name: math.fsum(of_run[name] for of_run in values) / len(values) for name in shared}
    )


def _mean(value: float | None) -> float:
    """Return a mean to compare by; NaN where there is none."""
    return math.nan if value is None else objectives.comparable(value)


@dataclass
class Follower:
    """Reads a search again and again; what is finished is read once.

    Attributes:
        folder: of the search.
    """

    folder: Path
    _ended: dict[str, RunProgress] = field(default_factory=dict)
    _phases: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    _tables: dict[str, dict[str, str]] = field(default_factory=dict)

    def look(self) -> SearchProgress:
        """Return how far the search is now.

        Raises:
            ConfigError: where the folder holds no search.
        """
        search = documents.as_object(folders.read_json(self.folder / folders.SEARCH), str(self.folder))
        if not isinstance(search.get("trials"), list) or not isinstance(search.get("seeds"), list):
            raise ConfigError(str(self.folder / folders.SEARCH), "is not the description of a search")
        holder = self._holder()
        journal = Journal.load(self.folder)
        records = _Records(journal, holder is not None, _keeps_runs(search))
        compared, bounds = _objectives(search), _constraints(search)
        beside = [*(one.metric for one in compared[1:]), *(bound.metric for bound in bounds)]
        metric = compared[0].metric
        runs = [self._run(*run, records, metric, beside) for run in _planned(search, journal)]
        tally = fates.tally((_FATES[run.state] for run in runs), to_come=_to_come(search, journal))
        several = len(compared) > 1
        final = [self._run(*run, records, "test_acc") for run in self._final(journal, several=several)]
        state = SearchState.RUNNING if holder else _ended(tally, final, search, journal)
        return SearchProgress(state, holder, compared, bounds, tuple(runs), tuple(final), tally, self._quiet())

    def _holder(self) -> str | None:
        """Name the process that runs the search; jobs that a command has left in a queue run it without one."""
        held = self.folder / folders.LOCKS
        holder = locks.holder(held / folders.SEARCH)
        trials = (path for path in sorted(held.glob("*-s*")) if path.suffix != ".pid") if holder is None else ()
        return holder or next(filter(None, map(locks.holder, trials)), None)

    def _final(self, journal: Journal, *, several: bool) -> list[tuple[str, str, int]]:
        """List the runs on all images; a search that keeps no runs has them in its journal alone."""
        stored = [path.name for path in (self.folder / folders.TRIALS).glob(f"{run_names.FINAL}-*")]
        noted = [name for group in (*journal.finished, *journal.failed) for name in fates.members(group)]
        runs = sorted({name for name in (*stored, *noted) if run_names.is_final(name)})
        label = "point of the front, all images" if several else "winner, all images"
        return [(name, label, seed) for name in runs if (seed := run_names.seed(name)) is not None]

    def _run(
        self, name: str, label: str, seed: int, records: _Records, metric: str, beside: Iterable[str] = ()
    ) -> RunProgress:
        """Return how far a run is; a finished one does not change."""
        if name in self._ended:
            return replace(self._ended[name], label=label)  # a configuration that came later may need more digits
        folder = self.folder / folders.TRIALS / name
        state = records.state(folders.state(folder), name)
        if state == RunStatus.FINISHED and not (folder / folders.RESULT).exists():
            return self._removed(name, label, seed, metric, beside)
        rows = _rows(folder)
        last = rows[-1] if rows else None
        phase, epoch = ("", "") if last is None else (f"{last['phase']} {last['kind']} {last['blocks']}", "")
        if last is not None:
            total = self._epochs(folder, name, int(last["phase"]))
            epoch = f"{last['epoch']}" + (f" of {total}" if total else "")
        done = state == RunStatus.FINISHED
        more = self._beside(folder, rows, beside) if done else {}
        progress = RunProgress(name, label, seed, state, phase, epoch, folders.value_of(rows, metric), more)
        if done:
            self._ended[name] = progress
        return progress

    def _removed(self, name: str, label: str, seed: int, metric: str, beside: Iterable[str]) -> RunProgress:
        """Return what the tables of a search that keeps no runs hold of a finished one."""
        values = self._tabled(name, [metric, *beside])
        value = values.pop(metric, None)
        self._ended[name] = RunProgress(name, label, seed, RunStatus.FINISHED, value=value, beside=values)
        return self._ended[name]

    def _beside(self, folder: Path, rows: list[folders.Row], names: Iterable[str]) -> dict[str, float]:
        """Return further metrics and costs of a finished run.

        What a network of a plugin costs is known by its code alone, and else by the table of a search that has ended.
        """
        names = list(dict.fromkeys(names))
        values = _measured(folder, rows, names)
        lacking = [name for name in names if name in objectives.STATIC and name not in values]
        return {**values, **(self._tabled(folder.name, lacking) if lacking else {})}

    def _tabled(self, name: str, columns: Iterable[str]) -> dict[str, float]:
        """Return what the tables that a search writes at its end hold of a run."""
        if not self._tables:
            for path in (self.folder / "results.csv", self.folder / "final.csv"):
                if path.exists():
                    with open(path, encoding="utf-8", newline="") as file:
                        self._tables |= {line["trial"]: line for line in csv.DictReader(file) if "trial" in line}
        line = self._tables.get(name, {})
        return {column: float(text) for column in columns if (text := line.get(column))}

    def _epochs(self, folder: Path, name: str, phase: int) -> int | None:
        """Return the epochs of a phase, which the config of a run lists for its readers."""
        if name not in self._phases:
            try:
                config = documents.as_object(folders.read_json(folder / folders.CONFIG), name)
            except ConfigError:
                return None
            self._phases[name] = list(config.get("phases") or ())
        phases = self._phases[name]
        return int(phases[phase]["epochs"]) if phase < len(phases) else None

    def _quiet(self) -> float:
        """Return the seconds since a record changed last; the journal notes the end of each run."""
        own = [self.folder / name for name in (folders.SEARCH, folders.JOURNAL)]
        begun = [name for name in _names(self.folder / folders.TRIALS) if name not in self._ended]
        of_runs = (folders.METRICS, folders.LOOKS, folders.CONFIG, str(folders.CHECKPOINT))
        paths = [*own, *(self.folder / folders.TRIALS / name / file for name in begun for file in of_runs)]
        return max(0.0, time.time() - max(map(_changed, paths), default=0.0))


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _planned(search: Mapping[str, Any], journal: Journal) -> list[tuple[str, str, int]]:
    """List name, configuration and seed of every run that was planned or chosen."""
    planned = journal.planned(search)
    choices = {run_names.configuration(name): choice for name, choice in planned.items()}
    texts = dict(zip(choices, domains.labels(list(choices.values())), strict=True))
    seeds = {name: run_names.seed(name) for name in planned}
    return [(name, texts[run_names.configuration(name)], seed) for name, seed in seeds.items() if seed is not None]


def _to_come(search: Mapping[str, Any], journal: Journal) -> int:
    """Return how many runs an algorithm has yet to choose."""
    spec = search.get("spec")
    plan = spec.get("search") if isinstance(spec, dict) else None
    if search["trials"] or not isinstance(plan, dict):
        return 0
    return max(0, int(plan.get("samples", 1)) - len(journal.suggested)) * len(search["seeds"])


@dataclass(frozen=True)
class _Records:
    """What decides the state of a run beside its folder.

    Attributes:
        journal: of the search.
        running: whether a process runs the search.
        kept: whether the folders of finished runs stay.
    """

    journal: Journal
    running: bool
    kept: bool

    @functools.cached_property
    def finished(self) -> frozenset[str]:
        """The configurations and runs that are finished."""
        groups = self.journal.finished
        return frozenset(groups) | {name for group in groups if "+" in group for name in fates.members(group)}

    def state(self, stored: FolderState, name: str) -> RunStatus:
        """Return what a run is doing."""
        if not self.kept and {name, run_names.configuration(name)} & self.finished:
            return RunStatus.FINISHED
        fate = fates.of_run(stored, self.journal, name)
        return RunStatus.RUNNING if self.running and fate == Fate.INTERRUPTED else _STATUSES[fate]


def _keeps_runs(search: Mapping[str, Any]) -> bool:
    return bool(documents.part(search, "options").get("save", True))


def _objectives(search: Mapping[str, Any]) -> tuple[Objective, ...]:
    """Return what a search compares by, as its ``search.json`` says."""
    first = Objective(str(search.get("metric")), Goal.MIN if search.get("mode") == Goal.MIN else Goal.MAX)
    others = [(str(other["metric"]), Goal(other["mode"])) for other in search.get("others") or ()]
    return (first, *(Objective(*other) for other in others))


def _constraints(search: Mapping[str, Any]) -> tuple[Constraint, ...]:
    return objectives.constraints(documents.part(search, "spec").get("constraints"), "search.json, constraints")


def _measured(folder: Path, rows: list[folders.Row], names: Iterable[str]) -> dict[str, float]:
    """Return further metrics and costs of a finished run, but for the static costs of networks of plugins."""
    names, values = list(names), dict[str, float | None]()
    static = _static(folder) if set(names) & set(objectives.STATIC) else {}
    for name in names:
        if name in objectives.METRICS:
            values[name] = folders.value_of(rows, name)
        elif name in objectives.MEASURED:
            result = documents.as_object(folders.read_json(folder / folders.RESULT), str(folder))
            values[name] = run_costs.measured(name, result.get("seconds"), folder)
        else:
            values[name] = static.get(name)
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}


def _static(folder: Path) -> dict[str, float]:
    config = {**documents.as_object(folders.read_json(folder / folders.CONFIG), str(folder))}
    if config.get("plugins"):
        return {}
    builtin.load()
    config.pop("phases", None)
    run = serialise.run_from_json(config, str(folder / folders.CONFIG))
    return {name: float(value) for name, value in costs.static(run).items()}


def _ended(tally: Tally, final: Iterable[RunProgress], search: Mapping[str, Any], journal: Journal) -> SearchState:
    """Return how a search ended that nobody runs; its journal says so, but for older searches."""
    states = {run.state for run in final}
    left = not tally.complete or states & {RunStatus.INTERRUPTED, RunStatus.WAITING}
    if not left and journal.succeeded is not None:
        return SearchState.FINISHED if journal.succeeded else SearchState.FAILED
    done = sum(run.state == RunStatus.FINISHED for run in final)
    failed = tally.fates[Fate.FAILED] or RunStatus.FAILED in states
    if left or (not failed and done < len(search.get("final_seeds") or ())):
        return SearchState.INTERRUPTED
    return SearchState.FAILED if failed else SearchState.FINISHED


def _rows(folder: Path) -> list[folders.Row]:
    try:
        return folders.read_rows(folder / folders.METRICS, ("phase", "kind", "blocks", "epoch"))
    except (OSError, ConfigError):  # not begun, or just being written
        return []
