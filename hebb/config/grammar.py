"""The preset strings: text to spec and back.

    layer     METHOD(-TOKEN)*                       Soft-c96-k5-p2-t1-lr0.08
    block     LAYER(:PART)*                         Soft-c96-k5-p2-t1-lr0.08:bn:triangle_0.7:max_4_2_1
    network   (settle:NAME=VALUE,... )BLOCK( BLOCK)*

A token is the letters of a field (``hebb.config.fields``) and a number, which may have an exponent. A layer with a
kernel size k is a convolution (CNN); a layer without one is fully connected (MLP). Parts come in any order, each at
most once: ``bn``, ``bn_affine``, ``bn_after``, ``residual``, ``flatten``, ``maxnorm``, ``normnorm``, ``drop_P``,
``attdrop_P``, an activation with its parameter, a pool ``max_k_s_p`` or ``avg_k_s_p``, ``resume=MODEL/bN`` to start
from a stored block, and ``NAME=VALUE`` for a field without a token. ``bn`` is the batch norm that fits the layer (2d
for a CNN, 1d for an MLP); write ``batchnorm1d`` or ``batchnorm2d`` to choose the other one. ``settle:`` stands before
the blocks of a settling network and gives its settings.
``parse(format(spec)) == spec``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from hebb.config import fields
from hebb.config.fields import ARCHS, Value
from hebb.config.registry import ACTIVATIONS, RULES, Field, Rule
from hebb.config.settle import SettleSpec
from hebb.config.specs import ActivationSpec, BlockSpec, LayerSpec, NetworkSpec, PoolSpec, make_layer
from hebb.config.vocabulary import Arch, PoolKind
from hebb.core.errors import ConfigError, nearest, within
from hebb.core.values import read_number

Defaults = Mapping[str, Mapping[str, Value]]

_TOKEN = re.compile(r"([A-Za-z_]+?)((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?=-|$)")
_NEGATIVE = re.compile(r"-[\d.]+(?:[eE][+-]?\d+)?(?=-|$)")
_FLAGS = ("flatten", "maxnorm", "normnorm", "batchnorm1d", "batchnorm2d")
_SWITCHES = {"bn_affine": "affine_norm", "bn_after": "batch_norm", "residual": "residual"}
_COLONS = "the parts of a block follow its method behind colons, and a space begins the next block"
_PARTS = ("bn", *_SWITCHES, *_FLAGS, "drop_P", "attdrop_P", "max_k_s_p", "avg_k_s_p", "NAME=VALUE")
_SETTLE = "settle:"
_BN = {"CNN": "batchnorm2d", "MLP": "batchnorm1d"}


# -- layers -------------------------------------------------------------------------------------------------


def parse_layer(
    text: str,
    defaults: Defaults,
    where: str,
    *,
    arch: str | None = None,
    named: Mapping[str, object] | None = None,
) -> LayerSpec:
    """Read ``METHOD-token-...``; ``named`` holds the fields given by full name."""
    where = f"{where} '{text}'"
    method, separator, rest = text.partition("-")
    if separator and not rest:
        raise ConfigError(where, "ends in '-'")
    if method.lower() not in (name.lower() for name in RULES.names()) and (written := _taken_apart(method)):
        raise ConfigError(where, f"unknown method '{method}' (did you mean '{written}'?)", hint=_COLONS)
    rule = RULES.get(method, where)
    values = _tokens(rest, rule, where)
    for name, value in (named or {}).items():
        if name in values:
            raise ConfigError(where, f"'{name}' is given twice, as a token and by name")
        values[name] = value
    if arch is None:
        arch = "CNN" if "kernel_size" in values else "MLP"
    if arch not in ARCHS:
        raise ConfigError(where, f"unknown arch '{arch}'", given=str(arch), choices=ARCHS)
    _check_used(values, rule, arch, where)
    return make_layer(rule.name, arch, values, defaults, where)


def _tokens(text: str, rule: Rule, where: str) -> dict[str, object]:
    """Split ``c96-k5-lr1e-3`` into values by field name."""
    own = {entry.token: entry for entry in rule.own_fields if entry.token}
    table = {**fields.token_table(), **own}
    values: dict[str, object] = {}
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            piece = text[position:].split("-")[0]
            if not piece:
                raise ConfigError(where, "an empty token: '-' stands twice")
            entry = table.get(piece)
            if entry is not None:
                negative = _NEGATIVE.match(text, position + len(piece))
                value = f"'{negative[0]}'" if negative else f"'{piece}' without a value"
                raise ConfigError(where, f"{entry.name} must be {entry.legal}, got {value}")
            raise ConfigError(where, f"unknown token '{piece}'", choices=_legal_tokens(rule))
        letters, number = match.groups()
        entry = table.get(letters)
        if entry is None:
            close = nearest(letters, _legal_tokens(rule))
            advice = f" (did you mean '{close}{number}'?)" if close else ""
            raise ConfigError(where, f"unknown token '{letters}{number}'{advice}", choices=_legal_tokens(rule))
        if entry.name in values:
            raise ConfigError(where, f"token '{letters}' is given twice")
        values[entry.name] = entry.read(number, where)
        position = match.end() + 1
        if match.end() < len(text) and position == len(text):
            raise ConfigError(where, "ends in '-'")
    return values


def _legal_tokens(rule: Rule) -> list[str]:
    table = {name: entry for arch in rule.archs for name, entry in rule.fields_on(arch).items()}
    return [entry.token for entry in table.values() if entry.token]


def _check_used(values: Mapping[str, object], rule: Rule, arch: str, where: str) -> None:
    """Raise for a token or field that the method does not read."""
    legal = rule.fields_on(arch)
    for name in values:
        if name in legal or name not in fields.FIELDS:
            continue
        entry = fields.FIELDS[name]
        token = f"token '{entry.token}'" if entry.token else "field"
        kind = f"{rule.name} on {arch}"
        if name == "mask_thsd":
            problem = f"{token} ({name}) has no effect in any method"
        else:
            problem = f"{token} ({name}) does nothing for {kind}"
        raise ConfigError(
            where,
            problem,
            choices=[e.token or e.name for e in legal.values()],
            hint="leave it out",
        )


def format_layer(layer: LayerSpec, *defaults: Defaults) -> tuple[str, list[str]]:
    """Return the canonical token string and the ``name=value`` parts of the fields without a token.

    Left out is what is the default in each of ``defaults``, so that the string means the same beside any of them.
    """
    standards = [make_layer(layer.method, layer.arch, _needed(layer), own, "defaults") for own in defaults]
    tokens, named = [layer.method], []
    for name, entry in layer.rule.fields_on(layer.arch).items():
        value = getattr(layer, name)
        keep = name == "kernel_size" or any(value != getattr(standard, name) for standard in standards)
        if name == "out_channels":
            keep = value != 0
        if not keep:
            continue
        text = format_value(value, entry)
        if entry.token is None:
            named.append(f"{name}={text}")
        else:
            tokens.append(entry.token + text)
    return "-".join(tokens), named


def _needed(layer: LayerSpec) -> dict[str, object]:
    """Return the values that have no default, so that every string must give them."""
    return {"kernel_size": layer.kernel_size} if layer.arch == Arch.CNN else {}


def format_value(value: Value, entry: Field) -> str:
    """Write the value of a field as it appears in a token or a setting."""
    if entry.kind is bool:
        return str(int(value))
    return value if isinstance(value, str) else number(value)


def number(value: float) -> str:
    """Write a number in the shortest form that reads back to the same value."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


