"""What a network that settles has beside its blocks: settings, and rules of what its blocks can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hebb.config.registry import Rule, Value
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from hebb.config.specs import BlockSpec


@dataclass(frozen=True, kw_only=True)
class SettleSpec:
    """How a network settles: the value of every setting that its method reads.

    ``settle.beta`` is short for the value called ``beta``.
    """

    values: tuple[tuple[str, Value], ...]

    def __getattr__(self, name: str) -> Any:
        for key, value in self.__dict__.get("values", ()):  # a copy in the making has no values yet
            if key == name:
                return value
        raise AttributeError(f"the network's method has no setting '{name}'")

    def to_json(self) -> dict[str, Value]:
        """Return the settings as a dictionary."""
        return dict(self.values)


def make_settle(rule: Rule, given: Mapping[str, object], where: str) -> SettleSpec:
    """Build the settings of a network of ``rule`` from those that were given; the rest are defaults.

    Raises:
        ConfigError: for an unknown setting or a bad value.
    """
    known = {entry.name: entry for entry in rule.settings}
    for name in given:
        if name not in known:
            raise ConfigError(where, f"{rule.name} has no setting '{name}'", given=name, choices=known)
    values: dict[str, Value] = {}
    for name, entry in known.items():
        assert entry.default is not None
        values[name] = entry.read(given[name], where) if name in given else entry.default
    if rule.check_settings is not None:
        rule.check_settings(values, where)
    return SettleSpec(values=tuple(values.items()))


def check_blocks(blocks: Sequence[BlockSpec]) -> None:
    """Refuse what a network that settles cannot have: other methods, and parts that its neurons do not pass."""
    method = next(block.layer.method for block in blocks if block.settles)
    for i, block in enumerate(blocks):
        where = f"b{i}"
        if block.layer.method != method:
            raise ConfigError(
                where,
                f"{block.layer.method} stands in a network of {method}, which settles as a whole",
                hint=f"write {method} in every block",
            )
        parts = {
            "an operation": [name for name in block.operations if i or name != "flatten"],
            "an activation": block.activation,
            "a pool": block.pool,
            "dropout": block.dropout or block.att_dropout,
            "a batch norm": block.batch_norm,
        }
        for part, given in parts.items():
            if given:
                raise ConfigError(where, f"{part} has no place in a network that settles", hint="flatten in b0 has")
        if i == 0 and getattr(block.layer, "lr_feedback", False):
            raise ConfigError(where, "has no feedback weights, since nothing settles below it", hint="leave out lf")
