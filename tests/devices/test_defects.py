"""Analyses and packs on a pretended GPU, and what a search makes of several.

Without it an analysis would fail, or a search take a GPU that is not the user's, only where there is one.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import networks
import pytest
import small
import torch
from pretended import Log

from hebb.analysis import interpolate, robust
from hebb.analysis.robust import Attack
from hebb.core.errors import ConfigError
from hebb.data import views
from hebb.training import train

CUDA = torch.device("cuda", 1)


def _logits(x: torch.Tensor) -> torch.Tensor:
    """Return logits (n, 3) that depend smoothly on the images."""
    return torch.stack([x.flatten(1).sum(1), x.flatten(1).square().sum(1), x.flatten(1)[:, 0]], dim=1)


@pytest.mark.fast
def test_interpolated_images_are_those_of_the_cpu(log: Log) -> None:
    a, b = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    answers = []
    for device in (torch.device("cpu"), CUDA):
        t, line = interpolate.line(a.to(device), b.to(device), 5)
        log.clear()
        moved = interpolate.generated(_logits, line, t, (0, 1), steps=5)
        assert not log.waits
        answers.append(moved.to("cpu"))
        lengths = (moved - line).flatten(1).norm(dim=1).to("cpu")
        assert (lengths <= 4 * t * (1 - t) * 0.3 * (b - a).norm() + 1e-5).all()  # one ball for all channels
    assert (answers[0] - answers[1]).abs().max() < 1e-5


@pytest.mark.fast
def test_an_attack_waits_once_a_step(log: Log) -> None:
    x = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = _logits(x).argmax(dim=1)
    answers, waits = [], []
    for device, steps in (("cpu", 6), ("cuda:1", 6), ("cuda:1", 12)):
        log.clear()
        attacked, right = robust.pgd(
            _logits,
            x.to(device),
            labels.to(device),
            0.01,
            Attack.L2,
            steps=steps,
            restarts=1,
            generator=torch.Generator().manual_seed(0),
        )
        waits.append(sum(log.waits.values()))
        answers.append((attacked.to("cpu"), right.to("cpu")))
    assert waits[2] - waits[1] <= 6
    assert torch.equal(answers[0][1], answers[1][1])
    assert (answers[0][0] - answers[1][0]).abs().max() < 1e-5


@pytest.mark.fast
def test_a_view_uploads_nothing(log: Log) -> None:
    x = torch.rand(4, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    view, pictures = views.RandomView(0.08, 0.5, 0.8, 0.2, 0.5), []
    for device in ("cpu", "cuda:1", "cuda:1"):
        there = x.to(device)
        log.clear()
        pictures.append(view(there, torch.Generator(device=device).manual_seed(1)).to("cpu"))
    assert not log.uploads
    assert sum(log.waits.values()) == 1  # the copy to the CPU
    assert (pictures[0] - pictures[1]).abs().max() < 1e-5


@pytest.mark.parametrize("network", [small.DEEP, networks.NETWORKS["bias"], networks.NETWORKS["repu"]])
@pytest.mark.parametrize("index", [pytest.param(0, marks=pytest.mark.fast), 1])
def test_a_pack_is_its_members(network: str, index: int, log: Log) -> None:
    """As on the CPU, and without a loop over the members, of which torch would warn."""
    from dataclasses import replace

    from hebb.config.vocabulary import DeviceKind

    config = networks.config(network.replace(":drop_0.5", ""))
    results = []
    for kind in (DeviceKind.CUDA, DeviceKind.CPU):
        members = [replace(config, seed=seed, pack=(0, 1), device=kind) for seed in (0, 1)]
        place = train.Place(datasets=networks.nowhere(), device_index=index)
        results.append(train.run_pack(members, None, places=[place] * 2))
    for mine, other in zip(*results, strict=True):
        networks.assert_close(mine, other)


@pytest.mark.fast
def test_a_pack_reads_features_on_the_host(log: Log) -> None:
    from dataclasses import replace

    from hebb.config.vocabulary import DeviceKind

    log.free[0] = 0
    config = networks.config(small.DEEP.replace(":drop_0.5", ""))
    members = [replace(config, seed=seed, pack=(0, 1), device=DeviceKind.CUDA) for seed in (0, 1)]
    place = train.Place(datasets=networks.nowhere())
    for result in train.run_pack(members, None, places=[place] * 2):
        assert networks.devices(result) == {torch.device("cuda", 0)}


# -- searches ---------------------------------------------------------------------------------------------------


@pytest.mark.fast
@pytest.mark.parametrize(("listed", "index", "shown"), [("2,3", 1, "3"), (None, 1, "1"), ("GPU-a, GPU-b", 0, "GPU-a")])
def test_a_search_takes_a_gpu_of_the_user(
    listed: str | None, index: int, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hebb.tuning import ray_session

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert ray_session.visible_gpu(index) == shown


@pytest.mark.fast
def test_a_gpu_that_is_not_listed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from hebb.tuning import ray_session

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    with pytest.raises(ConfigError, match="shows no GPU 2"):
        ray_session.visible_gpu(2)


@pytest.mark.fast
def test_a_full_gpu_is_not_a_full_machine() -> None:
    from hebb.tuning import ray_session

    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert "the GPU was out of memory" in ray_session.reason(full)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("asked", "has_gpu", "kind"),
    [
        ("auto", True, "cuda"),
        ("cuda", True, "cuda"),
        ("auto", False, "cpu"),
        ("cpu", True, "cpu"),
        ("auto", None, "cpu"),
    ],
)
def test_a_cluster_decides_the_device(asked: str, has_gpu: bool | None, kind: str, monkeypatch: Any) -> None:
    """The machine that starts a search on a cluster, here one without a GPU, need not be like its nodes."""
    from dataclasses import dataclass

    from hebb.config.vocabulary import DeviceKind
    from hebb.tuning import stages

    @dataclass(frozen=True)
    class Planned:
        base: Any
        resume_from: None = None
        beside: tuple[str, ...] = ()

    monkeypatch.setattr(stages.trials, "planned", lambda search, catalog: search)
    base = networks.config(small.MLP, device=DeviceKind(asked))
    search: Any = stages._on_device(Planned(base), SimpleNamespace(gpu=None), None, has_gpu)  # type: ignore[arg-type]
    assert search.base.device == kind


@pytest.mark.fast
def test_a_cluster_without_a_gpu_says_so() -> None:
    from hebb.config.vocabulary import DeviceKind
    from hebb.tuning import stages

    base = networks.config(small.MLP, device=DeviceKind.CUDA)
    with pytest.raises(ConfigError, match="no node of the cluster has a GPU"):
        stages._on_device(SimpleNamespace(base=base), SimpleNamespace(gpu=None), None, False)  # type: ignore[arg-type]


@pytest.mark.fast
@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_a_search_on_a_gpu_that_ray_does_not_know_is_refused(kind: str) -> None:
    from hebb.config.vocabulary import DeviceKind
    from hebb.tuning import stages

    base = networks.config(small.MLP, device=DeviceKind(kind))
    with pytest.raises(ConfigError, match=f"Ray gives out no {kind}"):
        stages._on_device(SimpleNamespace(base=base), SimpleNamespace(gpu=None), None, None)  # type: ignore[arg-type]


@pytest.mark.fast
@pytest.mark.parametrize(("kind", "problem"), [("mps", "mps is the GPU of a Mac"), ("xpu", "has no GPU 0 that torch")])
def test_a_gpu_that_is_not_there_is_refused(kind: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        small.run(networks.config(small.MLP, device=kind))


@pytest.mark.fast
@pytest.mark.parametrize(("gpu", "trials"), [(None, 4), (1, 2)])
def test_an_estimate_counts_the_gpus(gpu: int | None, trials: int, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    from hebb.tuning import estimate

    monkeypatch.setattr(estimate, "cores", lambda: 16)
    settings: Any = SimpleNamespace(gpu=gpu, trials_per_gpu=2)
    assert estimate._room(1, torch.device("cuda", 0), settings) == trials
    assert estimate._room(8, torch.device("cuda", 0), settings) == 2  # a trial needs its cores too


@pytest.mark.fast
def test_a_worker_keeps_the_data_of_one_run(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    from hebb.tuning import shared_data

    monkeypatch.setattr(shared_data, "_LOADED", {})
    shared = object.__new__(shared_data.Shared)
    shared._stored, shared._arrays = {}, {}
    specs = [networks.config(small.MLP, f"dataset_sup.samples={n}").dataset_sup for n in (50, 60, 70, 60)]
    for spec in specs:
        shared(spec, networks.nowhere(), 0, CUDA)
    assert [key[0].samples for key, _ in shared_data._LOADED] == [70, 60]
