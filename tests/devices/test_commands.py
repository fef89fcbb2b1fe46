"""The commands that look into a stored network or go on with one, on pretended GPUs, against their output on the CPU.

Without it a verb that takes a tensor to the wrong device would fail only for those who have a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import networks
import numpy as np
import pandas as pd
import pytest
import small
import stored_runs
import torch
from networks import NETWORKS
from pretended import Log

from hebb.cli import evaluate
from hebb.cli import post_hoc as post_hoc_command
from hebb.cli.analysis import command as analysis
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import DeviceKind
from hebb.core.errors import HebbError
from hebb.probing import stored
from hebb.storage import folders
from hebb.training import engine, post_hoc, train

PLACES = ("cpu", "cuda:0", "cuda:1")
MLP = "Soft-c12-t2-r5:flatten:softmax_5 BP"
CNN = NETWORKS["SoftKrotov cnn"]
STORED = {"cnn": CNN, "mlp": MLP, "bp": NETWORKS["bp"], "ep": NETWORKS["EP"], "lpl": NETWORKS["LPL"]}
STORED |= {"sphere": NETWORKS["SPHeRe"], "scff": NETWORKS["SCFF"], "residual": NETWORKS["residual"]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parent folder with a stored run of several kinds of network."""
    home = tmp_path_factory.mktemp("home")
    for name, network in STORED.items():
        stored_runs.single(home, name, replace(networks.config(network), device=DeviceKind.CPU))
    return home


def at(place: str, log: Log) -> None:
    """Fail unless the last thing ran where it was to run."""
    assert log.used == ({torch.device(place).index} if place != "cpu" else set())


# -- analyses -------------------------------------------------------------------------------------------------

LOOKS: dict[str, list[tuple[str, str]]] = {
    "filters": [("cnn", ""), ("cnn", "--block 1 --view image"), ("bp", "--order deviation"), ("mlp", "")],
    "fields": [
        ("cnn", "--steps 3 --neurons 4"),
        ("cnn", "--block 1 --show patches --images 40"),
        ("mlp", "--steps 3"),
        ("scff", "--block 1 --steps 3 --neurons 4"),
    ],
    "embed": [("cnn", "--images 60 --perplexity 5"), ("ep", "--images 60 --perplexity 5 --blocks 0 1")],
    "robust": [
        ("cnn", "--images 20 --steps 2 --noise 0.1 --l2 0.2 --linf 0.02"),
        ("ep", "--kinds noise --images 20"),
        ("sphere", "--images 20 --steps 2 --l2 0.2"),
    ],
    "interpolate": [
        ("bp", "--steps 3 --points 4"),
        ("residual", "--steps 3 --points 4"),
        ("mlp", "--steps 3 --points 4 --prototypes neurons"),
    ],
}
"""For every verb that looks into a network: runs and flags."""


def test_no_analysis_is_left_out() -> None:
    """A new verb that looks into a network has to be named here."""
    assert set(LOOKS) == {name for name, verb in analysis.VERBS.items() if verb.looks}


@pytest.mark.parametrize(("verb", "name", "flags"), [(verb, *case) for verb, cases in LOOKS.items() for case in cases])
def test_every_analysis_draws_what_it_draws_on_the_cpu(
    verb: str, name: str, flags: str, home: Path, tmp_path: Path, log: Log
) -> None:
    tables = []
    for place in PLACES:
        out = tmp_path / place
        log.clear()
        words = [verb, name, *flags.split(), "--device", place, "--data-dir", str(home), "--out", str(out)]
        assert analysis.main(words) == 0
        at(place, log)
        tables.append(pd.read_csv(out / f"{verb}.csv"))
    assert len(tables[0])
    for table in tables[1:]:
        assert list(table.columns) == list(tables[0].columns)
        if verb != "embed":  # t-SNE doubles what differs in the last bit
            assert_frames(tables[0], table)
        assert len(table) == len(tables[0])


