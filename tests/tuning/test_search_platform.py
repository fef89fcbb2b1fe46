"""Searches on the real Ray: restored and extended, judged by schedulers, guided by models, with blocks in common.

One Ray serves the module: it takes seconds to start.

Without it a restored search could repeat, lose or invent trials.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small
import torch
import yaml
from conftest import ROOT
from kill_search import finished, table
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hebb.cli import search
from hebb.cli.search_display import SearchDisplay
from hebb.config import catalog, domains, search_space
from hebb.config.specs import RunConfig
from hebb.core.errors import ConfigError
from hebb.storage import folders, records
from hebb.training import train
from hebb.tuning import ray_session, shared_data, stages
from hebb.tuning.observer import Ranking, SearchObserver, Stage, TrialReport, Winner
from hebb.tuning.request import SearchRequest
from hebb.tuning.search import Group, Trial
from hebb.tuning.search_folder import Journal
from hebb.tuning.search_settings import SearchSettings

pytestmark = pytest.mark.ray

NETWORK = "SoftKrotov-c6-k3-p1-t1-lr0.08-lp0.5:bn:triangle_0.7:avg_2_2_0 BP:flatten"
DEEP = (
    "SoftKrotov-c6-k3-p1-t1-lr0.08-lp0.5:bn:triangle_0.7:max_2_2_0 "
    "Soft-c8-k3-p1-t0.65-lr0.005:bn:triangle_1.4:avg_2_2_0 BP:flatten"
)
SMALL = "dataset_sup.samples=150 dataset_unsup.samples=100 dataset_sup.epochs=3 dataset_sup.print_freq=1"

Run = Callable[..., str]


@pytest.fixture
def run(one_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``ray_search.py`` on a search config given as data, and return what it prints."""
    monkeypatch.setenv("HEBB_HOME", str(tmp_path))

    def go(*flags: str, config: dict[str, Any] | None = None, network: str = NETWORK, code: int = 0) -> str:
        assert search.main(words(tmp_path, flags, config, network)) == code
        return capsys.readouterr().out

    return go


