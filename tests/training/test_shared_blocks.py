"""Runs that share trained blocks have the bits of runs that do not; who may share is decided by all that matters.

Without it a trial could start from blocks that were trained with other settings.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small
import torch

from hebb.config import overrides, plan
from hebb.config.catalog import load
from hebb.config.specs import RunConfig
from hebb.storage import folders
from hebb.training import shared_blocks, train

CONFIG = small.config(small.DEEP, "dataset_unsup.epochs=2", "dataset_sup.epochs=2")
ABOVE = ("b1.layer.lr=0.02", "b1.pool=avg_2_2_0", "b2.dropout=0.1", "dataset_sup.epochs=3", "classifier.lr=0.01")
BELOW = (
    *("b0.layer.lr=0.1", "b0.activation=relu", "b0.dropout=0.1", "dataset_unsup.epochs=3", "dataset_unsup.samples=150"),
    *("dataset_unsup.batch_size=25", "seed=1", "split_seed=1", "b0.preset=Hard-c8-k3-p1"),
)


def key(config: RunConfig, index: int = 0) -> str | None:
    return shared_blocks.key(replace(config, device="cpu"), plan.phases(config), index, {"sup": "a", "unsup": "a"})


def changed(*words: str) -> RunConfig:
    return overrides.apply(CONFIG, overrides.parse(words), load())


@pytest.mark.parametrize("change", ABOVE)
def test_what_stands_above_does_not_matter(change: str) -> None:
    assert key(changed(change)) == key(CONFIG)


@pytest.mark.parametrize("change", BELOW)
def test_what_decides_the_bits_matters(change: str) -> None:
    assert key(changed(change)) not in (None, key(CONFIG))


def test_threads_mode_and_data_matter() -> None:
    keys = {key(CONFIG), key(replace(CONFIG, threads=2)), key(replace(CONFIG, mode="consecutive"))}
    keys.add(shared_blocks.key(replace(CONFIG, device="cpu"), plan.phases(CONFIG), 0, {"sup": "a", "unsup": "b"}))
    assert len(keys) == 4


def test_the_second_block_depends_on_the_first() -> None:
    assert key(CONFIG, 1) not in (None, key(CONFIG, 0))
    assert key(changed("b1.layer.lr=0.02"), 1) != key(CONFIG, 1)
    assert key(changed("b0.layer.lr=0.1"), 1) != key(CONFIG, 1)
    assert key(changed("b2.dropout=0.1"), 1) == key(CONFIG, 1)


@pytest.mark.parametrize("network", [small.BP, small.MIXED])
def test_phases_through_the_classifier_are_not_shared(network: str) -> None:
    """Back-prop goes through every block above; the last phase of a run is its own."""
    config = small.config(network)
    assert key(config) is None
    assert key(CONFIG, 2) is None


def test_stored_blocks_are_not_shared() -> None:
    """``resume=MODEL/bN`` names a file that may change."""
    assert key(changed("b0.resume=other/b0")) is None


def run(config: RunConfig, folder: Path, cache: Path | None) -> train.Result:
    return small.run(config, folder, shared_blocks=cache)


def same(first: train.Result, second: train.Result) -> None:
    for name, tensor in first.network.state_dict().items():
        assert torch.equal(tensor, second.network.state_dict()[name])
    rows = [[{**row, "images_per_second": 0} for row in result.rows] for result in (first, second)]
    assert rows[0] == rows[1]
    stored = [folders.read_rows(r.folder / "metrics.jsonl") for r in (first, second) if r.folder is not None]
    assert stored == [first.rows, second.rows]


@pytest.mark.parametrize("network", [small.DEEP, small.HEBBIAN_CLASSIFIER, small.MLP])
@pytest.mark.parametrize("mode", ["successive", "consecutive"])
def test_equal_to_runs_without(network: str, mode: str, tmp_path: Path) -> None:
    """Filling the cache, reading it, and a change above it: each as without."""
    config = small.config(network, "dataset_unsup.epochs=2", mode=mode)
    changes = (config, overrides.apply(config, {"dataset_sup.epochs": 2}, load()))
    cache = tmp_path / "cache"
    for i, made in enumerate((*changes, changes[0])):
        same(run(made, tmp_path / f"with{i}", cache), run(made, tmp_path / f"without{i}", None))
    assert len(list(cache.glob("*.pt"))) == len(plan.phases(config)) - 1
    assert not list(cache.glob("*.lock"))


def test_frozen_blocks_share_their_statistics(tmp_path: Path) -> None:
    config = replace(CONFIG, training_blocks=(1, 2))
    assert [phase.kind for phase in plan.phases(config)] == ["calibrate", "hebbian", "backprop"]
    for i in range(2):
        same(run(config, tmp_path / f"with{i}", tmp_path / "cache"), run(config, tmp_path / f"without{i}", None))


def test_the_second_run_does_not_train(tmp_path: Path, monkeypatch: Any) -> None:
    from hebb.training import engine

    run(CONFIG, tmp_path / "a", tmp_path / "cache")
    monkeypatch.setattr(engine, "hebbian", lambda *_: pytest.fail("trained again"))
    run(changed("b2.dropout=0.1"), tmp_path / "b", tmp_path / "cache")


def test_a_truncated_file_is_made_anew(tmp_path: Path) -> None:
    whole = run(CONFIG, tmp_path / "a", tmp_path / "cache")
    for path in (tmp_path / "cache").glob("*.pt"):
        path.write_bytes(path.read_bytes()[:200])
    same(run(CONFIG, tmp_path / "b", tmp_path / "cache"), whole)
    same(run(CONFIG, tmp_path / "c", tmp_path / "cache"), whole)


def test_an_interrupted_phase_is_not_stored(tmp_path: Path) -> None:
    """A run that goes on in the middle of a phase lacks the numbers of its first epochs."""

    class Stop(train.Report):
        def row(self, row: Any, blocks: Any) -> None:
            raise KeyboardInterrupt

    place = {"datasets": Path("nowhere"), "shared_blocks": tmp_path / "cache"}
    with pytest.raises(KeyboardInterrupt):
        train.run(CONFIG, Stop(), place=train.Place(folder=tmp_path / "cut", **place))  # type: ignore[arg-type]
    assert not list((tmp_path / "cache").glob("*.pt"))
    place["carry_on"] = True
    cut = train.run(CONFIG, place=train.Place(folder=tmp_path / "cut", **place))  # type: ignore[arg-type]
    same(cut, run(CONFIG, tmp_path / "whole", None))


def _train(folder: Path, cache: Path, trained: Any) -> None:
    from hebb.training import engine

    real = engine.hebbian

    def counted(*words: Any) -> Any:
        with trained.get_lock():
            trained.value += 1
        return real(*words)

    engine.hebbian = counted
    run(CONFIG, folder, cache)


def test_runs_at_the_same_time_train_once(tmp_path: Path) -> None:
    """Two phases of two epochs: four passes, however many processes want them."""
    context = multiprocessing.get_context("spawn")
    trained = context.Value("i", 0)
    processes = [
        context.Process(target=_train, args=(tmp_path / str(i), tmp_path / "cache", trained)) for i in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
        assert process.exitcode == 0
    assert trained.value == 4
    rows = [folders.read_rows(tmp_path / str(i) / "metrics.jsonl") for i in range(3)]
    assert all([r["val_acc"] for r in found] == [r["val_acc"] for r in rows[0]] for found in rows)


def test_phases_that_end_early_share_their_own_rows(tmp_path: Path) -> None:
    """Every phase ends after the first of its three epochs; what the second one leaves holds nothing of the first."""
    config = small.config(small.DEEP, "dataset_unsup.epochs=3", "dataset_unsup.print_freq=3", "stop.convergence=1e6")
    alone = run(config, tmp_path / "alone", None)
    first = run(config, tmp_path / "first", tmp_path / "cache")
    again = run(config, tmp_path / "again", tmp_path / "cache")
    assert [(row["phase"], row["epoch"]) for row in alone.rows] == [(0, 1), (1, 1), (2, 1)]
    same(alone, first)
    same(alone, again)
