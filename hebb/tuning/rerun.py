"""A search from an archive, set up to be run again: the runs that were finished, and no others.

What was chosen, by whatever algorithm, is trained again as it was chosen; what a scheduler or a budget ended, or a
fault, is left out. Imports neither Ray nor torch.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hebb.analysis.agreement import Repeated
from hebb.config import catalog as catalogs
from hebb.config import domains, serialise
from hebb.config.catalog import Catalog
from hebb.config.domains import Choice
from hebb.core import documents, files
from hebb.core.errors import ConfigError
from hebb.storage import archive, folders, run_names
from hebb.storage.archive import Archive
from hebb.storage.journal import Event, Journal, events
from hebb.tuning import search_folder, trials
from hebb.tuning.search import Group, Search
from hebb.tuning.winners import WINNER

RECORD = "rerun.json"
"""File of a search that repeats an archive: its digest, what it is repeated on and, at the end, the verdict."""
_FINAL = "final runs of"


def repeats(folder: Path, packed: Archive) -> bool:
    """Tell whether a folder holds the beginning of a repetition of this archive."""
    return (folder / folders.SEARCH).exists() and _record(folder).get("archive") == packed.sha256


def has_nothing(folder: Path) -> bool:
    """Tell whether a folder holds a repetition none of whose runs has begun, so that another loses nothing."""
    if "archive" not in _record(folder):
        return False  # not a repetition
    half = not (folder / folders.SEARCH).exists()  # being written, or being emptied for another
    return half or not any(folder.glob(f"{folders.TRIALS}/*/{folders.CONFIG}"))


def changed(folder: Path, data: Mapping[str, str], device: str | None) -> str:
    """Say what a repetition that has begun was called with, where it is now called with something else.

    Args:
        folder: of the repetition.
        data: what datasets are called here, as far as it is said again.
        device: the device; None where it is not said again.
    """
    before = _record(folder).get("data", data)  # of an older repetition nobody knows
    names = [name for name, here in data.items() if before.get(name, name) != here]
    if names:
        return f"--data {names[0]}={before.get(names[0], names[0])}"
    own = documents.part(folders.read_json(folder / folders.SEARCH), "base").get("device")
    return "" if device in (None, own) else f"--device {own}"


def note_verdict(folder: Path, verdict: Mapping[str, object]) -> None:
    """Write the verdict into the record of a repetition."""
    folders.write_json(folder / RECORD, {**_record(folder), **verdict})


def _record(folder: Path) -> Mapping[str, Any]:
    path = folder / RECORD
    return documents.as_object(folders.read_json(path), str(path)) if path.exists() else {}


def unpack_code(packed: Archive, folder: Path) -> dict[str, str]:
    """Write the plugins of an archive below a folder, and return their paths by digest; nothing is loaded."""
    places = {}
    for plugin in packed.plugins:
        for name, content in plugin.files.items():
            path = folder / name  # checked when the archive was read
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.replaced(path) as (temporary,):
                temporary.write_bytes(content)
        places[plugin.spec.sha256] = str((folder / plugin.path).absolute())
    return places


def relocated(
    config: Mapping[str, Any], code: Mapping[str, str], data: Mapping[str, str], device: str | None = None
) -> dict[str, Any]:
    """Return a stored config with the plugins, the data and the device of this machine.

    Raises:
        ConfigError: for a plugin that the archive does not hold, so that nothing else is loaded in its place.
    """
    specs = archive.specs_in(config)
    for spec in specs:
        if spec.sha256 not in code:
            raise ConfigError("archive", f"names the plugin '{spec.name}' and does not hold its source")
    changed = {**config, "plugins": [{"name": code[spec.sha256], "sha256": spec.sha256} for spec in specs]}
    for role in ("dataset_sup", "dataset_unsup"):
        part = documents.as_object(config.get(role), f"archive, {role}")
        changed[role] = {**part, "dataset": data.get(str(part.get("dataset")), part.get("dataset"))}
    return changed if device is None else {**changed, "device": device}


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """A repetition before anything of it is written.

    Attributes:
        packed: the archive.
        code: where its plugins lie now, by digest.
        data: what datasets are called here, by their names in the archive.
        device: the device of the repetition; None is that of the archived runs.
        folder: of the repetition.
    """

    packed: Archive
    code: Mapping[str, str]
    data: Mapping[str, str]
    device: str | None
    folder: Path

    def described(self) -> dict[str, Any]:
        """Return the content of its ``search.json``."""
        packed = self.packed
        stored = dict(packed.data(folders.SEARCH))
        options = {**documents.as_object(stored.get("options"), "archive, options"), "commands": [], "save": True}
        options |= {"on_end": None, "preset_file": None}  # a command of whoever wrote the archive is not run
        options |= {"storage": None}  # nor is a study kept where theirs was
        options = {name: value for name, value in options.items() if name not in ("launcher", "slurm")}  # elsewhere
        if packed.presets is not None:
            options["preset_file"] = str((self.folder / archive.PRESETS).absolute())
        device = self.device or str(packed.data(f"{packed.runs()[0]}/{folders.CONFIG}").get("device"))
        stored["base"] = relocated(
            documents.as_object(stored.get("base"), "archive, base"), self.code, self.data, device
        )
        stored["spec"] = _whole(documents.as_object(stored.get("spec"), "archive, spec"), _suggested(packed))
        return {**stored, "options": options}

    def search(self) -> tuple[Search, Catalog]:
        """Return the search and the presets that it needs; data and plugins must be there."""
        with tempfile.TemporaryDirectory() as folder:
            presets = None
            if self.packed.presets is not None:
                presets = Path(folder) / archive.PRESETS
                presets.write_bytes(self.packed.presets)
            catalog = catalogs.load(presets)
        return search_folder.search_of(self.described(), self.folder, catalog), catalog

    def write(self, search: Search, catalog: Catalog) -> None:
        """Write its folder, in place of what is there; it is then continued as any other search.

        ``rerun.json`` comes first and ``search.json`` last, so that what a kill leaves is known as half of a
        repetition.
        """
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / RECORD).exists():
            (folder / folders.SEARCH).unlink(missing_ok=True)
        folders.empty(folder, last=folders.SEARCH if (folder / folders.SEARCH).exists() else RECORD)
        folders.write_json(folder / RECORD, {"archive": self.packed.sha256, "data": dict(self.data)})
        if self.packed.presets is not None:
            (folder / archive.PRESETS).write_bytes(self.packed.presets)
        _note_choices(self.packed, search, catalog)
        folders.write_json(folder / folders.SEARCH, self.described())


def _whole(spec: Mapping[str, Any], suggested: list[folders.Row]) -> dict[str, Any]:
    """Return a search config that stops nothing, draws nothing anew and has no budget."""
    plan = {k: v for k, v in dict(spec.get("search") or {}).items() if k not in ("time", "trials")}
    if suggested:
        plan["samples"] = len(suggested)
    return {**spec, "search": plan, "scheduler": {"name": "none"}}


def _suggested(packed: Archive) -> list[folders.Row]:
    rows = events(packed.files.get(folders.JOURNAL, b""), f"{packed.path}, {folders.JOURNAL}")
    return [row for row in rows if row["event"] == Event.CHOSEN]


def _note_choices(packed: Archive, search: Search, catalog: Catalog) -> None:
    """Write what was chosen, and what is not repeated, into the journal of the repetition.

    Names of configurations hold the places of their plugins, so they are those of this machine.
    """
    journal = Journal(search.folder / folders.JOURNAL)
    finished = {(key(choice), seed) for choice, seed, _ in _recorded(packed)}
    groups = list(search.groups())
    for row in _suggested(packed):
        runs = tuple(trials.replicates(search, row["choice"], domains.label(row["choice"]), catalog))
        groups.append(Group(name=runs[0].configuration, runs=runs))
        journal.note(Event.CHOSEN, groups[-1].name, choice=row["choice"], params=row["params"])
    for group in {group.name: group for group in groups}.values():  # an algorithm may suggest one twice
        if not any((key(run.choice), run.config.seed) in finished for run in group.runs):
            journal.note(Event.STOPPED, group.name, step=0, score=None, n=0)


def key(choice: Choice) -> str:
    """Return a text that is the same for the same point of the space."""
    return json.dumps(choice, sort_keys=True)


def _recorded(packed: Archive) -> list[tuple[Choice, int, str]]:
    """List the finished runs of an archived search, without final ones: point, seed, name of the run in the archive."""
    stored, finished = packed.data(folders.SEARCH), set(packed.runs())
    planned = [(dict(t["choice"]), int(t["seed"]), str(t["name"])) for t in stored.get("trials") or ()]
    chosen = {str(row["group"]): dict(row["choice"]) for row in _suggested(packed)}
    planned += [
        (c, int(s), run_names.of(name, int(s))) for name, c in chosen.items() for s in stored.get("seeds") or ()
    ]
    once = {name: (choice, seed, f"{folders.TRIALS}/{name}") for choice, seed, name in planned}
    return [run for run in once.values() if run[2] in finished]


def compared(packed: Archive, search: Search) -> list[Repeated]:
    """Pair the archived runs with those of the repetition: by point and seed, and the winner's final runs by seed."""
    here = {(key(trial.choice), trial.config.seed): trial.folder for trial in search.trials}
    metric = search.metric
    pairs = [
        repeated(packed, name, here.get((key(choice), seed)), domains.label(choice, digits=None), seed, metric)
        for choice, seed, name in _recorded(packed)
    ]
    return pairs + _final_pairs(packed, search.folder)


