"""The settings of a settling network, which it has beside its blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hebb.config.fields import Value, plain_values
from hebb.config.registry import RULES
from hebb.config.rule import SettlingRule
from hebb.config.vocabulary import NudgeSign, Optimiser, Solver, StepRule
from hebb.core.errors import ConfigError


class SettlingFields:
    """The settings of a settling network by name, as ``SettleSpec`` holds them.

    A setting with a value here stands for what its absence means.
    """

    beta: float
    sign: NudgeSign | None = None
    free_steps: int
    nudged_steps: int
    third_phase: bool = False
    steps: int
    step: float
    step_rule: StepRule
    step_slope: float
    step_floor: float
    eval_step: float
    solver: Solver = Solver.STATE

    epsilon: float
    forgetting: float
    gain: float
    margin: float
    optimiser: Optimiser

    decay: float
    decay_every: int
    late_from: int
    late_decay: float
    last_from: int
    last_decay: float
    weight_decay: float

    def __getattr__(self, name: str) -> Any:
        """Fail for a setting that the method does not have; own settings of a plugin have no type."""
        raise AttributeError(f"the network's method has no setting '{name}'")


@dataclass(frozen=True, kw_only=True)
class SettleSpec(SettlingFields):
    """How a network settles: the value of every setting that its method reads.

    ``settle.beta`` is short for the value called ``beta``.
    """

    values: tuple[tuple[str, Value], ...]

    def __post_init__(self) -> None:
        self.__dict__.update(self.values)

    def to_json(self) -> dict[str, Value]:
        """Return the settings as a dictionary."""
        return plain_values(self.values)


def make_settle(rule: SettlingRule, words: Mapping[str, object], where: str) -> SettleSpec:
    """Build the settings of a network of ``rule`` from those that were given; the rest are defaults.

    Raises:
        ConfigError: for an unknown setting or a bad value.
    """
    fields = {entry.name: entry for entry in rule.settings}
    for name in words:
        if name not in fields:
            raise unknown_setting(rule, name, where)
    values: dict[str, Value] = {}
    for name, entry in fields.items():
        assert entry.default is not None
        values[name] = entry.read(words[name], where) if name in words else entry.default
    if rule.check_settings is not None:
        rule.check_settings(values, where)
    return SettleSpec(values=tuple(values.items()))


def unknown_setting(rule: SettlingRule, name: str, where: str, prefix: str = "") -> ConfigError:
    """Return the error for a setting that the rule does not have; it names the methods that have it.

    Args:
        rule: the method of the network.
        name: the setting.
        where: what the user wrote.
        prefix: what stands before a setting there, as ``settle.``.
    """
    settling = [entry for entry in RULES.entries() if isinstance(entry, SettlingRule)]
    owners = [entry.name for entry in settling if name in {setting.name for setting in entry.settings}]
    return ConfigError(
        where,
        f"{rule.name} has no setting '{name}'",
        given=None if owners else prefix + name,
        choices=[prefix + setting.name for setting in rule.settings],
        hint=f"it is a setting of {', '.join(owners)}" if owners else None,
    )
