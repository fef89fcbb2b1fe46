"""What differs between two stored runs or two searches, and nothing else.

Files alone are read: no plugin is loaded, so that a run whose plugin has changed since can be compared too.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hebb.analysis import matching
from hebb.analysis.matching import Pair
from hebb.config import domains, serialise
from hebb.core import documents
from hebb.core.errors import ConfigError
from hebb.storage import archive, finished, folders, kept_code
from hebb.storage.folders import FolderState

if TYPE_CHECKING:
    import pandas as pd

Values = Mapping[str, object]
"""Values by dotted path."""
SEARCH, RUN, BOTH = "search", "run", "run and search"

_ELSEWHERE = ("command", "paths", "resumed_from", "data_sha256", "data_files", "config_sha256", "continued", "on_end")
"""Parts of ``environment.json`` that say where and when a run was made, or belong to the data."""
_COMMANDS = ("options.commands", "options.on_end")
"""The command lines in ``search.json``: they hold the name of its folder, and what follows its end."""


@dataclass(frozen=True)
class Change:
    """A value that differs.

    Attributes:
        part: config, plugins, environment, data or trials.
        path: where in that part, as ``--set`` writes it.
        left: the first one's value; None where it has none.
        right: the second one's.
    """

    part: str
    path: str
    left: object
    right: object


@dataclass(frozen=True)
class Curve:
    """A metric whose values differ.

    Attributes:
        metric: its name.
        step: the first update after which the values differ.
        left: the first run's last value; None where it was never measured.
        right: the second run's.
        largest: the largest difference of two values, second minus first; None where no step has both.
        at: the update after which it is that large.
    """

    metric: str
    step: int
    left: float | None
    right: float | None
    largest: float | None
    at: int | None


@dataclass(frozen=True)
class SourceChange:
    """A file of a plugin that differs.

    Attributes:
        path: the plugin, and the file where it is a package.
        text: what differs, as a unified diff.
    """

    path: str
    text: str


@dataclass(frozen=True)
class Difference:
    """Everything that differs.

    Attributes:
        kind: run, search, or both.
        metrics: what searches compare their configurations by; empty for runs.
        changes: values that differ.
        curves: metrics of two runs that differ.
        pairs: configurations of two searches whose results differ.
        sources: files of plugins that differ, as far as their sources are kept.
    """

    kind: str
    metrics: tuple[str, ...]
    changes: tuple[Change, ...]
    curves: tuple[Curve, ...] = ()
    pairs: tuple[Pair, ...] = ()
    sources: tuple[SourceChange, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changes or self.curves or self.pairs)

    def table(self) -> pd.DataFrame:
        """Return a line for everything that differs: part, path, left, right; the last value of a curve."""
        import pandas as pd

        lines = [(change.part, change.path, change.left, change.right) for change in self.changes]
        lines += [("metrics", curve.metric, curve.left, curve.right) for curve in self.curves]
        lines += [(f"mean {pair.metric}", pair.label, pair.left, pair.right) for pair in self.pairs]
        return pd.DataFrame(lines, columns=["part", "path", "left", "right"])


def of(left: Path, right: Path) -> Difference:
    """Compare two finished runs, two searches, or a run with a search.

    Raises:
        ConfigError: for a run that is not finished, and for files that are damaged.
    """
    kinds = [_kind(folder) for folder in (left, right)]
    if kinds == [SEARCH, SEARCH]:
        return _of_searches(left, right)
    if kinds == [RUN, RUN]:
        return _of_runs(left, right)
    if kinds == [RUN, SEARCH]:
        return _of_both(left, right)
    return _turned(_of_both(right, left, turned=True))


def _of_runs(left: Path, right: Path) -> Difference:
    configs = _config(left), _config(right)
    changes = (*_of_configs(*configs), *_of_environments(left, right))
    sources = tuple(_of_sources((configs[0], left), (configs[1], right)))
    parted = tuple(curves(finished.rows(left), finished.rows(right)))
    return Difference(RUN, (), changes, parted, sources=sources)


def _of_both(run: Path, search: Path, *, turned: bool = False) -> Difference:
    """Compare a run with its like in a search, or else with what the search varies.

    Its like is a finished run of the same configuration and seed. Where there is none, another one stands for it, or
    the base of the search, without what the search varies: there the value of the run is set against the domain, unless
    that lists it. ``turned``: the sources are those of the search first, then those of the run.
    """

    def sources(other: Mapping[str, object]) -> tuple[SourceChange, ...]:
        sides = [(config, run), (other, search)]
        return tuple(_of_sources(*(reversed(sides) if turned else sides)))

    stored, config = _object(search / folders.SEARCH), _config(run)
    planned = matching.trials(search, stored).values()
    for trial in planned:
        if matching.is_finished(trial) and not list(_of_configs(config, other := _config(trial))):
            alike = _of_runs(run, trial)
            return replace(alike, kind=BOTH, sources=sources(other))
    first = next((trial for trial in planned if matching.is_finished(trial)), None)
    base = _base(stored) if first is None else _config(first)
    space, own = _domains(stored), {_path(name): value for name, value in _flat(serialise.complete(config)).items()}
    varied = {path: list(values) for path, values in space.items() if own.get(path) not in values}
    seeds = stored.get("seeds")
    varied |= {"seed": seeds} if isinstance(seeds, list) and config.get("seed") not in seeds else {}
    fixed = [c for c in _of_configs(config, base) if c.part != "config" or c.path not in {*space, "seed"}]
    changes = [*fixed, *(Change("space", path, own.get(path), values) for path, values in varied.items())]
    changes += [] if first is None else _of_environments(run, first)
    return Difference(BOTH, (), tuple(changes), sources=sources(base))


def _domains(stored: Mapping[str, object]) -> dict[str, list[object]]:
    """Return what a search varies: the values of lists, and the name of any other domain with its ends."""
    spec = stored.get("spec")
    space = spec.get("space") if isinstance(spec, dict) else None
    values: dict[str, list[object]] = {}
    for axis in domains.parse(space if isinstance(space, dict) else {}, "search.json, space"):
        for path in axis.paths():
            listed = [point[path] for point in axis.options if path in point]
            values[path] = listed if axis.listed else [f"{axis.kind} {axis.low:g} to {axis.high:g}"]
    return values


def _turned(difference: Difference) -> Difference:
    """Exchange the values of both sides; a run and a search have no pairs."""

    def back(value: float | None) -> float | None:
        return None if value is None else -value

    changes = tuple(replace(change, left=change.right, right=change.left) for change in difference.changes)
    turned = [replace(c, left=c.right, right=c.left, largest=back(c.largest)) for c in difference.curves]
    return replace(difference, changes=changes, curves=tuple(turned))


def _kind(folder: Path) -> str:
    if (folder / folders.SEARCH).exists():
        return SEARCH
    state = folders.state(folder)
    if state in (FolderState.ABSENT, FolderState.FOREIGN):
        raise ConfigError("diff", f"{folder} holds no run and no search")
    if state != FolderState.FINISHED:
        raise ConfigError("diff", f"must name finished runs or searches, and {folder} is {state}")
    return RUN


# -- values ---------------------------------------------------------------------------------------------------


def _changes(part: str, left: Values, right: Values) -> Iterator[Change]:
    for path in dict.fromkeys([*left, *right]):
        if left.get(path) != right.get(path):
            yield Change(part, path, left.get(path), right.get(path))


def _flat(data: object, path: str = "") -> dict[str, object]:
    """Return the leaves of nested objects by dotted path; a list is a leaf, unless it holds objects."""
    if isinstance(data, list) and any(isinstance(item, dict) for item in data):
        data = {str(i): item for i, item in enumerate(data)}
    if not isinstance(data, dict) or not data:
        return {path: data}
    leaves: dict[str, object] = {}
    for key, item in data.items():
        leaves |= _flat(item, f"{path}.{key}" if path else str(key))
    return leaves


def _object(path: Path) -> dict[str, object]:
    data = documents.read_json(path)
    if not isinstance(data, dict):
        raise ConfigError(str(path), f"must hold an object, got {type(data).__name__}")
    return data


def _config(folder: Path) -> dict[str, object]:
    return _object(folder / folders.CONFIG)


def _of_configs(*configs: Mapping[str, object]) -> Iterator[Change]:
    """Compare two configs by the paths of ``--set``, and the plugins that they need by name and digest."""
    sides = [serialise.complete(config) for config in configs]
    values = [_flat({k: v for k, v in side.items() if k not in ("plugins", "phases")}) for side in sides]
    yield from _changes("config", *({_path(name): v for name, v in side.items()} for side in values))
    yield from _changes("plugins", *map(_plugins, sides))


def _path(name: str) -> str:
    """Return a path as ``--set`` writes it: ``b0.layer.lr`` for ``network.blocks.0.layer.lr``."""
    return re.sub(r"^network\.blocks\.(\d+)\.", r"b\1.", name)


def _plugins(config: Mapping[str, object]) -> dict[str, object]:
    plugins = config.get("plugins")
    specs = [spec for spec in plugins if isinstance(spec, dict)] if isinstance(plugins, list) else []
    return {Path(str(spec.get("name"))).name: f"source {str(spec.get('sha256'))[:10]}" for spec in specs}


def _of_sources(*sides: tuple[Mapping[str, object], Path]) -> Iterator[SourceChange]:
    """Compare the sources of plugins of the same name; ``sides`` are a config and the folder that keeps them."""
    specs = [{Path(spec.name).name: spec for spec in archive.specs_in(serialise.complete(c))} for c, _ in sides]
    for name in (name for name in specs[0] if name in specs[1]):
        both = specs[0][name], specs[1][name]
        if both[0].sha256 == both[1].sha256:
            continue
        texts = [kept_code.texts(spec, folder) for spec, (_, folder) in zip(both, sides, strict=True)]
        if texts[0] is not None and texts[1] is not None:
            yield from _of_files(name, texts[0], texts[1])


def _of_files(plugin: str, left: Mapping[str, str], right: Mapping[str, str]) -> Iterator[SourceChange]:
    for name in sorted({*left, *right}):
        path = plugin if name == plugin else f"{plugin}/{name}"
        sides = [side.get(name, "").splitlines() for side in (left, right)]
        lines = difflib.unified_diff(sides[0], sides[1], f"A/{path}", f"B/{path}", lineterm="")
        if text := "\n".join(lines):
            yield SourceChange(path, text)


def _of_environments(left: Path, right: Path) -> Iterator[Change]:
    """Compare versions, machines and data of two runs."""
    paths = [folder / folders.ENVIRONMENT for folder in (left, right)]
    present = [path.exists() for path in paths]
    if not all(present):
        stored = ["stored" if there else None for there in present]
        yield from _changes("environment", *({folders.ENVIRONMENT: one} for one in stored))
        return
    sides = [_object(path) for path in paths]
    values = [_flat({k: v for k, v in side.items() if k not in _ELSEWHERE}) for side in sides]
    yield from _changes("environment", *values)
    yield from _changes("data", *map(_digests, sides))


def _digests(environment: Mapping[str, object]) -> dict[str, object]:
    data = environment.get("data_sha256")
    named = data if isinstance(data, dict) else {}
    return {f"dataset_{role}": f"digest {str(digest)[:10]}" for role, digest in named.items()}


# -- curves ---------------------------------------------------------------------------------------------------


def curves(left: Sequence[folders.Row], right: Sequence[folders.Row]) -> Iterator[Curve]:
    """Compare the metrics of two runs, update by update; the metric that parts first comes first."""
    compared = [_curve(name, left, right) for name in matching.metrics((*left, *right))]
    yield from sorted((curve for curve in compared if curve is not None), key=lambda curve: curve.step)


def _curve(name: str, left: Sequence[folders.Row], right: Sequence[folders.Row]) -> Curve | None:
    sides = [
        {int(row["step"]): float(row[name]) for row in rows if row.get(name) is not None} for rows in (left, right)
    ]
    steps = sorted({*sides[0], *sides[1]})
    parted = [step for step in steps if sides[0].get(step) != sides[1].get(step)]
    if not parted:
        return None
    both = {step: sides[1][step] - sides[0][step] for step in parted if all(step in side for side in sides)}
    at = max(both, key=lambda step: abs(both[step]), default=None)
    last = [side[max(side)] if side else None for side in sides]
    return Curve(name, parted[0], last[0], last[1], None if at is None else both[at], at)


# -- searches -------------------------------------------------------------------------------------------------


def _of_searches(left: Path, right: Path) -> Difference:
    stored = [_object(folder / folders.SEARCH) for folder in (left, right)]
    planned = [matching.trials(folder, search) for folder, search in zip((left, right), stored, strict=True)]
    first = [next((run for run in trials.values() if matching.is_finished(run)), None) for trials in planned]
    changes = [*_of_plans(*stored), *(Change("trials", *lacking) for lacking in matching.lacking(*planned))]
    if first[0] is not None and first[1] is not None:
        changes += _of_environments(first[0], first[1])
    sources = tuple(_of_sources((_base(stored[0]), left), (_base(stored[1]), right)))
    asked = tuple(dict.fromkeys(metric for search in stored for metric in _metrics(search)))
    pairs = sorted(matching.pairs(*planned), key=lambda pair: pair.metric not in asked)
    return Difference(SEARCH, asked, tuple(changes), pairs=tuple(pairs), sources=sources)


def _metrics(search: Mapping[str, object]) -> list[str]:
    """Return what a search compares its configurations by."""
    others = search.get("others")
    further = [one.get("metric") for one in others if isinstance(one, dict)] if isinstance(others, list) else []
    return [str(metric) for metric in (search.get("metric"), *further) if metric is not None]


def _of_plans(left: Mapping[str, object], right: Mapping[str, object]) -> Iterator[Change]:
    """Compare what two searches were asked for."""
    bases = [_base(search) for search in (left, right)]
    rest = [_flat({k: v for k, v in search.items() if k not in ("base", "trials")}) for search in (left, right)]
    yield from _changes("search", *({k: v for k, v in side.items() if k not in _COMMANDS} for side in rest))
    yield from _of_configs(*bases)


def _base(search: Mapping[str, object]) -> Mapping[str, object]:
    """Return the run that the space of a search changes."""
    base = search.get("base")
    if not isinstance(base, dict):
        raise ConfigError("diff", "a search.json does not hold the base of a search")
    return base
