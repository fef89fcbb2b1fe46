"""A run as JSON and back, without loss: the content of ``config.json``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from hebb.config import plugins
from hebb.config.annotations import annotations_of
from hebb.config.classifier import ClassifierSpec, StopSpec
from hebb.config.data_spec import DataSpec
from hebb.config.fields import plain_values
from hebb.config.registry import RULES
from hebb.config.rule import SettlingRule
from hebb.config.settle import SettleSpec, make_settle
from hebb.config.specs import (
    ActivationSpec,
    BlockSpec,
    LayerSpec,
    NetworkSpec,
    PluginSpec,
    PoolSpec,
    RunConfig,
    make_layer,
)
from hebb.core import documents
from hebb.core.errors import ConfigError, within

_LATER: dict[type, dict[str, Any]] = {
    RunConfig: {
        "stop": {"convergence": None, "patience": None},
        "pack": [],
        "compute_dtype": "float32",
        "compile": False,
        "tf32": "convolutions",
        "deterministic": False,
        "cuda_graphs": False,
        "probes": [],
        "probe_blocks": None,
        "probe_samples": 10000,
        "curve_points": None,
        "plugins": [],
    },
    NetworkSpec: {"settle": None},
    BlockSpec: {"affine_norm": False, "residual": False},
    DataSpec: {
        "held": False,
        "standardise": False,
        "deviations": 0.0,
        "zoom": 1.0,
        "view_area": 0.08,
        "view_flip": 0.5,
        "view_colour": 0.8,
        "view_gray": 0.2,
        "view_blur": 0.5,
        "mirror": False,
        "zca_smoothing": 0.1,
        "zca_pixels": False,
        "zca_test": False,
        "mirror_test": False,
    },
    ClassifierSpec: {
        "loss": "cross_entropy",
        "optimiser": "adam",
        "momentum": 0.0,
        "restart": None,
        "restart_growth": 2,
        "decay": 0.9,
        "decay_every": 1,
        "decay_after": 0,
    },
}
"""Keys newer than the first files, with what their absence means; at that value they do not enter a digest.

Written out, and not the defaults of the specs, so that a default that changes one day does not change an old run.
"""


def to_json(config: RunConfig) -> dict[str, Any]:
    """Return the run as plain JSON data; ``run_from_json`` is its inverse."""
    data: dict[str, Any] = _plain(config)
    return data


def digest(config: RunConfig, *, leave_out: Iterable[str] = ()) -> str:
    """Return ten hexadecimal digits that name the configuration, without the fields in ``leave_out``."""
    left = set(leave_out)
    kinds = {"network": NetworkSpec, "classifier": ClassifierSpec, "dataset_sup": DataSpec, "dataset_unsup": DataSpec}
    data = {key: value for key, value in _without_later(RunConfig, to_json(config)).items() if key not in left}
    data |= {key: _without_later(kind, data[key]) for key, kind in kinds.items() if key in data}
    if "network" in data:
        blocks = [_without_later(BlockSpec, block) for block in data["network"]["blocks"]]
        data["network"] = {**data["network"], "blocks": blocks}
    if config.network.settle is not None and "network" in data:
        later = _later_settings(config.network.settling_rule)
        settle = {name: v for name, v in data["network"]["settle"].items() if name not in later or v != later[name]}
        data["network"] = {**data["network"], "settle": settle}
    return digest_of(data)


def digest_of(data: object) -> str:
    """Return ten hexadecimal digits that name data of a JSON file."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:10]


def run_from_json(data: object, where: str) -> RunConfig:
    """Build a run from the data of a ``config.json``; an unknown key is an error, a missing one unless it is new."""
    data = _with_later(RunConfig, documents.as_object(data, where))
    network = _with_later(NetworkSpec, documents.as_object(data.get("network"), f"{where}, network"))
    needed = _plugins(data.get("plugins"), f"{where}, plugins")
    plugins.require(needed, where)  # the network may be made of their rules
    blocks = network.get("blocks")
    if not isinstance(blocks, list):
        raise ConfigError(f"{where}, network", f"blocks must be a list, got {blocks!r}")
    blocks = tuple(block_from_json(block, f"{where}, b{i}") for i, block in enumerate(blocks))
    return _build(
        RunConfig,
        {
            **data,
            "network": _build(
                NetworkSpec,
                {
                    **network,
                    "blocks": blocks,
                    "settle": _settle_from_json(network, blocks, f"{where}, network, settle"),
                },
                f"{where}, network",
            ),
            "dataset_sup": _data_from_json(data.get("dataset_sup"), f"{where}, dataset_sup"),
            "dataset_unsup": _data_from_json(data.get("dataset_unsup"), f"{where}, dataset_unsup"),
            "classifier": _build(ClassifierSpec, data.get("classifier"), f"{where}, classifier"),
            "stop": _build(StopSpec, data.get("stop"), f"{where}, stop"),
            "plugins": needed,
            **_as_tuples(data, "training_blocks", "probes", "probe_blocks", "pack"),
        },
        where,
    )


