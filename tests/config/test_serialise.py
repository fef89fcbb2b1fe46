"""A run as JSON: the round trip loses nothing, and a config.json that is not one is answered by name.

Without it a `config.json` could lose a setting, and the repeated run would differ.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import json
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import random_specs
from conftest import ROOT
from hypothesis import given
from random_specs import SMALL

from hebb.config import catalog, overrides, serialise
from hebb.config.classifier import ClassifierSpec
from hebb.config.data_spec import DataSpec
from hebb.config.serialise import digest, run_from_json, to_json
from hebb.config.specs import ActivationSpec, BlockSpec, PoolSpec, RunConfig
from hebb.core.errors import ConfigError

CATALOG = catalog.load()
Path = tuple[str | int, ...]


def run(network: str = "4SoftHebbCnnCIFAR", **changes: Any) -> RunConfig:
    """Return a run on CIFAR-10."""
    sup, unsup = CATALOG.dataset("CIFAR10_1c3", "test"), CATALOG.dataset("CIFAR10_1", "test")
    spec = CATALOG.network(network)
    return RunConfig(network=spec, mode="successive", dataset_sup=sup, dataset_unsup=unsup, **changes)


FULL = run(training_blocks=(1, 3), classifier=ClassifierSpec(lr=0.01), seed=3)
JSON = to_json(FULL)


def paths(data: Any, path: Path = ()) -> Iterator[Path]:
    """List every key of nested JSON; of the blocks only b0, which has all parts, and the classifier b3."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield (*path, key)
            yield from paths(value, (*path, key))
    elif path == ("network", "blocks"):
        for i in (0, 3):
            yield from paths(data[i], (*path, i))


EVERY = list(paths(JSON))
PARENTS = list(dict.fromkeys(path[:-1] for path in EVERY))
NESTED = [path for path in EVERY if path in PARENTS or path[-1] in ("blocks", "activation", "pool")]
LEAVES = [path for path in EVERY if path not in NESTED]


def dotted(path: Path) -> str:
    """Write a path for a test's name."""
    return ".".join(map(str, path))


def edited(path: Path, edit: Callable[[Any, Any], None]) -> Any:
    """Return the JSON data after ``edit(parent, key)`` of the entry at ``path``."""
    data = copy.deepcopy(JSON)
    parent = data
    for key in path[:-1]:
        parent = parent[key]
    edit(parent, path[-1])
    return data


def refusal(data: Any) -> str:
    """Return the message with which the data are refused."""
    with pytest.raises(ConfigError) as caught:
        run_from_json(data, "config.json")
    message = str(caught.value)
    assert len(message.splitlines()) <= 3
    return message


def names_key(message: str, path: Path) -> bool:
    """Tell whether a message names the key at ``path``: ``operation``, ``class 10`` and ``--training-blocks`` do."""
    stems = {"operations": "operation", "classes": "class", "name": "activation", "parameter": "activation"}
    key = str(path[-1])
    return any(word in message.replace("-", "_") for word in (key, stems.get(key, key)))


# -- round trip ---------------------------------------------------------------------------------------------


def there_and_back(config: RunConfig) -> RunConfig:
    """Carry a run through the text of a config.json."""
    return run_from_json(json.loads(json.dumps(to_json(config))), "config.json")


@pytest.mark.parametrize("name", CATALOG.models)
def test_round_trip_of_presets(name: str) -> None:
    assert there_and_back(run(name)) == run(name)


@pytest.mark.parametrize("name", CATALOG.datasets)
def test_round_trip_of_datasets(name: str) -> None:
    config = dataclasses.replace(FULL, dataset_sup=CATALOG.datasets[name], dataset_unsup=CATALOG.datasets[name])
    assert there_and_back(config) == config


@SMALL
@given(random_specs.runs())
def test_round_trip_of_random_runs(config: RunConfig) -> None:
    again = there_and_back(config)
    assert again == config
    assert json.dumps(to_json(again)) == json.dumps(to_json(config))
    assert digest(again) == digest(config)


def test_every_field_is_in_the_json() -> None:
    """Nothing that decides the bits stays behind."""
    assert set(JSON) == {f.name for f in dataclasses.fields(RunConfig)}
    assert set(JSON["dataset_sup"]) == {f.name for f in dataclasses.fields(DataSpec)}
    assert set(JSON["classifier"]) == {f.name for f in dataclasses.fields(ClassifierSpec)}
    block = JSON["network"]["blocks"][0]
    assert set(block) == {f.name for f in dataclasses.fields(BlockSpec)}
    assert set(block["pool"]) == {f.name for f in dataclasses.fields(PoolSpec)}
    assert block["layer"] == {"method": "SoftKrotov", "arch": "CNN", **dict(FULL.network.blocks[0].layer.values)}
    assert JSON["training_blocks"] == [1, 3]
    assert JSON["dataset_sup"]["classes"] == [3]


