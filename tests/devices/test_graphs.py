"""Every method as CUDA graphs on a pretended GPU, to the bits of the loop there.

What is recorded repeats its operations and reads nothing of the host, and what a stream that is being recorded does not
permit is refused: waits, copies of the host's memory, generators that a graph does not know, optimisers that did not
agree. Without it a graph would first be recorded by those who have a GPU.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import networks
import pytest
import small
import torch
from networks import CNN, NETWORKS
from pretended import Log

from hebb.config.vocabulary import DeviceKind
from hebb.energy import adam
from hebb.training import graphs, train

LOOP = ("Oja cnn", "Oja mlp", "Sanger cnn", "Sanger mlp")
"""Networks whose rule learns one by one: a graph would change the last bits."""

VARIANTS: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "dropout": (small.CNN, [], {}),
    "dropout by contrast": (small.BP.replace("BP-c12-k3-p1:", "BP-c12-k3-p1:attdrop_0.3:"), [], {}),
    "scheduled rate": ("SoftKrotov-c8-k3-p1-lr0.05-v0:bn:triangle:avg_2_2_0 BP:flatten:drop_0.5", [], {}),
    "augmentation": (CNN, ["dataset_sup.augmentation=true", "dataset_unsup.augmentation=true"], {}),
    "consecutive": (CNN, [], {"mode": "consecutive"}),
    "simultaneous": (small.DEEP, [], {"mode": "simultaneous"}),
    "simultaneous, by rule and gradient": networks.WAYS["simultaneous, by rule and gradient"],
    "early stop": (CNN, ["stop.patience=9"], {}),
    "sgd, cosine": (CNN, ["classifier.optimiser=sgd", "classifier.momentum=0.5", "classifier.schedule=cosine"], {}),
    "bfloat16": (CNN, ["compute_dtype=bfloat16"], {}),
    "zca": (CNN, ["dataset_sup.zca=true", "dataset_unsup.zca=true"], {}),
    "features computed anew": (CNN, ["dataset_sup.epochs=1", "dataset_unsup.epochs=1"], {}),
}
FAST = ("EP", "dropout")
NAMES = [pytest.param(name, marks=[pytest.mark.fast] if name in FAST else []) for name in (*NETWORKS, *VARIANTS)]


class Notes(train.Report):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record three updates, so that nine of them are made together and one by one."""
    monkeypatch.setattr(graphs, "RUN", 3)


@pytest.mark.parametrize("name", NAMES)
def test_graphs_are_the_loop(name: str, log: Log) -> None:
    network, changes, fields = VARIANTS.get(name) or (NETWORKS[name], [], {})
    few = [f"dataset_{role}.{value}" for role in ("sup", "unsup") for value in ("samples=95", "epochs=2")]
    config = networks.config(network, *few, *(change for change in changes if change not in few), **fields)
    loop = networks.on_gpu(config, 1)
    log.clear()
    notes = Notes()
    place = train.Place(datasets=networks.nowhere(), device_index=1)
    replayed = train.run(replace(config, cuda_graphs=True, device=DeviceKind.CUDA), notes, place=place)
    mine, other = loop.network.state_dict(), replayed.network.state_dict()
    assert [key for key in mine if not torch.equal(mine[key].to("cpu"), other[key].to("cpu"))] == []
    assert [point.to_json() for point in loop.points] == [point.to_json() for point in replayed.points]
    assert log.used == {1}
    assert bool(notes.lines) == (name in LOOP), notes.lines
    assert log.operations["graph"]


@pytest.mark.fast
def test_numbers_that_an_update_changes_are_not_recorded(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """An optimiser of a plugin may count on the host, and a graph would repeat its first numbers."""
    step = adam._on_device

    def counting(optimiser: torch.optim.Optimizer) -> None:
        for group in optimiser.param_groups:
            group["eps"] *= 2
        step(optimiser)

    monkeypatch.setattr(adam, "_on_device", counting)
    notes = Notes()
    config = networks.config(NETWORKS["PC"], "cuda_graphs=true", device=DeviceKind.CUDA)
    train.run(config, notes, place=train.Place(datasets=networks.nowhere()))
    assert len(notes.lines) == 1
    assert "the numbers of its optimiser change" in notes.lines[0]


@pytest.mark.fast
def test_a_replay_is_one_operation(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty updates more are two graphs of twenty more, and no wait."""
    monkeypatch.setattr(graphs, "RUN", 20)
    counts = []
    for samples in (420, 820):
        log.clear()
        sizes = (f"dataset_sup.samples={samples}", f"dataset_unsup.samples={samples}")
        config = networks.config(NETWORKS["Soft mlp"], *sizes, "cuda_graphs=true", curve_points=0)
        networks.on_gpu(config)
        waits = sum(count for place, count in log.waits.items() if "readout" not in place)
        counts.append((log.operations["graph"], waits))
    assert counts[1][0] - counts[0][0] == 2 * 2  # a Hebbian phase and a classifier
    assert counts[1][1] == counts[0][1]


@pytest.mark.fast
@pytest.mark.parametrize("what", ["wait", "upload", "generator", "optimiser"])
def test_what_a_recording_does_not_permit_is_refused(what: str, log: Log) -> None:
    device = torch.device("cuda", 0)
    x = torch.ones(3, device=device)
    weights = torch.nn.Parameter(torch.ones(3, device=device))
    weights.grad = torch.ones(3, device=device)
    adam = torch.optim.Adam([weights], fused=True)
    generator = torch.Generator(device=device)
    actions = {
        "wait": lambda: x.sum().item(),
        "upload": lambda: torch.ones(3).to(device),
        "generator": lambda: torch.rand(3, generator=generator, device=device),
        "optimiser": adam.step,
    }
    with pytest.raises(RuntimeError, match=r"captur"):
        graphs._cuda_graph(actions[what], device, [], None)