def _final_pairs(packed: Archive, folder: Path) -> list[Repeated]:
    """Pair the runs of a winner, or of points on a front, on all training images."""
    pattern = f"{folders.TRIALS}/{run_names.FINAL}-"
    here = {_same(folders.read_json(path)): path.parent for path in folder.glob(f"{pattern}*/{folders.CONFIG}")}
    configs = _asked_for(packed, [name for name in packed.runs() if name.startswith(pattern)])
    points = list(dict.fromkeys(map(run_names.configuration, configs)))
    several = bool(packed.data(folders.SEARCH).get("others"))
    labels = {point: f"{_FINAL} a point of the front, {point.removeprefix(pattern)}" for point in points}
    if not several:
        numbers = {point: f" {number}" if len(points) > 1 else "" for number, point in enumerate(points, 1)}
        labels = {point: f"{_FINAL} the winner{numbers[point]}" for point in points}
    return [
        repeated(
            packed, name, here.get(_same(c)), labels[run_names.configuration(name)], int(c.get("seed", 0)), "test_acc"
        )
        for name, c in configs.items()
    ]


def _asked_for(packed: Archive, names: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """Return the configs of the final runs that the archived search ends with, by the names of the runs.

    A search that was extended may have others: of seeds that it now selects on, and of an earlier winner.
    """
    stored = packed.data(folders.SEARCH)
    configs = {name: packed.data(f"{name}/{folders.CONFIG}") for name in names}
    configs = {name: c for name, c in configs.items() if c.get("seed") in (stored.get("final_seeds") or ())}
    best = [key(choice) for choice in _best(packed)]
    selected = {
        _trained_on_all(packed.data(f"{name}/{folders.CONFIG}"))
        for choice, _, name in _recorded(packed)
        if key(choice) in best
    }
    own = {name: config for name, config in configs.items() if _trained_on_all(config) in selected}
    return own or configs  # a search that was cut off may not have named a winner


def _best(packed: Archive) -> list[Choice]:
    """Return the winner of an archived search, or the points of its front that are trained again."""
    if search_folder.FRONT in packed.files:
        numbers = packed.data(folders.SEARCH).get("final_points")
        points = packed.data(search_folder.FRONT)["points"]
        return [dict(point["configuration"]) for point in points if not numbers or point["number"] in numbers]
    return [dict(packed.data(WINNER)["configuration"])] if WINNER in packed.files else []


def _same(config: Mapping[str, Any]) -> str:
    """Return a text that is the same for a run and its repetition, whose code, data and device may be elsewhere."""
    return _text(config, "plugins", "device", "phases")


def _trained_on_all(config: Mapping[str, Any]) -> str:
    """Return a text that is the same for a configuration of a search and for its runs on all training images."""
    return _text(config, "plugins", "device", "phases", "seed", "pack", share=0.0)


def _text(config: Mapping[str, Any], *left_out: str, share: float | None = None) -> str:
    """Return a config as text, without places of data and some values; ``share`` replaces that of validation."""
    plain = {name: value for name, value in serialise.complete(config).items() if name not in left_out}
    validation = {} if share is None else {"validation": share}
    for role in ("dataset_sup", "dataset_unsup"):
        plain[role] = {**documents.as_object(plain.get(role), role), "dataset": None, **validation}
    return json.dumps(plain, sort_keys=True)


def repeated(packed: Archive, name: str, folder: Path | None, label: str, seed: int, metric: str) -> Repeated:
    """Read a run of the archive and its repetition."""
    inside = f"{name}/" if name else ""
    environment = inside + folders.ENVIRONMENT
    before = packed.data(environment) if environment in packed.files else {}
    rows, now = None, {}
    if folder is not None and (folder / folders.RESULT).exists():
        rows, now = folders.read_rows(folder / folders.METRICS), folders.read_json(folder / folders.ENVIRONMENT)
    return Repeated(label, seed, packed.rows(inside + folders.METRICS), rows, before, now, metric)