# -- blocks -------------------------------------------------------------------------------------------------


def parse_block(text: str, defaults: Defaults, where: str) -> BlockSpec:
    """Read ``LAYER:part:part``."""
    layer_text, *parts = text.split(":")
    place = f"{where} '{text}'"
    operations: list[str] = []
    parts_read: dict[str, object] = {}
    named: dict[str, object] = {}
    uses_bn = False
    for part in parts:
        key, value = _read_part(part, place)
        if key == "field":
            name, _, text_value = part.partition("=")
            if name in named:
                raise ConfigError(place, f"'{name}' is given twice")
            named[name] = text_value
        elif key == "bn":
            if uses_bn:
                raise ConfigError(place, "'bn' is given twice")
            uses_bn = True
        elif key == "operation":
            if part in operations:
                raise ConfigError(place, f"'{part}' is given twice")
            operations.append(part)
        elif key in parts_read:
            raise ConfigError(place, f"a second {key.replace('_', ' ')} '{part}'", hint="each part at most once")
        else:
            parts_read[key] = value
    layer = parse_layer(layer_text, defaults, where, named=named)
    if uses_bn:
        if _BN[layer.arch] in operations:
            raise ConfigError(place, f"'bn' and '{_BN[layer.arch]}' are the same")
        operations.append(_BN[layer.arch])
    with within(place):
        return BlockSpec(layer=layer, operations=tuple(operations), **parts_read)  # type: ignore[arg-type]


