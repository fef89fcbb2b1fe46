"""Where data and features lie, and what is recorded of the device.

Without it a GPU could be left empty, filled twice over, or described as another.
"""

from __future__ import annotations

import json
from dataclasses import replace
from math import prod
from pathlib import Path

import networks
import numpy as np
import pytest
import small
import torch
from pretended import Log, OnDevice, gpus

from hebb.config import plan
from hebb.config.serialise import to_json
from hebb.config.vocabulary import DeviceKind
from hebb.core import machine
from hebb.core.errors import ConfigError
from hebb.data import images
from hebb.nn import model
from hebb.storage import checkpoints, folders
from hebb.training import features, pack_run, shared_blocks, train

MEGABYTE = 1 << 20


@pytest.mark.fast
def test_free_memory_counts_what_the_allocator_keeps(log: Log) -> None:
    log.free[1], log.cached[1] = 3 * MEGABYTE, 2 * MEGABYTE
    assert machine.free_memory(torch.device("cuda", 1)) == 5 * MEGABYTE


@pytest.mark.fast
@pytest.mark.parametrize(("on_gpu", "kind"), [(1, "cuda"), (8, "cpu")])
def test_a_gpu_is_divided_by_its_own_trials(on_gpu: int, kind: str, log: Log) -> None:
    """Eight trials on eight GPUs have one each: its memory is not an eighth."""
    log.free[0] = 2 * MEGABYTE
    room = features.Room(file_limit=0, folder=None, trials=8, trials_on_gpu=on_gpu)
    kept = room.take((1, MEGABYTE), torch.uint8, torch.device("cuda", 0))
    assert kept is not None
    assert kept.device.type == kind


@pytest.mark.fast
@pytest.mark.parametrize(("mirror", "members", "kind"), [("false", 4, "cuda"), ("true", 3, "cpu"), ("true", 8, "cuda")])
def test_the_members_of_a_pack_divide_a_gpu(mirror: str, members: int, kind: str, log: Log) -> None:
    """The features of three lie in one tensor, or each takes a third of the memory, which holds ``members`` of them."""
    made = networks.config(small.CNN, f"dataset_sup.mirror={mirror}", "dataset_sup.epochs=2")
    seeds = (0, 1, 2)
    configs = [replace(made, seed=seed, pack=seeds, device=DeviceKind.CUDA) for seed in seeds]
    place = train.Place(datasets=networks.nowhere())
    run = pack_run.start_pack(configs, [train.Report()] * 3, [place] * 3)
    phase = run.phases[-1]
    count = run.members[0].data[phase.data].train.labels.numel() * (2 if mirror == "true" else 1)
    log.free[0] = members * count * prod(run.network[phase.first].shapes.into) * torch.float32.itemsize
    kept = [data.train.images for data in run.inputs(phase)]
    assert {features.device.type for features in kept} == {kind}


@pytest.mark.fast
@pytest.mark.parametrize("mirror", ["false", "true"])
def test_features_on_the_host_reach_the_gpu_without_a_wait(mirror: str, log: Log) -> None:
    """The features of a full GPU lie on the host; batches go through pinned memory, and the numbers are the same."""
    kept = (f"dataset_sup.mirror={mirror}", "dataset_sup.epochs=2")
    config = networks.config(small.CNN.replace(":drop_0.2", ""), *kept, curve_points=0)
    log.free[0] = 0
    uploads, waits = [], []
    for samples in (60, 120):
        log.clear()
        changes = (*kept, f"dataset_sup.samples={samples}", f"dataset_unsup.samples={samples}")
        few = networks.config(small.CNN.replace(":drop_0.2", ""), *changes, curve_points=0)
        result = networks.on_gpu(few)
        uploads.append(sum(log.uploads.values()))
        waits.append({place: count for place, count in log.waits.items() if "_keep" not in place})  # once an image
    assert uploads[0] == uploads[1]
    assert waits[0] == waits[1]
    assert log.used == {0}
    networks.assert_close(networks.on_gpu(config), networks.on_cpu(config))
    assert networks.devices(result) == {torch.device("cuda", 0)}


@pytest.mark.fast
@pytest.mark.parametrize("change", ["dataset_sup.zca=true", "dataset_sup.augmentation=false"])
def test_a_split_that_does_not_fit_stays_on_the_host(change: str, log: Log) -> None:
    spec = networks.config(small.CNN, change).dataset_sup
    log.free[0] = 1000
    train = images.load(spec, networks.nowhere(), 0, torch.device("cuda", 0)).train
    assert train.images.device.type == "cpu"
    x, labels = next(train.batches(10, torch.Generator().manual_seed(0)))
    assert x.device == labels.device == torch.device("cuda", 0)
    log.free[0] = 1 << 30
    there = images.load(spec, networks.nowhere(), 0, torch.device("cuda", 0)).train
    same, _ = next(there.batches(10, torch.Generator().manual_seed(0)))
    assert isinstance(there.images, OnDevice)
    assert (x.to("cpu") - same.to("cpu")).abs().max() < 1e-4


