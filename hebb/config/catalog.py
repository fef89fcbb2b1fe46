"""``preset.json``: named networks, layer defaults, dataset variants and protocols, read and checked.

    layer     {"MLP": {field: value}, "CNN": {...}}           defaults of the fields
    model     {name: {"blocks": [...], "settle": {...}, "description", "source", "comment", "mode"}}
    dataset   {name: {"default": {...}, variant: {...}}}       the fields of ``DataSpec`` that differ
    protocol  {name: {"set": {path: value}, "description", "source"}}   changes of ``--set`` that belong together

A block is a string of ``hebb.config.grammar``, or an object with ``preset``, ``arch``, ``operation``, ``activation``,
``pool``, ``dropout``, ``att_dropout``, ``affine_norm``, ``batch_norm``, ``residual``, ``resume``, ``layer`` and
``num``. A file given with ``--preset-file`` is merged over the shipped one: where both have a name, the user's entry
counts. Its layer defaults apply to its own models and to networks written inline, not to the shipped models.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hebb.config import grammar, plan
from hebb.config.annotations import Annotation, annotations_of
from hebb.config.data_spec import DataSpec
from hebb.config.fields import ARCHS, FIELDS, Value
from hebb.config.registry import DATASETS
from hebb.config.settle import SettleSpec
from hebb.config.specs import BlockSpec, NetworkSpec
from hebb.config.vocabulary import Operation
from hebb.core import documents, shipped
from hebb.core.choices import choose
from hebb.core.errors import ConfigError, said_as, within

SHIPPED = shipped.path("preset.json")
_MODEL_KEYS = ("blocks", "settle", "description", "source", "comment", "mode")
_WORD, _NUMBER, _SWITCH = (Annotation(kind=kind, optional=True) for kind in (str, float, bool))
_BLOCK_TYPES = {
    "operation": _WORD,
    "activation": _WORD,
    "pool": _WORD,
    "dropout": _NUMBER,
    "att_dropout": _NUMBER,
    "affine_norm": _SWITCH,
    "batch_norm": _SWITCH,
    "residual": _SWITCH,
    "resume": _WORD,
}
_BLOCK_KEYS = ("preset", "arch", "layer", "num", *_BLOCK_TYPES)
_DATA_TYPES = {name: annotation for name, annotation in annotations_of(DataSpec).items() if name != "dataset"}


@dataclass(frozen=True)
class Model:
    """A named network, with its description, source and comment."""

    network: NetworkSpec
    description: str = ""
    source: str = ""
    comment: str = ""


@dataclass(frozen=True)
class Protocol:
    """A named group of changes to a run, by override path, with description and source."""

    changes: Mapping[str, Any]
    description: str = ""
    source: str = ""


@dataclass(frozen=True)
class Catalog:
    """The names a command line knows.

    Attributes:
        models: networks by name.
        datasets: dataset variants by name (``CIFAR10_50``).
        defaults: layer defaults of networks written inline, per architecture.
        protocols: training protocols by name.
    """

    models: Mapping[str, Model]
    datasets: Mapping[str, DataSpec]
    defaults: Mapping[str, Mapping[str, Value]]
    protocols: Mapping[str, Protocol]

    def network(self, text: str, where: str = "--preset") -> NetworkSpec:
        """Return the preset called ``text``, or the network that ``text`` spells out."""
        text = text.strip()
        if text in self.models:
            return self.models[text].network
        if not text:
            raise ConfigError(where, "is empty", choices=self.models)
        preset = next((word for word in text.split() if word.split(":")[0] in self.models), None)
        if preset is not None:
            raise ConfigError(where, f"a preset name must stand alone, got '{text}'")
        if grammar.is_inline(text):
            return grammar.parse_network(text, self.defaults)
        raise ConfigError(
            where,
            f"unknown preset '{text}'",
            given=text,
            choices=self.models,
            hint="--list presets describes them; a network can be written out: 'Soft-c96-k5-p2:bn:relu BP:flatten'",
        )

    def dataset(self, name: str, where: str) -> DataSpec:
        """Return the dataset variant called ``name``, or the dataset that ``name`` spells out."""
        if DATASETS.spelled_out(name):
            with said_as({f"dataset '{name}'": f"{where} {name}"}):
                return DataSpec(dataset=name)
        if name not in self.datasets:
            raise DATASETS.unknown(name, where, self.datasets)
        return self.datasets[name]

    def protocol(self, names: Iterable[str], where: str = "--protocol") -> dict[str, Any]:
        """Return the changes of all protocols in ``names``; raise if two of them change the same value."""
        changes: dict[str, Any] = {}
        for name in names:
            if name not in self.protocols:
                raise ConfigError(
                    where,
                    f"unknown protocol '{name}'",
                    given=name,
                    choices=self.protocols,
                    hint="--list protocols describes them",
                )
            for path, value in self.protocols[name].changes.items():
                if path in changes:
                    raise ConfigError(where, f"'{name}' changes {path}, which an earlier protocol changes too")
                changes[path] = value
        return changes


def load(user_file: Path | None = None) -> Catalog:
    """Read and check the shipped presets, then merge the user's file over them."""
    shipped = _shipped()
    return shipped if user_file is None else _read(user_file, shipped)


