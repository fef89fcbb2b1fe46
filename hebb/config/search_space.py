"""Search configs: a YAML file becomes a space, the space becomes overrides.

description   what the search answers
command       the command that runs it
purpose       sweep (reports every configuration) or search (selects one on validation accuracy)
seeds         replicates of every configuration
space         {override path: {domain: ...}}; the domains are those of ``hebb.config.domains``
search        {algorithm: grid | random | optuna | hyperopt, samples: N, seed: N, time: 2h, trials: N}; beside optuna
              sampler: tpe | gp | random | cmaes | nsga2, and warm_start: [NAME, ...], searches that its model knows
scheduler     none | asha | asha-promotion | median | hyperband, or {name: asha, grace: N, reduction: N}
validation    share of the training images held out (default: 0.2 in a search, 0 in a sweep)
metric, mode  what is compared, and whether max or min is better; several as a list, or as {metric: mode, ...}
constraints   bounds that a configuration must keep: {parameters: "<= 300000"}

``bX`` in a path is the block that ``--search-block`` names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hebb.config import domains, objectives
from hebb.config.domains import Axis, Choice
from hebb.config.objectives import Constraint, Objective
from hebb.config.specs import VALIDATION_SHARE
from hebb.config.vocabulary import Algorithm, DomainKind, Goal, Purpose, Sampler, Scheduler
from hebb.core import documents, shipped
from hebb.core.choices import choose
from hebb.core.errors import ConfigError, said_as

FOLDER = shipped.path("search_configs")
METRICS = objectives.METRICS
_KEYS = (
    "description",
    "command",
    "purpose",
    "seeds",
    "space",
    "search",
    "scheduler",
    "validation",
    "metric",
    "mode",
    "constraints",
)
_PLAN = {
    "algorithm": "algorithm",
    "sampler": "sampler",
    "num_samples": "samples",
    "search_seed": "seed",
    "time_budget": "time",
    "max_trials": "trials",
    "warm_start": "warm_start",
}
"""What a user calls a value below ``search``, and the key of the value."""
_SCHEDULER = ("scheduler", "grace", "reduction")
CHANGES = ("purpose", "seeds", "space", "constraints", *_PLAN, *_SCHEDULER)
"""What ``changed`` can put in place of the values of a search config."""
_FIXED_SPACE = (Sampler.GP, Sampler.CMAES, Sampler.NSGA2)
"""Samplers whose model has the domains that all points have; any other they would draw at random."""
_ATTEMPTS = 100  # draws for each sample before a space counts as used up


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """How points of the space are chosen, and when the search ends.

    Attributes:
        algorithm: how the points are chosen.
        sampler: how Optuna suggests them; None for the other algorithms.
        samples: configurations drawn by ``random`` and the model-based ones.
        seed: varies what is drawn.
        time: seconds after which no trial goes on; None for as long as it takes.
        trials: trials after which no other begins; None for all.
        warm_start: names or folders of earlier searches, whose results the model is given.
    """

    algorithm: Algorithm = Algorithm.GRID
    sampler: Sampler | None = None
    samples: int = 1
    seed: int = 0
    time: float | None = None
    trials: int | None = None
    warm_start: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.algorithm == Algorithm.OPTUNA and self.sampler is None:
            object.__setattr__(self, "sampler", Sampler.TPE)

    @property
    def model_based(self) -> bool:
        """Whether points are suggested one after the other, by what may learn from earlier results."""
        return self.algorithm in (Algorithm.OPTUNA, Algorithm.HYPEROPT)

    @property
    def learns(self) -> bool:
        """Whether points depend on earlier results."""
        return self.model_based and self.sampler != Sampler.RANDOM

    @property
    def chooser(self) -> str:
        """What chooses the points, as a person reads it."""
        return f"{self.algorithm} ({self.sampler})" if self.sampler else str(self.algorithm)


@dataclass(frozen=True, kw_only=True)
class SchedulerSpec:
    """What stops a configuration early.

    Attributes:
        name: what stops it.
        grace: step before which nothing is stopped.
        reduction: one of so many goes on at each comparison.
    """

    name: Scheduler = Scheduler.NONE
    grace: int = 1
    reduction: int = 3


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """A checked search config."""

    name: str
    description: str
    command: str
    purpose: Purpose
    seeds: tuple[int, ...]
    axes: tuple[Axis, ...]
    validation: float
    plan: SearchPlan = SearchPlan()
    scheduler: SchedulerSpec = SchedulerSpec()
    metric: str | None = None
    mode: Goal | None = None
    others: tuple[Objective, ...] = ()
    constraints: tuple[Constraint, ...] = ()

    @property
    def grouped(self) -> bool:
        """Whether a trial is a configuration that runs its seeds inside, to be judged and stopped as a whole.

        A scheduler that compared single runs would keep the lucky seeds.
        """
        return self.plan.model_based or self.scheduler.name != Scheduler.NONE

    def configurations(self) -> list[Choice]:
        """List the points: all of a grid (the last domain varies fastest), or those that are drawn.

        The points of a model-based algorithm are known only when it has run.
        """
        if self.plan.algorithm == Algorithm.GRID:
            return self._listed({}, 0)
        return self._drawn() if self.plan.algorithm == Algorithm.RANDOM else []

    def count(self) -> int:
        """Return the number of configurations."""
        return self.plan.samples if self.plan.model_based else len(self.configurations())

    def _listed(self, choice: Choice, place: int) -> list[Choice]:
        if place == len(self.axes):
            return [choice]
        axis = self.axes[place]
        if not axis.active(choice):
            return self._listed(choice, place + 1)
        return [point for option in axis.options for point in self._listed({**choice, **option}, place + 1)]

    def _drawn(self) -> list[Choice]:
        """Draw distinct points: the first n of more samples are those of n samples."""
        drawn: dict[tuple[tuple[str, Any], ...], Choice] = {}
        for sample in range(self.plan.samples * _ATTEMPTS):
            choice: Choice = {}
            for axis in self.axes:
                if axis.active(choice):
                    choice.update(axis.draw(self.plan.seed, sample))
            drawn.setdefault(tuple((path, repr(value)) for path, value in choice.items()), choice)
            if len(drawn) == self.plan.samples:
                return list(drawn.values())
        raise ConfigError(
            f"search config '{self.name}', search, samples",
            f"must have {self.plan.samples} points for as many samples, got about {len(drawn)}",
            hint="algorithm grid runs every point once; more seeds give more replicates",
        )

    def paths(self) -> list[str]:
        """List the override paths of the space."""
        return [path for axis in self.axes for path in axis.paths()]

    def has_placeholder(self) -> bool:
        """Tell whether a path leaves its block open, as in ``bX.layer.lr``."""
        return any(domains.placeholder(path) for path in self.paths())

    def on_block(self, block: int) -> SearchSpec:
        """Return the spec in which ``bX`` is ``block``."""
        axes = tuple(axis.on_block(block) for axis in self.axes)
        domains.check(axes, f"search config '{self.name}', space")
        return replace(self, axes=axes)


def names() -> list[str]:
    """List the shipped search configs."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read(name: str) -> tuple[Any, Path]:
    """Return the data of a search config, unchecked, and its path."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{name}.yaml"
        if not path.exists() and Path(name).is_dir():
            raise ConfigError("--config", f"{name} is a folder, must be a YAML file")
        if not path.exists():
            raise ConfigError(
                "--config",
                f"unknown search config '{name}'",
                given=name,
                choices=names(),
                hint="a path to a YAML file works too; --list configs describes them",
            )
    if not path.exists():
        raise ConfigError("--config", f"no such file '{name}'")
    return documents.read_yaml(path), path


def load(name: str, changes: Mapping[str, Any] | None = None, words: Mapping[str, str] | None = None) -> SearchSpec:
    """Read and check a search config, then again with other values for some of ``CHANGES``.

    Args:
        name: a shipped config or a YAML file.
        changes: the new values.
        words: what the user calls each change, for errors; by default as ``CHANGES`` does.
    """
    data, path = read(name)
    spec = parse(data, path.stem, str(path))
    if not changes:
        return spec
    with said_as({f"{path}, {place_of(change)}": (words or {}).get(change, change) for change in changes}):
        return parse(changed(data, changes), spec.name, str(path))


def parse(data: object, name: str, where: str) -> SearchSpec:
    """Check the data of a search config."""
    if not isinstance(data, Mapping):
        raise ConfigError(where, "is empty, must be a mapping" if data is None else f"must be a mapping, got {data!r}")
    _known(data, _KEYS, where)
    purpose = choose(Purpose, str(data.get("purpose", Purpose.SWEEP)), f"{where}, purpose")
    metric, mode, others = _objectives(data.get("metric"), data.get("mode"), where)
    axes = domains.parse({} if data.get("space") is None else data["space"], f"{where}, space")
    return SearchSpec(
        name=name,
        description=str(data.get("description", "")),
        command=str(data.get("command", "")),
        purpose=purpose,
        seeds=_seeds(data.get("seeds", [0]), where),
        axes=axes,
        validation=_share(data.get("validation", VALIDATION_SHARE if purpose == Purpose.SEARCH else 0.0), where),
        plan=_plan(data.get("search"), axes, where),
        scheduler=_scheduler(data.get("scheduler"), where),
        metric=metric,
        mode=mode,
        others=others,
        constraints=objectives.constraints(data.get("constraints"), f"{where}, constraints"),
    )


def changed(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of a search config with other values for some of ``CHANGES``; a space is added to its own."""
    space, plan = dict(data.get("space") or {}), dict(data.get("search") or {})
    if changes.get("algorithm", Algorithm.OPTUNA) != Algorithm.OPTUNA:
        plan.pop("sampler", None)  # another algorithm has none
    plan |= {_PLAN[name]: value for name, value in changes.items() if name in _PLAN}
    space |= changes.get("space", {})
    new = {**data, "space": space, "search": plan}
    new |= {name: value for name, value in changes.items() if name in ("purpose", "seeds", "constraints")}
    if set(changes) & set(_SCHEDULER):
        new["scheduler"] = _changed_scheduler(data.get("scheduler"), changes)
    return new


