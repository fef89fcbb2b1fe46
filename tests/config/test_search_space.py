"""Search configs: the shipped ones give the published trials, and every malformed one is answered once, clearly.

Without it a search file could train fewer or other trials than it lists.
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from hebb.config import catalog, objectives, overrides, search_space, shapes
from hebb.config.specs import RunConfig
from hebb.core import documents
from hebb.core.errors import ConfigError

CATALOG = catalog.load()
TRIALS = {"seed": 4, "one_seed": 1, "radius": 81, "regimes": 600, "lpl_ablations": 12}
SEARCHES = ("1", "2", "3a", "3b")


def power(exponent: int) -> float:
    """Return 1.25 to a whole power from exact arithmetic."""
    return float(Fraction(5, 4) ** exponent)


def parse(**data: Any) -> search_space.SearchSpec:
    """Check the data of a config.yaml."""
    return search_space.parse(data, "mine", "mine.yaml")


def run(preset: str, sup: str, unsup: str) -> RunConfig:
    """Return the run that a search changes."""
    datasets = {"dataset_sup": CATALOG.dataset(sup, "test"), "dataset_unsup": CATALOG.dataset(unsup, "test")}
    return RunConfig(network=CATALOG.network(preset), mode="successive", **datasets)


# -- shipped configs ----------------------------------------------------------------------------------------


def test_names() -> None:
    assert set(search_space.names()) >= set(TRIALS)


@pytest.mark.parametrize("name", search_space.names())
def test_every_config_explains_itself(name: str) -> None:
    spec = search_space.load(name)
    assert spec.name == name
    assert len(spec.description) > 10
    assert spec.command.startswith("python ray_search.py --preset ")
    arguments = spec.command.split()
    preset = arguments[arguments.index("--preset") + 1]
    assert CATALOG.network(preset).name == preset
    for flag in ("--dataset-sup", "--dataset-unsup"):
        assert arguments[arguments.index(flag) + 1] in CATALOG.datasets
    assert name == "seed" or arguments[arguments.index("--config") + 1] == name


@pytest.mark.parametrize("name", TRIALS)
def test_number_of_trials(name: str) -> None:
    spec = search_space.load(name)
    assert len(spec.configurations()) * len(spec.seeds) == TRIALS[name]
    assert (spec.purpose, spec.metric, spec.mode) == ("sweep", None, None)


def test_seeds() -> None:
    assert search_space.load("seed").seeds == (0, 1, 2, 3)
    assert search_space.load("one_seed").seeds == (0,)
    assert search_space.load("radius").seeds == search_space.load("regimes").seeds == (0, 1, 2)
    for name in ("seed", "one_seed"):
        assert search_space.load(name).configurations() == [{}]


def test_radius() -> None:
    """27 radii 1.25^-10 ... 1.25^16 of the first block: 0.107 to 35.5."""
    radii = [choice["b0.layer.radius"] for choice in search_space.load("radius").configurations()]
    assert all(set(choice) == {"b0.layer.radius"} for choice in search_space.load("radius").configurations())
    assert radii == pytest.approx([power(k) for k in range(-10, 17)], rel=1e-12)
    assert (round(radii[0], 3), round(radii[-1], 1)) == (0.107, 35.5)


def test_regimes() -> None:
    """100 inverse temperatures 1.25^-50 ... 1.25^49 with each of the two rules."""
    choices = search_space.load("regimes").configurations()
    assert all(set(choice) == {"b*.method", "b*.layer.t_invert"} for choice in choices)
    for method in ("Soft", "SoftKrotov"):
        found = sorted(c["b*.layer.t_invert"] for c in choices if c["b*.method"] == method)
        assert found == pytest.approx([power(k) for k in range(-50, 50)], rel=1e-12)


def test_configurations_become_runs() -> None:
    """Each point is a set of overrides: rule and temperature of every Hebbian block, the rest as it was."""
    before = run("4SoftHebbCnnCIFAR", "CIFAR10_50", "CIFAR10_1")
    choices = search_space.load("regimes").configurations()
    made = [overrides.apply(before, choice, CATALOG) for choice in choices]
    assert len(set(made)) == 200
    for config, choice in zip(made, choices, strict=True):
        *hebbian, classifier = config.network.blocks
        assert {b.layer.method for b in hebbian} == {choice["b*.method"]}
        assert {b.layer.t_invert for b in hebbian} == {choice["b*.layer.t_invert"]}
        assert [b.layer.lr for b in hebbian] == [0.08, 0.005, 0.01]
        assert classifier == before.network.blocks[-1]


@pytest.mark.parametrize("name", SEARCHES)
def test_layer_searches(name: str) -> None:
    """Three seeds, 20 % validation, at most sixty points, and every point fits the three layers of the largest net."""
    spec = search_space.load(name)
    assert (spec.purpose, spec.seeds, spec.validation) == ("search", (0, 1, 2), 0.2)
    assert 1 < len(spec.configurations()) <= 60
    assert all(path.startswith("bX.") for path in spec.paths())
    before = run("4SoftHebbCnnCIFAR", "CIFAR10_50", "CIFAR10_1")
    for block in range(3):
        made = [overrides.apply(before, choice, CATALOG) for choice in spec.on_block(block).configurations()]
        assert len(set(made)) == len(made)
        for config in made:
            changed = [i for i in range(4) if config.network.blocks[i] != before.network.blocks[i]]
            assert changed in ([], [block])
            shapes.of_run(config)


def test_kernels_of_search_2_keep_the_map() -> None:
    """Padding (k-1)/2 keeps 32 pixels, and every pool leaves 16 of them."""
    before = run("2SoftHebbCnnCIFAR", "CIFAR10_50", "CIFAR10_1")
    made = [overrides.apply(before, c, CATALOG) for c in search_space.load("2").on_block(0).configurations()]
    assert {(c.network.blocks[0].layer.kernel_size, c.network.blocks[0].layer.padding) for c in made} == {
        (3, 1),
        (5, 2),
        (7, 3),
    }
    found = {(shapes.of_run(c)[0].layer_out[1:], shapes.of_run(c)[0].out[1:]) for c in made}
    assert found == {((32, 32), (16, 16))}


# -- domains ------------------------------------------------------------------------------------------------


def test_grid_and_geometric() -> None:
    spec = parse(
        seeds=[5, 2],
        purpose="search",
        metric="val_acc",
        mode="max",
        space={
            "b0.pool": {"grid": ["max_2_2_0", None]},
            "b*.layer.lr": {"geometric": {"base": 10, "from": -2, "to": 0}},
        },
    )
    want = [(pool, rate) for pool in ("max_2_2_0", None) for rate in (0.01, 0.1, 1.0)]
    found = [(choice["b0.pool"], choice["b*.layer.lr"]) for choice in spec.configurations()]
    assert [pool for pool, _ in found] == [pool for pool, _ in want]
    assert [rate for _, rate in found] == pytest.approx([rate for _, rate in want])
    assert (spec.seeds, spec.purpose, spec.metric, spec.mode) == ((5, 2), "search", "val_acc", "max")


def test_geometric_goes_down_with_a_base_below_one() -> None:
    spec = parse(space={"b0.layer.lr": {"geometric": {"base": 0.5, "from": 0, "to": 3}}})
    assert [choice["b0.layer.lr"] for choice in spec.configurations()] == [1, 0.5, 0.25, 0.125]


def test_an_empty_config_is_one_run() -> None:
    spec = parse()
    assert (spec.configurations(), spec.seeds, spec.purpose) == ([{}], (0,), "sweep")


def test_joint_values_change_together() -> None:
    kernels = [{"bX.layer.kernel_size": 3, "bX.layer.padding": 1}, {"bX.layer.kernel_size": 5, "bX.layer.padding": 2}]
    spec = parse(space={"kernel": {"joint": kernels}, "b0.layer.lr": {"grid": [0.1, 0.2]}})
    assert spec.configurations() == [{**kernel, "b0.layer.lr": rate} for kernel in kernels for rate in (0.1, 0.2)]
    assert spec.paths() == ["bX.layer.kernel_size", "bX.layer.padding", "b0.layer.lr"]


def test_the_open_block_becomes_the_searched_one() -> None:
    spec = parse(space={"bX.layer.lr": {"grid": [0.1]}, "b0.pool": {"grid": ["max_2_2_0"]}})
    assert spec.has_placeholder()
    assert spec.on_block(2).configurations() == [{"b2.layer.lr": 0.1, "b0.pool": "max_2_2_0"}]
    assert not spec.on_block(2).has_placeholder()
    assert not parse(space={"b*.layer.lr": {"grid": [0.1]}}).has_placeholder()


def test_the_open_block_may_not_meet_a_named_one() -> None:
    spec = parse(space={"bX.layer.lr": {"grid": [0.1]}, "b1.layer.lr": {"grid": [0.2]}})
    with pytest.raises(ConfigError, match=r"two domains set b1\.layer\.lr"):
        spec.on_block(1)


def test_validation_share() -> None:
    """A search holds out a fifth, a sweep nothing, unless the file says otherwise."""
    assert parse(purpose="search").validation == 0.2
    assert parse().validation == 0
    assert parse(validation=0.1).validation == parse(purpose="search", validation=0.1).validation == 0.1


@pytest.mark.parametrize("metric", search_space.METRICS)
def test_which_way_is_better(metric: str) -> None:
    """Losses and the distance of the radii from 1 are to be small, accuracies and the count of radii at 1 large."""
    assert objectives.better(metric) == ("max" if metric.endswith("_acc") or metric == "R1" else "min")


# -- refusals -----------------------------------------------------------------------------------------------


def domain(**body: Any) -> dict[str, Any]:
    """Return a config with one domain."""
    return {"space": {"b0.layer.lr": body}}


def geometric(**body: Any) -> dict[str, Any]:
    """Return a config with one geometric domain, valid but for ``body``; None removes a key."""
    whole = {"base": 1.25, "from": 0, "to": 3} | {key.rstrip("_"): value for key, value in body.items()}
    return domain(geometric={key: value for key, value in whole.items() if value is not None})


def joint(*choices: Any) -> dict[str, Any]:
    """Return a config with one joint domain."""
    return {"space": {"kernel": {"joint": list(choices)}}}


BAD: list[tuple[Any, list[str]]] = [
    (None, ["must be a mapping"]),
    ([1, 2], ["must be a mapping"]),
    ("seeds", ["must be a mapping"]),
    ({"seed": [0]}, ["unknown key 'seed'", "'seeds'"]),
    ({"spaces": {}}, ["unknown key 'spaces'", "'space'"]),
    ({7: 1}, ["unknown key '7'"]),
    ({"purpose": "serach"}, ["purpose: unknown 'serach'", "'search'"]),
    ({"purpose": None}, ["purpose"]),
    ({"metric": "test_ac"}, ["metric: unknown 'test_ac'", "'test_acc'"]),
    ({"mode": "maximum"}, ["mode: unknown 'maximum'", "max min"]),
    *(
        ({"seeds": seeds}, ["seeds: must be"])
        for seeds in ([], None, 3, "0", [-1], [0, 0], [0.5], [True], ["0"], {0: 1})
    ),
    ({"space": "b0.layer.lr"}, ["space: must be a mapping"]),
    ({"space": ["b0.layer.lr"]}, ["space: must be a mapping"]),
    *(({"space": {"b0.layer.lr": value}}, ["b0.layer.lr", "grid"]) for value in (0.1, [0.1, 0.2], None, {}, "grid")),
    (domain(grid=[1], geometric={}), ["b0.layer.lr", "one domain"]),
    ({**domain(), "space": {"b0.batch_norm": [True, False]}}, ["one domain", "write {grid: [true, false]}"]),
    (domain(gird=[1]), ["b0.layer.lr", "domain: unknown 'gird'", "'grid'"]),
    *((domain(grid=body), ["b0.layer.lr: grid must be"]) for body in ([], None, 3, "0.1", {"a": 1})),
    (domain(grid=[0.1, [0.2]]), ["b0.layer.lr", "grid"]),
    (domain(grid=[{"a": 1}]), ["b0.layer.lr", "grid"]),
    (domain(grid=[0.1, 0.2, 0.1]), ["b0.layer.lr", "given twice"]),
    *((domain(geometric=body), ["b0.layer.lr: geometric must have"]) for body in (None, 3, [1.25, 0, 3], {})),
    *((geometric(**{key: None}), ["b0.layer.lr", "base, from and to"]) for key in ("base", "from_", "to")),
    (geometric(by=2), ["b0.layer.lr", "base, from and to"]),
    *((geometric(base=b), ["b0.layer.lr", "base"]) for b in (0, -2, 1, "two", True, math.inf, math.nan)),
    *((geometric(from_=f), ["b0.layer.lr", "exponents"]) for f in (4, 0.5, "none", False, -math.inf, math.nan)),
    (geometric(base=10, to=400), ["b0.layer.lr", "geometric"]),
    *(
        (joint(*body), ["kernel", "joint must be a list of mappings"])
        for body in ([], [1], [{}], [{"b0.pool": 1}, "x"])
    ),
    (joint({"b0.pool": "max_2_2_0"}, {"b0.layer.lr": 1}), ["kernel", "must set b0.pool, got b0.layer.lr"]),
    (joint({"b0.pool": ["max_2_2_0"]}), ["kernel", "words or numbers"]),
    (joint({"b0.pool": "x"}, {"b0.pool": "x"}), ["kernel", "given twice"]),
    (domain(joint={"b0.layer.lr": 1}), ["b0.layer.lr", "joint must be a list"]),
    ({"space": {"b0.pool": {"grid": ["a"]}, "x": {"joint": [{"b0.pool": "b"}]}}}, ["two domains", "b0.pool"]),
    ({"space": {"seed": {"grid": [5]}}}, ["seed cannot be", "'seeds'"]),
    *(
        ({"validation": share}, ["validation: must be", "0.2"])
        for share in (1, -0.1, "0.2", True, None, math.nan, [0.2])
    ),
]


@pytest.mark.parametrize(("data", "parts"), BAD, ids=[str(data)[:60] for data, _ in BAD])
def test_malformed(data: Any, parts: list[str]) -> None:
    """The message names the file, the path, what is wrong, and the nearest legal choice, in three lines at most."""
    with pytest.raises(ConfigError) as caught:
        search_space.parse(data, "mine", "mine.yaml")
    message = str(caught.value)
    assert message.startswith("mine.yaml")
    for part in parts:
        assert part in message
    assert len(message.splitlines()) <= 3


def test_unknown_name() -> None:
    with pytest.raises(ConfigError) as caught:
        search_space.load("regime")
    assert "unknown search config 'regime'" in str(caught.value)
    assert "'regimes'" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("seeds: [1, 2]\nspace:\n  b0.layer.lr: {grid: [0.1, 0.2]}\n", encoding="utf-8")
    spec = search_space.load(str(file))
    assert (spec.name, spec.seeds) == ("mine", (1, 2))
    assert spec.configurations() == [{"b0.layer.lr": 0.1}, {"b0.layer.lr": 0.2}]


@pytest.mark.parametrize(
    "content",
    [b"seeds: [0", b"seeds: !!python/object/apply:os.getcwd []", b"a: b: c", b"\xff\xfe\x00", b"- 1\n- 2\n", b""],
    ids=["open list", "python object", "two colons", "not text", "a list", "empty"],
)
def test_broken_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        search_space.load(str(file))
    assert str(file) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("name", ["absent.yaml", "absent.yml"])
def test_absent_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"no such file '.*{name}'"):
        search_space.load(str(tmp_path / name))
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match="is a folder, must be a YAML file"):
        search_space.load(str(tmp_path / name))


def test_a_key_twice_is_not_dropped_in_silence(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("seeds: [0]\nseeds: [1, 2]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="seeds"):
        search_space.load(str(file))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "own.yaml, line 3: is not YAML: expected ',' or ']', but got ':'"),
        ("a: 1\nb: 2\na: 3\n", "own.yaml, line 3: key 'a' is given twice"),
    ],
)
def test_yaml_errors_name_the_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        documents.read_yaml(path)
    assert str(raised.value) == f"{tmp_path}/{says}"
