"""Domains: their laws, their conditions, and what is refused; sampling by a search config.

Without it a search could sample from another distribution than the one written down.
"""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hebb.config import domains, search_space
from hebb.config.domains import Axis
from hebb.core.errors import ConfigError
from hebb.tuning import search_folder

DRAWN = {
    "uniform": [2.0, 5.0],
    "loguniform": [0.001, 10.0],
    "quniform": [0.5, 2.0, 0.25],
    "randint": [3, 9],
}


def parse(**data: Any) -> search_space.SearchSpec:
    return search_space.parse(data, "mine", "mine.yaml")


def axis(kind: str, body: Any, **more: Any) -> Axis:
    return domains.parse({"x": {kind: body, **more}}, "mine.yaml")[0]


@pytest.mark.parametrize(
    ("kind", "body", "plain"),
    [
        ("grid", (1, 2), [1, 2]),
        ("grid", range(3, 5), [3, 4]),
        ("choice", np.geomspace(0.1, 10, 3), [0.1, 1.0, 10.0]),
        ("grid", [np.int64(4), np.float32(0.5)], [4, 0.5]),
        ("joint", [{"a": np.int64(3), "b": np.float64(0.5)}, {"a": 5, "b": 1}], [{"a": 3, "b": 0.5}, {"a": 5, "b": 1}]),
        ("geometric", {"base": np.int64(2), "from": 0, "to": np.int64(3)}, {"base": 2, "from": 0, "to": 3}),
        ("uniform", np.array([0, 2]), [0, 2]),
        ("randint", (np.int64(3), 9), [3, 9]),
    ],
)
def test_a_domain_from_python_is_that_of_a_file(kind: str, body: Any, plain: Any) -> None:
    """Tuples, ranges, arrays and numbers of numpy mean the lists and numbers that a file can hold."""
    domain = axis(kind, body)
    assert domain == axis(kind, plain)
    assert json.loads(json.dumps(domain.options)) == list(domain.options)
    json.dumps([domain.low, domain.high])


# -- laws ---------------------------------------------------------------------------------------------------


def draws(kind: str, count: int = 4000) -> list[float]:
    made = axis(kind, DRAWN[kind])
    return [made.draw(0, i)["x"] for i in range(count)]


def test_uniform_draws_are_uniform() -> None:
    assert stats.kstest(draws("uniform"), stats.uniform(2, 3).cdf).pvalue > 1e-3


def test_loguniform_draws_are_uniform_in_the_logarithm() -> None:
    assert stats.kstest(draws("loguniform"), stats.loguniform(0.001, 10).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("kind", "values"),
    [("quniform", [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]), ("randint", [3, 4, 5, 6, 7, 8])],
)
def test_steps_are_equally_likely(kind: str, values: list[float]) -> None:
    """Both ends of quniform; randint stops below its high, as in NumPy and Ray."""
    found = draws(kind)
    assert sorted(set(found)) == values
    assert stats.chisquare([found.count(v) for v in values]).pvalue > 1e-3
    assert all(isinstance(v, int) for v in found) == (kind == "randint")


def test_choices_are_equally_likely() -> None:
    made = axis("choice", ["a", "b", "c"])
    found = [made.draw(3, i)["x"] for i in range(3000)]
    assert stats.chisquare([found.count(v) for v in "abc"]).pvalue > 1e-3


@given(st.sampled_from(sorted(DRAWN)), st.floats(0, 1, exclude_max=True))
def test_points_stay_within_the_bounds(kind: str, u: float) -> None:
    low, high = DRAWN[kind][:2]
    value = axis(kind, DRAWN[kind]).point(u)["x"]
    assert low <= value <= high
    assert kind != "randint" or value < high


def test_a_draw_depends_on_no_other_domain() -> None:
    """So a domain can be added to a search without changing what the others drew."""
    alone = parse(space={"b0.layer.lr": {"uniform": [0, 1]}}, search={"samples": 5})
    both = parse(space={"b1.layer.lr": {"uniform": [0, 1]}, "b0.layer.lr": {"uniform": [0, 1]}}, search={"samples": 5})
    assert [c["b0.layer.lr"] for c in both.configurations()] == [c["b0.layer.lr"] for c in alone.configurations()]
    assert all(c["b0.layer.lr"] != c["b1.layer.lr"] for c in both.configurations())