def assert_frames(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Fail unless two tables agree, numbers up to rounding."""
    for name in one.columns:
        if one[name].dtype.kind == "f":
            scale = max(one[name].abs().fillna(0).max(), 1e-6)  # a column may be empty
            assert np.allclose(one[name], other[name], rtol=0, atol=5e-3 * scale, equal_nan=True), name
        else:
            assert one[name].equals(other[name]), name


# -- measuring what is stored -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STORED)
def test_a_stored_model_is_measured_as_on_the_cpu(
    name: str, home: Path, tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, measure = [], stored.evaluate

    def noted(*arguments: Any, **options: Any) -> Any:
        answers.append(measure(*arguments, **options))
        return answers[-1]

    monkeypatch.setattr(stored, "evaluate", noted)
    for place in PLACES:
        log.clear()
        file = tmp_path / f"{place.replace(':', '')}.npz"
        words = [name, "--device", place, "--data-dir", str(home), "--export-features", str(file)]
        assert evaluate.main(words) == 0
        at(place, log)
    exported = [dict(np.load(path)) for path in sorted(tmp_path.glob("*.npz"))]
    for answer, arrays in zip(answers[1:], exported[1:], strict=True):
        assert answer.loss == pytest.approx(answers[0].loss, rel=1e-3)
        assert answer.accuracy == pytest.approx(answers[0].accuracy, abs=0.5)
        assert arrays.keys() == exported[0].keys()
        for key, values in arrays.items():
            assert np.allclose(values, exported[0][key], rtol=1e-3, atol=1e-3), key


# -- the post-hoc loss --------------------------------------------------------------------------------------------

POST_HOC = {
    "rule": MLP,
    "convolution": "Soft-c6-k3-p1-t1:bn:triangle:max_2_2_0 BP:flatten",
    "gradient": "BP-c12:flatten:relu BP",
}


def curve(config: RunConfig, place: str, **options: Any) -> np.ndarray:
    device = torch.device(place)
    run = replace(config, device=DeviceKind(device.type))
    where = train.Place(datasets=networks.nowhere(), device_index=device.index or 0, **options)
    return post_hoc.run(run, train.Report(), place=where)


@pytest.mark.parametrize("name", POST_HOC)
def test_the_post_hoc_loss_is_that_of_the_cpu(name: str, log: Log) -> None:
    curves = []
    for place in PLACES:
        log.clear()
        curves.append(curve(networks.config(POST_HOC[name]), place))
        at(place, log)
    for other in curves[1:]:
        assert np.allclose(other[:, :2], curves[0][:, :2], rtol=5e-3)
        assert np.abs(other[:, 2] - curves[0][:, 2]).max() <= 10.0  # an image of ten


MOST = {"rule": 49, "convolution": 57, "gradient": 49}
"""Most operations of an update that measures the post-hoc loss."""


@pytest.mark.parametrize("name", POST_HOC)
def test_an_update_below_a_frozen_classifier_waits_for_nothing(
    name: str, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs: list[tuple[int, int, int]] = []
    measure = engine.post_hoc

    def counted(*arguments: Any) -> Any:
        log.clear()
        answer = measure(*arguments)
        costs.append((sum(log.waits.values()), sum(log.uploads.values()), log.started))
        return answer

    monkeypatch.setattr(engine, "post_hoc", counted)
    for samples in (60, 120):
        curve(networks.config(POST_HOC[name], f"dataset_sup.samples={samples}"), "cuda:0")
    assert costs[0][:2] == costs[1][:2], (log.waits, log.uploads)
    assert (costs[1][2] - costs[0][2]) / 6 <= MOST[name]


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("stage", ["run_epoch", "post_hoc"])
def test_an_interrupted_post_hoc_loss_goes_on(
    stage: str, index: int, tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training and in the measurement, on the GPU where it began, to the bits of an uninterrupted one."""
    words = ["--data-dir", str(tmp_path), "--device", f"cuda:{index}"]
    start = [*words, "--preset", POST_HOC["convolution"], "--dataset", "Digits", "--threads", "1"]
    start += [
        "--set",
        *(f"dataset_{role}.{value}" for role in ("sup", "unsup") for value in ("samples=60", "epochs=1")),
    ]
    assert post_hoc_command.main([*start, "--model-name", "whole"]) == 0
    with monkeypatch.context() as patch, pytest.raises(HebbError, match="--resume-run"):
        patch.setattr(engine, stage, mock.Mock(side_effect=KeyboardInterrupt()))
        post_hoc_command.main([*start, "--model-name", "broken"])
    log.clear()
    assert post_hoc_command.main([*words, "--resume-run", "broken"]) == 0
    assert log.used == {index}
    home = folders.Home(tmp_path)
    curves = [(home.network(name) / folders.POST_HOC).read_bytes() for name in ("whole", "broken")]
    assert curves[0] == curves[1]


# -- going on, caches and stored blocks ---------------------------------------------------------------------------


class Stop(train.Report):
    """Interrupts a run in a phase, after its first epoch."""

    def __init__(self, phase: int) -> None:
        self.phase_to_stop = phase

    def row(self, row: folders.Row, blocks: object) -> None:
        if row["phase"] == self.phase_to_stop and row["epoch"] == 1:
            raise KeyboardInterrupt


RESUMED = (
    "SoftKrotov cnn",
    "bp",
    "LPL",
    "stale",
    "shuffle",
    "SPHeRe",
    "SCFF",
    "residual",
    "EP",
    "CorInfoMaxSparse",
    "PC",
    "joint",
)


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("name", RESUMED)
def test_every_kind_of_phase_goes_on_to_the_same_bits(name: str, graphs: bool, tmp_path: Path, log: Log) -> None:
    """Moments, statistics and counts on the device come back from the checkpoint as they were."""
    mode = "simultaneous" if name == "joint" else "successive"
    epochs = ("dataset_sup.epochs=2", "dataset_unsup.epochs=2")
    config = networks.config(NETWORKS[name], *epochs, mode=mode, device=DeviceKind.CUDA, cuda_graphs=graphs)
    place = train.Place(datasets=networks.nowhere(), device_index=1)
    whole = train.run(config, place=place)
    with pytest.raises(KeyboardInterrupt):
        train.run(config, Stop(0), place=replace(place, folder=tmp_path / "run"))
    log.clear()
    rest = train.run(config, place=replace(place, folder=tmp_path / "run", carry_on=True))
    assert log.used == {1}
    assert_bits(whole, rest)


def assert_bits(one: train.Result, other: train.Result) -> None:
    """Fail unless two networks have the same bits."""
    mine, its = one.network.state_dict(), other.network.state_dict()
    assert [name for name, tensor in mine.items() if not torch.equal(tensor.to("cpu"), its[name].to("cpu"))] == []


@pytest.mark.parametrize("index", [0, 1])
def test_an_interrupted_pack_goes_on_to_the_same_bits(index: int, tmp_path: Path, log: Log) -> None:
    epochs = ("dataset_sup.epochs=2", "dataset_unsup.epochs=2")
    config = networks.config(CNN, *epochs, device=DeviceKind.CUDA, pack=(0, 1))
    members = [replace(config, seed=seed) for seed in (0, 1)]
    place = train.Place(datasets=networks.nowhere(), device_index=index)
    places = [replace(place, folder=tmp_path / str(seed)) for seed in (0, 1)]
    whole = train.run_pack(members, None, places=[place] * 2)
    with pytest.raises(KeyboardInterrupt):
        train.run_pack(members, [Stop(2), train.Report()], places=places)
    log.clear()
    rest = train.run_pack(members, None, places=[replace(place, carry_on=True) for place in places])
    assert log.used == {index}
    for one, other in zip(whole, rest, strict=True):
        assert_bits(one, other)


def _shared(folder: Path) -> dict[str, Any]:
    return {"shared_blocks": folder}


def _file_of_features(folder: Path) -> dict[str, Any]:
    return {"cache": folder}


CACHES: dict[str, tuple[Callable[[Path], dict[str, Any]], tuple[str, ...]]] = {
    "blocks that runs share": (_shared, ()),
    "features in a file": (_file_of_features, ()),
    "fitted whitenings": (_file_of_features, ("dataset_sup.zca=true", "dataset_unsup.zca=true")),
}


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("name", CACHES)
def test_what_is_cached_changes_no_bit(name: str, index: int, tmp_path: Path, log: Log) -> None:
    place, changes = CACHES[name]
    config = networks.config(CNN, *changes)
    if name == "features in a file":
        log.free[index] = 0
    plain = networks.on_gpu(config, index)
    for _ in range(2):  # the second finds what the first has left
        log.clear()
        cached = networks.on_gpu(config, index, **place(tmp_path))
        assert log.used == {index}
        assert_bits(plain, cached)


@pytest.mark.parametrize("index", [0, 1])
def test_stored_weights_and_blocks_are_started_from(index: int, tmp_path: Path, log: Log) -> None:
    """From a checkpoint of the CPU and from stored blocks, whose tensors go to the GPU of the run."""
    first = networks.on_cpu(networks.config(CNN), folder=tmp_path / "run", layers=tmp_path, store_blocks="first")
    assert first.folder is not None
    again = partial(networks.config, CNN)
    for config, place in (
        (replace(again(), resume="all"), {"resume_from": first.folder / folders.CHECKPOINT}),
        (networks.config(CNN.replace(":bn", ":bn:resume=first/b0", 1)), {"layers": tmp_path}),
    ):
        log.clear()
        result = networks.on_gpu(config, index, **place)
        assert log.used == {index}
        networks.assert_alike(result, small.run(replace(config, device=DeviceKind.CPU), **place))
