"""Groups of stored runs that differ only in their seed: what makes them, their names, and the check that they are.

labels = groups.labels(runs, by)   # the name of the group of each run
groups.check(runs, labels)         # raise where one holds runs of several configurations
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from hebb.analysis.runs import COLUMNS, trained_blocks, value_in, varying
from hebb.config import controls, overrides
from hebb.config.vocabulary import DeviceKind
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from hebb.analysis.runs import StoredRun
    from hebb.config.fields import Value
    from hebb.config.specs import RunConfig

_OUTSIDE = ("mode", "trained")
"""Columns of runs that are no override path."""
_SPECS = ("network", "dataset_sup", "dataset_unsup", "classifier", "stop")
"""Parts of a run whose values have paths."""
_MOST = 6
"""Paths that a message or a note names."""


def columns(runs: Sequence[StoredRun]) -> list[str]:
    """Return the columns whose values runs must share to be replicates.

    Preset and dataset, mode and trained blocks where they differ, and the paths at which runs of one preset differ. A
    path that some runs lack counts where those that have it differ.
    """
    paths: dict[str, None] = {}
    for preset in dict.fromkeys(run.preset for run in runs):
        members = [run for run in runs if run.preset == preset]
        paths |= dict.fromkeys(path for path in varying(members) if _differ(members, path, among=runs))
    differing = [name for name in _OUTSIDE if len({value_in(run, name) for run in runs}) > 1]
    return ["preset", "dataset", *differing, *paths]


def _differ(members: Sequence[StoredRun], path: str, among: Sequence[StoredRun]) -> bool:
    """Tell whether a path that varies among members separates them by its values, not by its absence alone."""
    return (
        all(path in run.values for run in among) or len({run.values[path] for run in members if path in run.values}) > 1
    )


def keys(runs: Sequence[StoredRun], by: Sequence[str] | None = None) -> list[tuple[object, ...]]:
    """Return the values of every run in the columns of ``by``, or of ``columns``, of which it may lack some."""
    names, cell = (columns(runs), _cell_or_absent) if by is None else (list(by), value_in)
    return [tuple(cell(run, name) for name in names) for run in runs]


# -- names ------------------------------------------------------------------------------------------------------------


def labels(runs: Sequence[StoredRun], by: Sequence[str] | None = None) -> list[str]:
    """Name the group of every run: its search where every group is one search, else the values that groups differ in.

    Args:
        runs: the runs.
        by: columns of ``runs.COLUMNS`` or override paths; None takes ``columns``.
    """
    names, values = columns(runs) if by is None else list(by), keys(runs, by)
    pairs = {(key, run.search) for key, run in zip(values, runs, strict=True)}
    if all(run.search for run in runs) and len(pairs) == len(set(values)) == len({search for _, search in pairs}):
        return [str(run.search) for run in runs]
    differing = [i for i in range(len(names)) if len({key[i] for key in values}) > 1]
    if not differing:
        return [" ".join(dict.fromkeys(run.preset for run in runs))] * len(runs)
    written, _ = texts([tuple(key[i] for i in differing) for key in values], [names[i] for i in differing])
    return [written[tuple(key[i] for i in differing)] for key in values]


def texts(keys: Iterable[tuple[object, ...]], names: Sequence[str]) -> tuple[dict[tuple[object, ...], str], int]:
    """Write the values of groups in some columns, with as many digits as tell them apart, and return the digits."""
    for digits in (4, 8, 17):
        written = {
            key: ", ".join(_named(name, v, digits) for name, v in zip(names, key, strict=True) if v is not _ABSENT)
            for key in keys
        }
        if len(set(written.values())) == len(written):
            break
    return written, digits


def _named(column: str, value: object, digits: int) -> str:
    """Write a value with the name of its column, where it does not speak for itself."""
    text = value_text(value, digits)
    return text if column in ("preset", "dataset", "search", "mode") else f"{column}={text}"


def value_text(value: object, digits: int) -> str:
    """Write a value, floats with at most so many digits."""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def _cell_or_absent(run: StoredRun, column: str) -> object:
    """Return the value of a run in a column of ``columns``, which it may lack."""
    return value_in(run, column) if column in COLUMNS else run.values.get(column, _ABSENT)


_ABSENT = object()
"""Stands for the value of a path that a run lacks."""


# -- the check --------------------------------------------------------------------------------------------------------


def configuration(config: RunConfig) -> RunConfig:
    """Return a configuration without what its seeds may differ in: the seed itself, and what changes no result.

    Where a run computes, with how many threads, and whether its steps are compiled, changes the last bits of its
    numbers; probes and points of curves change none; and each seed may start from a checkpoint of its own.
    """
    return replace(
        config,
        seed=0,
        pack=(),
        device=DeviceKind.AUTO,
        threads=1,
        compile=False,
        deterministic=False,
        cuda_graphs=False,
        probes=(),
        probe_blocks=None,
        probe_samples=1,
        curve_points=None,
        resume_sha256=None,
        plugins=tuple(sorted((replace(plugin, name="plugin") for plugin in config.plugins), key=lambda p: p.sha256)),
    )


def check(runs: Sequence[StoredRun], keys: Iterable[Hashable], where: str = "--by") -> None:
    """Raise where runs of one key are not seeds of one configuration.

    Args:
        runs: the runs.
        keys: the group of each.
        where: the flag that would tell them apart.
    """
    members: dict[Hashable, list[StoredRun]] = {}
    for key, run in zip(keys, runs, strict=True):
        members.setdefault(key, []).append(run)
    for group in members.values():
        check_seeds(group, where)


def check_seeds(runs: Sequence[StoredRun], where: str) -> None:
    """Raise unless runs are seeds of one configuration, each once; ``where`` is the flag that would tell them apart."""
    first, *others = runs
    for run in others:
        if configuration(run.config) != configuration(first.config):
            paths = _differing((first, run))
            raise ConfigError(
                where,
                f"{_name(first)} and {_name(run)} are not seeds of one configuration: they differ in {_some(paths)}",
                hint=_hint(first, paths, where),
            )
    by_seed: dict[int, StoredRun] = {}
    for run in runs:
        if run.seed in by_seed:
            both = f"{_name(by_seed[run.seed])} and {_name(run)}"
            if by_seed[run.seed].config.resume_sha256 != run.config.resume_sha256:
                raise ConfigError(where, f"{both} have the same seed and start from different checkpoints")
            raise ConfigError(where, f"{both} are one configuration with the same seed", hint="name one of them")
        by_seed[run.seed] = run


def _name(run: StoredRun) -> str:
    return f"{run.search}/{run.folder.name}" if run.search else run.folder.name


def _differing(pair: tuple[StoredRun, StoredRun]) -> list[str]:
    """Return the paths at which two runs differ, or else the names of the settings that have no path."""
    left, right = (configuration(run.config) for run in pair)
    values = overrides.values(left), overrides.values(right)
    paths = [path for path in dict.fromkeys([*values[0], *values[1]]) if values[0].get(path) != values[1].get(path)]
    outside = [part.name for part in fields(left) if part.name not in values[0]]
    return paths + [name for name in outside if name not in _SPECS and getattr(left, name) != getattr(right, name)]


def _some(paths: Sequence[str]) -> str:
    """List the first paths, and count the others."""
    more = f" and {len(paths) - _MOST} more" if len(paths) > _MOST else ""
    return f"{', '.join(paths[:_MOST])}{more}"


def _hint(run: StoredRun, paths: Sequence[str], where: str) -> str:
    """Say how to tell runs apart that differ at these paths."""
    path = next((path for path in paths if path in run.values), None)
    if path is None:
        return "name the runs of one configuration"
    one = f"--where chooses one configuration, as in --where {path}={run.values[path]}"
    return f"add what matters to --by; {one}" if where == "--by" else one


# -- what the names of groups do not say ------------------------------------------------------------------------------


def unsaid(runs: Sequence[StoredRun], names: Sequence[str]) -> str:
    """Say in a line in what groups differ beside the columns that make them; empty where that is all.

    Networks of different presets differ in their blocks, as their names say; in data, classifier and everything else
    they would be alike in a fair comparison. Runs on different datasets are not set against each other where the
    dataset is one of the columns.

    Args:
        runs: the runs.
        names: the columns that people see.
    """
    tasks = dict.fromkeys(run.dataset for run in runs) if "dataset" in names else [None]
    found: dict[str, list[str]] = {}
    for task in tasks:
        sides = [run for run in runs if task in (None, run.dataset)]
        shown = {path for name in names for run in sides for path in overrides.single(name, run.config.network)}
        shown |= {controls.PATH} if "trained" in names else set()
        for path, values in values_apart([(run.config, run.values) for run in sides]).items():
            if path not in shown:
                found[path] = list(dict.fromkeys([*found.get(path, []), *values]))
    return sentence(found)


def values_apart(sides: Sequence[tuple[RunConfig, Mapping[str, Value | None]]]) -> dict[str, list[str]]:
    """Return where runs, given by their config and its values, differ for another reason than that of their presets.

    That is by override path, and by ``mode`` and ``trained``.
    """
    alike = len({config.network.name for config, _ in sides}) == 1
    tables = [{"mode": config.mode, "trained": trained_blocks(config), **values} for config, values in sides]
    apart = {}
    for path in dict.fromkeys(path for table in tables for path in table):
        if path != "seed" and (alike or not overrides.of_network(path)):
            values = dict.fromkeys(value_text(table.get(path), 6) for table in tables)
            if len(values) > 1:
                apart[path] = list(values)
    return apart


def sentence(apart: Mapping[str, Sequence[str]], what: str = "groups") -> str:
    """Write values that are not the same in all groups, or in ``what`` is compared."""
    if not apart:
        return ""
    parts = []
    for path, values in apart.items():
        more = ", ..." if len(values) > _MOST else ""
        parts.append(f"{path} ({', '.join(values[:_MOST])}{more})")
    return f"not the same in all {what}: {_some(parts)}"