def words(folder: Path, flags: tuple[str, ...], config: dict[str, Any] | None, network: str = NETWORK) -> list[str]:
    """Return a command line: by itself one worker, which starts in half the time of two."""
    line = [*flags] if "--workers" in flags else [*flags, "--workers", "1"]
    if config is None:
        return line
    (folder / "mine.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    data = ("--dataset-unsup", "Digits_1", "--dataset-sup", "Digits", "--threads", "1", "--device", "cpu")
    changed = {word.partition("=")[0] for word in flags}
    small = [word for word in SMALL.split() if word.partition("=")[0] not in changed]
    return [*line, "--config", str(folder / "mine.yaml"), "--preset", network, *data, "--set", *small]


def folder_of(tmp_path: Path, name: str = "s") -> Path:
    return tmp_path / "hebb" / "search" / name


# -- restoring and extending --------------------------------------------------------------------------------

GRID = {"seeds": [0, 1], "space": {"b0.layer.radius": {"grid": [2, 9]}}}


@pytest.fixture(scope="module")
def whole(one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the search ``GRID``, made in one go; it is only looked at."""
    home = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setenv("HEBB_HOME", str(home))
        assert search.main(words(home, ("--folder-name", "s"), GRID)) == 0
    return folder_of(home)


def test_a_search_in_pieces_equals_a_whole_one(whole: Path, run: Run, tmp_path: Path) -> None:
    """One trial, then the rest; nothing finished is touched; the table is that of a search in one go."""
    folder = folder_of(tmp_path)
    printed = run("--folder-name", "s", "--max-trials", "1", config=GRID)
    assert "1 of 4 trials are finished" in printed
    assert f"--restore {folder} continues" in printed
    before = finished(folder)
    assert len(list(folder.glob("trials/*/result.json"))) == 1
    run("--restore", str(folder), "--max-trials", "9")
    after = finished(folder)
    assert {name: after[name] for name in before} == before
    assert table(folder).equals(table(whole))
    printed = run("--restore", "s", "--max-trials", "9")  # nothing is left: the table again
    assert finished(folder) == after
    assert "b0.layer.radius=9" in printed


def test_runs_are_removed_when_nothing_is_left(whole: Path, run: Run, tmp_path: Path) -> None:
    """A search that keeps no runs goes on in pieces as any other, and once it is complete trains nothing again."""
    folder = folder_of(tmp_path)
    run("--folder-name", "s", "--save", "false", "--max-trials", "1", config=GRID)
    before = finished(folder)
    assert len(list(folder.glob("trials/*/result.json"))) == 1
    run("--restore", "s", "--max-trials", "2")
    between = finished(folder)
    assert len(list(folder.glob("trials/*/result.json"))) == 3
    assert {name: between[name] for name in before} == before
    run("--restore", "s", "--max-trials", "9")
    assert not (folder / "trials").exists()
    assert table(folder).equals(table(whole))
    written = {path: path.stat().st_mtime_ns for path in folder.glob("*.*")}
    assert "complete" in run("--restore", "s", "--on-end", f"touch {tmp_path / 'ended'}")
    assert (tmp_path / "ended").exists()
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.*")} == written
    for flags in (("--extend", "--seeds", "2"), ("--retry-failed",), ("--save", "true")):
        with pytest.raises(ConfigError, match=rf"^{flags[0]}: needs the runs of .*s, which --save false removed"):
            run("--restore", "s", *flags)


def test_runs_stay_when_a_complete_search_is_extended_and_cut_off(run: Run, tmp_path: Path) -> None:
    """Its journal says that the search had ended, and the new trials have not begun."""
    folder = folder_of(tmp_path)
    run("--folder-name", "s", config=GRID)
    before = finished(folder)
    run("--restore", "s", "--extend", "--seeds", "2", "--save", "false", "--time-budget", "0.01s")
    assert {name: finished(folder)[name] for name in before} == before


def test_a_time_budget_is_continued(run: Run, tmp_path: Path) -> None:
    """A second is less than the run takes; its checkpoint is used; without a new budget the old one counts anew."""
    long = ("--set", "dataset_sup.epochs=100")
    printed = run("--folder-name", "s", "--time-budget", "1s", *long, config={"seeds": [0]})
    assert "the time is used up: 0 of 1 trials are finished" in printed
    paths = list(folder_of(tmp_path).glob("trials/*/metrics.jsonl"))
    rows = folders.read_rows(paths[0]) if paths else []
    run("--restore", "s", "--time-budget", "1h")
    again = folders.read_rows(next(folder_of(tmp_path).glob("trials/*/metrics.jsonl")))
    # the last row may be one whose checkpoint was not written yet
    assert [r["images_per_second"] for r in again[: max(0, len(rows) - 1)]] == [
        r["images_per_second"] for r in rows[:-1]
    ]
    assert len(again) == 101


@pytest.mark.slow
def test_seeds_and_points_are_added(run: Run, tmp_path: Path) -> None:
    """2 points x 2 seeds, then one more of each: 3 x 3, as if all had been asked for at once."""
    folder = folder_of(tmp_path)
    run("--folder-name", "s", config=GRID)
    before = finished(folder)
    printed = run("--restore", "s", "--extend", "--seeds", "2", "--space", "b0.layer.radius={grid: [20]}")
    assert "9 trials" in printed
    after = finished(folder)
    assert {name: after[name] for name in before} == before
    run("--folder-name", "whole", config={"seeds": [0, 1, 2], "space": {"b0.layer.radius": {"grid": [2, 9, 20]}}})
    assert table(folder).equals(table(folder_of(tmp_path, "whole")))


@pytest.mark.slow
def test_samples_are_added(run: Run, tmp_path: Path) -> None:
    config = {"seeds": [0], "space": {"b0.layer.radius": {"loguniform": [1, 30]}}, "search": {"samples": 2}}
    run("--folder-name", "s", config=config)
    first = list(table(folder_of(tmp_path)).trial)
    run("--restore", "s", "--extend", "--num-samples", "2")
    assert list(table(folder_of(tmp_path)).trial)[:2] == first
    assert len(table(folder_of(tmp_path))) == 4


def test_what_diverges_is_recorded_and_not_tried_again(run: Run, tmp_path: Path) -> None:
    """The reason stands in the journal; the other trial has its result; restoring does not run it again."""
    config = {"seeds": [0], "space": {"b0.layer.lr": {"grid": [0.01, 1e30]}}}
    printed = run("--folder-name", "s", config=config, code=1)
    assert "block b0 are not finite" in printed
    assert list(table(folder_of(tmp_path)).configuration) == ["b0.layer.lr=0.01"]
    journal = Journal.load(folder_of(tmp_path))
    assert [(entry["again"], "not finite" in entry["reason"]) for entry in journal.failed.values()] == [(False, True)]
    before = {path: path.stat().st_mtime_ns for path in folder_of(tmp_path).glob("trials/*/*")}
    run("--restore", "s", code=1)
    assert {path: path.stat().st_mtime_ns for path in folder_of(tmp_path).glob("trials/*/*")} == before


# -- schedulers ---------------------------------------------------------------------------------------------

RADII = {
    "purpose": "search",
    "seeds": [0, 1],
    "space": {"b0.layer.radius": {"loguniform": [1, 30]}, "classifier.lr": {"loguniform": [1.0e-5, 0.1]}},
    "search": {"samples": 6},
}


SLOW = pytest.mark.slow


LATER = ("asha-promotion", "hyperband", "median")


@pytest.mark.parametrize("scheduler", ["asha", *(pytest.param(name, marks=SLOW) for name in LATER)])
def test_each_scheduler(scheduler: str, run: Run, tmp_path: Path) -> None:
    """Every configuration is finished on both seeds or stopped as a whole; the winner was finished; none runs twice."""
    run("--folder-name", "s", "--scheduler", scheduler, "--final-seeds", "1", config=RADII)
    folder, journal = folder_of(tmp_path), Journal.load(folder_of(tmp_path))
    results = pd.read_csv(folder / "results.csv")
    complete = results[results.status == "finished"].groupby("configuration").seed.nunique()
    names = {name.rpartition("-s")[0] for name in results.trial}
    assert len(names) == 6
    assert len(complete[complete == 2]) + len(journal.stopped) == 6
    assert not journal.failed
    winner = json.loads((folder / "winner.json").read_text())
    assert winner["selection"]["n"] == 2
    assert not list(folder.glob("trials/*/traceback.txt")), "what is stopped has not failed"
    radius = winner["configuration"]["b0.layer.radius"]
    best = {path.parent.name for path in folder.glob("trials/*/config.json") if radius_of(path) == radius}
    kept = {path.parent.parent.name for path in folder.glob("trials/*/checkpoint/last.pt")}
    assert kept == best, "not those of runs that were stopped half-way"
    before = finished(folder)
    run("--restore", "s")
    assert finished(folder) == before
    assert Journal.load(folder).stopped == journal.stopped


def radius_of(config: Path) -> float:
    return float(json.loads(config.read_text())["network"]["blocks"][0]["layer"]["radius"])


@pytest.mark.slow
def test_an_extended_search_is_judged_by_all_results(run: Run, tmp_path: Path) -> None:
    """A scheduler that starts anew gets the reports of before: a configuration worse than the old ones is stopped."""
    rates = {"classifier.lr": {"grid": [0.01, 0.02, 0.03]}}
    config = {"purpose": "search", "seeds": [0, 1], "space": rates, "scheduler": {"name": "asha", "reduction": 2}}
    run("--folder-name", "s", "--final-seeds", "0", config=config)
    old = Journal.load(folder_of(tmp_path)).stopped
    run("--restore", "s", "--extend", "--space", "classifier.lr={grid: [1.0e-9]}")
    new = set(Journal.load(folder_of(tmp_path)).stopped) - set(old)
    assert len(new) == 1
    assert Journal.load(folder_of(tmp_path)).stopped[new.pop()]["step"] == 1


# -- spaces -------------------------------------------------------------------------------------------------

BRANCHES = {
    "b0.preset": {"choice": ["Soft-c6-k3-p1", "Hard-c6-k3-p1"]},
    "b0.layer.t_invert": {"loguniform": [0.1, 10], "when": {"b0.preset": "Soft-c6-k3-p1"}},
    "b*.layer.lr": {"quniform": [0.01, 0.05, 0.01]},
}


@pytest.mark.parametrize("algorithm", ["optuna", *(pytest.param(name, marks=SLOW) for name in ("random", "hyperopt"))])
def test_a_space_with_branches(algorithm: str, run: Run, tmp_path: Path) -> None:
    """A temperature only where the rule has one; Hebbian blocks share a rate; the winner's string is its network."""
    config = {"purpose": "search", "seeds": [0], "space": BRANCHES, "search": {"algorithm": algorithm, "samples": 4}}
    run("--folder-name", "s", "--final-seeds", "1", config=config, network=DEEP)
    folder = folder_of(tmp_path)
    paths = [path for path in folder.glob("trials/*-s0/config.json") if not path.parent.name.startswith("final")]
    configs = [ray_config(path) for path in paths]
    # a model may suggest one of the five points without a temperature twice
    assert len(configs) == 4 if algorithm == "random" else 2 <= len(configs) <= 4
    for config in configs:
        first, second = config["network"]["blocks"][:2]
        assert first["layer"]["lr"] == second["layer"]["lr"]
        assert first["layer"]["lr"] in (0.01, 0.02, 0.03, 0.04, 0.05)
        assert ("t_invert" in first["layer"]) == (first["layer"]["method"] == "Soft")
    winner = json.loads((folder / "winner.json").read_text())
    final = ray_config(next(folder.glob("trials/final-*/config.json")))
    network = catalog.load().network(winner["network"])
    assert [block.layer.method for block in network.blocks] == [
        b["layer"]["method"] for b in final["network"]["blocks"]
    ]
    assert network.blocks[0].layer.lr == final["network"]["blocks"][0]["layer"]["lr"]


def ray_config(path: Path) -> dict[str, Any]:
    config = json.loads(path.read_text())
    assert isinstance(config, dict)
    return config


@pytest.mark.slow
def test_a_model_based_search_goes_on(run: Run, tmp_path: Path) -> None:
    """What was suggested before is suggested first, and not run again; the new points are new."""
    search_space = {"b0.layer.radius": {"loguniform": [1, 30]}}
    config = {"seeds": [0], "space": search_space, "search": {"algorithm": "optuna", "samples": 4}}
    printed = run("--folder-name", "s", "--max-trials", "2", config=config)
    assert "2 of 4 trials are finished" in printed
    folder = folder_of(tmp_path)
    before, chosen = finished(folder), list(Journal.load(folder).chosen)
    run("--restore", "s", "--max-trials", "9")
    assert {name: finished(folder)[name] for name in before} == before
    again = list(Journal.load(folder).chosen)
    assert again[:2] == chosen
    assert len(set(again)) == 4


def test_a_point_that_cannot_be_is_a_failed_one(run: Run, tmp_path: Path) -> None:
    """A kernel of 9 does not fit a map of 8 pixels without padding; its study is kept, the others are trained."""
    grid = {"b0.layer.kernel_size": {"choice": [3, 9]}, "b0.layer.padding": {"choice": [0, 4]}}
    plan = {"algorithm": "optuna", "sampler": "random", "samples": 6}
    config = {"seeds": [0, 1], "space": grid, "search": plan}
    printed = run("--folder-name", "s", "--storage", str(tmp_path / "study.db"), config=config, code=1)
    folder = folder_of(tmp_path)
    bad = {"b0.layer.kernel_size": 9, "b0.layer.padding": 0}
    journal = Journal.load(folder)
    (group,) = (group for group, choice in journal.chosen.items() if choice == bad)
    assert [group] == list(journal.failed)
    assert journal.failed[group]["again"] is False
    assert "b0: a kernel that reaches 9 pixels is larger than the padded map of 8" in printed
    assert len(journal.suggested) == 6
    assert set(table(folder).configuration) == {domains.label(c) for c in journal.chosen.values() if c != bad}
    assert "2 failed" in printed.splitlines()[-2]  # a configuration on two seeds
    page = (folder / "report.html").read_text()
    assert domains.label(bad) in page
    before = finished(folder)
    run("--restore", "s", "--extend", "--num-samples", "1", code=1)
    assert {name: finished(folder)[name] for name in before} == before
    assert len(Journal.load(folder).suggested) == 7


@pytest.mark.slow
def test_optuna_finds_a_planted_optimum(run: Run, tmp_path: Path) -> None:
    """Radii that stay as they are drawn, by rates of 1e-9: their distance from 1 is smallest at 1 in both blocks.

    Optuna with ASHA against random draws, 20 configurations each, three times. The best of n random points of an area A
    lies at about sqrt(A / n) / 2 from the optimum, 2.2 here; half of that is what the model must reach.
    """
    radii = {f"b{i}.layer.radius": {"uniform": [0.05, 20]} for i in range(2)}
    still = DEEP.replace("lr0.08", "lr1e-9").replace("lr0.005", "lr1e-9")
    best: dict[str, list[float]] = {"optuna": [], "random": []}
    for algorithm, distances in best.items():
        for seed in range(3):
            scheduler = "asha" if algorithm == "optuna" else "none"
            plan = {"algorithm": algorithm, "samples": 20, "seed": seed}
            config = {"seeds": [0], "space": radii, "search": plan, "scheduler": scheduler, "metric": "convergence"}
            name, few = f"{algorithm}{seed}", ("dataset_sup.samples=20", "dataset_unsup.samples=20")
            few = (*few, "dataset_unsup.epochs=2", "dataset_sup.epochs=1", "dataset_unsup.print_freq=1")
            flags = ("--folder-name", name, "--training-mode", "consecutive", "--set", *few)
            run(*flags, config=config, network=still)
            results = pd.read_csv(folder_of(tmp_path, name) / "results.csv")
            distances.append(results[results.status == "finished"].convergence.min())
    assert np.mean(best["optuna"]) < np.mean(best["random"]) / 2
    assert best["optuna"][0] != best["optuna"][1]


# -- searches without a command line ------------------------------------------------------------------------


class Events(SearchObserver):
    """Notes what it is told, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.reports: list[TrialReport] = []

    def stage(self, stage: Stage) -> None:
        self.names.append(f"{stage.groups} groups")

    def reported(self, group: Group, report: TrialReport) -> None:
        self.reports.append(report)

    def ended(self, group: Group, how: str) -> None:
        self.names.append(how)

    def ranked(self, ranking: Ranking) -> None:
        self.names.append(ranking.path.name)

    def selected(self, winner: Winner | None) -> None:
        self.names.append("no winner" if winner is None else winner.trial.label)


def test_a_search_from_python(one_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A request, settings and an observer do what the command does; nothing is printed."""
    described = {"purpose": "search", "seeds": [0, 1], "space": {"classifier.lr": {"grid": [1e-9, 0.01]}}}
    spec = search_space.parse(described, "mine", "a script")
    request = SearchRequest(
        base=small.config(small.CNN, "dataset_sup.validation=0.2"), spec=spec, folder=tmp_path / "s", final_seeds=1
    )
    presets, observer = catalog.load(), Events()
    settings = SearchSettings(home=folders.Home(tmp_path), workers=1)
    result = stages.run(request.resolve(presets), settings, presets, observer)
    assert capsys.readouterr().out == ""
    assert result.succeeded
    best = "classifier.lr=0.01"
    expected = ["4 groups", *["done"] * 4, "results.csv", best, "1 groups", "done", "final.csv"]
    assert observer.names == expected
    assert list(result.summary.configuration) == [best, "classifier.lr=1e-09"]
    assert result.winner is not None
    assert result.winner.changes == (best,)
    assert result.final.n[0] == 1
    assert {report["seed"] for report in observer.reports} == {0, 1, 2}


def test_workers_start_with_the_environment_that_torch_reads(one_ray: None) -> None:
    """The process of the search keeps its own."""
    names = ("GOMP_SPINCOUNT", "MALLOC_ARENA_MAX", "OMP_WAIT_POLICY")
    read = ray_session.ray.remote(lambda: {name: os.environ[name] for name in names if name in os.environ})
    before = dict(os.environ)
    environment = ray_session.ray.get(read.remote())
    assert environment == ray_session.worker_environment()
    assert "MALLOC_ARENA_MAX" in environment
    assert dict(os.environ) == before


# -- shared blocks, shared data, TensorBoard ----------------------------------------------------------------


def test_shared_blocks_change_nothing(run: Run, tmp_path: Path) -> None:
    """A grid over block 1: block 0 is trained once for each seed, and every number and weight is as without."""
    config = {"seeds": [0, 1], "space": {"b1.layer.lr": {"grid": [0.001, 0.01, 0.1]}}}
    run("--folder-name", "apart", "--save-model", "--share-blocks", "false", config=config, network=DEEP)
    assert not (tmp_path / "hebb" / "cache" / "blocks").exists()
    run("--folder-name", "shared", "--save-model", "--workers", "2", config=config, network=DEEP)
    shared_data, apart = folder_of(tmp_path, "shared"), folder_of(tmp_path, "apart")
    assert table(shared_data).equals(table(apart))
    speeds: dict[int, set[float]] = {0: set(), 1: set()}
    for trial in sorted(path.name for path in (shared_data / "trials").iterdir()):
        rows = [folders.read_rows(folder / "trials" / trial / folders.METRICS) for folder in (shared_data, apart)]
        speeds[int(trial[-1])].add(rows[0][0].pop("images_per_second"))
        assert [{**row, "images_per_second": 0} for row in rows[0]] == [{**r, "images_per_second": 0} for r in rows[1]]
        models = [
            torch.load(folder / "trials" / trial / folders.CHECKPOINT, weights_only=True)["model"]
            for folder in (shared_data, apart)
        ]
        assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())
    assert {len(values) for values in speeds.values()} == {1}  # one measured training of block 0 a seed
    assert len(list((tmp_path / "hebb" / "cache" / "blocks").glob("*.pt"))) == 2 + 6


def test_hyper_parameters_reach_tensorboard(whole: Path) -> None:
    """The values of the space and the seed, written when a run begins, beside its scalars."""
    accuracies = []
    for folder in whole.glob("trials/*"):
        events = EventAccumulator(str(folder)).Reload()
        content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        assert b"b0.layer.radius" in content
        assert b"seed" in content
        accuracy = events.Scalars("accuracy/test")[-1].value
        accuracies.append(accuracy)
    assert sorted(accuracies) == pytest.approx(sorted(table(whole).test_acc), rel=1e-6)


def test_results_as_parquet(whole: Path) -> None:
    pd.testing.assert_frame_equal(pd.read_parquet(whole / "results.parquet"), pd.read_csv(whole / "results.csv"))


def test_radii_are_compared_though_the_last_phase_has_none(run: Run, tmp_path: Path) -> None:
    printed = run("--folder-name", "s", "--metric", "convergence", config={**GRID, "seeds": [0]})
    results = pd.read_csv(folder_of(tmp_path) / "results.csv")
    assert results.convergence.notna().all()
    mean = results[results.configuration == "b0.layer.radius=9"].convergence.mean()
    assert f"{mean:.4f}" in next(line for line in printed.splitlines() if line.startswith("b0.layer.radius=9"))


def test_one_process_at_a_time(whole: Path, run: Run) -> None:
    """A search that another process runs is neither restored nor replaced beside it; the refusal names the process."""
    hold = "import sys, pathlib; from hebb.tuning import search_folder as f\n"
    hold += "with f.held(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(whole)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        for flags in (
            ["--restore", str(whole)],
            ["--folder-name", whole.name, "--overwrite", "--data-dir", str(whole.parents[2])],
        ):
            with pytest.raises(ConfigError, match=f"by process {other.pid} on "):
                run(*flags)
        other.communicate(b"")
    assert not (whole / folders.LOCKS).exists()