@pytest.mark.fast
def test_the_gpu_of_the_run_is_recorded(log: Log, tmp_path: Path) -> None:
    config = networks.config(small.MLP)
    networks.on_gpu(config, 1, folder=tmp_path / "run")
    environment = json.loads((tmp_path / "run" / folders.ENVIRONMENT).read_text())
    assert environment["machine"]["gpu"] == "Pretended GPU 1"
    stored = json.loads((tmp_path / "run" / folders.CONFIG).read_text())
    assert (stored["tf32"], stored["deterministic"]) == ("convolutions", False)


@pytest.mark.fast
def test_shared_blocks_are_those_of_the_same_kind_of_gpu(log: Log) -> None:
    config = replace(networks.config(small.DEEP), device=DeviceKind.CUDA)
    phases = plan.phases(config)
    keys = {shared_blocks.key(config, phases, 0, {"sup": "", "unsup": ""}, gpu) for gpu in (0, 1)}
    assert len(keys) == 2


@pytest.mark.fast
def test_a_network_of_a_gpu_is_stored_for_every_machine(log: Log, tmp_path: Path) -> None:
    """No tensor of a checkpoint may ask for a GPU when it is read."""
    config = networks.config(small.CNN)
    networks.on_gpu(config, 1, folder=tmp_path / "run")
    stored = checkpoints.load(tmp_path / "run" / folders.CHECKPOINT)
    assert not log.strayed
    assert {tensor.device.type for tensor in stored["model"].values()} == {"cpu"}
    torch.load(tmp_path / "run" / folders.CHECKPOINT, weights_only=True)
    assert set(log.strayed) == {"cuda:1"}  # the harness would have seen it


@pytest.mark.fast
def test_a_machine_without_a_gpu_looks_into_its_network(small_is_worth: None, tmp_path: Path) -> None:
    from hebb.analysis import runs, subject

    with gpus():
        networks.on_gpu(networks.config(small.CNN), 1, folder=tmp_path / "run")
        there = subject.load(runs.read_run(tmp_path / "run"), folders.Home(tmp_path), DeviceKind.CUDA, 1)
        assert there.network.device == torch.device("cuda", 1)
        x = next(there.pixels(10))
        assert x.device == torch.device("cuda", 1)
    with gpus(0):
        run = runs.read_run(tmp_path / "run")
        here = subject.load(run, folders.Home(tmp_path))
        assert here.network.device == torch.device("cpu")
        assert np.isfinite(here.features([0], 20)[0]["b0"]).all()
        with pytest.raises(ConfigError, match="has no GPU 0"):
            model.device_of(run.config)  # training goes on only where it began
    assert to_json(run.config)["device"] == "cuda"


@pytest.mark.fast
@pytest.mark.parametrize(("tf32", "convolutions", "products"), [("none", 0, 0), ("convolutions", 1, 0), ("all", 1, 1)])
def test_tf32_is_what_the_config_says(tf32: str, convolutions: int, products: int, log: Log) -> None:
    words = ("ieee", "tf32")
    networks.on_gpu(networks.config(small.MLP, f"tf32={tf32}"))
    assert torch.backends.cudnn.conv.fp32_precision == words[convolutions]  # type: ignore[attr-defined]
    assert torch.backends.cuda.matmul.fp32_precision == words[products]


@pytest.mark.fast
def test_determinism_is_that_of_each_run(log: Log) -> None:
    for deterministic in ("true", "false"):
        networks.on_gpu(networks.config(small.MLP, f"deterministic={deterministic}"))
        assert torch.are_deterministic_algorithms_enabled() == (deterministic == "true")
        assert torch.backends.cudnn.deterministic == (deterministic == "true")
    networks.on_cpu(networks.config(small.MLP, "deterministic=true"))
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.fast
def test_an_interrupted_run_goes_on_to_the_same_bits(log: Log, tmp_path: Path) -> None:
    config = networks.config(small.CNN, "dataset_sup.epochs=3")
    whole = networks.on_gpu(config)

    class Stop(train.Report):
        def row(self, row: folders.Row, blocks: object) -> None:
            if row["phase"] == 1 and row["epoch"] == 2:
                raise KeyboardInterrupt

    gpu = replace(config, device=DeviceKind.CUDA)
    with pytest.raises(KeyboardInterrupt):
        train.run(gpu, Stop(), place=train.Place(datasets=networks.nowhere(), folder=tmp_path / "run"))
    rest = networks.on_gpu(config, folder=tmp_path / "run", carry_on=True)
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor.to("cpu"), rest.network.state_dict()[name].to("cpu")), name