def check_controls(spec: SearchSpec, where: str) -> None:
    """Raise for a search in which some arms would be missing, or a control could be named the winner."""
    if spec.plan.algorithm != Algorithm.GRID:
        problem = f"runs every arm of every configuration, and algorithm {spec.plan.algorithm} draws some of them"
        raise ConfigError(where, problem, hint="a space of lists and algorithm grid list all of them")
    if spec.purpose == Purpose.SEARCH:
        hint = "search first, then compare the winner with its controls in a sweep"
        raise ConfigError(where, "compares arms, and a search could name a control its winner", hint=hint)


def place_of(change: str) -> str:
    """Return the place of the value that one of ``CHANGES`` changes, as errors name it."""
    if change in _PLAN:
        return f"search, {_PLAN[change]}"
    if change in _SCHEDULER:
        return f"scheduler, {'name' if change == 'scheduler' else change}"
    return change


def _changed_scheduler(old: str | Mapping[str, Any] | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scheduler of a search config with other values; another scheduler has values of its own."""
    if "scheduler" in changes:
        values: dict[str, Any] = {"name": changes["scheduler"]}
    else:
        values = {"name": old} if isinstance(old, str) else {**(old or {"name": "none"})}
    return values | {name: changes[name] for name in ("grace", "reduction") if name in changes}


def _known(data: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in data:
        if key not in keys:
            raise ConfigError(where, f"unknown key '{key}'", given=str(key), choices=keys)


def _objectives(metric: object, mode: object, where: str) -> tuple[str | None, Goal | None, tuple[Objective, ...]]:
    """Read the first objective, whose mode may be left to what suits it, and the others."""
    if isinstance(metric, list | tuple | Mapping):
        first, *others = objectives.objectives(metric, mode, where)
        return first.metric, first.mode, tuple(others)
    goal = None if mode is None else choose(Goal, str(mode), f"{where}, mode")
    return (None if metric is None else _metric(str(metric), where)), goal, ()


def _metric(word: str, where: str) -> str:
    if word not in METRICS:
        raise ConfigError(f"{where}, metric", f"unknown '{word}'", given=word, choices=METRICS)
    return word


def _plan(data: object, axes: tuple[Axis, ...], where: str) -> SearchPlan:
    """Read the key ``search``; without an algorithm a space of lists is a grid, any other is drawn from."""
    data = {} if data is None else data
    where = f"{where}, search"
    if not isinstance(data, Mapping):
        raise ConfigError(
            where, f"must be a mapping, got {data!r}", hint="for example search: {algorithm: random, samples: 20}"
        )
    _known(data, tuple(_PLAN.values()), where)
    drawn = [axis for axis in axes if not axis.listed]
    by_itself = Algorithm.RANDOM if drawn or any(axis.kind == DomainKind.CHOICE for axis in axes) else Algorithm.GRID
    algorithm = choose(Algorithm, str(data.get("algorithm", by_itself)), f"{where}, algorithm")
    if algorithm == Algorithm.GRID and drawn:
        raise ConfigError(
            f"{where}, algorithm",
            f"a grid cannot list the points of {drawn[0].name}, a {drawn[0].kind}",
            hint="algorithm random, optuna or hyperopt draws from it",
        )
    if algorithm != Algorithm.GRID and not axes:
        raise ConfigError(f"{where}, algorithm", f"{algorithm} has no space to draw from")
    samples = _whole(data.get("samples", 1), "samples", 1, where)
    if algorithm == Algorithm.GRID and samples > 1:
        raise ConfigError(
            f"{where}, samples",
            "this space has no distribution to draw from: every point of its grid is run once",
            hint="algorithm random draws samples from it; more seeds give more replicates",
        )
    time = data.get("time")
    sampler = _sampler(data.get("sampler"), algorithm, axes, f"{where}, sampler")
    return SearchPlan(
        algorithm=algorithm,
        sampler=sampler,
        samples=samples,
        seed=_whole(data.get("seed", 0), "seed", 0, where),
        time=None if time is None else duration(time, f"{where}, time"),
        trials=None if data.get("trials") is None else _whole(data["trials"], "trials", 1, where),
        warm_start=_warm_start(data.get("warm_start"), algorithm, sampler, f"{where}, warm_start"),
    )


def _warm_start(data: object, algorithm: Algorithm, sampler: Sampler | None, where: str) -> tuple[str, ...]:
    """Read the names of earlier searches, of which only a model can learn."""
    if data is None:
        return ()
    names = [data] if isinstance(data, str) else data
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(where, f"must be a list of names or folders of searches, got {data!r}")
    if algorithm != Algorithm.OPTUNA:
        raise ConfigError(where, f"needs a model that learns of it, algorithm optuna, got {algorithm}")
    if sampler == Sampler.RANDOM:
        raise ConfigError(where, "needs a sampler that learns of it, got random", hint="tpe, gp, cmaes and nsga2 do")
    return tuple(names)


def _sampler(data: object, algorithm: Algorithm, axes: tuple[Axis, ...], where: str) -> Sampler | None:
    """Read how Optuna suggests points; it would draw at random what its sampler does not model."""
    if data is None:
        return None
    sampler = choose(Sampler, str(data), where)
    if algorithm != Algorithm.OPTUNA:
        raise ConfigError(where, f"needs algorithm optuna, got {algorithm}")
    conditional = [axis for axis in axes if axis.when]
    if conditional and sampler in _FIXED_SPACE:
        problem = f"{sampler} does not model {conditional[0].name}, which exists only under its 'when'"
        raise ConfigError(where, problem, hint="sampler tpe does; random draws it")
    lists = [axis for axis in axes if axis.listed and len(axis.options) > 1]
    if lists and sampler == Sampler.CMAES:
        problem = f"cmaes models numbers alone, and {lists[0].name} is a list ({lists[0].kind})"
        raise ConfigError(where, problem, hint="sampler tpe, gp and nsga2 model lists, too")
    return sampler


def _scheduler(data: object, where: str) -> SchedulerSpec:
    where = f"{where}, scheduler"
    if data is None or isinstance(data, str):
        return SchedulerSpec(name=choose(Scheduler, data or Scheduler.NONE, where))
    if not isinstance(data, Mapping):
        raise ConfigError(where, f"must be a name or a mapping, got {data!r}", choices=Scheduler)
    _known(data, ("name", "grace", "reduction"), where)
    name = choose(Scheduler, str(data.get("name")), f"{where}, name")
    if name == Scheduler.NONE and len(data) > 1:
        setting = next(key for key in data if key != "name")
        raise ConfigError(f"{where}, {setting}", "needs scheduler asha, asha-promotion, median or hyperband, got none")
    if name == Scheduler.MEDIAN and "reduction" in data:
        problem = "must be left out: scheduler median stops trials that are worse than the median"
        raise ConfigError(f"{where}, reduction", problem)
    if name == Scheduler.HYPERBAND and "grace" in data:
        raise ConfigError(f"{where}, grace", "must be left out: hyperband has its own brackets")
    return SchedulerSpec(
        name=name,
        grace=_whole(data.get("grace", 1), "grace", 1, where),
        reduction=_whole(data.get("reduction", 3), "reduction", 2, where),
    )


def duration(time: Any, where: str) -> float:
    """Read a time as seconds: 90s, 30m, 1.5h, 2d; a number, as a file can hold it, is seconds."""
    match = re.fullmatch(r"([0-9]+\.?[0-9]*)\s*([smhd])", time.strip()) if isinstance(time, str) else None
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]] if match else 0.0
    if isinstance(time, int | float) and not isinstance(time, bool):
        seconds = float(time)
    if not 0 < seconds < 1e9:
        problem = "must be a time > 0 with its unit" if isinstance(time, str) else "must be a time > 0"
        raise ConfigError(where, f"{problem}, got '{time}'", hint="for example 90s, 30m, 1.5h or 2d")
    return seconds


def _whole(data: object, name: str, least: int, where: str) -> int:
    if not isinstance(data, int) or isinstance(data, bool) or not least <= data < 2**63:
        raise ConfigError(f"{where}, {name}", f"must be a whole number >= {least}, got {data!r}")
    return data


def _seeds(data: object, where: str) -> tuple[int, ...]:
    seeds = data if isinstance(data, list) else []
    whole = all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**63 for seed in seeds)
    if not seeds or not whole or len(set(seeds)) < len(seeds):
        raise ConfigError(f"{where}, seeds", f"must be a list of distinct whole numbers >= 0, got {data!r}")
    return tuple(seeds)


def _share(data: object, where: str) -> float:
    if not isinstance(data, int | float) or isinstance(data, bool) or not 0 <= data < 1:
        problem = f"must be a share >= 0 and < 1, got {data!r}"
        raise ConfigError(f"{where}, validation", problem, hint="for example 0.2")
    return float(data)
