"""Dotted overrides: ``b0.layer.lr=0.05``, ``b*.layer.t_invert=0.7``, ``dataset_sup.epochs=2``, ``seed=3``.

The same paths are the keys of a search space. ``b*`` is every Hebbian or settling block, sharing one value, and ``b-1``
the last block, the classifier; ``settle.beta`` is a setting of a settling network. Whatever their order,
``preset`` applies before ``method``, both before the rest, and ``control``, which makes a run its own control
(``hebb.config.controls``), after it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, NamedTuple

from hebb.config import controls, grammar
from hebb.config.annotations import annotations_of
from hebb.config.catalog import Catalog, operations
from hebb.config.data_spec import DataSpec
from hebb.config.fields import Value, plain_values
from hebb.config.registry import DATASETS, RULES
from hebb.config.rule import BackpropRule, Rule, SettlingRule
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
    """Return the run with every change made; a path that leads nowhere is an error.

    All changes are made before any of them is checked against another: values that are legal together need no order.
    """
    for path in (path for path in changes if path.startswith("b-1.")):
        (twin,) = single(path, config.network)
        if twin in changes:
            raise ConfigError(f"{where} {path}", f"is {twin}, which is given as well", hint="leave one of the two out")
    every = [_Change(path, changes[path], f"{where} {path}") for path in sorted(changes, key=_rank)]
    try:
        changed = _apply_all(config, every, catalog, where)
    except ConfigError as error:
        _raise_for_one(error, config, every, catalog)
        raise
    for name in ("dataset_sup", "dataset_unsup"):
        if f"{name}.samples" in changes:
            _check_samples(getattr(changed, name), f"{where} {name}.samples")
    return changed


class _Change(NamedTuple):
    """A value for a path, and what the user calls that path."""

    path: str
    value: object
    where: str

    @property
    def head(self) -> str:
        return self.path.partition(".")[0]

    @property
    def part(self) -> str:
        return self.path.partition(".")[2]


def _raise_for_one(error: ConfigError, config: RunConfig, changes: Sequence[_Change], catalog: Catalog) -> None:
    """Raise an error again at the first change that causes it alone, which names its path."""
    for change in changes:
        try:
            config = _apply_all(config, [change], catalog, change.where)
        except ConfigError as single:
            if single.explanation == error.explanation:
                raise single from None


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
    return [f"b{i}.{part}" for i in _blocks(head, [block.layer for block in network.blocks])]


def _blocks(head: str, layers: Sequence[LayerSpec]) -> list[int]:
    """Return the numbers of the blocks that the first part of a path means."""
    if head == "b*":
        return [i for i, layer in enumerate(layers) if not isinstance(layer.rule, BackpropRule)]
    return [len(layers) - 1 if head == "b-1" else int(head[1:])]


def _own_rule(table: Mapping[str, Value | None], block: int) -> bool:
    """Tell whether ``b*`` stands for a block."""
    return not isinstance(RULES.get(str(table[f"b{block}.method"]), f"b{block}"), BackpropRule)


def _rank(path: str) -> tuple[int, int]:
    """Order of application: preset, method, the rest, then the control; shared values before those of one block."""
    if path == controls.PATH:
        return 3, 0
    part = path.partition(".")[2]
    return ({"preset": 0, "method": 1}.get(part, 2), 0 if path.startswith("b*") else 1)


def _apply_all(config: RunConfig, changes: Sequence[_Change], catalog: Catalog, where: str) -> RunConfig:
    """Make changes that stand in the order of ``_rank``, then check what they give."""
    of: dict[str, list[_Change]] = {}
    for change in changes:
        of.setdefault(_target(change, config), []).append(change)
    parts: dict[str, Any] = {
        name: _change_spec(getattr(config, name), of[name], where) for name in _SPECS if name in of
    }
    for change in of.get("run", ()):
        with within(change.where):
            parts[change.head] = annotations_of(RunConfig)[change.head].read(change.value, change.where)
    if "network" in of:
        parts["network"] = _change_network(config.network, of["network"], catalog.defaults, where)
    with within(where):
        config = replace(config, **parts)
        for change in of.get(controls.PATH, ()):
            config = controls.apply(config, change.value, catalog.defaults, change.where)
    return config


def _target(change: _Change, config: RunConfig) -> str:
    """Name the part of the run that a change is for."""
    if change.head in RUN and not change.part:
        return "run"
    if change.head in _SPECS:
        return change.head
    if change.path == controls.PATH:
        return controls.PATH
    if change.head == "settle" or re.fullmatch(r"b(\*|0|-1|[1-9][0-9]*)", change.head):
        return "network"
    blocks = ["b*", *(f"b{i}" for i in range(len(config.network.blocks)))]
    raise ConfigError(
        change.where,
        f"unknown override '{change.path}'",
        given=change.path,
        choices=[*(f"{block}.{part}" for block in blocks for part in _BLOCK_PARTS), *_PATHS[2:]],
    )


def _change_network(
    network: NetworkSpec, changes: Sequence[_Change], defaults: grammar.Defaults, where: str
) -> NetworkSpec:
    layers = [block.layer for block in network.blocks]
    layer_values: list[dict[str, object]] = [{} for _ in layers]
    parts: list[dict[str, Any]] = [{} for _ in layers]
    of_blocks = [change for change in changes if change.head != "settle"]
    for change in of_blocks:
        with within(change.where):
            for i in _chosen(change, network.name, layers):
                if change.part == "preset":
                    layers[i] = grammar.parse_layer(str(change.value), defaults, change.where)
                elif change.part == "method":
                    layers[i] = _change_method(layers[i], str(change.value), defaults, change.where)
                elif change.part.startswith("layer."):
                    layer_values[i][_layer_field(layers[i], change)] = change.value
                else:
                    parts[i] |= _block_part(layers[i], change)
    settle = network.settle
    if any(change.part in ("preset", "method") for change in of_blocks):
        settle = _kept_settings(network, layers[0])
    for change in changes:
        if change.head == "settle":
            settle = _change_settle(network.name, layers[0].rule, settle, change)
    with within(where):
        for i, values in enumerate(layer_values):
            if values:
                layer = layers[i]
                layers[i] = make_layer(layer.method, layer.arch, {**dict(layer.values), **values}, defaults, where)
        blocks = [replace(block, layer=layers[i], **parts[i]) for i, block in enumerate(network.blocks)]
        return replace(network, blocks=tuple(blocks), settle=settle)


def _chosen(change: _Change, network: str, layers: Sequence[LayerSpec]) -> list[int]:
    """Return the numbers of the blocks that a change is for."""
    chosen = _blocks(change.head, layers)
    if not chosen:
        raise ConfigError(change.where, f"{network} has no Hebbian block")
    if chosen[-1] >= len(layers):
        raise ConfigError(
            change.where,
            f"block {change.head} does not exist in {network}",
            given=change.head,
            choices=[f"b{i}" for i in range(len(layers))],
        )
    return chosen


def _kept_settings(network: NetworkSpec, first: LayerSpec) -> SettleSpec | None:
    """Return the settings that were set and that the method of ``first``, perhaps another one now, reads too."""
    if network.settle is None or not isinstance(first.rule, SettlingRule):
        return None
    usual = dict(make_settle(network.settling_rule, {}, "defaults").values)
    names = {entry.name for entry in first.rule.settings}
    kept = tuple((name, v) for name, v in network.settle.values if name in names and v != usual[name])
    return SettleSpec(values=kept)


def _change_settle(network: str, rule: Rule, settle: SettleSpec | None, change: _Change) -> SettleSpec:
    if not isinstance(rule, SettlingRule):
        raise ConfigError(change.where, f"{network} does not settle")
    if change.part not in {entry.name for entry in rule.settings}:
        raise unknown_setting(rule, change.part, change.where, "settle.")
    before = () if settle is None else settle.values
    return SettleSpec(values=(*before, (change.part, change.value)))  # type: ignore[arg-type]


def _block_part(layer: LayerSpec, change: _Change) -> dict[str, Any]:
    """Return the field of a block that a change sets, with its value."""
    part, where, text = change.part, change.where, str(change.value)
    none = change.value is None or text.lower() in ("none", "null", "")
    readers: dict[str, Callable[[], dict[str, Any]]] = {
        "pool": lambda: {"pool": None if none else grammar.parse_pool(text, where)},
        "activation": lambda: {"activation": None if none else grammar.parse_activation(text, where)},
        "operation": lambda: {"operations": () if none else operations(text, where)},
        "dropout": lambda: {"dropout": 0.0 if none else grammar.probability(text, f"drop_{text}", where)},
        "att_dropout": lambda: {"att_dropout": 0.0 if none else grammar.probability(text, f"attdrop_{text}", where)},
        "resume": lambda: {"resume": None if none else text},
        **dict.fromkeys(SWITCHES, lambda: {part: annotations_of(BlockSpec)[part].read(change.value, where)}),
    }
    if part not in readers:
        legal = [f"layer.{name}" for name in layer.rule.fields_on(layer.arch)]
        word = f"layer.{part}" if f"layer.{part}" in legal else part
        problem = f"a block has no '{part}'" if part else "names no part of the block"
        raise ConfigError(where, problem, given=word, choices=["preset", "method", *readers, *legal])
    return readers[part]()


def _layer_field(layer: LayerSpec, change: _Change) -> str:
    """Return the name of the layer's value that a change sets."""
    name, legal = change.part.removeprefix("layer."), layer.rule.fields_on(layer.arch)
    if name not in legal:
        raise ConfigError(
            change.where,
            f"{layer.method} on {layer.arch} has no '{name}'",
            given=change.part,
            choices=[f"layer.{n}" for n in legal],
        )
    return name