@pytest.mark.parametrize("zca", [False, True])
def test_shared_data_are_those_of_the_files_and_stay_so(zca: bool, one_ray: None, tmp_path: Path) -> None:
    """A run on the arrays in the object store has the bits of one on its own copy, and does not write into them."""
    config = small.config(
        small.DEEP, f"dataset_sup.zca={zca}", f"dataset_unsup.zca={zca}", "dataset_sup.validation=0.2"
    )
    packed = shared_data.read(shared_data.specs([config]), tmp_path, None)
    load = shared_data.Shared(packed)
    before = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays(load, config)}
    assert not any(array.flags.writeable for _, array in arrays(load, config))
    shared = train.run(config, place=train.Place(datasets=tmp_path, load=load))
    alone = train.run(config, place=train.Place(datasets=tmp_path))
    assert {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays(load, config)} == before
    for name, tensor in alone.network.state_dict().items():
        assert torch.equal(tensor, shared.network.state_dict()[name])
    strip = [[{**row, "images_per_second": 0} for row in result.rows] for result in (shared, alone)]
    assert strip[0] == strip[1]


def arrays(load: shared_data.Shared, config: RunConfig) -> list[tuple[str, np.ndarray]]:
    """List the arrays in the object store."""
    search_folder = ray_session.ray.get(list(load._stored.values()))
    return [
        (f"{i} {split} {name}", array)
        for i, data in enumerate(search_folder)
        for split in ("train", "val", "test")
        for name, array in (data[split] or {}).items()
        if isinstance(array, np.ndarray)
    ]


