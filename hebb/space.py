"""Search configs: a YAML file becomes a space, the space becomes overrides.

description   what the search answers
command       the command that runs it
purpose       sweep (reports every configuration) or search (selects one on validation accuracy)
seeds         replicates of every configuration
space         {override path: {grid: [...]} | {geometric: {base: b, from: i, to: j}}}
              {any name: {joint: [{path: value, path: value}, ...]}} for values that belong together
validation    share of the training images held out (default: 0.2 in a search, 0 in a sweep)
metric, mode  what is compared, and whether max or min is better

``bX`` in a path is the block that ``--search-block`` names.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hebb.config import VALIDATION_SHARE
from hebb.errors import ConfigError

FOLDER = Path(__file__).resolve().parent.parent / "search_configs"
METRICS = ("train_loss", "train_acc", "val_loss", "val_acc", "test_loss", "test_acc", "convergence", "R1")
_KEYS = ("description", "command", "purpose", "seeds", "space", "validation", "metric", "mode")
_DOMAINS = ("grid: [...]", "geometric: {base, from, to}", "joint: [{path: value, ...}, ...]")
_PLACEHOLDER = "bX."

Choice = dict[str, Any]
"""One point of a space: value by override path."""

Axis = tuple[Choice, ...]
"""The values of one domain; a joint one sets several paths at once."""


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """A checked search config."""

    name: str
    description: str
    command: str
    purpose: str
    seeds: tuple[int, ...]
    axes: tuple[Axis, ...]
    validation: float
    metric: str | None = None
    mode: str | None = None

    def configurations(self) -> list[Choice]:
        """List the points of the grid; the last domain varies fastest."""
        return [
            {path: value for part in point for path, value in part.items()} for point in itertools.product(*self.axes)
        ]

    def paths(self) -> list[str]:
        """List the override paths of the space."""
        return [path for axis in self.axes for path in axis[0]]

    def has_placeholder(self) -> bool:
        """Tell whether a path leaves its block open, as in ``bX.layer.lr``."""
        return any(path.startswith(_PLACEHOLDER) for path in self.paths())

    def on_block(self, block: int) -> SearchSpec:
        """Return the spec in which ``bX`` is ``block``."""
        axes = tuple(
            tuple({_named(path, block): value for path, value in choice.items()} for choice in axis)
            for axis in self.axes
        )
        _check_once((path for axis in axes for path in axis[0]), f"search config '{self.name}'")
        return replace(self, axes=axes)


def better(metric: str) -> str:
    """Tell whether ``max`` or ``min`` of a metric is better; convergence is a distance, from radius 1."""
    return "min" if metric.endswith("_loss") or metric == "convergence" else "max"


def _named(path: str, block: int) -> str:
    return f"b{block}.{path.removeprefix(_PLACEHOLDER)}" if path.startswith(_PLACEHOLDER) else path


def _check_once(paths: Iterable[str], where: str) -> None:
    """Refuse a path that two domains set: one of them would be ignored."""
    found = list(paths)
    for path in found:
        if found.count(path) > 1:
            raise ConfigError(where, f"two domains of the space set {path}")


def names() -> list[str]:
    """List the shipped search configs."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> SearchSpec:
    """Read a search config by its shipped name or by a path to a YAML file."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{name}.yaml"
        if not path.exists():
            raise ConfigError(
                "--config",
                f"unknown search config '{name}'",
                given=name,
                choices=names(),
                hint="a path to a YAML file works too; --list configs describes them",
            )
    import yaml

    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_once(yaml))
    except FileNotFoundError:
        raise ConfigError("--config", f"no such file '{name}'") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError("--config", f"{path} cannot be read: {' '.join(str(error).split())}") from None
    return parse(data, path.stem, str(path))


def _once(yaml: Any) -> Any:
    """Return a SafeLoader that refuses a key given twice, which YAML forbids and PyYAML overlooks."""

    class Once(yaml.SafeLoader):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", node.start_mark)
            return super().construct_mapping(node, deep)

    return Once


def parse(data: Any, name: str, where: str) -> SearchSpec:
    """Check the data of a search config."""
    if not isinstance(data, Mapping):
        raise ConfigError(where, "is not a mapping")
    for key in data:
        if key not in _KEYS:
            raise ConfigError(where, f"unknown key '{key}'", given=str(key), choices=_KEYS)
    purpose = data.get("purpose", "sweep")
    if purpose not in ("sweep", "search"):
        raise ConfigError(where, f"unknown purpose '{purpose}'", given=str(purpose), choices=("sweep", "search"))
    metric, mode = data.get("metric"), data.get("mode")
    if metric is not None and metric not in METRICS:
        raise ConfigError(where, f"unknown metric '{metric}'", given=str(metric), choices=METRICS)
    if mode is not None and mode not in ("max", "min"):
        raise ConfigError(where, f"unknown mode '{mode}'", given=str(mode), choices=("max", "min"))
    return SearchSpec(
        name=name,
        description=str(data.get("description", "")),
        command=str(data.get("command", "")),
        purpose=purpose,
        seeds=_seeds(data.get("seeds", [0]), where),
        axes=_axes({} if data.get("space") is None else data["space"], where),
        validation=_share(data.get("validation", VALIDATION_SHARE if purpose == "search" else 0.0), where),
        metric=metric,
        mode=mode,
    )


def _seeds(data: Any, where: str) -> tuple[int, ...]:
    whole = isinstance(data, list) and all(isinstance(s, int) and not isinstance(s, bool) for s in data)
    if not whole or not data or min(data) < 0 or len(set(data)) < len(data):
        raise ConfigError(where, f"'seeds' is a list of distinct whole numbers from 0, not {data}")
    return tuple(data)


def _share(data: Any, where: str) -> float:
    number = isinstance(data, int | float) and not isinstance(data, bool)
    if not number or not 0 <= data < 1:
        raise ConfigError(where, f"'validation' is a share from 0 to below 1, not {data}", hint="for example 0.2")
    return float(data)


def _axes(space: Any, where: str) -> tuple[Axis, ...]:
    if not isinstance(space, Mapping):
        raise ConfigError(where, "'space' is not a mapping of override paths")
    axes = tuple(_axis(str(name), domain, f"{where}, space {name}") for name, domain in space.items())
    paths = [path for axis in axes for path in axis[0]]
    if "seed" in paths:
        raise ConfigError(where, "'seed' is no path of a space", hint="the key 'seeds' lists the replicates")
    _check_once(paths, where)
    return axes


def _axis(name: str, domain: Any, where: str) -> Axis:
    """Expand one domain into its values."""
    if not isinstance(domain, Mapping) or len(domain) != 1:
        raise ConfigError(where, "one domain is wanted", choices=_DOMAINS)
    ((kind, body),) = domain.items()
    if kind == "grid":
        return tuple({name: value} for value in _grid(body, where))
    if kind == "geometric":
        return tuple({name: value} for value in _geometric(body, where))
    if kind == "joint":
        return _joint(body, where)
    raise ConfigError(where, f"unknown domain '{kind}'", given=str(kind), choices=("grid", "geometric", "joint"))


def _grid(body: Any, where: str) -> list[Any]:
    if not isinstance(body, list) or not body:
        raise ConfigError(where, "'grid' is a list of values, at least one")
    if any(isinstance(value, dict | list) for value in body):
        raise ConfigError(
            where, "values of a grid are words or numbers", hint="'joint' takes mappings of several paths to values"
        )
    if len(set(body)) < len(body):
        raise ConfigError(where, "a value of the grid is given twice")
    return body


def _joint(body: Any, where: str) -> Axis:
    """Values of several paths that change together, as a kernel and the padding that keeps the map."""
    if not isinstance(body, list) or not body or not all(isinstance(choice, Mapping) and choice for choice in body):
        raise ConfigError(where, "'joint' is a list of mappings from paths to values, at least one")
    choices = tuple({str(path): value for path, value in choice.items()} for choice in body)
    for choice in choices:
        if set(choice) != set(choices[0]):
            raise ConfigError(where, f"every choice of 'joint' sets {' and '.join(choices[0])}, not {' '.join(choice)}")
        if any(isinstance(value, dict | list) for value in choice.values()):
            raise ConfigError(where, "values in 'joint' are words or numbers")
    if any(choice in choices[:i] for i, choice in enumerate(choices)):
        raise ConfigError(where, "a choice of 'joint' is given twice")
    return choices


def _geometric(body: Any, where: str) -> tuple[float, ...]:
    """base^from, ..., base^to."""
    wanted = {"base", "from", "to"}
    if not isinstance(body, Mapping) or set(body) != wanted:
        raise ConfigError(where, "'geometric' wants base, from and to")
    base, first, last = body["base"], body["from"], body["to"]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in body.values())
    whole = numbers and all(math.isfinite(v) for v in body.values()) and first == int(first) and last == int(last)
    if not whole or base <= 0 or base == 1 or last < first:
        raise ConfigError(where, "'geometric' wants a base above 0 (not 1) and whole exponents from <= to")
    try:
        values = tuple(float(base) ** power for power in range(int(first), int(last) + 1))
    except OverflowError:
        values = (math.inf,)
    if values[-1] == math.inf or 0.0 in values:
        raise ConfigError(where, f"'geometric' from {base}^{first} to {base}^{last} leaves the range of numbers")
    return values
