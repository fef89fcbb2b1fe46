"""Images of every source on a pretended GPU: files of one's own, in memory and decoded while the run goes on, varied.

Without it a stream could send its images by copies that wait, or a kind of augmentation draw on the host.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import image_files
import networks
import pytest
import small
import torch
from pretended import Log

from hebb.config import catalog, overrides
from hebb.config.registry import DATASETS
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import Augmentation
from hebb.data import augmentation, images, stream

NETWORK = "SoftKrotov-c6-k3-p1:bn:triangle:max_2_2_0 Soft-c8-k3-p1:bn:relu:avg_2_2_0 BP:flatten"
KINDS = ("folder", "folder streamed", "npz")
CHANGES = {"plain": (), "augmented": ("augmentation=true",), "resized": ("size=12",), "whitened": ("zca=true",)}
STREAMED = 428
"""Most operations of an update of every phase together, whose images are decoded while it runs and varied."""


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode in this process, which needs no other to start."""
    monkeypatch.setattr(stream, "workers", lambda: 0)


def config(kind: str, home: Path, change: str, network: str = NETWORK, each: int = 20) -> RunConfig:
    """Return a run on two classes of coloured files, or on an ``.npz`` file of three."""
    path = home / f"{kind}-{each}.npz" if kind == "npz" else home / f"{kind}-{each}"
    if not path.exists():
        write = partial(image_files.keras, train=2 * each) if kind == "npz" else partial(image_files.folder, each=each)
        write(path)
    data = catalog.load().dataset(f"{kind.split()[0]}:{path}", "test")
    data = replace(data, epochs=1, batch_size=5, print_freq=1)
    run = replace(small.config(network), dataset_sup=data, dataset_unsup=data)
    changes = [f"dataset_{role}.{value}" for role in ("sup", "unsup") for value in CHANGES[change]]
    return overrides.apply(run, overrides.parse(changes), catalog.load())


def place(kind: str) -> dict[str, Any]:
    """Return how a run reads its images: into memory, or as a stream."""
    return {"load": partial(images.load, resident=0)} if kind == "folder streamed" else {}


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_source_is_that_of_the_cpu(kind: str, change: str, index: int, tmp_path: Path, log: Log) -> None:
    run = config(kind, tmp_path, change)
    result = networks.on_gpu(run, index, **place(kind))
    assert log.used == {index}
    assert networks.devices(result) == {torch.device("cuda", index)}
    networks.assert_alike(result, networks.on_cpu(run, **place(kind)))


@pytest.mark.fast
def test_a_stream_waits_for_nothing(tmp_path: Path, log: Log) -> None:
    """What is decoded goes through pinned memory, whatever the number of updates."""
    costs = []
    for each in (20, 40):
        run = replace(config("folder streamed", tmp_path, "augmented", each=each), curve_points=0)
        log.clear()
        networks.on_gpu(run, **place("folder streamed"))
        costs.append((sum(log.waits.values()), sum(log.uploads.values()), log.started))
    assert costs[0][:2] == costs[1][:2], (log.waits, log.uploads)
    assert (costs[1][2] - costs[0][2]) / 8 <= STREAMED


@pytest.mark.fast
@pytest.mark.parametrize("kind", Augmentation)
def test_every_variation_is_that_of_the_cpu_and_waits_for_nothing(kind: Augmentation, log: Log) -> None:
    x = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    vary = augmentation.make(kind, 0.1 if kind == Augmentation.NOISE else 0.0, tuple(x.shape[1:]), "test")
    pictures = []
    for device in ("cpu", "cuda:0", "cuda:1"):
        there = x.to(device)
        log.clear()
        varied = vary(there, torch.Generator(device=device).manual_seed(1))
        assert varied.device == torch.device(device)
        assert not log.waits
        assert not log.uploads
        pictures.append(varied.to("cpu"))
    assert all((pictures[0] - picture).abs().max() < 1e-5 for picture in pictures[1:])


def test_no_source_is_left_out() -> None:
    """A new kind of name that spells out its data has to be named here."""
    assert {kind.split()[0] for kind in KINDS} == {form.partition(":")[0] for form in DATASETS.forms}