def test_digest_tells_runs_apart() -> None:
    """Ten hexadecimal digits; another value anywhere gives others, unless its field is left out."""
    texts = ["seed=4", "split_seed=1", "b0.layer.lr=0.05", "b1.pool=none", "dataset_sup.epochs=2", "classifier.lr=0.1"]
    others = [overrides.apply(FULL, overrides.parse([text]), CATALOG) for text in texts]
    digests = {digest(config) for config in [FULL, *others]}
    assert len(digests) == len(texts) + 1
    assert all(re.fullmatch("[0-9a-f]{10}", found) for found in digests)
    assert digest(others[0], leave_out=("seed",)) == digest(FULL, leave_out=("seed",)) != digest(FULL)


# -- refusals -----------------------------------------------------------------------------------------------


LATER = {
    *(
        "stop",
        "pack",
        "compute_dtype",
        "compile",
        "tf32",
        "deterministic",
        "cuda_graphs",
        "probes",
        "probe_blocks",
        "probe_samples",
        "curve_points",
        "plugins",
        "settle",
        "affine_norm",
        "residual",
    ),
    *("held", "standardise", "deviations", "zoom", "view_area", "view_flip", "view_colour", "view_gray", "view_blur"),
    *("mirror", "zca_smoothing", "zca_pixels", "zca_test", "mirror_test"),
    *("loss", "optimiser", "momentum", "restart", "restart_growth", "decay", "decay_every", "decay_after"),
}
"""Keys that the first files lack."""


@pytest.mark.parametrize("parent", PARENTS, ids=dotted)
def test_missing_key(parent: Path) -> None:
    """Every key is wanted, at every depth: a default that changes one day must not change an old run.

    But for those that came later, whose absence says what was done before there was such a key.
    """
    silent = []
    for path in (path for path in EVERY if path[:-1] == parent and path[-1] not in LATER):
        try:
            run_from_json(edited(path, lambda data, key: data.pop(key)), "config.json")
        except ConfigError as error:
            if str(error).startswith("config.json") and str(path[-1]) in str(error):
                continue
        silent.append(path[-1])
    assert silent == []


def test_a_file_without_the_later_keys_is_the_run_of_then() -> None:
    """It has the digest of then, too: that of its keys and no others."""
    old = copy.deepcopy(JSON)
    for path in (path for path in EVERY if path[-1] in LATER and path[0] != "stop"):
        functools.reduce(operator.getitem, path[:-1], old).pop(path[-1], None)
    old["network"]["blocks"] = [_first_keys(block) for block in old["network"]["blocks"]]
    del old["stop"]
    config = run_from_json(old, "config.json")
    assert config == FULL
    told = hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()
    assert digest(config) == told[:10]


@pytest.mark.parametrize("name", ["2PCDigits", "2PCNudgeDigits"])
def test_a_network_that_settled_before_there_were_solvers(name: str) -> None:
    """Its file has no solver: its states descended, under the digest of then, and no difference is shown."""
    config = run(name)
    old = to_json(config)
    assert old["network"]["settle"].pop("solver") == "state"
    assert run_from_json(old, "config.json") == config
    told = hashlib.sha256(json.dumps(_first_keys(old), sort_keys=True).encode()).hexdigest()
    assert digest(config) == told[:10]
    assert serialise.complete(old) == to_json(config)
    other = overrides.apply(config, overrides.parse(["settle.solver=error"]), CATALOG)
    assert there_and_back(other) == other != config
    assert digest(other) != digest(config)


def _first_keys(data: Any) -> Any:
    """Return the data without the keys that the first files lack, but for the settings of the network."""
    if isinstance(data, list):
        return [_first_keys(item) for item in data]
    if not isinstance(data, dict):
        return data
    later = LATER - {"settle"}
    return {key: value if key == "settle" else _first_keys(value) for key, value in data.items() if key not in later}


def test_other_networks_that_settle_have_no_solver() -> None:
    data = to_json(run("2EPDigits"))
    assert "solver" not in data["network"]["settle"]
    assert serialise.complete(data) == data
    assert serialise.complete({**data, "network": {"settle": {"beta": 1}}})["network"]["settle"] == {"beta": 1}


def records() -> list[Any]:
    """List every run whose configuration is recorded."""
    root = ROOT / "records"
    found = {path: json.loads(path.read_text()) for path in sorted(root.glob("*/*config.json"))}
    return [pytest.param(data, id=f"{p.parent.name}/{p.name}") for p, data in found.items() if "network" in data]


@pytest.mark.parametrize("data", records())
def test_every_recorded_run_can_be_repeated(data: Any) -> None:
    known = {key: value for key, value in data.items() if key in JSON}
    config = run_from_json(known, "config.json")
    assert there_and_back(config) == config


@pytest.mark.parametrize("parent", PARENTS, ids=dotted)
def test_unknown_key(parent: Path) -> None:
    message = refusal(edited((*parent, "lerning_rate"), lambda data, key: data.update({key: 1})))
    assert "'lerning_rate'" in message
    assert message.startswith("config.json")


