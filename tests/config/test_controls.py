"""Control arms: the same network without its rule, with labels inside the blocks, and end to end."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import small
import torch

from hebb.config import catalog, costs, grammar, overrides, plan, shapes
from hebb.config.registry import RULES
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import Arch, Control
from hebb.core.errors import ConfigError
from hebb.tuning import trials

LOCAL = [rule for rule in RULES.entries() if rule.learning in ("hebbian", "local")]
SHAPES = {Arch.CNN: "{}-c6-k3-p1:relu:max_2_2_0 BP:flatten", Arch.MLP: "{}-c6:flatten:relu BP"}
NETWORKS = {(rule.name, arch): SHAPES[Arch(arch)].format(rule.name) for rule in LOCAL for arch in rule.archs}
OF_A_KIND = {(rule.learning, arch): NETWORKS[rule.name, arch] for rule in LOCAL for arch in rule.archs}
ARMS = sorted(
    {*itertools.product(OF_A_KIND.values(), Control), *zip(NETWORKS.values(), itertools.cycle(Control), strict=False)}
)
"""Every arm for each kind of network, and one of them for every network."""


def control(config: RunConfig, word: str) -> RunConfig:
    return overrides.apply(config, {"control": word}, catalog.load())


def of(network: str) -> RunConfig:
    config = small.config(network)
    rule = config.network.blocks[0].layer.rule
    epochs = {"warmup": 0} if rule.learning == "local" else {}
    changes = {f"b0.layer.{name}": value for name, value in epochs.items()}
    return overrides.apply(config, changes, catalog.load())


@pytest.mark.parametrize(("network", "word"), ARMS)
def test_an_arm_has_the_shape_of_the_network(network: str, word: Control) -> None:
    """What differs is how the blocks learn, not what they can compute."""
    base = of(network)
    arm = control(base, word)
    assert [block.out for block in shapes.of_run(arm)] == [block.out for block in shapes.of_run(base)]
    assert costs.static(arm)["parameters"] == costs.static(base)["parameters"]
    method = {Control.HEADS: "LocalBP", Control.BACKPROP: "BP"}.get(word, base.network.blocks[0].layer.method)
    assert arm.network.blocks[0].layer.method == method
    assert arm.network.blocks[1] == base.network.blocks[1]
    learning = {block for phase in plan.phases(arm) if phase.kind != "calibrate" for block in phase.blocks}
    assert learning == ({1} if word == Control.FROZEN else {0, 1})


def test_frozen_blocks_end_as_the_rule_starts() -> None:
    """R1 of a fair comparison: the very weights that the rule starts from, and the same classifier above them."""
    base = small.config(small.CNN)
    frozen = small.run(control(base, "frozen")).network
    untrained = small.run(replace(base, training_blocks=(1,))).network
    learned = small.run(base).network
    assert torch.equal(frozen[0].layer.weight, untrained[0].layer.weight)
    assert not torch.equal(frozen[0].layer.weight, learned[0].layer.weight)


@pytest.mark.parametrize("word", ["heads", "backprop"])
def test_an_arm_can_be_pasted(word: str) -> None:
    """The network of an arm, as a search prints it, is the arm; only ``frozen`` needs a setting beside it."""
    presets = catalog.load()
    arm = control(small.config(small.CNN), word)
    text = grammar.format_network(arm.network, presets.defaults)
    assert grammar.parse_network(text, presets.defaults).blocks == arm.network.blocks
    assert trials.other_changes({"control": word, "seed": 1}) == ["seed=1"]
    assert trials.other_changes({"control": "frozen"}) == ["control=frozen"]


def test_a_control_of_a_control_is_itself() -> None:
    """Also where its rates are not the defaults."""
    base = small.config("LocalBP-c6-k3-p1-hm2-ls0.01:relu:warmup=0 BP:flatten")
    assert control(base, "heads") == base
    frozen = control(base, "frozen")
    assert control(frozen, "frozen") == frozen


def test_a_control_follows_what_else_is_set() -> None:
    """It is applied last, whatever the order of the words."""
    changes = {"control": "backprop", "b0.layer.out_channels": "7", "b0.method": "Hard"}
    arm = overrides.apply(small.config(small.CNN), changes, catalog.load())
    assert (arm.network.blocks[0].layer.method, arm.network.blocks[0].layer.out_channels) == ("BP", 7)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("3PCMNIST", "settles as a whole"),
        ("BP-c5:flatten BP", "no block of .* learns by itself"),
        ("Soft-c5:flatten Soft-c6", "ends in Soft, and controls share a classifier"),
    ],
)
def test_networks_without_controls_are_refused(network: str, message: str) -> None:
    base = small.config(small.CNN)
    config = replace(base, network=catalog.load().network(network))
    with pytest.raises(ConfigError, match=message):
        control(config, "frozen")


def test_frozen_needs_a_block_that_still_learns() -> None:
    with pytest.raises(ConfigError, match="names none but the rule's"):
        control(replace(small.config(small.CNN), training_blocks=(0,)), "frozen")


def test_an_unknown_arm_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'frozen'"):
        control(small.config(small.CNN), "frosen")