def test_the_live_table(tmp_path: Path) -> None:
    """Trials that go on show the phase their run folder tells, ended ones their score; and the time that is left."""
    config = small.config(small.CNN)
    groups = []
    for seed in range(3):
        folder = tmp_path / "trials" / f"c-s{seed}"
        trial = Trial(name=f"c-s{seed}", label="lr=0.1", choice={}, config=replace(config, seed=seed), folder=folder)
        groups.append(Group(name=trial.name, runs=(trial,)))
    display = SearchDisplay()
    display.stage(Stage(metric="test_acc", groups=3, at_once=1))
    display.started(groups[0])
    display.reported(groups[0], {"score": 71.25, "n": 1, "seed": 0, "kind": "end", "phase": 1, "epoch": 1})
    display.ended(groups[0], "done")
    display.started(groups[1])
    groups[1].runs[0].folder.mkdir(parents=True)
    row = records.make_row(step=10, phase=0, kind="hebbian", blocks="b0", epoch=1)
    (groups[1].runs[0].folder / "metrics.jsonl").write_text(json.dumps(row) + "\n" + '{"torn')
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(display.table())
    text = console.export_text()
    ended, going = (next(line for line in text.splitlines() if line.startswith(f"c-s{seed}")) for seed in (0, 1))
    assert "71.25 %" in ended and ended.rstrip().endswith("done")
    assert "0 hebbian b0" in going and "1 of 1" in going
    assert re.search(r"1 of 3 trials, \d+ s left", text)
