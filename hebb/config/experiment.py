"""Configurations of small experiments: checked, changed by ``--set``, written as JSON. Never imports torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from hebb.config import overrides
from hebb.config.annotations import annotations_of
from hebb.core.errors import ConfigError, within

Config = TypeVar("Config")


def change(config: Config, texts: Iterable[str]) -> Config:
    """Return the config with the values of ``path=value`` texts: ``seconds=100``, ``rule.eta=0.1``, ``seeds=0,1,2``.

    All are made at once, so that values that only fit each other may come in any order.

    Raises:
        ConfigError: for a path that leads nowhere, or a value of another type or out of bounds.
    """
    return _apply(config, overrides.parse(texts), "--set", paths(config))


def paths(config: Any) -> list[str]:
    """List the paths that can be changed."""
    leaves = []
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        inner = [f"{entry.name}.{path}" for path in paths(value)] if dataclasses.is_dataclass(value) else [entry.name]
        leaves += inner
    return leaves


def _apply(config: Config, texts: Mapping[str, str], where: str, legal: list[str]) -> Config:
    types = annotations_of(type(config))
    values: dict[str, Any] = {}
    for path, text in texts.items():
        if path not in legal:
            raise ConfigError(where, f"unknown '{path}'", given=path, choices=legal)
        name, _, rest = path.partition(".")
        if not rest:
            values[name] = types[name].read(text, f"{where} {path}")
        elif name not in values:
            inner = {full.partition(".")[2]: t for full, t in texts.items() if full.startswith(f"{name}.")}
            spec = getattr(config, name)
            values[name] = _apply(spec, inner, f"{where}, {name}", paths(spec))
    with within(where):
        return replace(config, **values)  # type: ignore[type-var]


def to_json(config: Any) -> dict[str, Any]:
    """Return a config as plain JSON data."""
    return dataclasses.asdict(config)


def check(config: object, low: float, high: float, *names: str, above: bool = False) -> None:
    """Raise for a value outside [low, high]; ``above`` excludes the low end."""
    for name in names:
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            if not low <= number <= high or (above and number == low):
                raise ConfigError(
                    name, f"must be a number {'>' if above else '>='} {low:g} and <= {high:g}, got {number:g}"
                )


def check_seeds(seeds: tuple[int, ...]) -> None:
    """Raise for no seed, one given twice, or one out of range."""
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**63 for seed in seeds):
        raise ConfigError("seeds", f"must be distinct whole numbers >= 0, at least one, got {list(seeds)}")


def check_words(where: str, words: tuple[str, ...], choices: Iterable[str]) -> None:
    """Raise for no word, an unknown one, or one given twice."""
    legal = list(choices)
    for word in words:
        if word not in legal:
            raise ConfigError(where, f"unknown '{word}'", given=word, choices=legal)
    if not words or len(set(words)) < len(words):
        raise ConfigError(where, f"must be distinct words, at least one, got '{','.join(words)}'", choices=legal)
