"""The winner of a stored search, or a point of its front, to start from. Imports neither Ray nor torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hebb.config import objectives
from hebb.config.domains import Choice
from hebb.config.vocabulary import Purpose
from hebb.core import commands, documents
from hebb.core.errors import ConfigError, said_as
from hebb.storage import folders
from hebb.storage.journal import Journal
from hebb.tuning import request, search_folder, trials

FLAG = "--from-best"
WINNER = "winner.json"


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a run starts from.

    Attributes:
        name: whose it is, as a person reads it.
        network: the network as a preset string.
        mode: the training mode.
        changes: what it is trained with outside the network and is not the default, as words for ``--set``.
        values: these changes, and the values of the search space.
    """

    name: str
    network: str
    mode: str
    changes: tuple[str, ...]
    values: Choice


def read(text: str, home: folders.Home) -> Start:
    """Return the winner of the search ``NAME``, or of ``NAME:2`` the second point of its front.

    Raises:
        ConfigError: for a search that has no winner or no such point.
    """
    name, number = _parts(text)
    with said_as({"--folder-name": FLAG}):
        folder = request.folder_of(name, home)
    data = search_folder.read(folder, FLAG)
    source, record = _front(folder, data, number) if data.get("others") else _winner(folder, data, number)
    choice = dict(documents.as_object(record.get("configuration"), f"{FLAG} {text}"))
    training = trials.training_changes(data["base"], choice)
    return Start(
        name=source,
        network=str(record["network"]),
        mode=str(data["base"]["mode"]),
        changes=tuple(trials.as_words(training)),
        values={**training, **choice},
    )


def _parts(text: str) -> tuple[str, int | None]:
    """Split ``NAME:2``; a folder whose own name ends so is a name."""
    match = re.fullmatch(r"(.+):([0-9]+)", text)
    if match is None or Path(text).is_dir():
        return text, None
    return match[1], int(match[2])


def _winner(folder: Path, data: Mapping[str, Any], number: int | None) -> tuple[str, Mapping[str, Any]]:
    name = folder.name
    if number is not None:
        problem = f"{name} compares by one metric, so it has a winner and no points"
        raise ConfigError(FLAG, problem, hint=f"{FLAG} {name}")
    if data["purpose"] == Purpose.SWEEP:
        hint = f"hebb.load('{name}').best has the best one; --purpose search names a winner on validation images"
        raise ConfigError(FLAG, f"{name} is a sweep, which names no winner", hint=hint)
    path = folder / WINNER
    if not path.exists():
        bounds = objectives.constraints(data["spec"].get("constraints"), str(folder / folders.SEARCH))
        problem = f"{name} has no winner: it has not ended, or {objectives.nobody(data['metric'], bounds)}"
        raise ConfigError(FLAG, problem, hint=_again(folder))
    record = documents.as_object(folders.read_json(path), str(path))
    selection = documents.as_object(record.get("selection"), str(path))
    if selection.get("n") != len(data["seeds"]) or _configurations(folder, data) > int(str(record["among"])):
        problem = f"{name} was extended since it named its winner, and has not ended"
        raise ConfigError(FLAG, problem, hint=_again(folder))
    return f"the winner of {name}", record


def _front(folder: Path, data: Mapping[str, Any], number: int | None) -> tuple[str, Mapping[str, Any]]:
    name, path = folder.name, folder / search_folder.FRONT
    if not path.exists():
        raise ConfigError(FLAG, f"{name} has no front: it has not ended", hint=_again(folder))
    record = documents.as_object(folders.read_json(path), str(path))
    points = {int(point["number"]): point for point in record["points"]}
    if not points:
        raise ConfigError(FLAG, f"the front of {name} is empty: nothing finished on every seed keeps its constraints")
    now = {"configurations": _configurations(folder, data), "seeds": data["seeds"]}
    if any(record.get(key, value) != value for key, value in now.items()):  # older files lack both
        problem = f"{name} was extended since it named its front, and has not ended"
        raise ConfigError(FLAG, problem, hint=_again(folder))
    choices = [f"{name}:{point}" for point in points]
    if number is None:
        raise ConfigError(FLAG, f"{name} compares by several metrics: name a point of its front", choices=choices)
    if number not in points:
        raise ConfigError(FLAG, f"the front of {name} has no point {number}", choices=choices)
    return f"point {number} of the front of {name}", points[number]


def _configurations(folder: Path, data: Mapping[str, Any]) -> int:
    """Return how many configurations a search has now: those that it lists, or that were chosen."""
    listed = data.get("trials") or ()
    return len(listed) // len(data["seeds"]) if listed else len(Journal.load(folder).trained)


def _again(folder: Path) -> str:
    return f"{commands.line('search', '--restore', folder)} continues it"