def test_more_samples_begin_with_the_same_ones() -> None:
    few, many, other = (
        parse(space={"x": {"loguniform": [1, 9]}}, search={"samples": n, "seed": seed}).configurations()
        for n, seed in ((4, 0), (9, 0), (4, 1))
    )
    assert many[:4] == few
    assert not {c["x"] for c in other} & {c["x"] for c in few}


def test_samples_are_distinct() -> None:
    spec = parse(space={"x": {"randint": [0, 6]}}, search={"samples": 6})
    assert sorted(c["x"] for c in spec.configurations()) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ConfigError, match="must have 7 points for as many samples, got about 6"):
        parse(space={"x": {"randint": [0, 6]}}, search={"samples": 7}).configurations()


# -- conditions ---------------------------------------------------------------------------------------------

BRANCHES = {
    "b0.method": {"choice": ["Hard", "Soft", "SoftKrotov"]},
    "b0.layer.t_invert": {"grid": [1, 2], "when": {"b0.method": ["Soft", "SoftKrotov"]}},
    "b0.layer.k": {"grid": [8, 9], "when": {"b0.method": "SoftKrotov", "b0.layer.t_invert": 2}},
}


def test_a_grid_with_branches() -> None:
    """By hand: Hard alone; Soft at two temperatures; SoftKrotov at one, and at the other with two values of k."""
    found = parse(space=BRANCHES, search={"algorithm": "grid"}).configurations()
    assert [tuple(choice.values()) for choice in found] == [
        ("Hard",),
        ("Soft", 1),
        ("Soft", 2),
        ("SoftKrotov", 1),
        ("SoftKrotov", 2, 8),
        ("SoftKrotov", 2, 9),
    ]


def test_drawn_branches() -> None:
    """Six points in all; a domain exists in a draw exactly where its condition holds."""
    found = parse(space=BRANCHES, search={"samples": 6}).configurations()
    assert len({tuple(choice.items()) for choice in found}) == 6
    for choice in found:
        assert ("b0.layer.t_invert" in choice) == (choice["b0.method"] != "Hard")
        assert ("b0.layer.k" in choice) == (choice["b0.method"] == "SoftKrotov" and choice["b0.layer.t_invert"] == 2)


# -- algorithms and schedulers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "algorithm"),
    [({"grid": [1]}, "grid"), ({"geometric": {"base": 2, "from": 0, "to": 1}}, "grid"), ({"choice": [1]}, "random")]
    + [({kind: body}, "random") for kind, body in DRAWN.items()],
)
def test_the_space_says_how_it_is_searched(domain: dict[str, Any], algorithm: str) -> None:
    assert parse(space={"x": domain}).plan.algorithm == algorithm


@pytest.mark.parametrize(
    ("stated", "changes", "sampler"),
    [
        ({"algorithm": "optuna"}, {}, "tpe"),
        ({"algorithm": "optuna"}, {"sampler": "gp"}, "gp"),
        ({"algorithm": "optuna", "sampler": "cmaes"}, {}, "cmaes"),
        ({"algorithm": "optuna", "sampler": "cmaes"}, {"algorithm": "random"}, None),  # it has no samplers
        ({"algorithm": "optuna", "sampler": "cmaes"}, {"algorithm": "optuna"}, "cmaes"),
        ({}, {"algorithm": "optuna", "sampler": "nsga2"}, "nsga2"),
        ({}, {}, None),
    ],
)
def test_a_sampler_belongs_to_optuna(stated: dict[str, Any], changes: dict[str, Any], sampler: str | None) -> None:
    data = search_space.changed({"space": UNIFORM, "search": stated}, changes)
    assert parse(**data).plan.sampler == sampler


@pytest.mark.parametrize(
    ("scheduler", "algorithm", "grouped"),
    [("none", "random", False), ("asha", "random", True), ("none", "optuna", True), ("median", "hyperopt", True)],
)
def test_seeds_go_together_where_trials_are_judged(scheduler: str, algorithm: str, grouped: bool) -> None:
    spec = parse(space={"x": {"choice": [1, 2]}}, search={"algorithm": algorithm}, scheduler=scheduler)
    assert spec.grouped == grouped


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("2d", 172800), (45, 45), (1.5, 1.5)]
)
def test_durations(text: Any, seconds: float) -> None:
    assert search_space.duration(text, "x") == seconds


