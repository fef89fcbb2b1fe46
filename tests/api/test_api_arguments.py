"""Wrong types of arguments are one clear error of the public functions, and numbers of numpy are numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hebb
from hebb.api.arguments import checked
from hebb.core.errors import ConfigError

PRESET = "2SoftHebbCnnDigits"


def train(**arguments: Any) -> Any:
    return hebb.train(**{"preset": PRESET, "data": "Digits"} | arguments)


def search(**arguments: Any) -> Any:
    return hebb.search(**{"preset": PRESET, "data": "Digits"} | arguments)


def network(**arguments: Any) -> Any:
    return hebb.network(**{"preset": PRESET, "input_shape": (1, 8, 8), "classes": 10} | arguments)


WRONG: list[tuple[Callable[..., Any], str, Any, str]] = [
    (train, "preset", ["Soft-c8", "BP"], "a text"),
    (train, "preset", None, "a text"),
    (train, "seed", "1", "a whole number"),
    (train, "seed", 1.0, "a whole number"),
    (train, "seed", True, "a whole number"),
    (train, "seed", None, "a whole number"),
    (train, "threads", "2", "a whole number"),
    (train, "overrides", ["b0.layer.lr=0.1"], "a dict"),
    (train, "overrides", {0: 1}, "a dict with texts as keys"),
    (train, "validation", "0.2", "a number"),
    (train, "device", 0, "a text"),
    (train, "plugins", 3, "a list of texts"),
    (train, "training_blocks", "1", "a list of whole numbers"),
    (train, "training_blocks", 1, "a list of whole numbers"),
    (train, "folder", 3, "a text or a path"),
    (train, "overwrite", "yes", "True or False"),
    (search, "seeds", 3, "a list of whole numbers"),
    (search, "seeds", "012", "a list of whole numbers"),
    (search, "seeds", [0.5], "a list of whole numbers"),
    (search, "space", ["b0.layer.lr"], "a dict"),
    (search, "metric", 3, "a text"),
    (search, "sampler", 3, "a text"),
    (search, "num_samples", "ten", "a whole number"),
    (search, "time_budget", [1], "a number or a text"),
    (network, "input_shape", 8, "a list of whole numbers"),
    (network, "input_shape", (1, 8.0, 8), "a list of whole numbers"),
    (network, "classes", "10", "a whole number"),
]


@pytest.mark.parametrize(("function", "name", "value", "noun"), WRONG)
def test_a_wrong_type_is_named_before_anything_is_done(
    function: Callable[..., Any], name: str, value: Any, noun: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        function(**{name: value})
    assert str(error.value).startswith(f"{name}: must be {noun}")
    assert repr(value) in str(error.value)
    assert not list(tmp_path.iterdir())


def test_layers_and_estimators_refuse_a_rule_and_a_preset_that_are_no_text() -> None:
    with pytest.raises(ConfigError, match="rule: must be a text, got 3"):
        hebb.HebbLinear(4, 3, rule=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="preset: must be a text, got 3"):
        hebb.HebbClassifier(preset=3).fit(np.zeros((10, 3)), np.arange(10) % 2)
    with pytest.raises(ConfigError, match="name: must be a text or a path, got 3"):
        hebb.load(3)  # type: ignore[arg-type]


@checked
def echo(seed: int, rate: float = 0.0, names: Iterable[str] = (), seeds: Iterable[int] = ()) -> tuple[Any, ...]:
    return seed, rate, names, seeds


def test_numbers_of_numpy_become_pythons_and_one_text_stands_for_a_list() -> None:
    seed, rate, names, seeds = echo(np.int64(3), np.float32(0.5), "linear", np.arange(3))
    assert (type(seed), type(rate), {type(one) for one in seeds}) == (int, float, {int})
    assert (seed, rate, names, seeds) == (3, 0.5, ("linear",), (0, 1, 2))
    assert echo(1, 2)[1] == 2


def test_an_unknown_argument_is_pythons_own_error() -> None:
    with pytest.raises(TypeError, match=r"echo\(\) got an unexpected keyword argument 'sed'"):
        echo(1, sed=3)  # type: ignore[call-arg]


def test_seeds_of_numpy_make_the_network_of_pythons_seed() -> None:
    first, second = network(seed=np.int64(5)), network(seed=5)
    for name, weights in first.state_dict().items():
        assert weights.equal(second.state_dict()[name]), name
