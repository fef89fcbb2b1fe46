"""Recipes of the published figures and tables: ``figures/<name>.yaml`` names the runs a figure needs and what draws it.

title      what the figure is called
question   what it answers
source     where it was published
draw       the words after ``analysis.py``, without the runs: ``depth --published 3``; or several of them, by the names
             of the panels. A panel reads all the runs, or those of the commands whose names stand among its words
commands   one for each search or run that it needs, as on the command line, with --folder-name or --model-name
small      words added to every command under ``--scale small``, and what to replace in them:
             add      words for every command
             replace  {word: word}, for a word of a command by another, an empty one for none
             leave    names of searches and runs that are left out

The commands are those of the published README where it has them, so that runs it made are found by their name.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hebb.config import search_space
from hebb.core import shipped
from hebb.core.errors import ConfigError
from hebb.storage.folders import checked_name

FOLDER = shipped.path("figures")
SCRIPTS = {"ray_search.py": "--folder-name", "multi_layer.py": "--model-name", "post_hoc_loss.py": "--model-name"}
"""The commands that train, with the flag that names what they store."""
SCALES = ("full", "small")
_KEYS = ("title", "question", "source", "draw", "commands", "small")
_SMALL = ("add", "replace", "leave")


@dataclass(frozen=True, kw_only=True)
class TrainingCommand:
    """A search or a single run that a figure needs.

    Attributes:
        name: of the search or run.
        script: the command that makes it.
        words: its arguments, the name among them.
    """

    name: str
    script: str
    words: tuple[str, ...]

    def line(self) -> str:
        """Return it as a person types it."""
        return shlex.join(["python", self.script, *self.words])


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A figure: what it shows, what it needs and what draws each of its panels; the name of a single one is empty."""

    name: str
    title: str
    question: str
    source: str
    draw: Mapping[str, tuple[str, ...]]
    commands: tuple[TrainingCommand, ...]
    add: tuple[str, ...] = ()
    replace: Mapping[str, str] | None = None
    leave: tuple[str, ...] = ()

    def kept(self, scale: str = "full") -> tuple[TrainingCommand, ...]:
        """Return the commands that a scale does not leave out, as the recipe has them."""
        return tuple(c for c in self.commands if scale == "full" or c.name not in self.leave)

    def needed(self, scale: str = "full") -> tuple[TrainingCommand, ...]:
        """Return the searches and runs at a scale; at ``small`` their names end in ``-small``."""
        if scale not in SCALES:
            raise ConfigError("--scale", f"unknown '{scale}'", given=scale, choices=SCALES)
        if scale == "full":
            return self.commands
        found = []
        for command in self.kept(scale):
            name = f"{command.name}-small"
            swapped = {**(self.replace or {}), command.name: name}
            words = [swapped.get(word, word) for word in command.words]
            kept = tuple(word for word in words if word)
            found.append(TrainingCommand(name=name, script=command.script, words=(*kept, *self.add)))
        return tuple(found)


def names() -> list[str]:
    """List the shipped recipes."""
    return sorted((path.stem for path in FOLDER.glob("*.yaml")), key=lambda name: (len(name), name))


def load(name: str) -> Recipe:
    """Read a shipped recipe by its name, or one in a file."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError("figure", f"no recipe '{name}'", given=name, choices=names())
    return parse(search_space.read_yaml(path.read_text(encoding="utf-8"), str(path)), path.stem, str(path))


def parse(data: Any, name: str, where: str) -> Recipe:
    """Check a recipe; an unknown key is an error that names the nearest one."""
    data = _object(data, _KEYS, where)
    missing = [key for key in _KEYS[:-1] if key not in data]
    if missing:
        raise ConfigError(where, f"'{missing[0]}' is missing")
    texts = {key: _text(data[key], f"{where}, {key}") for key in ("title", "question", "source")}
    if not isinstance(data["commands"], list) or not data["commands"]:
        raise ConfigError(where, "'commands' is a list of command lines, at least one")
    commands = tuple(_command(line, f"{where}, commands") for line in data["commands"])
    known = [command.name for command in commands]
    if len(set(known)) < len(known):
        twice = next(n for n in known if known.count(n) > 1)
        raise ConfigError(f"{where}, commands", f"two of them store '{twice}'")
    small = _object(data.get("small") or {}, _SMALL, f"{where}, small")
    replace = small.get("replace") or {}
    used = {word for command in commands for word in command.words}
    if not isinstance(replace, dict):
        raise ConfigError(f"{where}, small", "'replace' is a table of words")
    for word in map(str, replace):
        if word not in used:
            raise ConfigError(
                f"{where}, small, replace", f"'{word}' is in no command", given=word, choices=sorted(used)
            )
    leave = small.get("leave") or []
    for left in leave if isinstance(leave, list) else [leave]:
        if left not in known:
            raise ConfigError(f"{where}, small, leave", f"no command stores '{left}'", given=str(left), choices=known)
    return Recipe(
        name=name,
        title=texts["title"],
        question=texts["question"],
        source=texts["source"],
        draw=_panels(data["draw"], f"{where}, draw"),
        commands=commands,
        add=tuple(shlex.split(_text(small.get("add") or " ", f"{where}, small, add"))),
        replace={str(key): str(value if value is not None else "") for key, value in replace.items()},
        leave=tuple(map(str, leave)),
    )


def _panels(data: Any, where: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(data, dict):
        return {"": tuple(shlex.split(_text(data, where)))}
    if not data:
        raise ConfigError(where, "has no panel")
    return {
        checked_name(str(name), where): tuple(shlex.split(_text(text, f"{where}, {name}")))
        for name, text in data.items()
    }


def _command(line: Any, where: str) -> TrainingCommand:
    words = shlex.split(_text(line, where))
    script = words[0] if words else ""
    if script not in SCRIPTS:
        raise ConfigError(where, f"'{script}' trains nothing", given=script, choices=SCRIPTS)
    flag = SCRIPTS[script]
    if flag not in words[:-1]:
        raise ConfigError(where, f"{flag} is missing in '{line}'", hint="the figure finds its runs by that name")
    return TrainingCommand(name=words[words.index(flag) + 1], script=script, words=tuple(words[1:]))


def _object(data: Any, keys: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ConfigError(where, "is not a table of keys", choices=keys)
    for key in data:
        if key not in keys:
            raise ConfigError(where, f"unknown key '{key}'", given=str(key), choices=keys)
    return data


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(where, f"a text is wanted, not {value!r}")
    return " ".join(value.split()) if "\n" in value else value