UNIFORM = {"x": {"uniform": [0, 1]}}
WHEN = {"z": {"choice": [1]}, "y": {"uniform": [0, 1], "when": {"z": 1}}}
BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"space": {"x": {"unifrom": [0, 1]}}}, ["space x", "domain: unknown 'unifrom'", "'uniform'"]),
    *(
        ({"space": {"x": {kind: body}}}, [f"space x: {kind} must"])
        for kind, body in itertools.product(DRAWN, ([1], [2, 1], [1, 1], ["a", "b"], 3, None, [True, 2], [0, math.inf]))
    ),
    ({"space": {"x": {"loguniform": [0, 1]}}}, ["loguniform must have low", "got 0"]),
    (
        {"space": {"x": {"loguniform": ["1:30", 1.0]}}},
        ["space x: loguniform must be [low, high], numbers, got ['1:30', 1.0]"],
    ),
    ({"space": {"x": {"randint": [0.5, 2]}}}, ["randint must have whole numbers"]),
    ({"space": {"x": {"quniform": [0, 1, 2]}}}, ["quniform must have a step"]),
    ({"space": {"x": {"quniform": [0, 1, 0]}}}, ["quniform must have a step"]),
    ({"space": {"x": {"choice": [1], "when": {"y": 1}}}}, ["space x, when", "no domain before this one sets 'y'"]),
    ({"space": {"y": {"uniform": [0, 1]}, "x": {"choice": [1], "when": {"y": 1}}}}, ["y is a uniform", "listed"]),
    ({"space": {"mode": {"choice": ["on"]}, "x": {"choice": [1], "when": {"mode": "onn"}}}}, ["never onn", "'on'"]),
    *(
        ({"space": {"x": {"choice": [1], "when": when}}}, ["space x: ", "when", "must be"])
        for when in ({}, [], 3, {"y": []}, {"y": [[1]]})
    ),
    ({"search": {"algoritm": "grid"}}, ["search", "'algoritm'", "'algorithm'"]),
    ({"search": 3}, ["search: must be a mapping"]),
    ({"search": {"algorithm": "optna"}, "space": {"x": {"grid": [1]}}}, ["algorithm: unknown 'optna'", "'optuna'"]),
    ({"search": {"algorithm": "grid"}, "space": {"x": {"uniform": [0, 1]}}}, ["points of x, a uniform", "random"]),
    ({"search": {"algorithm": "optuna"}}, ["no space to draw from"]),
    *(
        ({"search": {"sampler": "tpe", **algorithm}, "space": {"x": {"grid": [1]}}}, ["search, sampler: needs", name])
        for name, algorithm in (("grid", {}), *((n, {"algorithm": n}) for n in ("grid", "random", "hyperopt")))
    ),
    ({"search": {"algorithm": "optuna", "sampler": "tpee"}, "space": UNIFORM}, ["search, sampler: unknown", "'tpe'"]),
    *(
        ({"search": {"algorithm": "optuna", "sampler": name}, "space": WHEN}, [f"{name} does not model y", "tpe does"])
        for name in ("gp", "cmaes", "nsga2")
    ),
    *(
        (
            {"search": {"algorithm": "optuna", "sampler": "cmaes"}, "space": {**UNIFORM, "y": domain}},
            ["cmaes models numbers alone, and y is a list"],
        )
        for domain in (
            {"grid": [1, 2]},
            {"choice": ["a", "b"]},
            {"geometric": {"base": 2, "from": 0, "to": 1}},
            {"joint": [{"a": 1}, {"a": 2}]},
        )
    ),
    ({"search": {"samples": 3}, "space": {"x": {"grid": [1]}}}, ["no distribution", "seeds"]),
    *(
        ({"search": {"samples": n}, "space": {"x": {"choice": [1]}}}, ["samples: must be a whole number >= 1"])
        for n in (0, -1, 1.5, "3", True)
    ),
    *(({"search": {"time": time}}, ["time", "1.5h"]) for time in ("soon", 0, -1, True, "3 weeks", "h", "7")),
    ({"search": {"trials": 0}}, ["trials: must be"]),
    ({"scheduler": "ahsa"}, ["scheduler: unknown 'ahsa'", "'asha'"]),
    ({"scheduler": 3}, ["scheduler"]),
    ({"scheduler": {"grace": 2}}, ["scheduler"]),
    ({"scheduler": {"name": "asha", "brackets": 2}}, ["'brackets'"]),
    ({"scheduler": {"name": "asha", "reduction": 1}}, ["reduction: must be"]),
    ({"scheduler": {"name": "none", "grace": 1}}, ["grace: needs scheduler asha, asha-promotion, median or hyperband"]),
    ({"scheduler": {"name": "median", "reduction": 2}}, ["reduction: must be left out"]),
    ({"scheduler": {"name": "hyperband", "grace": 2}}, ["grace: must be left out"]),
]


