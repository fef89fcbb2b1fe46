"""From a search config to its list of trials, its winner and the runs after it; without Ray.

Without it the wrong configuration could be called the winner.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pandas as pd
import pytest
import small
from conftest import ROOT

from hebb.cli import search as ray_search
from hebb.config import catalog, domains, overrides, search_space
from hebb.config.specs import RunConfig
from hebb.core.errors import ConfigError
from hebb.storage import folders
from hebb.tuning import request, results, search_folder, stages, trials
from hebb.tuning.request import SearchRequest
from hebb.tuning.search import Search
from hebb.tuning.search_settings import SearchSettings

CATALOG = catalog.load()
DEEP = "--preset 3SoftHebbCnnDigits --dataset-unsup Digits_1 --dataset-sup Digits"


def resolve(line: str, tmp_path: Path, text: str = "") -> Search:
    """Resolve a command; ``text`` is the content of the search config ``mine.yaml``."""
    (tmp_path / "mine.yaml").write_text(text)
    words = shlex.split(f"{line} --data-dir {tmp_path}".replace("mine.yaml", str(tmp_path / "mine.yaml")))
    return ray_search.resolve(ray_search.parser().parse(words), CATALOG)


def refused(line: str, tmp_path: Path, *says: str, text: str = "") -> None:
    with pytest.raises(ConfigError) as error:
        resolve(line, tmp_path, text)
    message = str(error.value)
    assert len(message.splitlines()) <= 3
    for part in says:
        assert part in message


RATES = "purpose: search\nseeds: [3, 5]\nspace: {bX.layer.lr: {grid: [0.1, 0.2]}}\n"


@pytest.mark.parametrize(
    ("flags", "shared"),
    [
        ("", True),
        ("--metric val_acc multiply_accumulates", True),
        ("--metric val_acc seconds", False),
        ("--metric val_acc peak_memory", False),
        ("--constraint 'seconds < 60'", False),
    ],
)
def test_trials_that_are_judged_by_their_cost_pay_for_all_blocks(flags: str, shared: bool, tmp_path: Path) -> None:
    search = resolve(f"{DEEP} --config mine.yaml {flags}", tmp_path, RATES)
    task = stages._task(search, SearchSettings(home=folders.Home(tmp_path)), Mock(load=None, sharing=1))
    assert (task.place.shared_blocks is not None) == shared


# -- packs --------------------------------------------------------------------------------------------------


def test_seeds_in_packs(tmp_path: Path) -> None:
    """Seeds 3, 5, 7, 9, 11 in twos, for both rates: a pack never crosses configurations, one seed is by itself."""
    text = RATES.replace("[3, 5]", "[3, 5, 7, 9, 11]")
    search = resolve(f"{DEEP} --config mine.yaml --pack-seeds 2 --seed 1", tmp_path, text)
    groups = search.groups()
    assert [[trial.config.seed for trial in group.runs] for group in groups] == [[4, 6], [8, 10], [12]] * 2
    assert len({group.name for group in groups}) == 6
    for group in groups:
        assert {trial.config.pack for trial in group.runs} == {((4, 6), (8, 10), ())[groups.index(group) % 3]}
        assert len({trial.label for trial in group.runs}) == 1
    alone = resolve(f"{DEEP} --config mine.yaml --seed 1", tmp_path, text)
    assert [trial.name for trial in alone.trials] == [trial.name for trial in search.trials]
    stop = text.replace("bX.layer.lr: {grid: [0.1, 0.2]}", "stop.patience: {grid: [1]}")
    refused(f"{DEEP} --config mine.yaml --pack-seeds 2", tmp_path, "--pack-seeds", "at different epochs", text=stop)


# -- the searched block -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flag", "block"), [("", 0), ("--search-block 0", 0), ("--search-block 1", 1)])
def test_searched_block(flag: str, block: int, tmp_path: Path) -> None:
    search = resolve(f"{DEEP} --config mine.yaml {flag}", tmp_path, RATES)
    for trial, rate in zip(search.trials, (0.1, 0.1, 0.2, 0.2), strict=True):
        assert trial.choice == {f"b{block}.layer.lr": rate}
        assert trial.config.network.blocks[block].layer.lr == rate


def test_blocks_that_cannot_be_searched(tmp_path: Path) -> None:
    refused(f"{DEEP} --config 1 --search-block 7", tmp_path, "--search-block", "blocks 0 to 2", "legal: 0 1 2")
    refused(f"{DEEP} --config 1 --search-block -1", tmp_path, "--search-block", "-1", "blocks 0 to 2")
    refused(f"{DEEP} --config 1 --search-block 2", tmp_path, "search config '1', b2.layer.lr", "BP on MLP has no 'lr'")
    refused(f"{DEEP} --config 2 --search-block 2", tmp_path, "b2.layer.kernel_size", "BP on MLP")
    refused(f"{DEEP} --config 3a --search-block 2", tmp_path, "--search-block", "2 is the classifier")
    refused(f"{DEEP} --config radius --search-block 0", tmp_path, "--search-block", "'radius' names its blocks itself")


def test_a_configuration_that_does_not_fit_is_named(tmp_path: Path) -> None:
    kernels = "space: {bX.layer.kernel_size: {grid: [3, 13]}}\n"
    refused(f"{DEEP} --config mine.yaml", tmp_path, "search config 'mine'", "b0.layer.kernel_size=13", text=kernels)


# -- what is compared ---------------------------------------------------------------------------------------


def test_a_search_holds_out_and_compares_validation_images(tmp_path: Path) -> None:
    """1,438 Digits images: 287 are held out of each dataset."""
    search = resolve(f"{DEEP} --config mine.yaml", tmp_path, RATES)
    assert (search.metric, search.mode) == ("val_acc", "max")
    run = search.trials[0].config
    assert (run.dataset_sup.train_samples(), run.dataset_unsup.train_samples()) == (1151, 1151)


@pytest.mark.parametrize(
    ("flags", "validation"),
    [
        ("", (0.25, 0.25)),
        ("--validation-unsup false", (0.25, 0)),
        ("--validation-sup true", (0.25, 0.25)),
        ("--set dataset_sup.validation=0.1", (0.1, 0.25)),
        ("--validation-sup false --metric test_acc", (0, 0.25)),
    ],
)
def test_flags_win_over_the_share_of_the_file(flags: str, validation: tuple[float, float], tmp_path: Path) -> None:
    search = resolve(f"{DEEP} --config mine.yaml {flags}", tmp_path, RATES + "validation: 0.25\n")
    run = search.trials[0].config
    assert (run.dataset_sup.validation, run.dataset_unsup.validation) == validation


def test_the_test_set_selects_only_when_told_so(tmp_path: Path) -> None:
    way = "--validation-sup false --metric test_acc"
    refused(f"{DEEP} --config 1 --validation-sup false", tmp_path, "--metric", "no val_acc", "--metric test_acc")
    refused(f"{DEEP} --config 1 --metric test_acc", tmp_path, "--metric", way)
    refused(f"{DEEP} --config 1 --metric test_loss", tmp_path, "--metric", way)
    assert resolve(f"{DEEP} --config 1 {way}", tmp_path).metric == "test_acc"


@pytest.mark.parametrize(
    ("text", "flag", "metric", "mode"),
    [
        ("", "", "val_acc", "max"),
        ("metric: val_loss\n", "", "val_loss", "min"),
        ("metric: R1\nmode: min\n", "", "R1", "min"),
        ("metric: R1\nmode: min\n", "--metric train_acc", "train_acc", "max"),
        ("mode: min\n", "", "val_acc", "min"),
    ],
)
def test_metric_and_mode(text: str, flag: str, metric: str, mode: str, tmp_path: Path) -> None:
    """The flag wins, and the file's mode is that of the file's metric."""
    search = resolve(f"{DEEP} --config mine.yaml {flag}", tmp_path, RATES + text)
    assert (search.metric, search.mode) == (metric, mode)


# -- trials -------------------------------------------------------------------------------------------------


def test_final_seeds_are_new(tmp_path: Path) -> None:
    """Seeds 3 and 5 of the file, with 10 added by ``--seed``: the winner runs on 16, 17 and 18."""
    search = resolve(f"{DEEP} --config mine.yaml --seed 10", tmp_path, RATES)
    assert sorted({trial.config.seed for trial in search.trials}) == [13, 15]
    assert search.final_seeds == (16, 17, 18)
    assert resolve(f"{DEEP} --config mine.yaml --final-seeds 5", tmp_path, RATES).final_seeds == (6, 7, 8, 9, 10)
    assert resolve(f"{DEEP} --config mine.yaml --final-seeds 0", tmp_path, RATES).final_seeds == ()
    refused(f"{DEEP} --config mine.yaml --final-seeds -1", tmp_path, "--final-seeds", "-1", text=RATES)
    refused(f"{DEEP} --config seed --final-seeds 3", tmp_path, "--final-seeds", "'seed' is a sweep")


def test_the_winner_is_trained_again_on_everything(tmp_path: Path) -> None:
    """The same run but for its seed and the images held out, in a folder of its own beside the others."""
    search = resolve(f"{DEEP} --config mine.yaml", tmp_path, RATES)
    best = search.trials[-1]
    again = trials.final_trials(best, search.final_seeds)
    same = {"seed": best.config.seed, "dataset_sup.validation": 0.2, "dataset_unsup.validation": 0.2}
    for trial, seed in zip(again, (6, 7, 8), strict=True):
        assert trial.config.seed == seed
        assert trial.config.dataset_sup.train_samples() == trial.config.dataset_unsup.train_samples() == 1438
        assert overrides.apply(trial.config, same, CATALOG) == best.config
    folders = {trial.folder for trial in (*search.trials, *again)}
    assert len(folders) == 7
    assert {folder.parent for folder in folders} == {search.folder / "trials"}


def test_one_run_is_not_made_twice(tmp_path: Path) -> None:
    text = "space: {b0.method: {grid: [Soft, soft]}}\n"
    refused(f"{DEEP} --config mine.yaml", tmp_path, "b0.method=Soft and b0.method=soft are the same run", text=text)


def test_labels_tell_configurations_apart() -> None:
    assert domains.labels([{}]) == ["(preset)"]
    assert domains.labels([{"b0.layer.lr": 0.1, "b0.pool": None}]) == ["b0.layer.lr=0.1 b0.pool=None"]
    assert domains.labels([{"x": 1 / 3}, {"x": 2 / 3}]) == ["x=0.3333", "x=0.6667"]
    assert domains.labels([{"x": 0.12341}, {"x": 0.12342}]) == ["x=0.12341", "x=0.12342"]
    close = domains.labels([{"x": 0.1}, {"x": math.nextafter(0.1, 1)}])
    assert len(set(close)) == 2


def test_changes_outside_the_network() -> None:
    choice: search_space.Choice = {
        "b0.layer.lr": 0.1,
        "b*.pool": "max_2_2_0",
        "b12.pool": None,
        "dataset_sup.epochs": 3,
    }
    assert trials.other_changes(choice) == ["dataset_sup.epochs=3"]


# -- the winner ---------------------------------------------------------------------------------------------


def ranking(mode: str, scores: dict[str, list[float]], tmp_path: Path) -> tuple[Search, pd.DataFrame]:
    """Return a search in which the trials of each rate ended with the given scores, and its ranking."""
    lines: list[dict[str, Any]] = []
    for rate, values in scores.items():
        lines += [{"configuration": f"b0.layer.lr={rate}", "val_acc": s, "minutes": 1.0} for s in values]
    text = f"purpose: search\nmode: {mode}\nseeds: [0, 1]\nspace: {{bX.layer.lr: {{grid: [{', '.join(scores)}]}}}}\n"
    search = resolve(f"{DEEP} --config mine.yaml", tmp_path, text)
    return search, results.ranked(results.summary(pd.DataFrame(lines), "val_acc"), search)


def winner(mode: str, scores: dict[str, list[float]], tmp_path: Path) -> str | None:
    """Return the winning rate, which is that of the first line unless it lacks seeds."""
    search, table = ranking(mode, scores, tmp_path)
    best = results.winner(search, table)
    assert best is None or best.label == table.iloc[0]["configuration"]
    return None if best is None else best.label.partition("=")[2]


def leading(mode: str, scores: dict[str, list[float]], tmp_path: Path) -> list[str]:
    """Return the best rate and those that are tied with it."""
    return results.best(*ranking(mode, scores, tmp_path))


def test_the_best_mean_wins(tmp_path: Path) -> None:
    scores = {"0.1": [50.0, 60.0], "0.2": [58.0, 59.0], "0.3": [90.0, 10.0]}
    assert winner("max", scores, tmp_path) == "0.2"
    assert winner("min", scores, tmp_path) == "0.3"


def test_equals_go_to_the_first(tmp_path: Path) -> None:
    assert winner("max", {"0.3": [50.0, 50.0], "0.1": [50.0, 50.0]}, tmp_path) == "0.3"


@pytest.mark.parametrize(
    ("mode", "scores", "tied"),
    [
        ("max", {"0.3": [50.0, 50.0], "0.1": [50.0, 50.0]}, ["0.3", "0.1"]),
        ("max", {"0.3": [97.7, 98.4], "0.1": [98.4, 97.7], "0.2": [98.0, 98.0]}, ["0.3", "0.1"]),
        ("max", {"0.3": [0.1, 0.7], "0.1": [0.3, 0.5]}, ["0.3", "0.1"]),  # 0.1 + 0.7 is not 0.3 + 0.5 in binary
        ("min", {"0.3": [0.5, 0.1], "0.1": [0.3, 0.3], "0.2": [0.2, 0.1]}, ["0.2"]),
        ("max", {"0.3": [99.0], "0.1": [50.0, 50.0], "0.2": [50.0, 50.0]}, ["0.1", "0.2"]),  # 0.3 lacks a seed
        ("max", {"0.3": [99.0], "0.1": [99.0]}, []),
    ],
)
def test_ties_are_named_in_the_order_of_the_search(
    mode: str, scores: dict[str, list[float]], tied: list[str], tmp_path: Path
) -> None:
    assert [label.partition("=")[2] for label in leading(mode, scores, tmp_path)] == tied


def test_a_configuration_that_failed_on_a_seed_does_not_win(tmp_path: Path) -> None:
    """Its other seed may be the best of all: who diverges now and then is no choice."""
    assert winner("max", {"0.1": [99.0], "0.2": [99.0, math.nan], "0.3": [50.0, 51.0]}, tmp_path) == "0.3"
    assert winner("max", {"0.1": [99.0]}, tmp_path) is None


def test_the_plan_of_a_search_by_flags(tmp_path: Path) -> None:
    """Every key of ``search`` has a flag, and the command line wins."""
    text = "space: {b0.layer.radius: {uniform: [1, 9]}}\nsearch: {samples: 2, seed: 1, time: 1h, trials: 9}\n"
    flags = "--algorithm random --num-samples 3 --search-seed 5 --time-budget 90s --max-trials 4"
    plan = resolve(f"{DEEP} --config mine.yaml {flags}", tmp_path, text).spec.plan
    assert plan == search_space.SearchPlan(algorithm="random", samples=3, seed=5, time=90, trials=4)
    drawn = [
        resolve(f"{DEEP} --config mine.yaml --search-seed {seed}", tmp_path, text).trials[0].choice for seed in (5, 6)
    ]
    assert drawn[0] != drawn[1]


def test_what_cannot_be_written_down_leaves_the_earlier_search(tmp_path: Path) -> None:
    search = resolve(f"{DEEP} --config one_seed", tmp_path)
    settings = SearchSettings(home=folders.Home(tmp_path))
    search_folder.claim(search, settings)
    run = search.trials[0].folder
    run.mkdir(parents=True)
    before = search_folder.read(search.folder)
    with pytest.raises(TypeError):
        search_folder.claim(replace(search, metric=object()), settings)  # type: ignore[arg-type]
    assert run.is_dir()
    assert search_folder.read(search.folder) == before


@pytest.mark.parametrize("metric", ["R1", "convergence"])
def test_radii_need_hebbian_blocks(metric: str, tmp_path: Path) -> None:
    """A network that back-prop or a local loss trains has none; a space may make one Hebbian."""
    line = f"{{}} --dataset-sup Digits --config mine.yaml --metric {metric}"
    text = "seeds: [0]\nspace: {classifier.lr: {grid: [0.1, 0.2]}}\n"
    for network in ("BP-c4-k3-p1:bn:relu:avg_2_2_0 BP:flatten", "LPL-c4-k3-p1:bn:relu:avg_2_2_0 BP:flatten"):
        says = f"--metric: {metric} needs blocks that compete, and no block of this network is Hebbian"
        refused(line.format(f"--preset '{network}'"), tmp_path, says, text=text)
    space = "seeds: [0]\nspace: {b0.preset: {grid: [Soft-c4-k3-p1, BP-c4-k3-p1]}}\n"
    assert resolve(line.format(f"--preset '{network}'"), tmp_path, space).metric == metric
    assert resolve(line.format("--preset 2SoftHebbCnnDigits"), tmp_path, text).metric == metric
    plain = line.partition(" --metric")[0].format(f"--preset '{network}'")
    refused(plain, tmp_path, "mine.yaml, metric: ", text=f"metric: {metric}\n{text}")


def test_a_random_search_is_not_extended_by_values(tmp_path: Path) -> None:
    """A longer list moves every draw: the trials that are finished would not be points of the search any more."""
    text = "seeds: [0]\nspace: {b0.layer.radius: {grid: [2, 3]}}\nsearch: {algorithm: random, samples: 2}\n"
    search = resolve(f"{DEEP} --config mine.yaml", tmp_path, text)
    search_folder.claim(search, SearchSettings(home=folders.Home(tmp_path)))
    more = {"b0.layer.radius": {"grid": [4, 5]}}
    with pytest.raises(ConfigError, match=r"--space: would change .*\n--num-samples draws more"):
        request.restored(search.folder, CATALOG, extension=request.Extension(space=more))
    seeds = request.restored(search.folder, CATALOG, extension=request.Extension(seeds=(7,)))
    assert {trial.label for trial in seeds.trials} == {trial.label for trial in search.trials}


def test_the_string_of_a_winner_needs_no_preset_file(tmp_path: Path) -> None:
    """The layer defaults of the file are written out; so is what the file and the shipped presets disagree about."""
    blocks = ["Soft-c4-k3-p1:bn:triangle:avg_2_2_0", "Soft-c4-k3-p1-lr0.08:bn:triangle:avg_2_2_0", "BP:flatten"]
    shipped_rate = CATALOG.network("Soft-c4-k3-p1 BP:flatten").blocks[0].layer.lr
    blocks[1] = blocks[1].replace("0.08", str(shipped_rate))
    presets = {"layer": {"CNN": {"lr": 0.0123}}, "model": {"mine": {"blocks": blocks}}}
    (tmp_path / "mine.json").write_text(json.dumps(presets))
    own = catalog.load(tmp_path / "mine.json")
    search = replace(resolve(f"{DEEP} --config one_seed", tmp_path), base=small.config(small.CNN))
    search = replace(search, base=replace(search.base, network=own.network("mine")))
    (trial,) = trials.planned(search, own).trials
    text = trials.network_string(trial, own)
    for known in (own, CATALOG):
        assert [block.layer.lr for block in known.network(text).blocks[:2]] == [0.0123, shipped_rate]
        assert known.network(text).blocks == own.network("mine").blocks


# -- stored searches ----------------------------------------------------------------------------------------


def test_a_search_stored_by_the_first_version_goes_on(tmp_path: Path) -> None:
    """Its ``search.json`` gives the same trials, named by hashes of their configurations, and is written back.

    What searches could not yet be asked for then is added, with its default.
    """
    shutil.copy(ROOT / "tests" / "data" / "search.json", tmp_path)
    stored = search_folder.read(tmp_path)
    search = request.restored(tmp_path, CATALOG)
    assert [(t.name, t.config.seed, t.choice) for t in search.trials] == [
        (trial["name"], trial["seed"], trial["choice"]) for trial in stored["trials"]
    ]
    assert [trial.config.pack for trial in search.trials] == [(0, 1), (0, 1), ()] * 2
    assert (search.probe_every, search.final_seeds, search.mode) == (1, (3, 4), "max")
    search_folder.write(search, SearchSettings.restored(stored["options"], folders.Home(tmp_path)))
    stored["base"] |= {"curve_points": None, "tf32": "convolutions", "deterministic": False, "cuda_graphs": False}
    stored["base"]["network"]["blocks"] = [
        {**block, "affine_norm": False, "residual": False} for block in stored["base"]["network"]["blocks"]
    ]
    for data in ("dataset_sup", "dataset_unsup"):
        stored["base"][data] |= {"mirror": False, "zca_test": False, "mirror_test": False}
        stored["base"][data] |= {"zca_smoothing": 0.1, "zca_pixels": False}
    stored["base"]["classifier"] |= {"decay_after": 0}
    stored["options"] |= {"save_best": True, "on_end": None, "storage": None}
    assert folders.read_json(tmp_path / folders.SEARCH) == stored


# -- searches without a command line ------------------------------------------------------------------------


def test_a_request_is_the_command(tmp_path: Path) -> None:
    """What a script asks for resolves to the same search as the flags."""
    space = {"b0.layer.lr": {"loguniform": [0.01, 0.1]}}
    plan = {"algorithm": "random", "samples": 3}
    spec = search_space.parse({"seeds": [0, 1], "space": space, "search": plan}, "mine", "a script")
    data = CATALOG.dataset("Digits", "a script")
    base = RunConfig(
        network=CATALOG.network("2SoftHebbCnnDigits"), mode="successive", dataset_sup=data, dataset_unsup=data
    )
    by_script = SearchRequest(base=base, spec=spec, folder=tmp_path, pack_seeds=2).resolve(CATALOG)
    words = "--preset 2SoftHebbCnnDigits --dataset Digits --config mine.yaml --pack-seeds 2 --threads 1"
    text = "seeds: [0, 1]\nspace: {b0.layer.lr: {loguniform: [0.01, 0.1]}}\nsearch: {algorithm: random, samples: 3}\n"
    by_flags = resolve(words, tmp_path, text)
    assert [trial.name for trial in by_script.trials] == [trial.name for trial in by_flags.trials]
    assert (by_script.metric, by_script.mode, by_script.packs) == (by_flags.metric, by_flags.mode, by_flags.packs)


@pytest.mark.parametrize(
    ("flag", "changes"),
    [
        ("--final-seeds", {"final_seeds": -1}),
        ("--pack-seeds", {"pack_seeds": 0}),
        ("--metric", {"metric": "accuracy"}),
        ("--final-seeds", {"final_seeds": 1}),  # of a sweep
    ],
)
def test_a_request_is_checked_where_it_is_made(flag: str, changes: dict[str, Any], tmp_path: Path) -> None:
    data = CATALOG.dataset("Digits", "a script")
    base = RunConfig(
        network=CATALOG.network("2SoftHebbCnnDigits"), mode="successive", dataset_sup=data, dataset_unsup=data
    )
    spec = search_space.parse({"seeds": [0]}, "mine", "a script")
    with pytest.raises(ConfigError, match=flag):
        SearchRequest(base=base, spec=spec, folder=tmp_path, **changes)


def test_settings_are_checked_and_stored(tmp_path: Path) -> None:
    """What a continued search keeps comes back from the options of ``search.json``."""
    home = folders.Home(tmp_path)
    settings = SearchSettings(
        home=home,
        trials_per_gpu=3,
        max_failures=0,
        share_blocks=False,
        keep_features=False,
        cache_limit=7,
        save_models=True,
        save_trials=False,
        preset_file=tmp_path / "mine.json",
        commands=("a", "b"),
    )
    assert SearchSettings.restored(settings.stored(), home) == settings
    for changes in ({"workers": 0}, {"trials_per_gpu": 0}, {"max_failures": -1}):
        with pytest.raises(ConfigError, match=r"must be a whole number >= \d, got"):
            SearchSettings(home=home, **changes)
    with pytest.raises(ConfigError, match="--dashboard"):
        SearchSettings(home=home, address="auto", dashboard=True)
