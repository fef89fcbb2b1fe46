"""Control arms: what a network would reach without its learning rule.

learned    the network as it is
frozen     the very weights the rule starts from (same seed), never changed; a batch norm gets its statistics in a pass
heads      ``LocalBP`` in place of the rule: labels, a head at each block, no gradient between blocks
backprop   ``BP`` in place of the rule: labels, and the gradient of the classifier's loss through all blocks

All arms share geometry, activations, pools, data, seeds and the classifier. ``heads`` passes over the data as often as
the rule, ``backprop`` as often as the classifier.

As an override the path is ``control``; it is applied after every other one, so a space varies the rule and its control
follows.
"""

from __future__ import annotations

from dataclasses import replace

from hebb.config.fields import GEOMETRY
from hebb.config.grammar import Defaults
from hebb.config.specs import BlockSpec, NetworkSpec, RunConfig, make_layer
from hebb.config.vocabulary import Control
from hebb.core.choices import choose
from hebb.core.errors import ConfigError

PATH = "control"
"""The override path."""


def domain() -> dict[str, dict[str, list[str]]]:
    """Return the domain of a search space that lists all arms."""
    return {PATH: {"grid": [control.value for control in Control]}}


_METHODS = {Control.HEADS: "LocalBP", Control.BACKPROP: "BP"}


def apply(config: RunConfig, word: object, defaults: Defaults, where: str) -> RunConfig:
    """Return the run that is a control of ``config``.

    Args:
        config: the run of the rule.
        word: a ``Control``.
        defaults: the layer defaults of the preset file.
        where: place that errors name.

    Raises:
        ConfigError: for another word, and for a network whose blocks do not learn by themselves.
    """
    control = choose(Control, str(word), where)
    check(config.network, where)
    if control == Control.LEARNED:
        return config
    if control == Control.FROZEN:
        return replace(config, training_blocks=_supervised(config, where))

    blocks = tuple(_with_method(block, _METHODS[control], defaults, where) for block in config.network.blocks)
    return replace(config, network=replace(config.network, blocks=blocks))


def _with_method(block: BlockSpec, method: str, defaults: Defaults, where: str) -> BlockSpec:
    """Return a block of the same shape, with as many parameters, that learns by another method."""
    layer = block.layer
    if not block.learns_locally or layer.method == method:
        return block
    shape = {name: getattr(layer, name) for name in layer.rule.fields_on(layer.arch) if name in GEOMETRY}
    values = {**shape, "add_bias": layer.add_bias}
    return replace(block, layer=make_layer(method, layer.arch, values, defaults, where))


def check(network: NetworkSpec, where: str) -> None:
    """Raise for a network that has no controls."""
    if network.settles:
        raise ConfigError(where, f"{network.name} settles as a whole, and its blocks have no other way to learn")
    if not any(block.learns_locally for block in network.blocks):
        raise ConfigError(where, f"no block of {network.name} learns by itself, so there is nothing to control")
    if network.blocks[-1].learns_locally:
        raise ConfigError(
            where,
            f"{network.name} ends in {network.blocks[-1].layer.method}, and controls share a classifier",
            hint="end the network with a BP block, as in '... BP:flatten'",
        )


def _supervised(config: RunConfig, where: str) -> tuple[int, ...]:
    """Return the blocks that still learn where those of the rule are frozen."""
    chosen = config.training_blocks
    learning = [i for i, block in enumerate(config.network.blocks) if not block.learns_locally]
    kept = tuple(i for i in learning if chosen is None or i in chosen)
    if not kept:
        raise ConfigError(where, "leaves no block that learns: --training-blocks names none but the rule's")
    return kept