def _read_part(part: str, where: str) -> tuple[str, object]:
    """Return the field of the block that a part fills, and its value."""
    if part == "bn":
        return "bn", True
    if part in _SWITCHES:
        return _SWITCHES[part], True
    if part in _FLAGS:
        return "operation", part
    if part.startswith("resume="):
        return "resume", part.removeprefix("resume=")
    if "=" in part:
        return "field", part
    if not part:
        raise ConfigError(where, "an empty part: ':' stands at the end or twice")
    head, _, tail = part.partition("_")
    if head in ("drop", "attdrop"):
        return ("dropout" if head == "drop" else "att_dropout"), probability(tail, part, where)
    if head in tuple(PoolKind):
        return "pool", parse_pool(part, where)
    if head in ACTIVATIONS.names():
        return "activation", parse_activation(part, where)
    forms = [*_PARTS, *ACTIVATIONS.names()]
    by_head = {form.partition("_")[0]: form for form in reversed(forms)}
    if written := _taken_apart(part):
        raise ConfigError(where, f"unknown part '{part}' (did you mean '{written}'?)", hint=_COLONS)
    like = by_head.get(nearest(head, by_head) or "", part)  # maks_2_2_0 means max_k_s_p
    raise ConfigError(where, f"unknown part '{part}'", given=like, choices=forms)


def _taken_apart(text: str) -> str:
    """Write a word that joins methods and parts by ``_`` as they belong, ``bn_BP`` as ``BP:bn``; else nothing."""
    words = text.split("_")
    methods = {name.lower() for name in RULES.names()}
    blocks = [word for word in words if word.lower() in methods]
    parts = [word for word in words if word in ("bn", *_FLAGS, *ACTIVATIONS.names())]
    if len(words) < 2 or len(blocks) > 1 or len(blocks) + len(parts) < len(words):
        return ""
    return ":".join((*blocks, *parts))


def probability(text: str, part: str, where: str) -> float:
    """Read the probability of ``drop_P``."""
    value = read_number(text, float)
    if value is None or not 0 <= value < 1:
        raise ConfigError(where, f"must have a probability >= 0 and < 1, as in drop_0.5, got '{part}'")
    return value


def parse_activation(text: str, where: str) -> ActivationSpec:
    """Read ``name`` or ``name_parameter``."""
    name, separator, tail = text.partition("_")
    entry = ACTIVATIONS.get(name, where)
    if not separator:
        return ActivationSpec(name=entry.name)
    if entry.parameter is None:
        raise ConfigError(where, f"activation {entry.name} takes no parameter, got '{text}'")
    parameter = None if "_" in tail else read_number(tail, float)
    if parameter is None or not 0 < parameter < float("inf"):
        raise ConfigError(where, f"activation must have a {entry.parameter} > 0, as in {name}_1, got '{text}'")
    return ActivationSpec(name=entry.name, parameter=parameter)


