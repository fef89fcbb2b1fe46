"""Objectives and constraints as users write them, and static costs by hand.

Without it a search could minimise an accuracy, or read a bound that the user did not write.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import small

from hebb.config import costs, objectives, search_space, shapes
from hebb.config.objectives import Constraint, Objective
from hebb.config.vocabulary import Goal
from hebb.core.errors import ConfigError
from hebb.tuning import search_folder

MAX, MIN = Goal.MAX, Goal.MIN


@pytest.mark.parametrize(
    ("metric", "mode", "expected"),
    [
        ("test_acc", None, [("test_acc", MAX)]),
        (["test_acc", "parameters"], None, [("test_acc", MAX), ("parameters", MIN)]),
        (["val_loss", "seconds", "R1"], None, [("val_loss", MIN), ("seconds", MIN), ("R1", MAX)]),
        (["convergence", "winner_entropy"], None, [("convergence", MIN), ("winner_entropy", MAX)]),
        (["test_acc", "parameters"], ["min", "max"], [("test_acc", MIN), ("parameters", MAX)]),
        ({"test_acc": "max", "synaptic_operations": "min"}, None, [("test_acc", MAX), ("synaptic_operations", MIN)]),
        ({"test_acc": None, "seconds": "max"}, None, [("test_acc", MAX), ("seconds", MAX)]),
    ],
)
def test_modes(metric: object, mode: object, expected: list[tuple[str, Goal]]) -> None:
    """Costs and losses are minimised and accuracies maximised, unless the user says otherwise."""
    assert objectives.objectives(metric, mode, "x") == tuple(Objective(*pair) for pair in expected)
    spec = search_space.parse({"metric": metric, "mode": mode}, "x", "x.yaml") if not isinstance(metric, str) else None
    assert spec is None or [(spec.metric, spec.mode), *((o.metric, o.mode) for o in spec.others)] == expected


@pytest.mark.parametrize(
    ("metric", "mode", "says"),
    [
        (["test_acc", "paramters"], None, "x, metric: unknown metric 'paramters' (did you mean 'parameters'?)"),
        (["test_acc", "test_acc"], None, "x, metric: names test_acc twice"),
        (["parameters", "test_acc"], None, "x, metric: must begin with what a run measures by epoch"),
        (["test_acc", "seconds"], "max", "x, mode: must be left out, or be one of max and min for each metric, got 1"),
        ({"test_acc": "max"}, "max", "x, mode: must be left out: x, metric has the mode of each"),
        ({"test_acc": "most", "seconds": "min"}, None, "x, mode: unknown 'most'"),
        ([], None, "x, metric: must name a metric, got none"),
        ({}, None, "x, metric: must name a metric, got none"),
    ],
)
def test_objectives_that_cannot_be(metric: object, mode: object, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        search_space.parse({"metric": metric, "mode": mode}, "x", "x")
    assert str(error.value).startswith(says)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, []),
        ({"parameters": "<= 300000"}, [("parameters", "<=", 3e5)]),
        ({"parameters": ["<= 3e5", "> 1_000"]}, [("parameters", "<=", 3e5), ("parameters", ">", 1000)]),
        (["val_acc >= 50", "seconds<60"], [("val_acc", ">=", 50), ("seconds", "<", 60)]),
        ("winner_entropy > 1.5", [("winner_entropy", ">", 1.5)]),
    ],
)
def test_constraints(data: object, expected: list[tuple[str, str, float]]) -> None:
    """They are written down as they are read."""
    bounds = objectives.constraints(data, "x")
    assert bounds == tuple(Constraint(*one) for one in expected)
    assert objectives.constraints([str(bound) for bound in bounds], "x") == bounds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("parameters", "x: must be a metric, one of <= >= < >, and a number, got 'parameters'"),
        ("parameters = 3", "x: must be a metric, one of <= >= < >, and a number, got 'parameters = 3'"),
        ("paramters <= 3", "x: unknown metric 'paramters' (did you mean 'parameters'?)"),
        ("parameters <= few", "x: the bound of parameters must be a number, got 'few'"),
        ("parameters <= nan", "x: the bound of parameters must be a number, got 'nan'"),
    ],
)
def test_constraints_that_cannot_be(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        objectives.constraints([text], "x")
    assert str(error.value).startswith(says)


@pytest.mark.parametrize("comparison", ["<=", ">=", "<", ">"])
@pytest.mark.parametrize("value", [-1.0, 0.0, 4.999, 5.0, 5.001, 1e12, math.nan, None])
def test_the_excess_is_positive_where_a_bound_is_broken(comparison: str, value: float | None) -> None:
    """What a model learns of a point agrees with what the table says of it."""
    bound = Constraint("seconds", comparison, 5.0)
    assert (bound.excess(value) <= 0) == bound.holds(value)


def test_the_data_of_a_search_reads_back() -> None:
    """A search that is continued has the objectives and bounds that it was begun with."""
    data: dict[str, Any] = {"metric": {"val_acc": "max", "seconds": "min"}, "constraints": {"parameters": "<= 5"}}
    spec = search_space.parse(data, "x", "x")
    assert search_space.parse(search_folder.to_data(spec), "x", "x") == spec
    assert "constraints" not in search_folder.to_data(search_space.parse({"metric": "val_acc"}, "x", "x"))


def test_static_costs_by_hand() -> None:
    """A 3x3 convolution of 1 channel over padded maps of 8x8, pooled to 4x4, then a classifier of 10 classes."""
    base = small.config("SoftKrotov-c6-k3-p1-lr0.05-lp0.5-t1:triangle:avg_2_2_0 BP:flatten")
    convolution, classifier = 6 * 9 * 64, 6 * 16 * 10
    assert costs.static(base) == {
        "parameters": 6 * 9 + 96 * 10 + (10 if base.network.blocks[1].layer.add_bias else 0),
        "multiply_accumulates": convolution + classifier,
        "synaptic_operations": convolution + classifier,
        "images_seen": 200 + 200,  # one Hebbian epoch, one of the classifier
    }


def test_an_image_is_seen_once_for_each_view_that_is_compared() -> None:
    pairs = small.config("LPL-c6-k3-p1:bn:relu:avg_2_2_0:warmup=0 BP:flatten", "dataset_unsup.epochs=3")
    assert costs.static(pairs)["images_seen"] == 3 * 200 * 2 + 200


def test_a_block_that_does_not_learn_has_no_plastic_operations() -> None:
    base = small.config("SoftKrotov-c6-k3-p1-lr0.05-lp0.5-t1:triangle:avg_2_2_0 BP:flatten")
    frozen = costs.static(replace(base, training_blocks=(1,)))
    assert frozen["synaptic_operations"] == shapes.of_run(base)[1].multiply_accumulates
    assert frozen["multiply_accumulates"] == costs.static(base)["multiply_accumulates"]


@pytest.mark.parametrize(
    ("rule", "matrices"),
    [
        ("EP", 64 * 5 + 5 * 10),
        ("CSM", 64 * 5 + 5 * 10 + 5 * 5),  # lateral weights in the hidden layer
        ("CorInfoMax", 64 * 5 + 5 * 10 + 10 * 5 + 5 * 5 + 10 * 10),  # feedback weights, lateral ones in both layers
    ],
)
def test_a_settling_network_counts_every_stored_matrix(rule: str, matrices: int) -> None:
    run = small.config(f"{rule}-c5:flatten {rule}", mode="simultaneous")
    assert costs.static(run)["synaptic_operations"] == matrices
