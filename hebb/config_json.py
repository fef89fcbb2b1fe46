"""A run as JSON and back, without loss: the content of ``config.json``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from hebb.config import (
    ActivationSpec,
    BlockSpec,
    ClassifierSpec,
    DataSpec,
    LayerSpec,
    NetworkSpec,
    PoolSpec,
    RunConfig,
    make_layer,
)
from hebb.errors import ConfigError


def to_json(config: RunConfig) -> dict[str, Any]:
    """Return the run as plain JSON data; ``run_from_json`` is its inverse."""
    return _plain(config)


def digest(config: RunConfig, *, leave_out: Iterable[str] = ()) -> str:
    """Return ten hexadecimal digits that name the configuration, without the fields in ``leave_out``."""
    data = {key: value for key, value in to_json(config).items() if key not in set(leave_out)}
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:10]


def run_from_json(data: Any, where: str) -> RunConfig:
    """Build a run from the data of a ``config.json``; a missing or unknown key is an error."""
    data = _object(data, where)
    network = _object(data.get("network"), f"{where}, network")
    blocks = network.get("blocks")
    if not isinstance(blocks, list):
        raise ConfigError(f"{where}, network", "'blocks' is not a list")
    return _build(
        RunConfig,
        {
            **data,
            "network": _build(
                NetworkSpec,
                {
                    **network,
                    "blocks": tuple(block_from_json(block, f"{where}, b{i}") for i, block in enumerate(blocks)),
                },
                f"{where}, network",
            ),
            "dataset_sup": _data_from_json(data.get("dataset_sup"), f"{where}, dataset_sup"),
            "dataset_unsup": _data_from_json(data.get("dataset_unsup"), f"{where}, dataset_unsup"),
            "classifier": _build(
                ClassifierSpec, _object(data.get("classifier"), f"{where}, classifier"), f"{where}, classifier"
            ),
            "training_blocks": _tuple(data.get("training_blocks")),
        },
        where,
        complete=True,
    )


def block_from_json(data: Any, where: str) -> BlockSpec:
    """Build a block from its full JSON form."""
    data = _object(data, where)
    layer = dict(_object(data.get("layer"), f"{where}, layer"))
    method, arch = str(layer.pop("method", "")), str(layer.pop("arch", ""))
    activation, pool = data.get("activation"), data.get("pool")
    return _build(
        BlockSpec,
        {
            **data,
            "layer": make_layer(method, arch, layer, {}, f"{where}, layer"),
            "operations": _tuple(data.get("operations", [])),
            "activation": None if activation is None else _build(ActivationSpec, activation, where),
            "pool": None if pool is None else _build(PoolSpec, pool, where),
        },
        where,
    )


Spec = TypeVar("Spec")


def _build(kind: type[Spec], data: Any, where: str, *, complete: bool = False) -> Spec:
    """Make a spec from a dictionary whose keys must be its fields and whose types must fit."""
    data = _object(data, where)
    names = {entry.name: entry for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in data:
        if key not in names:
            raise ConfigError(where, f"unknown key '{key}'", given=key, choices=names)
    for name, entry in names.items():
        required = complete or entry.default is dataclasses.MISSING
        if required and name not in data:
            raise ConfigError(where, f"'{name}' is missing")
        if name in data:
            check_type(str(entry.type), data[name], f"{where}, {name}")
    return kind(**data)


_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "None": (type(None),),
}


def check_type(declared: str, value: object, where: str) -> None:
    """Refuse a value whose type is not the declared one (``int | None``, ``float``, ...)."""
    names = [name.strip() for name in declared.split("|")]
    if any(name not in _TYPES for name in names):
        return  # a spec or a tuple, built and checked by its own constructor
    fits = any(isinstance(value, _TYPES[name]) for name in names)
    if not fits or (isinstance(value, bool) and "bool" not in names):
        raise ConfigError(where, f"{declared} is wanted, not {value!r}")


def _data_from_json(data: Any, where: str) -> DataSpec:
    data = _object(data, where)
    return _build(DataSpec, {**data, "classes": _tuple(data.get("classes"))}, where)


def _object(data: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise ConfigError(where, "is missing or not an object")
    return data


def _tuple(data: Any) -> Any:
    return tuple(data) if isinstance(data, list) else data


def _plain(value: Any) -> Any:
    if isinstance(value, LayerSpec):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
