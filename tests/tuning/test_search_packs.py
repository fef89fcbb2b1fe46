"""Searches whose trials are packs of seeds, on the real Ray.

Without it rows of a pack could be credited to the wrong seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from kill_search import finished

from hebb.cli import search, train
from hebb.core.errors import ConfigError
from hebb.storage import checkpoints, folders
from hebb.storage.journal import Journal

pytestmark = pytest.mark.ray

NETWORK = "SoftKrotov-c6-k3-p1-t1-lr0.08-lp0.5:bn:triangle_0.7:avg_2_2_0 BP:flatten"
DATA = ("--dataset-unsup", "Digits_1", "--dataset-sup", "Digits", "--threads", "1", "--device", "cpu")
SMALL = ("--set", "dataset_sup.samples=100", "dataset_unsup.samples=80", "dataset_sup.epochs=2")

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``ray_search.py`` on a search config given as data, and return what it prints."""
    monkeypatch.setenv("HEBB_HOME", str(tmp_path))

    def go(*flags: str, config: dict[str, Any] | None = None, code: int = 0) -> str:
        words = [*flags]
        if config is not None:
            (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
            words += ["--config", str(tmp_path / "mine.yaml"), "--preset", NETWORK, *DATA, *SMALL]
        assert search.main(words) == code
        return capsys.readouterr().out

    return go


def test_packs_in_a_search(one_ray: None, run: Run, tmp_path: Path) -> None:
    """Three seeds in packs of two: a pack and a single run for each point. In pieces, extended, and as one command."""
    config = {"seeds": [0, 1, 2], "space": {"b0.layer.radius": {"grid": [2, 9]}}}
    planned = run("--pack-seeds", "2", "--folder-name", "s", "--dry-run", config=config)
    assert "6 trials: 2 configurations x seeds 0 1 2, in packs of up to 2 seeds trained together" in planned
    printed = run("--pack-seeds", "2", "--folder-name", "s", "--save-model", "--max-trials", "1", config=config)
    folder = tmp_path / "hebb" / "search" / "s"
    assert "2 of 6 trials are finished" in printed  # one trial of Ray's, two of ours
    before = finished(folder)
    run("--restore", "s", "--max-trials", "9")
    assert {name: finished(folder)[name] for name in before} == before
    results = pd.read_csv(folder / "results.csv")
    assert sorted(results.seed) == [0, 0, 1, 1, 2, 2]
    packs = {}
    for trial in (folder / "trials").iterdir():
        stored = json.loads((trial / "config.json").read_text())
        packs[trial.name.partition("-s")[2]] = stored["pack"]
        last = folders.read_rows(trial / "metrics.jsonl")[-1]
        assert results[results.trial == trial.name].test_acc.item() == pytest.approx(last["test_acc"])
    assert packs == {"0": [0, 1], "1": [0, 1], "2": []}

    before = finished(folder)
    run("--restore", "s", "--extend", "--seeds", "3", "4", "--max-trials", "9")
    after = finished(folder)
    assert {name: after[name] for name in before} == before
    assert len(list(folder.glob("trials/*/result.json"))) == 10
    stored = json.loads((folder / "search.json").read_text())
    assert stored["packs"] == [[0, 1], [3, 4]]

    trial = folder / "trials" / results.trial[0]
    assert train.main(["--run-config", str(trial / "config.json"), "--model-name", "again"]) == 0
    for seed in (0, 1):
        other = trial.with_name(f"{trial.name.rpartition('-s')[0]}-s{seed}")
        again = tmp_path / "hebb" / "result" / "network" / f"again-s{seed}"
        mine, theirs = (checkpoints.load(place / "checkpoint" / "last.pt")["model"] for place in (other, again))
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.slow
def test_a_judged_configuration_is_packed(one_ray: None, run: Run, tmp_path: Path) -> None:
    """With a scheduler a trial is a configuration whose seeds are packed; so are the winner's final runs."""
    config = {
        "purpose": "search",
        "seeds": [0, 1],
        "space": {"classifier.lr": {"grid": [1.0e-9, 0.01]}},
        "scheduler": {"name": "asha", "reduction": 2},
    }
    run("--pack-seeds", "2", "--final-seeds", "2", "--folder-name", "s", config=config)
    folder = tmp_path / "hebb" / "search" / "s"
    winner = json.loads((folder / "winner.json").read_text())
    assert winner["final"]["n"] == winner["selection"]["n"] == 2
    stored = [json.loads(p.read_text())["pack"] for p in (folder / "trials").glob("final-*/config.json")]
    assert stored == [[2, 3], [2, 3]]
    steps = {entry["step"] for entry in Journal.load(folder).stopped.values()}
    assert steps <= {2, 4}  # epochs of both seeds are counted


@pytest.mark.slow
def test_a_member_that_diverges_is_named(one_ray: None, run: Run, tmp_path: Path) -> None:
    config = {"seeds": [0, 1], "space": {"b0.layer.lr": {"grid": [0.01, 1e30]}}}
    printed = run("--pack-seeds", "2", "--folder-name", "s", config=config, code=1)
    assert "seed 0: the weights of block b0 are not finite" in printed
    assert len(pd.read_csv(tmp_path / "hebb" / "search" / "s" / "results.csv")) == 2


def test_what_cannot_be_packed_is_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"--pack-seeds: .* at different epochs"):
        run("--pack-seeds", "2", config={"seeds": [0, 1], "space": {"stop.patience": {"grid": [1]}}})
    with pytest.raises(ConfigError, match="--pack-seeds"):
        run("--restore", "s", "--pack-seeds", "2")
