"""Dotted overrides: what every path changes, in which order, and what bad ones are answered.

Without it `--set` could change another block, or nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import random_specs
from hypothesis import given
from hypothesis import strategies as st
from random_specs import SMALL

from hebb.config import catalog, grammar, overrides
from hebb.config.classifier import ClassifierSpec, StopSpec
from hebb.config.data_spec import DataSpec
from hebb.config.registry import RULES, Field, Rule, SettlingRule
from hebb.config.serialise import to_json
from hebb.config.specs import RunConfig, make_layer
from hebb.core.errors import ConfigError

CATALOG = catalog.load()
SANDWICH = "BP-c8-k3:relu Hard-c8-k3-lr0.1:bn SoftKrotov-c9-k3-t2 BP-c20:flatten SupervisedSoftKrotov-c9 BP"
MISSING = object()


def run(network: str = "4SoftHebbCnnCIFAR") -> RunConfig:
    """Return a run on CIFAR-10."""
    sup, unsup = CATALOG.dataset("CIFAR10_50", "test"), CATALOG.dataset("CIFAR10_1", "test")
    return RunConfig(network=CATALOG.network(network), mode="successive", dataset_sup=sup, dataset_unsup=unsup)


def change(config: RunConfig, *texts: str) -> RunConfig:
    """Apply ``--set`` texts."""
    return overrides.apply(config, overrides.parse(texts), CATALOG)


def flat(data: Any, path: str = "") -> dict[str, Any]:
    """Spread nested JSON into leaves by dotted path; an empty container is a leaf."""
    items = data.items() if isinstance(data, Mapping) else enumerate(data) if isinstance(data, list) else None
    if items is None or not data:
        return {path: data}
    return {key: leaf for name, value in items for key, leaf in flat(value, f"{path}.{name}".lstrip(".")).items()}


def differences(before: RunConfig, after: RunConfig) -> dict[str, Any]:
    """Return the leaves that differ, as they are after; MISSING where one is gone."""
    old, new = flat(to_json(before)), flat(to_json(after))
    every = dict.fromkeys([*old, *new])
    return {key: new.get(key, MISSING) for key in every if old.get(key, MISSING) != new.get(key, MISSING)}


def refusal(config: RunConfig, *texts: str) -> str:
    """Return the message with which overrides are refused; it is never longer than three lines."""
    with pytest.raises(ConfigError) as caught:
        change(config, *texts)
    assert len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


# -- every path ---------------------------------------------------------------------------------------------

DATA_PATHS: list[tuple[str, object, object]] = [
    ("dataset", "cifar100", "CIFAR100"),
    ("epochs", "1e2", 100),
    ("batch_size", 7, 7),
    ("print_freq", "3", 3),
    ("samples", "500", 500),
    ("augmentation", "true", True),
    ("augmentation", 1, True),
    ("noise_std", "0.5", 0.5),
    ("zca", True, True),
    ("mirror", "true", True),
    ("mirror_test", 1, True),
    ("split", "test", "test"),
    ("size", "64", 64),
    ("validation", "0.2", 0.2),
    ("held", "true", True),
    ("standardise", True, True),
    ("zoom", "1.1", 1.1),
    *((f"view_{name}", "0.3", 0.3) for name in ("area", "flip", "colour", "gray", "blur")),
    ("deviations", "3", 3.0),
]
ZCA: dict[str, object] = {"zca_test": True, "zca_pixels": True, "zca_smoothing": 0.5}
CLASSIFIER_PATHS: list[tuple[str, object, object]] = [
    ("lr", "1e-2", 0.01),
    ("weight_decay", 0.001, 0.001),
    ("schedule", "cosine", "cosine"),
    ("schedule", "constant", "constant"),
    ("optimiser", "sgd", "sgd"),
    ("momentum", "0.9", 0.9),
    ("restart", "10", 10),
    ("restart_growth", 3, 3),
    ("loss", "mse", "mse"),
    ("decay", "0.95", 0.95),
    ("decay_every", "10", 10),
    ("decay_after", "5", 5),
]
STOP_PATHS: list[tuple[str, object, object]] = [("convergence", "0.01", 0.01), ("patience", 1.5, 1.5)]
PATHS: list[tuple[str, object, dict[str, object]]] = [
    *((f"{d}.{n}", v, {f"{d}.{n}": w}) for d in ("dataset_sup", "dataset_unsup") for n, v, w in DATA_PATHS),
    *((f"classifier.{n}", v, {f"classifier.{n}": w}) for n, v, w in CLASSIFIER_PATHS),
    *((f"stop.{n}", v, {f"stop.{n}": w}) for n, v, w in STOP_PATHS),
    ("seed", "3", {"seed": 3}),
    ("split_seed", 5, {"split_seed": 5}),
    ("b1.dropout", "0.25", {"network.blocks.1.dropout": 0.25}),
    ("b3.dropout", "none", {"network.blocks.3.dropout": 0.0}),
    ("b-1.dropout", 0.25, {"network.blocks.3.dropout": 0.25}),
    ("b1.att_dropout", 0.5, {"network.blocks.1.att_dropout": 0.5}),
    ("b0.batch_norm", "1", {"network.blocks.0.batch_norm": True}),
    ("b2.activation", "relu", {"network.blocks.2.activation.name": "relu"}),
    ("b1.activation", "repu_1.4", {"network.blocks.1.activation.name": "repu"}),
    ("b2.pool", "max_2_2_0", {"network.blocks.2.pool.kind": "max"}),
    ("b2.pool", "avg_3_2_1", {"network.blocks.2.pool.kernel_size": 3, "network.blocks.2.pool.padding": 1}),
    ("b0.layer.lr", 1e-3, {"network.blocks.0.layer.lr": 0.001}),
    ("b1.layer.t_invert", "0.7", {"network.blocks.1.layer.t_invert": 0.7}),
    ("b3.layer.lr_sup", "1e-4", {"network.blocks.3.layer.lr_sup": 0.0001}),
    ("b*.layer.radius", "2", {f"network.blocks.{i}.layer.radius": 2.0 for i in range(3)}),
    ("b*.batch_norm", True, {f"network.blocks.{i}.batch_norm": True for i in range(3)}),
]


@pytest.mark.parametrize(("path", "value", "want"), PATHS, ids=[f"{path}={value}" for path, value, _ in PATHS])
def test_path(path: str, value: object, want: dict[str, object]) -> None:
    """A path changes what it says and nothing else, whether text or the value itself is given."""
    before = run()
    for form in (value, str(value)):
        assert differences(before, overrides.apply(before, {path: form}, CATALOG)) == want
    assert before == run()


def test_paths_are_all_here() -> None:
    assert {name for name, *_ in DATA_PATHS} | {"classes", *ZCA} == {f.name for f in dataclasses.fields(DataSpec)}
    assert {name for name, *_ in CLASSIFIER_PATHS} == {f.name for f in dataclasses.fields(ClassifierSpec)}
    assert {name for name, *_ in STOP_PATHS} == {f.name for f in dataclasses.fields(StopSpec)}


@pytest.mark.parametrize(("name", "value"), ZCA.items())
def test_what_a_whitening_is_like_is_asked_for_with_the_whitening(name: str, value: object) -> None:
    both = change(run(), "dataset_sup.zca=1", f"dataset_sup.{name}={value}")
    assert differences(run(), both) == {"dataset_sup.zca": True, f"dataset_sup.{name}": value}


def test_lists_and_none() -> None:
    filtered = change(run(), "dataset_sup.classes=3,1", "b0.pool=none", "b1.activation=none", "b2.operation=none")
    assert filtered.dataset_sup.classes == (3, 1)
    first, second, third = filtered.network.blocks[:3]
    assert (first.pool, second.activation, third.operations) == (None, None, ())
    assert overrides.apply(run(), {"dataset_sup.classes": [3, 1]}, CATALOG).dataset_sup.classes == (3, 1)
    assert change(filtered, "dataset_sup.classes=none").dataset_sup.classes is None
    assert overrides.apply(filtered, {"dataset_sup.classes": None}, CATALOG).dataset_sup.classes is None


@pytest.mark.parametrize("text", ["flatten_batchnorm1d", "batchnorm1d_flatten", "flatten,batchnorm1d"])
def test_operations_stand_in_the_order_of_application(text: str) -> None:
    after = change(run(), f"b3.operation={text}")
    assert after.network.blocks[3].operations == ("flatten", "batchnorm1d")
    assert set(differences(run(), after)) == {"network.blocks.3.operations.1"}


FORMS = [(rule, arch) for rule in RULES.entries() for arch in rule.archs]


def other(entry: Field, value: Any) -> Any:
    """Return a legal value of a field that is not ``value``."""
    if entry.kind is bool:
        return not value
    if entry.choices:
        return next(choice for choice in entry.choices if choice != value)
    return value / 2 if entry.kind is float and 0 < value <= 1 else value + 1


@pytest.mark.parametrize(("rule", "arch"), FORMS, ids=[f"{rule.name}-{arch}" for rule, arch in FORMS])
def test_every_field_of_every_method(rule: Rule, arch: str) -> None:
    if isinstance(rule, SettlingRule):
        before, block = run(f"{rule.name}-c4:flatten {rule.name}-c4 {rule.name}"), 1
    else:
        before, block = run(f"{rule.name}-c4{'-k3' if arch == 'CNN' else ':flatten'} BP:flatten"), 0
    for name, entry in rule.fields_on(arch).items():
        want = other(entry, getattr(before.network.blocks[block].layer, name))
        after = overrides.apply(before, {f"b{block}.layer.{name}": want}, CATALOG)
        assert differences(before, after) == {f"network.blocks.{block}.layer.{name}": want}


SETTLING = [rule for rule in RULES.entries() if isinstance(rule, SettlingRule)]


@pytest.mark.parametrize("rule", SETTLING, ids=lambda rule: rule.name)
def test_every_setting_of_every_method(rule: Rule) -> None:
    before = run(f"{rule.name}-c4:flatten {rule.name}")
    assert before.network.settle is not None
    for entry in rule.settings:
        start = {"late_from": 1} if entry.name == "last_from" else {}  # comes after late_from
        value = entry.default / 2 if entry.kind is float else other(entry, entry.default)  # type: ignore[operator]
        value = value or (2 if entry.kind is int else 0.5)
        value = 2 if entry.name == "last_from" else value
        first = overrides.apply(before, {f"settle.{name}": v for name, v in start.items()}, CATALOG)
        after = overrides.apply(first, {f"settle.{entry.name}": value}, CATALOG)
        assert differences(first, after) == {f"network.settle.{entry.name}": value}


def test_another_method_for_a_whole_network_that_settles() -> None:
    """Settings that were set and that the new method reads stay; the others follow the method."""
    before = run("settle:beta=0.5,epsilon=0.2 CorInfoMax-c4:flatten CorInfoMax-lf0.1")
    after = change(before, "b*.method=EP").network
    assert after.settle == grammar.parse_network("settle:beta=0.5 EP-c4:flatten EP", CATALOG.defaults).settle
    with pytest.raises(ConfigError, match="must be EP, like every block of this settling network, got CorInfoMax"):
        change(before, "b0.method=EP")
    assert change(before, "b*.method=BP").network.settle is None
    assert change(before, "b*.layer.lr=0.3").network.blocks[1].layer.lr == 0.3


@pytest.mark.parametrize(
    ("network", "text", "words"),
    [
        ("EP-c4:flatten EP", "settle.betta=1", ["betta", "settle.beta"]),
        ("EP-c4:flatten EP", "settle.beta=0", ["beta must be a number > 0"]),
        ("EP-c4:flatten EP", "settle.sign=up", ["up", "random"]),
        ("EP-c4:flatten EP", "settle.gain=1", ["gain", "EP"]),
        ("EP-c4:flatten EP", "settle.last_from=3", ["last_from=3 needs late_from, which is 0 (never)"]),
        ("CorInfoMax-c4:flatten CorInfoMax", "settle.forgetting=1.5", ["forgetting", "1"]),
        ("CorInfoMax-c4:flatten CorInfoMax", "b0.layer.lr_feedback=0.1", ["b0", "feedback"]),
        ("PC-c4:flatten PC", "settle.margin=0.5", ["margin", "0.5"]),
        ("BP:flatten", "settle.beta=1", ["settle"]),
    ],
)
def test_bad_settings(network: str, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        change(run(network), text)
    assert all(word in str(caught.value) for word in words)
    assert len(str(caught.value).splitlines()) <= 3


# -- preset, method, b* -------------------------------------------------------------------------------------


def test_preset_replaces_the_layer_alone() -> None:
    before = run()
    after = change(before, "b1.preset=Hard-c10-k3-p1-lr1e-2")
    given = {"out_channels": 10, "kernel_size": 3, "padding": 1, "lr": 0.01}
    want = make_layer("Hard", "CNN", given, CATALOG.defaults, "test")
    assert after.network.blocks[1] == dataclasses.replace(before.network.blocks[1], layer=want)
    assert all(key.startswith("network.blocks.1.layer.") for key in differences(before, after))


def test_method_keeps_the_shared_values_that_were_set() -> None:
    before = run("SoftKrotov-c96-k5-p2-t1-lr0.08-lp0.5-r3-e1:bn:relu BP:flatten")
    after = change(before, "b0.method=hardkrotov")
    text = "HardKrotov-c96-k5-p2-lr0.08-lp0.5-r3-e1:bn:relu BP:flatten"
    assert after.network.blocks == grammar.parse_network(text, CATALOG.defaults).blocks
    want = grammar.parse_layer("BP-c96-k5-p2", CATALOG.defaults, "test")
    assert change(before, "b0.method=BP").network.blocks[0].layer == want


def test_method_takes_the_new_defaults_of_the_rest() -> None:
    """BP on MLP has a bias by default, Soft has none; what was not set follows the method."""
    assert change(run("Soft-c9:flatten BP"), "b0.method=BP").network.blocks[0].layer.add_bias is True
    assert change(run("BP-c9:flatten BP"), "b0.method=Soft").network.blocks[0].layer.add_bias is False
    assert change(run("Soft-c9-b1:flatten BP"), "b0.method=BP").network.blocks[0].layer.add_bias is True


ORDERED = ("b0.preset=Soft-c9-k3-lr0.5-t3", "b0.method=Hard", "b0.layer.radius=7", "b0.layer.lr=0.25")


@pytest.mark.parametrize("texts", list(itertools.permutations(ORDERED)), ids=lambda texts: " ".join(texts))
def test_preset_before_method_before_layer(texts: tuple[str, ...]) -> None:
    want = grammar.parse_layer("Hard-c9-k3-lr0.25-r7", CATALOG.defaults, "test")
    assert change(run(), *texts).network.blocks[0].layer == want


@pytest.mark.parametrize("texts", list(itertools.permutations(("b1.layer.lr=0.2", "b*.layer.lr=0.1"))))
def test_one_block_goes_before_all(texts: tuple[str, ...]) -> None:
    assert [b.layer.lr for b in change(run(), *texts).network.blocks[:3]] == [0.1, 0.2, 0.1]


def test_star_is_every_hebbian_block() -> None:
    before = run(SANDWICH)
    after = change(before, "b*.layer.lr=0.3")
    assert differences(before, after) == {f"network.blocks.{i}.layer.lr": 0.3 for i in (1, 2, 4)}


@pytest.mark.parametrize(
    "texts", [("b*.layer.t_invert=5", "b*.method=Soft"), ("b*.method=Soft", "b*.layer.t_invert=5")]
)
def test_star_method_before_its_layer(texts: tuple[str, ...]) -> None:
    """The search over regimes sets both at once; a Hard block has no temperature of its own."""
    blocks = change(run("2HardCnnCIFAR"), *texts).network.blocks
    assert (blocks[0].layer.method, blocks[0].layer.t_invert, blocks[1].layer.method) == ("Soft", 5, "BP")


# -- several together ---------------------------------------------------------------------------------------


@SMALL
@given(random_specs.runs(), random_specs.runs(), st.randoms(use_true_random=False))
def test_the_values_of_a_run_make_any_run_of_its_shape_that_run(before: RunConfig, want: RunConfig, order: Any) -> None:
    """No order of the changes, and no value that only suits its neighbours, stops them."""
    shapes = [[block.layer.arch for block in config.network.blocks] for config in (before, want)]
    network = before.network if shapes[0] == shapes[1] else want.network
    before = dataclasses.replace(before, network=network, pack=(), training_blocks=None)
    changes = list(overrides.values(want).items())
    order.shuffle(changes)
    after = overrides.apply(before, dict(changes), CATALOG)
    assert overrides.values(after) == overrides.values(want)


TOGETHER = [
    ("dataset_sup.zca=1 dataset_sup.zca_test=1", "dataset_sup.zca=0 dataset_sup.zca_test=0"),
    ("dataset_sup.zca=1 dataset_sup.zca_smoothing=1", "dataset_sup.zca=0 dataset_sup.zca_smoothing=0.1"),
    ("dataset_sup.mirror=1", "dataset_sup.mirror=0 dataset_sup.augmentation=1"),
    ("dataset_sup.validation=0.5 dataset_sup.held=1", "dataset_sup.validation=0 dataset_sup.held=0"),
    ("b0.method=BP b0.affine_norm=1", "b0.method=Hard b0.affine_norm=0"),
]


@pytest.mark.parametrize(("first", "second"), TOGETHER)
def test_what_is_legal_together_needs_no_order(first: str, second: str) -> None:
    made = [change(change(run(), *first.split()), *texts) for texts in itertools.permutations(second.split())]
    assert len(made) > 0
    assert all(config == made[0] for config in made)


def test_each_block_of_a_settling_network_by_itself() -> None:
    after = change(run("EP-c4:flatten EP"), "b0.method=PC", "b1.method=PC", "settle.margin=0.1")
    assert after == change(run("EP-c4:flatten EP"), "b*.method=PC", "settle.margin=0.1")


def test_two_names_of_one_value_are_refused() -> None:
    message = refusal(run(), "b3.dropout=0.2", "b-1.dropout=0.3")
    assert message == "--set b-1.dropout: is b3.dropout, which is given as well\nleave one of the two out"


def test_of_several_changes_the_wrong_one_is_named() -> None:
    texts = (
        "dataset_sup.zca_test=1",
        "dataset_sup.zca=1",
        "dataset_sup.epochs=0",
        "b0.layer.lr=0.5",
        "b0.layer.radius=2",
    )
    assert "--set dataset_sup.epochs, dataset 'CIFAR10': epochs must" in refusal(run(), *texts)
    together = refusal(run(), "dataset_sup.mirror=1", "dataset_sup.augmentation=1", "dataset_sup.epochs=2")
    assert "--set dataset_sup.augmentation, dataset 'CIFAR10': mirror cannot be combined with augmentation" in together
    assert "--set b1.layer.lr: lr must be" in refusal(run(), "b1.layer.radius=2", "b1.layer.lr=-1", "b0.layer.lr=1")


# -- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("datset_sup.epochs=2", ["unknown override 'datset_sup.epochs'", "'dataset_sup."]),
        ("dataset_sup.epoch=2", ["unknown override 'dataset_sup.epoch'", "'dataset_sup.epochs'"]),
        ("dataset_sup=2", ["unknown override 'dataset_sup'", "dataset_sup.size"]),
        ("classifier.shedule=step", ["'classifier.shedule'", "'classifier.schedule'"]),
        ("sed=3", ["unknown override 'sed'", "'seed'"]),
        ("b0.poool=max_2_2_0", ["no 'poool'", "'pool'"]),
        ("b0=Hard", ["no part", "preset"]),
        ("b0.layer.t_inverse=1", ["no 't_inverse'", "SoftKrotov", "layer.t_invert'"]),
        ("b3.layer.lr=1", ["no 'lr'", "BP", "layer.lr_sup"]),
        ("b4.layer.lr=1", ["block b4 does not exist", "b0 b1 b2 b3"]),
        ("b0.layer.lr=fast", ["lr must be a number >= 0, got 'fast'"]),
        ("b0.layer.lr=-1", ["lr must be a number >= 0, got -1"]),
        ("b0.layer.padding_mode=reflekt", ["'reflekt'", "'reflect'"]),
        ("b0.method=Sofft", ["unknown method 'Sofft'", "'Soft'"]),
        ("b0.method=SupervisedSoftKrotov", ["SupervisedSoftKrotov has no CNN form"]),
        ("b0.preset=Hard-c9-kk3", ["unknown token 'kk3'", "'k3'"]),
        ("b0.pool=mex_2_2_0", ["unknown pool 'mex_2_2_0'", "max_k_s_p"]),
        ("b0.pool=max_2_2_2", ["half the kernel"]),
        ("b0.activation=triangel", ["unknown activation 'triangel'", "'triangle'"]),
        ("b0.operation=flaten", ["operation: unknown 'flaten'", "'flatten'"]),
        ("b0.dropout=1", ["probability"]),
        ("b0.batch_norm=maybe", ["true or false", "'maybe'"]),
        ("dataset_sup.epochs=0", ["epochs must be a whole number >= 1, got 0"]),
        ("dataset_sup.augmentation=perhaps", ["true or false", "'perhaps'"]),
        ("dataset_sup.dataset=CIFAR11", ["unknown dataset 'CIFAR11'", "'CIFAR10'"]),
        ("dataset_sup.split=trian", ["no split 'trian'", "'train'"]),
        ("dataset_sup.classes=1,x", ["whole numbers", "'1,x'"]),
        ("dataset_sup.classes=10", ["class 10 does not exist"]),
        ("dataset_sup.classes=1,1", ["distinct"]),
        ("dataset_sup.noise_std=nan", ["noise_std"]),
        ("classifier.lr=0", ["must be a number > 0"]),
        ("classifier.schedule=stepp", ["'stepp'", "'step'"]),
        ("seed=-1", ["seed: must be a whole number >= 0", "got -1"]),
        ("seed=1.5", ["a whole number", "'1.5'"]),
    ],
)
def test_bad_override(text: str, parts: list[str]) -> None:
    """The message names the path as it was written, what is wrong, and the nearest legal choice."""
    message = refusal(run(), text)
    for part in [text.partition("=")[0], *parts]:
        assert part in message


@pytest.mark.parametrize("text", ["b0.layer.lr", "=3", "seed=", ""])
def test_not_an_assignment(text: str) -> None:
    assert "must be path=value, got '" in refusal(run(), text)


def test_twice() -> None:
    assert "'seed' is given twice" in refusal(run(), "seed=1", "seed=2")


def test_star_without_hebbian_blocks() -> None:
    assert "no Hebbian block" in refusal(run("4CnnCIFAR"), "b*.layer.lr=1")


def test_a_large_seed_is_kept() -> None:
    assert change(run(), f"seed={2**53 + 1}").seed == 2**53 + 1
