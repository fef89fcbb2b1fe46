"""Dotted overrides: ``b0.layer.lr=0.05``, ``b*.layer.t_invert=0.7``, ``dataset_sup.epochs=2``, ``seed=3``.

The same paths are the keys of a search space. ``b*`` is every Hebbian or settling block, sharing one value, and ``b-1``
the last block, the classifier; ``settle.beta`` is a setting of a settling network. Whatever their order,
``preset`` applies before ``method``, both before the rest, and ``control``, which makes a run its own control
(``hebb.config.controls``), after it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from hebb.config import controls, grammar
from hebb.config.annotations import annotations_of
from hebb.config.catalog import Catalog, operations
from hebb.config.data_spec import DataSpec
from hebb.config.fields import Value, plain_values
from hebb.config.registry import DATASETS, RULES
from hebb.config.rule import BackpropRule, SettlingRule
from hebb.config.settle import SettleSpec, make_settle, unknown_setting
from hebb.config.specs import BlockSpec, LayerSpec, NetworkSpec, RunConfig, make_layer
from hebb.config.vocabulary import Arch
from hebb.core.errors import ConfigError, within

SWITCHES = ("affine_norm", "batch_norm", "residual")
_BLOCK_PARTS = (
    "preset",
    "method",
    "layer.NAME",
    "pool",
    "activation",
    "operation",
    "dropout",
    "att_dropout",
    *SWITCHES,
    "resume",
)
RUN = (
    "seed",
    "split_seed",
    "feature_dtype",
    "compute_dtype",
    "compile",
    "tf32",
    "deterministic",
    "cuda_graphs",
    "curve_points",
)
"""Values of the run itself."""
_SPECS = ("dataset_sup", "dataset_unsup", "classifier", "stop")
_PATHS = ("bN.PART", "b*.PART", *(f"{name}.NAME" for name in _SPECS), "settle.NAME", controls.PATH, *RUN)


def parse(texts: Iterable[str], where: str = "--set") -> dict[str, str]:
    """Split ``path=value`` texts; a path given twice is an error."""
    changes: dict[str, str] = {}
    for text in texts:
        path, separator, value = text.partition("=")
        if not separator or not path or not value:
            raise ConfigError(where, f"must be path=value, got '{text}'", hint="for example b0.layer.lr=0.05")
        if path in changes:
            raise ConfigError(where, f"'{path}' is given twice")
        changes[path] = value
    return changes


def apply(config: RunConfig, changes: Mapping[str, object], catalog: Catalog, where: str = "--set") -> RunConfig:
    """Return the run with every change made; a path that leads nowhere is an error."""
    for path in sorted(changes, key=_rank):
        with within(f"{where} {path}"):
            config = _apply_one(config, path, changes[path], catalog, f"{where} {path}")
    for name in ("dataset_sup", "dataset_unsup"):
        if f"{name}.samples" in changes:
            _check_samples(getattr(config, name), f"{where} {name}.samples")
    return config


def _check_samples(data: DataSpec, where: str) -> None:
    """Raise for more images than there are: all of them would be used."""
    available = replace(data, samples=None).pool_samples()
    if data.samples is not None and data.samples > available:
        problem = f"must be at most the {available:,} images of {data.dataset}, got {data.samples}"
        raise ConfigError(where, problem, hint="leave it out to use all of them")


def differing(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Say of each value in which two mappings differ what it was and what it is."""
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    return [f"{name} {old.get(name)} is {new.get(name)}" for name in names]


def everything(config: RunConfig) -> dict[str, object]:
    """Return the value at every path, and what of a run no path names."""
    others = {part.name: getattr(config, part.name) for part in fields(config)}
    plain = {name: value for name, value in others.items() if not is_dataclass(value)}
    return {"network": config.network.name, **values(config), **plain}


def values(config: RunConfig) -> dict[str, Value | None]:
    """Return the value at every path, as ``apply`` takes it: applied to the run, they change nothing.

    ``bN.preset``, which is the method and its layer in one, is left out, and so are ``b*`` and ``b-1``.
    """
    table: dict[str, Value | None] = {}
    for i, block in enumerate(config.network.blocks):
        parts: dict[str, Value | None] = {
            "method": block.layer.method,
            **{f"layer.{name}": value for name, value in block.layer.values},
            "pool": None if block.pool is None else grammar.format_pool(block.pool),
            "activation": None if block.activation is None else grammar.format_activation(block.activation),
            "operation": "_".join(block.operations) or None,
            "dropout": block.dropout,
            "att_dropout": block.att_dropout,
            **{name: getattr(block, name) for name in SWITCHES},
            "resume": block.resume,
        }
        table |= {f"b{i}.{part}": value for part, value in parts.items()}
    for name in _SPECS:
        spec = getattr(config, name)
        for part in annotations_of(type(spec)):
            value = getattr(spec, part)
            table[f"{name}.{part}"] = ",".join(map(str, value)) if isinstance(value, tuple) else value
    if config.network.settle is not None:
        table |= {f"settle.{name}": value for name, value in config.network.settle.values}
    table |= {name: getattr(config, name) for name in RUN}
    return plain_values(table.items())


