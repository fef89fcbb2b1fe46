"""Recipes of the published figures and tables: ``figures/<name>.yaml`` names the runs a figure needs and what draws it.

title      what the figure is called
question   the question that it answers
source     where it was published
draw       the words after ``hebb analysis``, without the runs: ``depth --published 3``; or a table of them by panel.
           A panel reads all the runs, or only those of the commands whose names are among its words
commands   the command line of each search or run that it needs, with --folder-name or --model-name
small      changes under ``--scale small``:
             add      words added to every command
             replace  {word: word}, to replace words of the commands; an empty one removes the word
             leave    names of searches and runs that are left out

Where the published README has a command, the recipe has the same one, so that runs made by it are found by their name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from hebb.core import documents, shipped
from hebb.core.commands import quoted, words_of
from hebb.core.errors import ConfigError
from hebb.storage.folders import checked_name

FOLDER = shipped.path("figures")


class Script(StrEnum):
    """A command that trains, by its published name."""

    SEARCH = "ray_search.py"
    TRAIN = "multi_layer.py"
    POST_HOC = "post_hoc_loss.py"

    @property
    def name_flag(self) -> str:
        """The flag that names what it stores."""
        return "--folder-name" if self is Script.SEARCH else "--model-name"


class Scale(StrEnum):
    """How large the runs of a figure are: as published, or small enough for a CPU."""

    FULL = "full"
    SMALL = "small"


_REQUIRED = ("title", "question", "source", "draw", "commands")
_KEYS = (*_REQUIRED, "small")
_SMALL = ("add", "replace", "leave")


@dataclass(frozen=True, kw_only=True)
class TrainingCommand:
    """A command line that trains a search or a single run for a figure.

    Attributes:
        name: of the search or run.
        script: the command.
        words: its arguments, the name among them.
    """

    name: str
    script: Script
    words: tuple[str, ...]

    def line(self) -> str:
        """Return it as a person types it."""
        return quoted("python", self.script, *self.words)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A figure: what it shows, what it needs, and what draws each of its panels. A single panel has an empty name."""

    name: str
    title: str
    question: str
    source: str
    draw: Mapping[str, tuple[str, ...]]
    commands: tuple[TrainingCommand, ...]
    add: tuple[str, ...] = ()
    replace: Mapping[str, str] | None = None
    leave: tuple[str, ...] = ()

    def kept(self, scale: Scale = Scale.FULL) -> tuple[TrainingCommand, ...]:
        """Return the commands that a scale does not leave out, with their full-scale words."""
        return tuple(c for c in self.commands if scale is Scale.FULL or c.name not in self.leave)

    def needed(self, scale: Scale = Scale.FULL) -> tuple[TrainingCommand, ...]:
        """Return the commands at a scale; at the small scale the names end in ``-small``."""
        return self.commands if scale is Scale.FULL else tuple(self._small(c) for c in self.kept(scale))

    def _small(self, command: TrainingCommand) -> TrainingCommand:
        name = f"{command.name}-small"
        swapped = {**(self.replace or {}), command.name: name}
        words = [swapped.get(word, word) for word in command.words]
        return TrainingCommand(name=name, script=command.script, words=(*filter(None, words), *self.add))


def names() -> list[str]:
    """List the shipped recipes."""
    return sorted((path.stem for path in FOLDER.glob("*.yaml")), key=lambda name: (len(name), name))


def load(name: str) -> Recipe:
    """Read a shipped recipe by its name, or one in a file."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if path == Path(name) and not path.exists():
        raise ConfigError("figure", f"no such file '{name}'")
    if not path.exists():
        raise ConfigError("figure", f"no recipe '{name}'", given=name, choices=names())
    return parse(documents.read_yaml(path), path.stem, str(path))


def parse(data: object, name: str, where: str) -> Recipe:
    """Check a recipe that was read from YAML.

    Raises:
        ConfigError: for a missing or unknown key, a command that trains nothing, or a name that no command stores.
    """
    entries = _table(data, _KEYS, where)
    missing = [key for key in _REQUIRED if key not in entries]
    if missing:
        raise ConfigError(where, f"'{missing[0]}' is missing")
    title, question, source = (_text(entries[key], f"{where}, {key}") for key in ("title", "question", "source"))
    commands = _commands(entries["commands"], f"{where}, commands")
    small = _table(entries.get("small") or {}, _SMALL, f"{where}, small")
    return Recipe(
        name=name,
        title=title,
        question=question,
        source=source,
        draw=_panels(entries["draw"], f"{where}, draw"),
        commands=commands,
        add=_words(small.get("add") or " ", f"{where}, small, add"),
        replace=_replacements(small.get("replace") or {}, commands, f"{where}, small, replace"),
        leave=_left_out(small.get("leave") or [], commands, f"{where}, small, leave"),
    )


def _panels(data: object, where: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(data, dict):
        return {"": _words(data, where)}
    if not data:
        raise ConfigError(where, "has no panel")
    return {checked_name(str(name), where): _words(text, f"{where}, {name}") for name, text in data.items()}


def _commands(data: object, where: str) -> tuple[TrainingCommand, ...]:
    if not isinstance(data, list) or not data:
        raise ConfigError(where, f"must be a list of command lines, at least one, got {data!r}")
    commands = tuple(_command(line, where) for line in data)
    stored = [command.name for command in commands]
    if len(set(stored)) < len(stored):
        twice = next(name for name in stored if stored.count(name) > 1)
        raise ConfigError(where, f"two of them store '{twice}'")
    return commands


def _command(line: object, where: str) -> TrainingCommand:
    words = _words(line, where)
    name = words[0] if words else ""
    if name not in list(Script):
        raise ConfigError(where, f"'{name}' trains nothing", given=name, choices=Script)
    script = Script(name)
    if script.name_flag not in words[:-1]:
        raise ConfigError(where, f"{script.name_flag} is missing in '{line}'", hint="the figure finds its runs by name")
    return TrainingCommand(name=words[words.index(script.name_flag) + 1], script=script, words=words[1:])


def _replacements(data: object, commands: tuple[TrainingCommand, ...], where: str) -> dict[str, str]:
    if not isinstance(data, dict):
        raise ConfigError(where, f"must be a table of words, got {data!r}")
    used = {word for command in commands for word in command.words}
    for word in map(str, data):
        if word not in used:
            raise ConfigError(where, f"'{word}' is in no command", given=word, choices=sorted(used))
    return {str(key): str(value if value is not None else "") for key, value in data.items()}


def _left_out(data: object, commands: tuple[TrainingCommand, ...], where: str) -> tuple[str, ...]:
    stored = [command.name for command in commands]
    left_out = data if isinstance(data, list) else [data]
    for name in left_out:
        if name not in stored:
            raise ConfigError(where, f"no command stores '{name}'", given=str(name), choices=stored)
    return tuple(map(str, left_out))


def _table(data: object, keys: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ConfigError(where, f"must be a table of keys, got {data!r}", choices=keys)
    for key in data:
        if key not in keys:
            raise ConfigError(where, f"unknown key '{key}'", given=str(key), choices=keys)
    return data


def _words(value: object, where: str) -> tuple[str, ...]:
    return words_of(_text(value, where), where)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(where, f"must be text, got {value!r}")
    return " ".join(value.split()) if "\n" in value else value