@functools.cache
def _shipped() -> Catalog:
    return _read(SHIPPED, Catalog(models={}, datasets={}, defaults={}, protocols={}))


def _read(path: Path, below: Catalog) -> Catalog:
    where = str(path)
    data = documents.read_json(path)
    data = _keys(data, ("layer", "model", "dataset", "protocol"), where)
    defaults = _layer_defaults(data.get("layer", {}), below.defaults, where)
    models = _Models(documents.as_object(data.get("model", {}), f"{where}, model"), defaults, path.name, below.models)
    if path != SHIPPED:
        models.check()
    datasets = {**below.datasets}
    for name, variants in documents.as_object(data.get("dataset", {}), f"{where}, dataset").items():
        datasets.update(_variants(name, variants, datasets, f"{path.name}, dataset '{name}'"))
    for entry in DATASETS.entries():
        datasets.setdefault(entry.name, DataSpec(dataset=entry.name))
    protocols = {
        name: _protocol(entry, f"{path.name}, protocol '{name}'")
        for name, entry in documents.as_object(data.get("protocol", {}), f"{where}, protocol").items()
    }
    return Catalog(
        models=models,
        datasets=datasets,
        defaults=defaults,
        protocols={**below.protocols, **protocols},
    )


class _Models(Mapping[str, Model]):
    """The models of a file over those below; each is read when it is first asked for, since a run needs one of them."""

    def __init__(
        self, entries: Mapping[str, object], defaults: grammar.Defaults, file: str, below: Mapping[str, Model]
    ) -> None:
        self._entries, self._defaults, self._file, self._below = entries, defaults, file, below
        self._read: dict[str, Model] = {}

    def check(self) -> None:
        """Read every model of the file; raise for the first that is wrong."""
        for name in self._entries:
            self[name]

    def __getitem__(self, name: str) -> Model:
        if name not in self._entries:
            return self._below[name]
        if name not in self._read:
            where = f"{self._file}, model '{name}'"
            self._read[name] = _model(name, self._entries[name], self._defaults, where)
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._below

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._below, *self._entries]))

    def __len__(self) -> int:
        return len({*self._below, *self._entries})


def _layer_defaults(data: object, below: Mapping[str, Mapping[str, Value]], where: str) -> dict[str, dict[str, Value]]:
    data = _keys(data, ARCHS, f"{where}, layer")
    defaults: dict[str, dict[str, Value]] = {arch: dict(below.get(arch, {})) for arch in ARCHS}
    for arch, fields in data.items():
        place = f"{where}, layer/{arch}"
        legal = [name for name, entry in FIELDS.items() if arch in entry.archs]
        for name, value in _keys(fields, legal, place).items():
            defaults[arch][name] = FIELDS[name].read(value, place)
    return defaults