@pytest.mark.parametrize(("data", "parts"), BAD, ids=[str(data)[:70] for data, _ in BAD])
def test_malformed(data: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(**data)
    message = str(caught.value)
    assert message.startswith("mine.yaml")
    for part in parts:
        assert part in message
    assert len(message.splitlines()) <= 3


# -- numbers in quotes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "values"),
    [
        ({"grid": ["1e-3", 0.01, ".5"]}, [0.001, 0.01, 0.5]),
        ({"choice": ["3", "1_000", "none"]}, [3, 1000, "none"]),
        ({"geometric": {"base": "10", "from": "-1", "to": 0}}, [0.1, 1.0]),
    ],
)
def test_a_number_in_quotes_is_the_number(domain: dict[str, Any], values: list[Any]) -> None:
    """TensorBoard and tables would take the rates of one search for words and numbers."""
    read = [option["x"] for option in domains.parse({"x": domain}, "mine.yaml")[0].options]
    assert read == pytest.approx(values) if "geometric" in domain else read == values
    assert [type(value) for value in read] == [type(value) for value in values]


def test_bounds_and_conditions_in_quotes() -> None:
    assert (axis("loguniform", ["1e-3", "0.1"]).low, axis("randint", ["1e1", 20]).low) == (0.001, 10)
    spec = parse(space={"x": {"grid": ["1e-1", 2]}, "y": {"grid": [1], "when": {"x": "0.1"}}})
    assert spec.configurations() == [{"x": 0.1, "y": 1}, {"x": 2}]
    joint = parse(space={"z": {"joint": [{"a": "1e-3", "b": 1}, {"a": 0.1, "b": "2"}]}})
    assert joint.configurations() == [{"a": 0.001, "b": 1}, {"a": 0.1, "b": 2}]


# -- stored and extended ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", search_space.names())
def test_shipped_configs_survive_being_stored(name: str) -> None:
    spec = search_space.load(name)
    again = search_space.parse(search_folder.to_data(spec), name, "search.json")
    assert again.configurations() == spec.configurations()
    assert (again.seeds, again.purpose, again.validation) == (spec.seeds, spec.purpose, spec.validation)


def test_everything_survives_being_stored() -> None:
    made = {kind: {kind: body} for kind, body in DRAWN.items()}
    joint = {"j": {"joint": [{"a": 1, "b": None}, {"a": 2, "b": True}]}}
    spec = parse(
        seeds=[4, 2],
        purpose="search",
        space={**BRANCHES, **made, **joint},
        search={"algorithm": "optuna", "sampler": "random", "samples": 7, "seed": 3, "time": "2h", "trials": 5},
        scheduler={"name": "asha", "grace": 2, "reduction": 4},
        metric="val_loss",
        mode="min",
        validation=0.3,
    )
    assert search_space.parse(search_folder.to_data(spec), "mine", "search.json") == spec


def test_points_are_added_to_a_list() -> None:
    old, more = axis("grid", [1, 2]), axis("grid", [2, 3])
    assert [point["x"] for point in old.extended(more, "--space").options] == [1, 2, 3]
    for other in (axis("uniform", [0, 1]), domains.parse({"y": {"grid": [1]}}, "f")[0]):
        with pytest.raises(ConfigError, match="--space"):
            old.extended(other, "--space")
