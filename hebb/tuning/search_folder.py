"""The folder of a search: what it is to do, and what became of every configuration. Imports neither Ray nor torch.

search.json     the search: config, base run, seeds, metric, options, and what suggests its points
journal.jsonl   a line for each configuration that was chosen, stopped, failed or finished, in the order of events
trials/         the run folders; ``result.json`` makes a run finished, whatever the journal says
locks/          held by the process that runs the search or one of its trials; removed at the end of the search

Nothing here is a pickle: an interrupted search is read back as data.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hebb.config import catalog as catalogs
from hebb.config import search_space, serialise
from hebb.config.catalog import Catalog
from hebb.config.domains import Axis
from hebb.config.objectives import Objective
from hebb.config.search_space import SearchSpec
from hebb.config.vocabulary import DomainKind, Goal, Scheduler
from hebb.core import commands, files, locks
from hebb.core.errors import ConfigError
from hebb.storage import folders
from hebb.storage.folders import LOCKS, SEARCH
from hebb.storage.journal import Journal as Journal
from hebb.tuning import samplers
from hebb.tuning.search import EarlierPoint, Search, WarmStart
from hebb.tuning.search_settings import SearchSettings
from hebb.tuning.trials import planned, with_choices

FRONT = "front.json"
"""File in the folder of a search by several metrics: the points of its front."""
SEARCHER = "searcher"
"""Key of ``search.json``: what suggests the points of a model-based search, with its version and settings."""
WARM_START = "warm_start"
"""Key of ``search.json``: what earlier searches measured, so that a continued search does not need them."""
_REMOVED = f"{folders.TRIALS}.removed"
_KEYS = ("config", "purpose", "metric", "mode", "seeds", "final_seeds", "spec", "base", "resume_from", "options")


def check_free(folder: Path, overwrite: bool) -> None:
    """Raise where the folder holds something else, or a search and ``overwrite`` is false."""
    if not folder.exists() or (folder.is_dir() and all(p.name == LOCKS or files.is_torn(p) for p in folder.iterdir())):
        return
    if not (folder / SEARCH).exists():
        raise ConfigError(
            str(folder), "is not the folder of a search and is not empty", hint="choose another --folder-name"
        )
    if not overwrite:
        again = commands.line("search", "--restore", folder)
        raise ConfigError(
            str(folder),
            "holds a search already",
            hint=f"{again} continues it; --overwrite replaces it; another --folder-name keeps both",
        )


def claim(search: Search, settings: SearchSettings) -> None:
    """Make the folder of a search, in place of an earlier one, and write down what it is to do."""
    text = folders.json_text(_content(search, settings, None))  # an error leaves the earlier one
    search.folder.mkdir(parents=True, exist_ok=True)
    folders.empty(search.folder, last=SEARCH)
    files.write_text(search.folder / SEARCH, text)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the folder of a search, which one process at a time may run or replace.

    Raises:
        ConfigError: when another process holds it.
    """
    lock = folder / LOCKS / SEARCH
    again = commands.line("search", "--restore", folder)
    with locks.held(
        lock,
        where=str(folder),
        busy="this search is being run",
        hint=f"wait until it ends, or choose another --folder-name; {again} continues it if it is interrupted",
    ):
        yield
    with contextlib.suppress(OSError):  # held by this process still, or by workers that end
        lock.parent.rmdir()


def forget_trials(folder: Path) -> None:
    """Remove the locks of trials, which killed workers have left; ``folder`` is held by this process."""
    for path in (folder / LOCKS).iterdir():
        if not path.name.startswith(SEARCH):
            path.unlink(missing_ok=True)


def remove_runs(folder: Path) -> None:
    """Remove the run folders of a search that is over; one that may still go on keeps them.

    They get another name first, so that a kill leaves all of them or none.
    """
    if not Journal.load(folder).over:
        return
    removed = folder / _REMOVED
    shutil.rmtree(removed, ignore_errors=True)
    if (folder / folders.TRIALS).exists():
        (folder / folders.TRIALS).rename(removed)
        shutil.rmtree(removed)