def _model(name: str, data: object, defaults: grammar.Defaults, where: str) -> Model:
    data = _keys(data, _MODEL_KEYS, where)
    if grammar.is_inline(name):
        raise ConfigError(
            where, "the name reads like a network written out", hint="choose a name that does not start with a method"
        )
    blocks = data.get("blocks")
    if not isinstance(blocks, list):
        raise ConfigError(where, f"blocks must be a list of blocks, got {blocks!r}")
    mode = data.get("mode")
    if mode is not None and mode not in plan.MODES:
        raise ConfigError(where, f"unknown mode '{mode}'", given=str(mode), choices=plan.MODES)
    with within(where):
        network = NetworkSpec(
            name=name,
            blocks=tuple(_block(block, defaults, i, f"{where}, b{i}") for i, block in enumerate(blocks)),
            mode=mode,
            settle=_settings(data, f"{where}, settle"),
        )
    text = {key: str(data.get(key, "")) for key in ("description", "source", "comment")}
    return Model(network=network, **text)


def _settings(data: Mapping[str, Any], where: str) -> SettleSpec | None:
    """Return the settings unchecked; ``NetworkSpec`` checks their names and values."""
    return SettleSpec(values=tuple(documents.as_object(data["settle"], where).items())) if "settle" in data else None


def _block(data: object, defaults: grammar.Defaults, index: int, where: str) -> BlockSpec:
    if isinstance(data, str):
        return grammar.parse_block(data, defaults, where)
    data = _keys(data, _BLOCK_KEYS, where)
    if not isinstance(data.get("preset"), str):
        raise ConfigError(where, "'preset' (the method-token string) is missing")
    if data.get("num", index) != index:
        raise ConfigError(where, f"num must be the position of the block, {index}, got {data['num']}")
    layer = grammar.parse_layer(
        data["preset"], defaults, where, arch=data.get("arch"), named=documents.as_object(data.get("layer", {}), where)
    )
    for name, annotation in _BLOCK_TYPES.items():
        annotation.check(data.get(name), f"{where}, {name}")
    activation, pool = data.get("activation"), data.get("pool")
    with within(where):
        return BlockSpec(
            layer=layer,
            operations=operations(data.get("operation") or "", where),
            activation=None if not activation else grammar.parse_activation(activation, where),
            pool=None if not pool else grammar.parse_pool(pool, where),
            dropout=data.get("dropout") or 0.0,
            att_dropout=data.get("att_dropout") or 0.0,
            affine_norm=data.get("affine_norm") or False,
            batch_norm=data.get("batch_norm") or False,
            residual=data.get("residual") or False,
            resume=data.get("resume"),
        )


def operations(text: str, where: str) -> tuple[Operation, ...]:
    """Read ``flatten_batchnorm1d`` (also with +, comma or space) as operations."""
    return tuple(choose(Operation, word, f"{where}, operation") for word in re.split(r"[\s_+,]+", text) if word)


def _protocol(data: object, where: str) -> Protocol:
    data = _keys(data, ("set", "description", "source"), where)
    changes = documents.as_object(data.get("set"), f"{where}, set")
    for path, value in changes.items():
        if isinstance(value, dict | list):
            raise ConfigError(f"{where}, set", f"{path} must be a word or a number, got {value!r}")
    return Protocol(changes, **{key: str(data.get(key, "")) for key in ("description", "source")})


def _variants(name: str, data: object, below: Mapping[str, DataSpec], where: str) -> dict[str, DataSpec]:
    entry = DATASETS.get(name, where)
    variants = dict(documents.as_object(data, where))
    base = _data(
        below.get(entry.name) or DataSpec(dataset=entry.name), variants.pop("default", {}), f"{where}, default"
    )
    named = {
        f"{entry.name}_{variant}": _data(base, values, f"{where}, variant '{variant}'")
        for variant, values in variants.items()
    }
    return {entry.name: base, **named}


def _data(base: DataSpec, values: Any, where: str) -> DataSpec:
    values = _keys(values, _DATA_TYPES, where)
    for key, value in values.items():
        _DATA_TYPES[key].check(value, f"{where}, {key}")
    lists: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    with within(where):
        return dataclasses.replace(base, **lists)


def _keys(data: object, legal: Collection[str], where: str) -> Mapping[str, Any]:
    """Return the object; raise for a key that is not legal."""
    mapping = documents.as_object(data, where)
    for key in mapping:
        if key not in legal:
            raise ConfigError(where, f"unknown key '{key}'", given=key, choices=legal)
    return mapping