def value_at(table: Mapping[str, Value | None], path: str) -> Value | None:
    """Look a path up in ``values``; ``b-1`` is the last block, ``b*`` the value that all blocks which have it share.

    Raises:
        KeyError: when no block has it, or ``b*`` stands for blocks that differ.
    """
    head, _, part = path.partition(".")
    blocks = sorted({int(name[1:]) for name in (p.partition(".")[0] for p in table) if re.fullmatch("b[0-9]+", name)})
    if head == "b-1":
        return table[f"b{blocks[-1]}.{part}"]
    if head != "b*":
        return table[path]
    shared = {table[f"b{i}.{part}"] for i in blocks if _own_rule(table, i) and f"b{i}.{part}" in table}
    if len(shared) != 1:
        raise KeyError(path)
    return shared.pop()


def of_network(path: str) -> bool:
    """Tell whether a path changes the network."""
    return re.match(r"(b(-?\d+|\*)|settle)\.", path) is not None


def single(path: str, network: NetworkSpec) -> list[str]:
    """Return the paths of single blocks that ``b*`` or ``b-1`` stands for; another path stands for itself."""
    head, _, part = path.partition(".")
    if head not in ("b*", "b-1"):
        return [path]
    return [f"b{i}.{part}" for i in _blocks(head, network)]


def _blocks(head: str, network: NetworkSpec) -> list[int]:
    """Return the numbers of the blocks that the first part of a path means."""
    if head == "b*":
        return [i for i, block in enumerate(network.blocks) if block.learns_locally or block.settles]
    return [len(network.blocks) - 1 if head == "b-1" else int(head[1:])]


def _own_rule(table: Mapping[str, Value | None], block: int) -> bool:
    """Tell whether ``b*`` stands for a block."""
    return not isinstance(RULES.get(str(table[f"b{block}.method"]), f"b{block}"), BackpropRule)


def _rank(path: str) -> tuple[int, int]:
    """Order of application: preset, method, the rest, then the control; shared values before those of one block."""
    if path == controls.PATH:
        return 3, 0
    part = path.partition(".")[2]
    return ({"preset": 0, "method": 1}.get(part, 2), 0 if path.startswith("b*") else 1)


def _apply_one(config: RunConfig, path: str, value: object, catalog: Catalog, where: str) -> RunConfig:
    head, _, rest = path.partition(".")
    if head in RUN and not rest:
        return replace(config, **{head: annotations_of(RunConfig)[head].read(value, where)})
    if head in _SPECS:
        spec = _change(getattr(config, head), rest, value, where, path)
        return replace(config, **{head: spec})
    if path == controls.PATH:
        return controls.apply(config, value, catalog.defaults, where)
    if head == "settle":
        return replace(config, network=_change_settle(config.network, rest, value, where))
    if head == "b*" or re.fullmatch(r"b(0|-1|[1-9][0-9]*)", head):
        return _change_blocks(config, head, rest, value, catalog, where)
    legal = [f"b{i}" for i in range(len(config.network.blocks))]
    raise ConfigError(
        where,
        f"unknown override '{path}'",
        given=path,
        choices=[*(f"{block}.{part}" for block in ("b*", *legal) for part in _BLOCK_PARTS), *_PATHS[2:]],
    )


def _change_blocks(config: RunConfig, head: str, part: str, value: object, catalog: Catalog, where: str) -> RunConfig:
    blocks, chosen = list(config.network.blocks), _blocks(head, config.network)
    if not chosen:
        raise ConfigError(where, f"{config.network.name} has no Hebbian block")
    if chosen[-1] >= len(blocks):
        raise ConfigError(
            where,
            f"block {head} does not exist in {config.network.name}",
            given=head,
            choices=[f"b{i}" for i in range(len(blocks))],
        )
    for i in chosen:
        blocks[i] = _change_block(blocks[i], part, value, catalog.defaults, where)
    network = config.network
    settle = _kept_settings(network, blocks[0]) if part in ("method", "preset") else network.settle
    return replace(config, network=replace(network, blocks=tuple(blocks), settle=settle))