@pytest.mark.parametrize(("parent", "wrong", "near"), [((), "sed", "seed"), (("dataset_sup",), "epoch", "epochs")])
def test_unknown_key_names_the_nearest(parent: Path, wrong: str, near: str) -> None:
    message = refusal(edited((*parent, wrong), lambda data, key: data.update({key: 1})))
    assert f"'{wrong}'" in message
    assert f"'{near}'" in message


def wrong_values(value: Any) -> list[Any]:
    """Return values whose type is not that of ``value``."""
    if isinstance(value, bool):
        return ["maybe", 2, None]
    if isinstance(value, int):
        return ["many", 1.5, [1]]
    if isinstance(value, float):
        return ["much", [0.1], {}]
    if isinstance(value, str):
        return [5, ["a"], {}]
    if isinstance(value, list):
        return [5, "ab", ["a"], [None], {"a": 1}]
    return [["a"], {"a": 1}]  # optional, and absent here


@pytest.mark.parametrize("path", LEAVES, ids=dotted)
def test_wrong_type(path: Path) -> None:
    value: Any = JSON
    for key in path:
        value = value[key]
    for wrong in wrong_values(value):
        message = refusal(edited(path, lambda parent, key, new=wrong: parent.update({key: new})))
        assert names_key(message, path)


@pytest.mark.parametrize("path", NESTED, ids=dotted)
def test_not_an_object(path: Path) -> None:
    for wrong in (5, "text", [1]):
        message = refusal(edited(path, lambda parent, key, new=wrong: parent.update({key: new})))
        assert str(path[-1]) in message or path[-1] == "blocks"  # [1] is a list, and its first block is wrong


@pytest.mark.parametrize("data", [None, [], "text", 5])
def test_not_a_config(data: object) -> None:
    message = refusal(data)
    assert message.startswith("config.json")
    assert "object" in message


B0: Path = ("network", "blocks", 0)
NAN = float("nan")
RUN: list[tuple[str, object]] = [
    *(("seed", -1), ("threads", 0), ("device", "tpu"), ("feature_dtype", "float8"), ("resume", "some")),
    *(("training_blocks", []), ("training_blocks", [4])),
]
DATASET: list[tuple[str, object]] = [
    *(("dataset", "CIFAR11"), ("epochs", 0), ("classes", [10]), ("noise_std", -0.5), ("noise_std", NAN)),
    *(("validation", 1.0), ("split", "unlabeled")),
]
BLOCK: list[tuple[Any, ...]] = [
    *(("dropout", 1.0), ("dropout", NAN), ("operations", ["flaten"]), ("operations", ["flatten", "flatten"])),
    *(("activation", "name", "triangel"), ("activation", "parameter", -1.0), ("activation", "parameter", NAN)),
    *(("pool", "kind", "mean"), ("pool", "stride", 0), ("pool", "padding", 3), ("layer", "lr", -0.1)),
    *(("layer", "method", "Sofft"), ("layer", "arch", "RNN"), ("layer", "soft_activation_fn", "max")),
]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(((key,), value) for key, value in RUN),
        *((("dataset_sup", key), value) for key, value in DATASET),
        *((("classifier", key), value) for key, value in (("lr", 0.0), ("weight_decay", float("inf")))),
        *(((*B0, *keys), value) for *keys, value in BLOCK),
    ],
    ids=lambda part: dotted(part) if isinstance(part, tuple) else str(part),
)
def test_illegal_value(path: Path, value: object) -> None:
    """A value of the right type that a spec refuses; parts of a pool are named together, as ``pool 'max_4_0_1'``."""
    message = refusal(edited(path, lambda parent, key: parent.update({key: value})))
    assert names_key(message, path) or "pool" in path


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (("seed",), -1, "seed"),
        (("dataset_unsup", "epochs"), 0, "dataset_unsup"),
        ((*B0, "dropout"), 1.0, "b0"),
        ((*B0, "pool", "stride"), 0, "b0"),
    ],
    ids=["seed", "data", "block", "pool"],
)
def test_illegal_value_is_located(path: Path, value: object, place: str) -> None:
    """Which file, and which of its blocks or datasets."""
    message = refusal(edited(path, lambda parent, key: parent.update({key: value})))
    assert message.startswith("config.json")
    assert place in message.partition(": ")[0]


def specs() -> list[Any]:
    """List one spec of every kind."""
    block = FULL.network.blocks[0]
    return [FULL, FULL.network, block, block.layer, block.pool, block.activation, FULL.dataset_sup, FULL.classifier]


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: type(spec).__name__)
def test_specs_are_frozen(spec: Any) -> None:
    for entry in dataclasses.fields(spec):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(spec, entry.name, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.surprise = 1
    assert hash(spec) == hash(copy.deepcopy(spec))


def test_specs_are_made_by_keyword() -> None:
    for kind in (ActivationSpec, DataSpec):
        with pytest.raises(TypeError):
            kind("relu")  # type: ignore[misc]
