"""Shapes against hand-made ones, and the phases that every mode makes of every kind of network.

Without it blocks could learn in the wrong order, or not at all.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from hebb.config import catalog, plan, shapes
from hebb.config.classifier import ClassifierSpec
from hebb.config.phase import Phase
from hebb.config.specs import RunConfig
from hebb.core.errors import ConfigError

CATALOG = catalog.load()
Shape = tuple[int, ...]


def trace(text: str, into: Shape, classes: int = 10) -> tuple[shapes.BlockShapes, ...]:
    """Return the shapes of a network written inline."""
    return shapes.trace(CATALOG.network(text), into, classes)


# -- shapes -------------------------------------------------------------------------------------------------


def test_shapes_by_hand() -> None:
    """4SoftHebbCnnCIFAR at 32 pixels, block by block: 32 -> 16 -> 8 -> 4, 1536 * 4 * 4 = 24,576."""
    first, second, third, last = trace("4SoftHebbCnnCIFAR", (3, 32, 32))
    assert (first.into, first.layer_in) == ((3, 32, 32), (3, 32, 32))
    assert (first.layer_out, first.out) == ((96, 32, 32), (96, 16, 16))
    assert (first.weights, first.parameters, first.out_channels) == ((96, 3, 5, 5), 7200, 96)
    assert (second.layer_out, second.out, second.parameters) == ((384, 16, 16), (384, 8, 8), 331776)
    assert (third.layer_out, third.out, third.parameters) == ((1536, 8, 8), (1536, 4, 4), 5308416)
    assert (last.into, last.layer_in, last.out) == ((1536, 4, 4), (24576,), (10,))
    assert (last.weights, last.parameters) == ((10, 24576), 245770)


@pytest.mark.parametrize(
    ("tokens", "side", "want"),
    [
        *(("k5-p2", 32, 32), ("k5", 32, 28), ("k3-s2-p1", 32, 16), ("k3-d2", 28, 24), ("k5-s3-p2", 28, 10)),
        *(("k3-p0-s1-d1", 3, 1), ("k1", 1, 1), ("k3-d3-p3-s2", 9, 5), ("k4-p2", 8, 9), ("k2-s5", 11, 2)),
    ],
)
def test_convolution(tokens: str, side: int, want: int) -> None:
    """floor((W + 2p - d(k-1) - 1)/s) + 1."""
    (found,) = trace(f"Hard-c4-{tokens}", (2, side, side))
    assert found.out == (4, want, want)


@pytest.mark.parametrize(
    ("pool", "side", "want"), [("4_2_1", 32, 16), ("2_2_0", 7, 3), ("3_1_1", 5, 5), ("4_3_2", 8, 3)]
)
def test_pool(pool: str, side: int, want: int) -> None:
    """floor((W + 2p - k)/s) + 1, the same for max and avg."""
    for kind in ("max", "avg"):
        (found,) = trace(f"Hard-c4-k1:{kind}_{pool}", (2, side, side))
        assert (found.layer_out, found.out) == ((4, side, side), (4, want, want))


def test_groups_bias_and_oblong_maps() -> None:
    (found,) = trace("Soft-c6-k3-g2-b1:max_2_2_0", (4, 9, 13))
    assert (found.weights, found.parameters, found.out) == ((6, 2, 3, 3), 6 * 2 * 9 + 6, (6, 3, 5))
    hidden, last = trace("Soft-c7:flatten:softmax_5 BP", (1, 8, 8), 4)
    assert (hidden.layer_in, hidden.weights, hidden.parameters) == ((64,), (7, 64), 448)
    assert (last.weights, last.parameters) == ((4, 7), 32)


CONV = "Soft-c8-k3-p1:max_2_2_0"


@pytest.mark.parametrize(
    ("network", "into", "block", "parts"),
    [
        (f"{CONV} Soft-c8-k7 BP:flatten", (3, 8, 8), 1, ["7 pixels", "map of 4", "input 3x8x8 -> b0 8x4x4"]),
        ("Soft-c8-k3-d3 BP:flatten", (3, 6, 6), 0, ["7 pixels", "map of 6", "input 3x6x6"]),
        (f"{CONV} Soft-c8-k3-p4 BP:flatten", (3, 8, 8), 1, ["reflect padding 4", "4 pixels", "b0 8x4x4"]),
        ("Soft-c8-k1:max_4_2_1", (3, 1, 1), 0, ["pool of 4", "map of 3", "input 3x1x1"]),
        ("Soft-c8-k1-g3 BP:flatten", (4, 8, 8), 0, ["3 groups", "4 input", "8 output"]),
        ("Soft-c9-k1-g2 BP:flatten", (4, 8, 8), 0, ["2 groups", "4 input", "9 output"]),
        (f"{CONV} BP", (3, 8, 8), 1, ["8x4x4", "add flatten"]),
        ("Soft-c9:flatten Soft-c8-k3 BP:flatten", (3, 8, 8), 1, ["convolution needs maps, got 9", "b0 9"]),
        ("Soft-c9:flatten:max_2_2_0 BP", (3, 8, 8), 0, ["pool needs maps, got 9"]),
        ("Soft-c9-k1:batchnorm1d BP:flatten", (3, 8, 8), 0, ["batchnorm1d needs a vector, got 3x8x8", "flatten"]),
        ("Soft-c9:flatten BP:batchnorm2d", (3, 8, 8), 1, ["batchnorm2d needs maps, got 9"]),
        ("Soft-k3 BP:flatten", (3, 8, 8), 0, ["only the last block", "width"]),
        (f"{CONV} BP-c7:flatten", (3, 8, 8), 1, ["got 7", "number of classes, 10"]),
        ("Soft-c4:flatten SupervisedSoftKrotov-c9", (3, 8, 8), 1, ["got 9", "number of classes, 10"]),
        ("Soft-c4-k1 BP-k3", (3, 8, 8), 1, ["10x6x6", "10 classes"]),
        ("HardKrotov-c6-k1-g3-rank3 BP:flatten", (3, 8, 8), 0, ["rank 3", "2 competing"]),
        ("Soft-c4-k1:attdrop_0.1 BP:flatten", (1, 8, 8), 0, ["attdrop", "input 1x8x8"]),
    ],
)
def test_misfit(network: str, into: Shape, block: int, parts: list[str]) -> None:
    """The message names the block, the numbers that do not fit, and the chain of shapes below it."""
    with pytest.raises(ConfigError) as caught:
        trace(network, into)
    first = str(caught.value).splitlines()[0]
    assert f"b{block}: " in first
    for part in [f"input {'x'.join(map(str, into))}", *parts]:
        assert part in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_what_just_fits() -> None:
    """One step inside each of the limits above."""
    assert trace("Soft-c8-k3-p3", (3, 4, 4))[0].out == (8, 8, 8)
    assert trace("Soft-c8-k9-p4:padding_mode=zeros", (3, 2, 2))[0].out == (8, 2, 2)
    assert trace("Soft-c8-k1:max_4_2_2", (3, 1, 1))[0].out == (8, 1, 1)
    assert trace("Soft-c37-k3", (3, 8, 8))[0].out == (37, 6, 6)  # a Hebbian last block has any width
    assert trace("HardKrotov-c6-k1-g2-rank3", (2, 8, 8))[0].out == (6, 8, 8)
    assert trace("BP-k8", (3, 8, 8))[0].out == (10, 1, 1)


def test_both_datasets_go_through_one_network() -> None:
    run = config(SOFT, "successive")
    assert shapes.of_run(run)[-1].out == (10,)
    small = replace(run, dataset_unsup=replace(run.dataset_unsup, size=16))
    with pytest.raises(ConfigError, match=r"3x16x16.*3x32x32"):
        shapes.of_run(small)
    both = replace(small, dataset_sup=replace(run.dataset_sup, size=16))
    assert shapes.of_run(both)[0].into == (3, 16, 16)


# -- phases -------------------------------------------------------------------------------------------------

HEBB = "Soft-c8-k3-p1:bn:triangle"
SOFT = f"{HEBB} {HEBB} {HEBB} BP:flatten"
BP = "BP-c8-k3-p1:bn:relu BP-c8-k3-p1:bn:relu BP:flatten"
SANDWICH = f"BP-c8-k3-p1:bn:relu {HEBB} BP:flatten"
LONG = f"BP-c8-k3-p1 BP-c8-k3-p1:bn {HEBB} BP-c8-k3-p1:bn BP:flatten"
LABELS = f"{HEBB} {HEBB} SupervisedSoftKrotov:flatten"
BARE = "Soft-c8-k3-p1 Soft-c8-k3-p1:bn_after BP:flatten"


def every(phases: str) -> dict[str, str]:
    """Return the same phases for every mode."""
    return dict.fromkeys(("successive", "consecutive", "simultaneous"), phases)


# (network, blocks that learn, blockwise BP): phases by mode, as kind, blocks, data.
PHASES: list[tuple[str, tuple[int, ...] | None, bool, dict[str, str]]] = [
    (SOFT, None, False, {
        "successive": "hebbian 0 unsup, hebbian 1 unsup, hebbian 2 unsup, backprop 3 sup",
        "consecutive": "hebbian 012 unsup, backprop 3 sup",
        "simultaneous": "joint 0123 sup"}),
    (BP, None, False, every("backprop 012 sup")),
    (BP, None, True, every("backprop 0 sup, backprop 1 sup, backprop 2 sup")),
    (SANDWICH, None, False, {
        "successive": "backprop 0 sup, hebbian 1 unsup, backprop 2 sup",
        "consecutive": "hebbian 1 unsup, backprop 02 sup",
        "simultaneous": "joint 012 sup"}),
    (LONG, None, False, {
        "successive": "backprop 01 sup, hebbian 2 unsup, backprop 34 sup",
        "consecutive": "hebbian 2 unsup, backprop 0134 sup",
        "simultaneous": "joint 01234 sup"}),
    (LABELS, None, False, {
        "successive": "hebbian 0 unsup, hebbian 1 unsup, hebbian 2 sup",
        "consecutive": "hebbian 01 unsup, hebbian 2 sup",
        "simultaneous": "hebbian 012 sup"}),
    # the random control: only the classifier learns, above normalised random features
    (SOFT, (3,), False, every("calibrate 012 unsup, backprop 3 sup")),
    (SOFT, (0,), False, {
        "successive": "hebbian 0 unsup, calibrate 12 unsup",
        "consecutive": "hebbian 0 unsup, calibrate 12 unsup",
        "simultaneous": "calibrate 12 unsup, hebbian 0 sup"}),
    (SOFT, (1, 3), False, {
        "successive": "calibrate 0 unsup, hebbian 1 unsup, calibrate 2 unsup, backprop 3 sup",
        "consecutive": "calibrate 0 unsup, hebbian 1 unsup, calibrate 2 unsup, backprop 3 sup",
        "simultaneous": "calibrate 02 unsup, joint 13 sup"}),
    (BP, (2,), False, every("calibrate 01 unsup, backprop 2 sup")),
    (LABELS, (2,), False, every("calibrate 01 unsup, hebbian 2 sup")),
    # without batch norm there is nothing to calibrate; bn_after counts as one
    (BARE, (2,), False, every("calibrate 1 unsup, backprop 2 sup")),
]  # fmt: skip


def config(network: str, mode: str, **changes: Any) -> RunConfig:
    """Return a run on CIFAR-10: one epoch of batches of 10 without labels, 50 of 64 with them."""
    unsup, sup = CATALOG.dataset("CIFAR10_1", "test"), CATALOG.dataset("CIFAR10_50", "test")
    return RunConfig(network=CATALOG.network(network), mode=mode, dataset_sup=sup, dataset_unsup=unsup, **changes)


def short(phases: tuple[Phase, ...]) -> str:
    """Write phases as in the table."""
    return ", ".join(f"{p.kind} {''.join(map(str, p.blocks))} {p.data}" for p in phases)


@pytest.mark.parametrize("mode", plan.MODES)
@pytest.mark.parametrize("row", PHASES, ids=[f"{row[0]} {row[1]} {row[2]}".replace(HEBB, "H") for row in PHASES])
def test_phases(row: tuple[str, tuple[int, ...] | None, bool, dict[str, str]], mode: str) -> None:
    network, blocks, blockwise, want = row
    run = config(network, mode, training_blocks=blocks, bp_blockwise=blockwise)
    assert short(plan.phases(run)) == want[mode]


@pytest.mark.parametrize("mode", plan.MODES)
@pytest.mark.parametrize(
    "network", [SOFT, BP, SANDWICH, LONG, LABELS], ids=["soft", "bp", "sandwich", "long", "labels"]
)
def test_laws_of_every_subset(network: str, mode: str) -> None:
    """Whatever learns, each block learns in one phase; a frozen one is calibrated, and only if it is normalised."""
    count = len(CATALOG.network(network).blocks)
    subsets = (s for size in range(1, count + 1) for s in itertools.combinations(range(count), size))
    for subset in subsets:
        run = config(network, mode, training_blocks=subset)
        found = plan.phases(run)
        learns = [i for p in found if p.kind != "calibrate" for i in p.blocks]
        calibrated = {i for p in found if p.kind == "calibrate" for i in p.blocks}
        assert sorted(learns) == list(subset)
        assert calibrated == {i for i, b in enumerate(run.network.blocks) if b.normalised} - set(subset)
        for phase in found:
            chosen = [run.network.blocks[i] for i in phase.blocks]
            unlabelled = mode != "simultaneous" and not any(block.supervised for block in chosen)
            assert phase.data == ("unsup" if phase.kind == "calibrate" or unlabelled else "sup")
            descends = phase.kind != "calibrate" and not all(block.learns_locally for block in chosen)
            assert (phase.lr is not None) == descends == (phase.kind in ("backprop", "joint"))


def test_blockwise_in_a_mixed_network() -> None:
    """Every BP block alone; the Hebbian one is where it was."""
    successive = plan.phases(config(LONG, "successive", bp_blockwise=True))
    assert short(successive) == "backprop 0 sup, backprop 1 sup, hebbian 2 unsup, backprop 3 sup, backprop 4 sup"
    consecutive = plan.phases(config(LONG, "consecutive", bp_blockwise=True))
    assert short(consecutive) == "hebbian 2 unsup, backprop 0 sup, backprop 1 sup, backprop 3 sup, backprop 4 sup"


@pytest.mark.parametrize("mode", plan.MODES)
def test_updates_and_schedule(mode: str) -> None:
    """Updates count whole batches (782 a supervised epoch); T = epochs * samples / batch is not rounded."""
    numbers = {
        "unsup": (1, 10, 10, 5000, 5000.0),
        "sup": (50, 64, 10, 50 * 782, 39062.5),
        "calibrate": (1, 10, 1, 0, 0.0),
    }
    for blocks in (None, (3,)):
        for p in plan.phases(config(SOFT, mode, training_blocks=blocks)):
            want = numbers["calibrate" if p.kind == "calibrate" else p.data]
            assert (p.epochs, p.batch_size, p.print_freq, p.updates, p.schedule) == want
            assert (p.lr, p.views) == (None if p.kind in ("hebbian", "calibrate") else 0.001, 1)


def test_validation_shortens_the_phases() -> None:
    run = config(SOFT, "consecutive")
    held = replace(run, dataset_sup=replace(run.dataset_sup, validation=0.2))
    hebbian, backprop = plan.phases(held)
    assert (hebbian.updates, backprop.updates, backprop.schedule) == (5000, 50 * 625, 31250.0)


def test_rate_of_the_optimiser() -> None:
    """The least lr_sup of the blocks that train together, unless the classifier names one."""
    run = config("BP-c8-k3-ls0.01:relu BP-ls0.002:flatten", "successive")
    assert [p.lr for p in plan.phases(run)] == [0.002]
    assert [p.lr for p in plan.phases(replace(run, bp_blockwise=True))] == [0.01, 0.002]
    assert [p.lr for p in plan.phases(replace(run, classifier=ClassifierSpec(lr=0.5)))] == [0.5]


def test_resumed_blocks_bring_their_statistics() -> None:
    run = config(SOFT, "successive", training_blocks=(3,), resume="all")
    assert short(plan.phases(run)) == "backprop 3 sup"
    top = config(SOFT, "successive", training_blocks=(0,), resume="without_classifier")
    assert short(plan.phases(top)) == "hebbian 0 unsup"
    fresh = config(f"{HEBB} BP:flatten:batchnorm1d", "successive", training_blocks=(0,), resume="without_classifier")
    assert short(plan.phases(fresh)) == "hebbian 0 unsup, calibrate 1 unsup"


@pytest.mark.parametrize("mode", plan.MODES)
def test_backprop_needs_a_class_at_the_end(mode: str) -> None:
    with pytest.raises(ConfigError, match=r"b1.*gives no class.*b0"):
        plan.phases(config(f"BP-c8-k3 {HEBB}", mode))


def test_unknown_mode() -> None:
    with pytest.raises(ConfigError, match=r"'succesive'.*'successive'"):
        plan.phases(config(SOFT, "succesive"))