def _kept_settings(network: NetworkSpec, first: BlockSpec) -> SettleSpec | None:
    """Return the settings that were set and that the method of ``first``, perhaps another one now, reads too."""
    if network.settle is None or not first.settles:
        return None
    usual = dict(make_settle(network.settling_rule, {}, "defaults").values)
    rule = first.layer.rule
    names = {entry.name for entry in rule.settings} if isinstance(rule, SettlingRule) else set()
    kept = tuple((name, v) for name, v in network.settle.values if name in names and v != usual[name])
    return SettleSpec(values=kept)


def _change_settle(network: NetworkSpec, name: str, value: object, where: str) -> NetworkSpec:
    if network.settle is None:
        raise ConfigError(where, f"{network.name} does not settle")
    if name not in {entry.name for entry in network.settling_rule.settings}:
        raise unknown_setting(network.settling_rule, name, where, "settle.")
    return replace(network, settle=SettleSpec(values=(*network.settle.values, (name, value))))  # type: ignore[arg-type]


def _change_block(block: BlockSpec, part: str, value: object, defaults: grammar.Defaults, where: str) -> BlockSpec:
    text = str(value)
    none = value is None or text.lower() in ("none", "null", "")
    if part.startswith("layer."):
        return replace(block, layer=_change_layer(block.layer, part[6:], value, defaults, where))
    changers: dict[str, Callable[[], dict[str, Any]]] = {
        "preset": lambda: {"layer": grammar.parse_layer(text, defaults, where)},
        "method": lambda: {"layer": _change_method(block.layer, text, defaults, where)},
        "pool": lambda: {"pool": None if none else grammar.parse_pool(text, where)},
        "activation": lambda: {"activation": None if none else grammar.parse_activation(text, where)},
        "operation": lambda: {"operations": () if none else operations(text, where)},
        "dropout": lambda: {"dropout": 0.0 if none else grammar.probability(text, f"drop_{text}", where)},
        "att_dropout": lambda: {"att_dropout": 0.0 if none else grammar.probability(text, f"attdrop_{text}", where)},
        "resume": lambda: {"resume": None if none else text},
        **dict.fromkeys(SWITCHES, lambda: {part: annotations_of(BlockSpec)[part].read(value, where)}),
    }
    if part not in changers:
        legal = [f"layer.{name}" for name in block.layer.rule.fields_on(block.layer.arch)]
        word = f"layer.{part}" if f"layer.{part}" in legal else part
        problem = f"a block has no '{part}'" if part else "names no part of the block"
        raise ConfigError(where, problem, given=word, choices=[*changers, *legal])
    return replace(block, **changers[part]())


def _change_layer(layer: LayerSpec, name: str, value: object, defaults: grammar.Defaults, where: str) -> LayerSpec:
    legal = layer.rule.fields_on(layer.arch)
    if name not in legal:
        raise ConfigError(
            where,
            f"{layer.method} on {layer.arch} has no '{name}'",
            given=f"layer.{name}",
            choices=[f"layer.{n}" for n in legal],
        )
    return make_layer(layer.method, layer.arch, {**dict(layer.values), name: value}, defaults, where)


def _change_method(layer: LayerSpec, method: str, defaults: grammar.Defaults, where: str) -> LayerSpec:
    """Swap the rule: values that were set and that the new rule reads are kept, the rest is its default."""
    rule = RULES.get(method, where)
    required = {"kernel_size": layer.kernel_size} if layer.arch == Arch.CNN else {}
    old = dict(make_layer(layer.method, layer.arch, required, defaults, where).values)
    legal = rule.fields_on(layer.arch)
    kept = {name: value for name, value in layer.values if name in legal and (value != old[name] or name in required)}
    return make_layer(rule.name, layer.arch, kept, defaults, where)


def _change(spec: Any, name: str, value: object, where: str, path: str) -> Any:
    """Replace one field of a ``DataSpec``, ``ClassifierSpec`` or ``StopSpec``."""
    types = annotations_of(type(spec))
    if name not in types:
        prefix = path.partition(".")[0]
        raise ConfigError(
            where,
            f"unknown override '{path}'",
            given=path,
            choices=[f"{prefix}.{n}" for n in types],
        )
    if name == "dataset":
        return replace(spec, dataset=DATASETS.get(str(value), where).name)
    return replace(spec, **{name: types[name].read(value, where)})