def _change_method(layer: LayerSpec, method: str, defaults: grammar.Defaults, where: str) -> LayerSpec:
    """Swap the rule: values that were set and that the new rule reads are kept, the rest is its default."""
    rule = RULES.get(method, where)
    required = {"kernel_size": layer.kernel_size} if layer.arch == Arch.CNN else {}
    old = dict(make_layer(layer.method, layer.arch, required, defaults, where).values)
    legal = rule.fields_on(layer.arch)
    kept = {name: value for name, value in layer.values if name in legal and (value != old[name] or name in required)}
    return make_layer(rule.name, layer.arch, kept, defaults, where)


def _change_spec(spec: Any, changes: Sequence[_Change], where: str) -> Any:
    """Replace fields of a ``DataSpec``, ``ClassifierSpec`` or ``StopSpec``."""
    types, values = annotations_of(type(spec)), {}
    for change in changes:
        with within(change.where):
            if change.part not in types:
                legal = [f"{change.head}.{name}" for name in types]
                raise ConfigError(change.where, f"unknown override '{change.path}'", given=change.path, choices=legal)
            values[change.part] = (
                DATASETS.get(str(change.value), change.where).name
                if change.part == "dataset"
                else types[change.part].read(change.value, change.where)
            )
    with within(where):
        return replace(spec, **values)
