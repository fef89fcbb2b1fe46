"""Search configs: a YAML file becomes a space, the space becomes overrides.

description   what the search answers
command       the command that runs it
purpose       sweep (reports every configuration) or search (selects one on validation accuracy)
seeds         replicates of every configuration
space         {override path: {grid: [...]} | {geometric: {base: b, from: i, to: j}}}
metric, mode  what is compared, and whether max or min is better
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hebb.errors import ConfigError

FOLDER = Path(__file__).resolve().parent.parent / "search_configs"
METRICS = ("train_loss", "train_acc", "val_loss", "val_acc", "test_loss", "test_acc", "convergence", "R1")
_KEYS = ("description", "command", "purpose", "seeds", "space", "metric", "mode")

Choice = dict[str, Any]
"""One point of a space: value by override path."""


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """A checked search config."""

    name: str
    description: str
    command: str
    purpose: str
    seeds: tuple[int, ...]
    space: tuple[tuple[str, tuple[Any, ...]], ...]
    metric: str | None = None
    mode: str | None = None

    def configurations(self) -> list[Choice]:
        """List the points of the grid; the last path varies fastest."""
        paths = [path for path, _ in self.space]
        return [dict(zip(paths, point, strict=True)) for point in itertools.product(*(v for _, v in self.space))]


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
    space = {} if data.get("space") is None else data["space"]
    if not isinstance(space, Mapping):
        raise ConfigError(where, "'space' is not a mapping of override paths")
    return SearchSpec(
        name=name,
        description=str(data.get("description", "")),
        command=str(data.get("command", "")),
        purpose=purpose,
        seeds=_seeds(data.get("seeds", [0]), where),
        space=tuple((str(path), _values(domain, f"{where}, space {path}")) for path, domain in space.items()),
        metric=metric,
        mode=mode,
    )


def _seeds(data: Any, where: str) -> tuple[int, ...]:
    whole = isinstance(data, list) and all(isinstance(s, int) and not isinstance(s, bool) for s in data)
    if not whole or not data or min(data) < 0 or len(set(data)) < len(data):
        raise ConfigError(where, f"'seeds' is a list of distinct whole numbers from 0, not {data}")
    return tuple(data)


def _values(domain: Any, where: str) -> tuple[Any, ...]:
    """Expand one domain into its values."""
    if not isinstance(domain, Mapping) or len(domain) != 1:
        raise ConfigError(where, "one domain is wanted", choices=("grid: [...]", "geometric: {base, from, to}"))
    ((kind, body),) = domain.items()
    if kind == "grid":
        if not isinstance(body, list) or not body:
            raise ConfigError(where, "'grid' is a list of values, at least one")
        if any(isinstance(value, dict | list) for value in body):
            raise ConfigError(where, "values of a grid are words or numbers")
        if len(set(body)) < len(body):
            raise ConfigError(where, "a value of the grid is given twice")
        return tuple(body)
    if kind == "geometric":
        return _geometric(body, where)
    raise ConfigError(where, f"unknown domain '{kind}'", given=str(kind), choices=("grid", "geometric"))


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
