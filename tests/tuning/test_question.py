"""The question of a search, told from the search: expectations are sentences that a person would write.

Without it the report of any search could repeat the text of the config it began from.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import small

from hebb.config import catalog, search_space
from hebb.config.vocabulary import Goal
from hebb.tuning import question, trials
from hebb.tuning.search import Search

SHIPPED = "The same network on seeds 0 to 3."


def search(data: dict[str, object], *, name: str = "mine", metric: str = "test_acc", mode: str = "max") -> Search:
    """A search of the small CNN, as a config with this data makes it."""
    spec = search_space.parse({"seeds": [0, 1], **data}, name, "test")
    base = small.config(small.CNN, "dataset_sup.epochs=3")
    return trials.planned(
        Search(spec=spec, base=base, seeds=spec.seeds, metric=metric, mode=Goal(mode), folder=Path("x")), catalog.load()
    )


RATE = {"b0.layer.lr": {"grid": [0.05, 0.1]}}
QUESTIONS = [
    ({}, "max", f"What test accuracy (%) does {small.CNN} reach? One configuration, mean over seeds 0 1."),
    (
        {"space": RATE},
        "max",
        f"How does the test accuracy (%) of {small.CNN} depend on what is varied? Varied: b0.layer.lr (0.05, 0.1). "
        "2 configurations compared, mean over seeds 0 1.",
    ),
    (
        {"space": {**RATE, "b0.layer.radius": {"grid": [25]}}},
        "max",
        f"How does the test accuracy (%) of {small.CNN} depend on what is varied? Varied: b0.layer.lr (0.05, 0.1). "
        "Fixed: b0.layer.radius (25). 2 configurations compared, mean over seeds 0 1.",
    ),
    (
        {"space": {"b0.layer.radius": {"grid": [25]}}},
        "max",
        f"What test accuracy (%) does {small.CNN} reach? Fixed: b0.layer.radius (25). One configuration, "
        "mean over seeds 0 1.",
    ),
    (
        {"space": RATE, "search": {"algorithm": "optuna", "samples": 9}},
        "max",
        f"How does the test accuracy (%) of {small.CNN} depend on what is varied? Varied: b0.layer.lr (0.05, 0.1). "
        "9 configurations chosen by optuna (tpe), mean over seeds 0 1.",
    ),
    (
        {"space": RATE, "purpose": "search", "seeds": [7]},
        "min",
        f"Which values give {small.CNN} the least test accuracy (%)? Varied: b0.layer.lr (0.05, 0.1). "
        "2 configurations compared, seed 7.",
    ),
]


@pytest.mark.parametrize(("data", "mode", "text"), QUESTIONS)
def test_the_question_is_told_from_the_search(data: dict[str, object], mode: str, text: str) -> None:
    asked = search({"description": SHIPPED, **data}, mode=mode)
    assert question.of_search(asked, "test accuracy (%)") == text


@pytest.mark.parametrize(
    ("domain", "text"),
    [
        ({"b0.activation": {"grid": ["triangle", "repu_2"]}}, "b0.activation (triangle, repu_2)"),
        ({"b0.layer.lr": {"loguniform": [0.001, 0.1]}}, "b0.layer.lr from 0.001 to 0.1, uniform in the logarithm"),
        ({"b0.layer.lr": {"uniform": [0.5, 1]}}, "b0.layer.lr from 0.5 to 1"),
        ({"b0.layer.lr": {"quniform": [0, 1, 0.25]}}, "b0.layer.lr from 0 to 1 in steps of 0.25"),
        ({"b0.layer.radius": {"randint": [1, 9]}}, "b0.layer.radius from 1 to 8, whole numbers"),
        ({"b0.layer.lr": {"grid": [i / 100 for i in range(1, 13)]}}, "b0.layer.lr (12 values)"),
        ({"b0.layer.lr": {"geometric": {"base": 10, "from": -2, "to": -1}}}, "b0.layer.lr (0.01, 0.1)"),
        (
            {
                "size": {
                    "joint": [{"b0.layer.lr": 0.1, "b0.layer.radius": 2}, {"b0.layer.lr": 0.2, "b0.layer.radius": 3}]
                }
            },
            "b0.layer.lr with b0.layer.radius (0.1, 2; 0.2, 3)",
        ),
    ],
)
def test_domains(domain: dict[str, object], text: str) -> None:
    (axis,) = search_space.parse({"space": domain}, "mine", "test").axes
    assert question.domain(axis) == text


def test_a_domain_that_exists_in_part_says_where() -> None:
    space = {
        "b0.activation": {"choice": ["relu", "triangle"]},
        "b0.layer.lr": {"uniform": [0, 1], "when": {"b0.activation": "relu"}},
    }
    _, axis = search_space.parse({"space": space}, "mine", "test").axes
    assert question.domain(axis) == "b0.layer.lr from 0 to 1 where b0.activation is relu"


def test_the_data_are_those_of_the_phases() -> None:
    assert (
        question.data(search({}))
        == "200 images of Digits, 1 epoch (hebbian); 200 images of Digits, 3 epochs (backprop)"
    )
    held = search({})
    validated = replace(held.base.dataset_sup, validation=0.2)
    held = replace(held, base=replace(held.base, dataset_sup=validated))
    assert "160 images of Digits, 20 % held out, 3 epochs (backprop)" in question.data(held)


@pytest.mark.parametrize(
    ("data", "name", "text"),
    [
        ({"seeds": [0, 1, 2, 3], "description": SHIPPED}, "seed", SHIPPED),
        ({"seeds": [0, 1], "description": SHIPPED}, "seed", ""),
        ({"seeds": [0, 1, 2, 3], "description": SHIPPED, "space": RATE}, "seed", ""),
        ({"description": "Does the rate matter?", "space": RATE}, "mine", "Does the rate matter?"),
        (
            {"description": "Does the rate matter?", "space": RATE},
            "seed",
            "Does the rate matter?",
        ),  # a seed.yaml of one's own
    ],
)
def test_a_shipped_text_is_shown_only_while_it_is_true(data: dict[str, object], name: str, text: str) -> None:
    asked = search(data, name=name)
    assert question.description(asked.spec, asked.seeds) == text


@pytest.mark.parametrize("name", search_space.names())
def test_every_shipped_config_keeps_its_own_text(name: str) -> None:
    spec = search_space.load(name)
    placed = spec.on_block(1) if spec.has_placeholder() else spec
    assert question.description(placed, placed.seeds) == spec.description != ""