def without_runs(folder: Path) -> bool:
    """Tell whether a search is over and has removed its runs: it knows their results and would train them again."""
    if (folder / folders.TRIALS).exists() or read(folder)["options"].get("save", True):
        return False
    return Journal.load(folder).over


def check_runs(folder: Path, where: str) -> None:
    """Raise for a search that has removed its runs, where something needs them."""
    if without_runs(folder):
        problem = f"needs the runs of {folder}, which --save false removed when it was complete"
        raise ConfigError(where, problem, hint="begin another search, without --save false")


def write(search: Search, settings: SearchSettings) -> None:
    """Write ``search.json``, in place of that of an earlier session if there is one."""
    path = search.folder / SEARCH
    before = folders.read_json(path) if path.exists() else None
    folders.write_json(path, _content(search, settings, before))


def _content(search: Search, settings: SearchSettings, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the content of ``search.json``; ``before`` is that of an earlier session."""
    return {
        "config": search.spec.name,
        "purpose": search.spec.purpose,
        "metric": search.metric,
        "mode": search.mode,
        **_several(search),
        "seeds": list(search.seeds),
        "final_seeds": list(search.final_seeds),
        "pack_seeds": search.pack_seeds,
        "packs": [list(pack) for pack in search.packs],
        "spec": to_data(search.spec),
        **_searcher(search.spec, before),
        **_warm(search.warm),
        "base": serialise.to_json(search.base),
        "resume_from": None if search.resume_from is None else str(search.resume_from),
        "options": {**settings.stored(), "probe_every": search.probe_every},
        "trials": [{"name": t.name, "seed": t.config.seed, "choice": t.choice} for t in search.trials],
    }


def read(folder: Path, where: str = "--restore") -> dict[str, Any]:
    """Return the content of ``search.json``; an error names the place ``where``."""
    if not folder.is_dir():
        stored = sorted(path.parent.name for path in folder.parent.glob(f"*/{SEARCH}"))
        raise ConfigError(where, f"no such folder '{folder}'", given=folder.name, choices=stored)
    folders.check_search(folder, where)
    data = folders.read_json(folder / SEARCH)
    if not isinstance(data, dict) or any(key not in data for key in _KEYS):
        raise ConfigError(str(folder / SEARCH), "is not the description of a search")
    return data


class StoredSearch(NamedTuple):
    """A search as its folder holds it.

    Attributes:
        search: the search, with what a model-based algorithm chose.
        journal: what became of its configurations.
        catalog: its presets and datasets; the shipped ones where its preset file has gone.
        data: the content of ``search.json``.
    """

    search: Search
    journal: Journal
    catalog: Catalog
    data: dict[str, Any]


def stored(folder: Path, where: str = "--restore") -> StoredSearch:
    """Read a search, finished or not; an error names the place ``where``."""
    data = read(folder, where)
    file = data["options"].get("preset_file")
    catalog = catalogs.load(Path(file) if file is not None and Path(file).exists() else None)
    journal = Journal.load(folder)
    search = with_choices(search_of(data, folder.absolute(), catalog), journal, catalog)
    return StoredSearch(search, journal, catalog, data)


def points_of_front(folder: Path) -> list[int]:
    """Return the numbers of the points of the front that a search has stored; none without one."""
    path = folder / FRONT
    return [int(point["number"]) for point in folders.read_json(path)["points"]] if path.exists() else []


def search_of(data: Mapping[str, Any], folder: Path, catalog: Catalog) -> Search:
    """Build the search that ``search.json`` describes; packs and probes are newer than its other keys."""
    where = str(folder / SEARCH)
    search = Search(
        spec=search_space.parse(data["spec"], str(data["config"]), where),
        base=serialise.run_from_json(data["base"], where),
        seeds=tuple(data["seeds"]),
        metric=str(data["metric"]),
        mode=Goal(data["mode"]),
        final_seeds=tuple(data["final_seeds"]),
        folder=folder,
        resume_from=None if data["resume_from"] is None else Path(data["resume_from"]),
        pack_seeds=int(data.get("pack_seeds", 1)),
        packs=tuple(tuple(pack) for pack in data.get("packs", ())),
        probe_every=int(data["options"].get("probe_every", 0)),
        others=tuple(Objective(str(other["metric"]), Goal(other["mode"])) for other in data.get("others", ())),
        final_points=tuple(data.get("final_points", ())),
        warm=_warm_start(data.get(WARM_START) or {}),
    )
    return planned(search, catalog)


def _several(search: Search) -> dict[str, object]:
    """Return the keys that searches by several objectives have."""
    others = [{"metric": other.metric, "mode": other.mode} for other in search.others]
    keys = {"others": others, "final_points": list(search.final_points)}
    return {key: value for key, value in keys.items() if value}


def _warm(warm: WarmStart) -> dict[str, object]:
    """Return the key of a warm start, which most searches lack."""
    if not warm.points:
        return {}
    points = [{"search": p.search, "choice": p.choice, "values": dict(p.values)} for p in warm.points]
    return {WARM_START: {"points": points, "left_out": dict(warm.left_out)}}


def _warm_start(data: Mapping[str, Any]) -> WarmStart:
    points = (
        EarlierPoint(search=str(p["search"]), choice=dict(p["choice"]), values=dict(p["values"]))
        for p in data.get("points", ())
    )
    return WarmStart(points=tuple(points), left_out=dict(data.get("left_out", {})))


def to_data(spec: SearchSpec) -> dict[str, Any]:
    """Return the search config as data for ``search_space.parse``; a geometric grid is written as its values."""
    plan, scheduler = spec.plan, spec.scheduler
    keys = {
        Scheduler.MEDIAN: ("name", "grace"),
        Scheduler.HYPERBAND: ("name", "reduction"),
        Scheduler.NONE: ("name",),
    }
    return {
        "description": spec.description,
        "command": spec.command,
        "purpose": spec.purpose,
        "seeds": list(spec.seeds),
        "space": {axis.name: _axis_data(axis) for axis in spec.axes},
        "search": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in vars(plan).items()
            if value not in (None, ())
        },
        "scheduler": {
            key: getattr(scheduler, key) for key in keys.get(Scheduler(scheduler.name), ("name", "grace", "reduction"))
        },
        "validation": spec.validation,
        **{key: value for key in ("metric", "mode") if (value := getattr(spec, key)) is not None},
        **_compared(spec),
    }


def _compared(spec: SearchSpec) -> dict[str, Any]:
    """Return the keys of several objectives, which replace those of one, and of constraints."""
    keys: dict[str, Any] = {}
    if spec.others:
        first = {spec.metric: spec.mode}
        keys |= {"metric": first | {other.metric: other.mode for other in spec.others}, "mode": None}
    if spec.constraints:
        keys["constraints"] = list(map(str, spec.constraints))
    return keys


def _searcher(spec: SearchSpec, before: Mapping[str, Any] | None) -> dict[str, object]:
    """Return what suggests the points; ``before`` is what an earlier session has written."""
    if not spec.plan.model_based:
        return {}
    earlier = None if before is None else before.get(SEARCHER)
    return {SEARCHER: samplers.record(spec.plan, earlier, fresh=before is None)}


def _axis_data(axis: Axis) -> dict[str, object]:
    kind = DomainKind.GRID if axis.kind == DomainKind.GEOMETRIC else DomainKind(axis.kind)
    joint = kind == DomainKind.JOINT
    body: list[Any] = list(axis.options) if joint else [point[axis.name] for point in axis.options if point]
    if not axis.listed:
        body = [axis.low, axis.high, axis.step][: 3 if kind == DomainKind.QUNIFORM else 2]
    when = {"when": {path: list(values) for path, values in axis.when}} if axis.when else {}
    return {kind.value: body, **when}