def parse_pool(text: str, where: str) -> PoolSpec:
    """Read ``max_k_s_p`` or ``avg_k_s_p``."""
    word, *sizes = text.split("_")
    if word not in tuple(PoolKind):
        raise ConfigError(where, f"unknown pool '{text}'", given=text, choices=("max_k_s_p", "avg_k_s_p"))
    kind = PoolKind(word)
    if len(sizes) != 3 or not all(re.fullmatch("[0-9]+", size) for size in sizes):
        raise ConfigError(where, f"pool must be {kind}_kernel_stride_padding with three whole numbers, got '{text}'")
    kernel, stride, padding = (int(size) for size in sizes)
    with within(where):
        return PoolSpec(kind=kind, kernel_size=kernel, stride=stride, padding=padding)


def format_block(block: BlockSpec, *defaults: Defaults) -> str:
    """Return the canonical string of a block; ``defaults`` are those of ``format_layer``."""
    layer, named = format_layer(block.layer, *defaults)
    parts = [layer]
    if block.att_dropout:
        parts.append(f"attdrop_{number(block.att_dropout)}")
    parts += ["bn" if name == _BN[block.layer.arch] else name for name in block.operations]
    if block.dropout:
        parts.append(f"drop_{number(block.dropout)}")
    if block.affine_norm:
        parts.append("bn_affine")
    if block.activation is not None:
        parts.append(format_activation(block.activation))
    if block.batch_norm:
        parts.append("bn_after")
    if block.pool is not None:
        parts.append(format_pool(block.pool))
    if block.residual:
        parts.append("residual")
    if block.resume is not None:
        named.append(f"resume={block.resume}")
    return ":".join(parts + named)


def format_activation(activation: ActivationSpec) -> str:
    """Return ``name`` or ``name_parameter``."""
    assert activation.parameter is not None
    default = ACTIVATIONS.get(activation.name, "activation").default
    return activation.name + ("" if activation.parameter == default else f"_{number(activation.parameter)}")


def format_pool(pool: PoolSpec) -> str:
    """Return ``kind_kernel_stride_padding``."""
    return f"{pool.kind}_{pool.kernel_size}_{pool.stride}_{pool.padding}"


# -- networks -----------------------------------------------------------------------------------------------


def is_inline(text: str) -> bool:
    """Tell whether the text is a network written out, not the name of a preset."""
    head = re.split(r"[-:\s]", text.strip(), maxsplit=1)[0]
    written = any(mark in text.strip() for mark in " :-")
    return written or head.lower() in {name.lower() for name in RULES.names()}


def parse_network(text: str, defaults: Defaults, name: str | None = None) -> NetworkSpec:
    """Read a network written as blocks separated by spaces."""
    words = text.split()
    settings = _settings(words.pop(0)) if words and words[0].lower().startswith(_SETTLE) else None
    for word in words:
        if word.lower().startswith(_SETTLE):
            raise ConfigError("--preset", f"'{word}' must come once, before the blocks")
    blocks = tuple(parse_block(block, defaults, f"b{i}") for i, block in enumerate(words))
    return NetworkSpec(name=name or text, blocks=blocks, settle=settings)


def _settings(text: str) -> SettleSpec:
    """Split ``settle:beta=0.5,sign=positive``; the network checks names and values."""
    settings: dict[str, Value] = {}
    for part in text.partition(":")[2].split(","):
        name, separator, value = part.partition("=")
        if not separator or not name or not value:
            raise ConfigError(f"'{text}'", f"must be name=value, as in settle:beta=0.5, got '{part}'")
        if name in settings:
            raise ConfigError(f"'{text}'", f"'{name}' is given twice")
        settings[name] = value
    return SettleSpec(values=tuple(settings.items()))


def format_network(network: NetworkSpec, *defaults: Defaults) -> str:
    """Return the canonical string of a network, ready to paste after ``--preset``; ``defaults`` as ``format_layer``."""
    return " ".join([*_format_settings(network), *(format_block(block, *defaults) for block in network.blocks)])


def _format_settings(network: NetworkSpec) -> list[str]:
    """Return ``settle:...`` with the settings that are not the method's defaults."""
    if network.settle is None:
        return []
    fields_by_name = {entry.name: entry for entry in network.settling_rule.settings}
    changed = [
        f"{name}={format_value(value, fields_by_name[name])}"
        for name, value in network.settle.values
        if value != fields_by_name[name].default
    ]
    return [_SETTLE + ",".join(changed)] if changed else []