def complete(data: Mapping[str, object]) -> dict[str, object]:
    """Return the data of a ``config.json`` with the keys that it is too old to have; nothing else is read."""
    parts = {"network": NetworkSpec, "classifier": ClassifierSpec, "dataset_sup": DataSpec, "dataset_unsup": DataSpec}
    later = {}
    for name, kind in parts.items():
        part = data.get(name)
        if isinstance(part, dict):
            later[name] = _with_later(kind, part)
    blocks = later.get("network", {}).get("blocks")
    if isinstance(blocks, list):
        whole = [_with_later(BlockSpec, block) if isinstance(block, dict) else block for block in blocks]
        later["network"]["blocks"] = whole
    settle = documents.part(later.get("network", {}), "settle")
    if settle:
        later["network"]["settle"] = {**_later_settings(_settling_rule(later["network"])), **settle}
    return {**_with_later(RunConfig, data), **later}


def block_from_json(data: object, where: str) -> BlockSpec:
    """Build a block from its full JSON form."""
    data = documents.as_object(data, where)
    parts = {
        name: _build(kind, data[name], f"{where}, {name}")
        for name, kind in (("activation", ActivationSpec), ("pool", PoolSpec))
        if data.get(name) is not None
    }
    layer = _layer_from_json(data.get("layer"), f"{where}, layer")
    return _build(BlockSpec, {**data, **_as_tuples(data, "operations"), **parts, "layer": layer}, where)


def _plugins(data: object, where: str) -> tuple[PluginSpec, ...]:
    if not isinstance(data, list):
        raise ConfigError(where, f"must be a list, got {data!r}")
    return tuple(_build(PluginSpec, entry, where) for entry in data)


def _settle_from_json(network: Mapping[str, Any], blocks: tuple[BlockSpec, ...], where: str) -> SettleSpec | None:
    """Read the settings of a settling network, every one of them; null where none does."""
    if network["settle"] is None:
        if any(block.settles for block in blocks):
            raise ConfigError(where, "is missing")
        return None
    values = dict(documents.as_object(network["settle"], where))
    rules = [block.layer.rule for block in blocks]
    rule = next((rule for rule in rules if isinstance(rule, SettlingRule)), None)
    if rule is None:
        raise ConfigError(where, f"must be null unless a block settles, got {dict(values)!r}")
    values = {**_later_settings(rule), **values}
    for entry in rule.settings:
        if entry.name not in values:
            raise ConfigError(where, f"'{entry.name}' is missing")
    return make_settle(rule, values, where)


def _later_settings(rule: SettlingRule | None) -> dict[str, Any]:
    """Return the settings that are newer than the first files, with what their absence means."""
    settings = () if rule is None else rule.settings
    return plain_values((entry.name, entry.absent) for entry in settings if entry.absent is not None)


def _settling_rule(network: Mapping[str, Any]) -> SettlingRule | None:
    """Return the method of a stored network that settles; None if it is not known here."""
    first = next(iter(network.get("blocks") or ()), None)
    method = documents.part(first, "layer").get("method") if isinstance(first, dict) else None
    return next((r for r in RULES.entries() if isinstance(r, SettlingRule) and r.name == method), None)


def _layer_from_json(data: object, where: str) -> LayerSpec:
    values = dict(documents.as_object(data, where))
    for name in ("method", "arch"):
        if name not in values:
            raise ConfigError(where, f"'{name}' is missing")
    method, arch = str(values.pop("method")), str(values.pop("arch"))
    layer = make_layer(method, arch, values, {}, where)
    for name, _ in layer.values:
        if name not in values:
            raise ConfigError(where, f"'{name}' is missing")
    return layer


Spec = TypeVar("Spec")


def _build(kind: type[Spec], data: object, where: str) -> Spec:
    """Make a spec from a dictionary whose keys must be its fields and whose types must fit; new ones may be missing."""
    data = _with_later(kind, documents.as_object(data, where))
    names = annotations_of(kind)
    for key in data:
        if key not in names:
            raise ConfigError(where, f"unknown key '{key}'", given=key, choices=names)
    for name, annotation in names.items():
        if name not in data:
            raise ConfigError(where, f"'{name}' is missing")
        annotation.check(data[name], f"{where}, {name}")
    with within(where):
        return kind(**data)


def _data_from_json(data: object, where: str) -> DataSpec:
    data = documents.as_object(data, where)
    return _build(DataSpec, {**data, **_as_tuples(data, "classes")}, where)


def _with_later(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    return {**_LATER.get(kind, {}), **data}


def _without_later(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    later = _LATER.get(kind, {})
    return {key: value for key, value in data.items() if key not in later or value != later[key]}


def _as_tuples(data: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return the named lists as tuples; other values are left for the type check."""
    return {name: tuple(data[name]) for name in names if isinstance(data.get(name), list)}


def _plain(value: Any) -> Any:
    if isinstance(value, LayerSpec | SettleSpec):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value  # no member of an enumeration
