"""A warm start: what earlier searches measured, at points of a new search's space. Imports neither Ray nor torch.

A point is taken where the new search would train the same run: its values lie in the new space, and everything else
that decides the numbers is equal. What an earlier search varies and the new one does not must have the value of the new
one; what the new one alone varies has the value that the earlier runs were trained with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hebb.config import overrides
from hebb.config.catalog import Catalog
from hebb.config.domains import Axis, Choice, label
from hebb.config.fields import Value
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import DomainKind
from hebb.core.errors import ConfigError, said_as
from hebb.storage import folders
from hebb.storage.journal import Journal
from hebb.tuning import request, results, search_folder, trials
from hebb.tuning.search import EarlierPoint, Search, Trial, WarmStart
from hebb.tuning.steps import WORST

_WHERE = "--warm-start"
_BESIDE = ("tf32", "deterministic", "cuda_graphs", "compile", "curve_points", "seed")
"""Values that decide no more than the last bits of a result, or nothing."""
_NAMED = 2  # differences that a reason names
_NEAR = 1e-9  # relative difference at which a number counts as one of a list of steps


class _OutsideError(Exception):
    """Why a configuration is no point of the new search."""


def begun(search: Search, home: folders.Home, catalog: Catalog) -> Search:
    """Return the search with what the searches of its key ``warm_start`` measured; another one as it is.

    Raises:
        ConfigError: for a search that is not there or has no finished configuration, and where no point fits.
    """
    names = search.spec.plan.warm_start
    if not names:
        return search
    points: list[EarlierPoint] = []
    left_out: dict[str, str] = {}
    for folder in _folders(names, home):
        for trial, values, reason in _measured(folder, search):
            text = f"{folder.name}: {trial.label}"
            try:
                choice = _choice(search, trial, reason, catalog)
                if any(point.choice == choice for point in points):
                    raise _OutsideError("is the same point as one before it")
            except _OutsideError as error:
                left_out[text] = str(error)
                continue
            points.append(EarlierPoint(search=folder.name, choice=choice, values=values))
    if not points:
        name, reason = next(iter(left_out.items()))
        raise ConfigError(_WHERE, f"nothing of {' '.join(names)} fits this search: {name}: {reason}")
    return replace(search, warm=WarmStart(points=tuple(points), left_out=left_out))


def _folders(names: Sequence[str], home: folders.Home) -> list[Path]:
    with said_as({"--folder-name": _WHERE}):
        paths = [request.folder_of(name, home) for name in names]
    for i, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:i]]:
            raise ConfigError(_WHERE, f"{path.name} is given twice: its points would count twice")
    return paths


def _measured(folder: Path, search: Search) -> Iterator[tuple[Trial, dict[str, float], str]]:
    """Yield a trial of each configuration of an earlier search, its means, and why they are no result."""
    earlier, journal, *_ = search_folder.stored(folder, _WHERE)
    names = list(dict.fromkeys([one.metric for one in search.objectives] + [b.metric for b in search.constraints]))
    table = results.read(earlier.trials, search.metric, journal, search.beside)
    summary = results.summary(table, search.metric, search.beside) if len(table) else table
    lines = {str(line["configuration"]): line for line in summary.to_dict("records")}
    if not any(line["n"] == len(earlier.seeds) for line in lines.values()):
        raise ConfigError(_WHERE, f"no configuration of {folder.name} is finished on every seed")
    for trial in earlier.trials[:: len(earlier.seeds)]:
        line = lines.get(trial.label)
        if line is None or line["n"] < len(earlier.seeds):
            yield trial, {}, _fate(trial, earlier, journal, 0 if line is None else int(line["n"]))
            continue
        means = {name: results.value_of(line, name, search) for name in names}
        lacking = [name for name, value in means.items() if not math.isfinite(value) or value >= WORST]
        yield trial, means, f"has no finite {lacking[0]}" if lacking else ""


def _fate(trial: Trial, earlier: Search, journal: Journal, finished: int) -> str:
    if trial.configuration in journal.failed or any(name.startswith(trial.configuration) for name in journal.failed):
        return "failed"
    if trial.configuration in journal.stopped:
        return "was stopped early"
    return f"is finished on {finished} of {len(earlier.seeds)} seeds"


def _choice(search: Search, trial: Trial, reason: str, catalog: Catalog) -> Choice:
    """Return the point of the new space at which the new search would train the run of a trial."""
    if reason:
        raise _OutsideError(reason)
    values = overrides.values(trial.config)
    choice: Choice = {}
    for axis in search.spec.axes:
        if axis.active(choice):
            choice.update(_on(axis, {path: _value(path, trial.choice, values) for path in axis.paths()}))
    try:
        here = trials.configured(search, choice, catalog)
    except ConfigError as error:
        raise _OutsideError(error.explanation.splitlines()[0]) from None
    differences = _differences(trial.config, here)
    if differences:
        more = f" and {len(differences) - _NAMED} more" if len(differences) > _NAMED else ""
        raise _OutsideError("; ".join(differences[:_NAMED]) + more)
    return choice


def _value(path: str, choice: Choice, values: Mapping[str, Value | None]) -> object:
    """Return the value at a path of an earlier run: the one that was chosen, else that of the run."""
    if path in choice:
        return choice[path]
    try:
        return overrides.value_at(values, path)
    except KeyError:
        raise _OutsideError(f"{path} is not set there") from None


def _on(axis: Axis, values: Choice) -> Choice:
    """Return the values as a point of a domain."""
    shown = label(values)
    if axis.listed:
        if values not in axis.options:
            raise _OutsideError(f"{shown} is not among the values here")
        return axis.options[axis.options.index(values)]
    value = values[axis.name]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _OutsideError(f"{shown} is no number")
    if not axis.low <= value <= axis.high or (axis.kind == DomainKind.RANDINT and value == axis.high):
        raise _OutsideError(f"{shown} is outside {axis.low:g} to {axis.high:g}")
    if not axis.count():
        return {axis.name: float(value)}
    points = [axis.point((i + 0.5) / axis.count()) for i in range(axis.count())]
    near = [point for point in points if math.isclose(point[axis.name], value, rel_tol=_NEAR)]
    if not near:
        raise _OutsideError(f"{shown} is between two steps")
    return near[0]


def _differences(there: RunConfig, here: RunConfig) -> list[str]:
    """Say in which values two runs differ, but for their seeds and for what decides no more than last bits."""
    sides = _everything(there), _everything(here)
    paths = [path for path in dict.fromkeys([*sides[0], *sides[1]]) if sides[0].get(path) != sides[1].get(path)]
    return [f"{path} is {sides[0].get(path, 'absent')}, here {sides[1].get(path, 'absent')}" for path in paths]


def _everything(config: RunConfig) -> dict[str, object]:
    values: dict[str, object] = {n: v for n, v in overrides.values(config).items() if n not in _BESIDE}
    values |= {n: getattr(config, n) for n in ("mode", "training_blocks", "bp_blockwise", "resume", "resume_sha256")}
    return values | {"plugins": sorted(spec.sha256 for spec in config.plugins)}
