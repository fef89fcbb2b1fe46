"""What an update costs: no wait of the host, no blocking upload, and no more operations than it takes.

Twice the images are twice the updates, and the difference of two runs is the cost of updates alone. Without it a wait
in every update would be seen only as a slow GPU.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import networks
import pytest
from networks import NETWORKS
from pretended import Log

from hebb.config.specs import RunConfig
from hebb.config.vocabulary import DeviceKind
from hebb.training import engine, train
from hebb.training.pack import Pack

FAST = ("SoftKrotov cnn", "EP", "bp")
PARAMETERS = [pytest.param(name, marks=[pytest.mark.fast] if name in FAST else []) for name in NETWORKS]

OPERATIONS = {
    "Hard cnn": 115,
    "Hard mlp": 52,
    "HardKrotov cnn": 117,
    "HardKrotov mlp": 53,
    "Krotov cnn": 137,
    "Krotov mlp": 56,
    "KWTA cnn": 113,
    "KWTA mlp": 49,
    "LPL": 1057,
    "ContrastiveLPL": 1113,
    "SupervisedLPL": 887,
    "LocalBP": 179,
    "Oja cnn": 95,
    "Oja mlp": 42,
    "Sanger cnn": 103,
    "Sanger mlp": 44,
    "Hebb cnn": 103,
    "Hebb mlp": 44,
    "HardInstar cnn": 165,
    "HardInstar mlp": 67,
    "TemporalInstar cnn": 182,
    "TemporalInstar mlp": 75,
    "ThresholdInstar cnn": 192,
    "ThresholdInstar mlp": 79,
    "BCM cnn": 186,
    "BCM mlp": 76,
    "surround": 198,
    "CorInfoMax": 340,
    "CorInfoMaxSparse": 1192,
    "EP": 199,
    "CSM": 173,
    "PC": 561,
    "PC of errors": 197,
    "PCNudge of errors": 90,
    "PCNudge": 632,
    "Soft cnn": 113,
    "Soft mlp": 51,
    "SoftKrotov cnn": 119,
    "SoftKrotov mlp": 54,
    "supervised": 72,
    "bias": 70,
    "repu": 67,
    "strides": 77,
    "bp": 46,
    "FA": 35,
    "joint": 124,
    "stale": 551,
    "shuffle": 540,
}
"""Most operations that start a kernel, an update of every phase together: gathers, features and classifier included."""


def _costs(name: str, samples: int, log: Log, *changes: str) -> tuple[int, int, int]:
    """Return the waits, the blocking uploads and the operations of a run."""
    log.clear()
    few = (f"dataset_sup.samples={samples}", f"dataset_unsup.samples={samples}")
    networks.on_gpu(networks.config(NETWORKS[name], *few, *changes, curve_points=0))
    return sum(log.waits.values()), sum(log.uploads.values()), log.started


@pytest.mark.parametrize("name", PARAMETERS)
def test_an_update_waits_for_nothing(name: str, log: Log) -> None:
    waits, uploads, operations = zip(*(_costs(name, samples, log) for samples in (60, 120)), strict=True)
    assert waits[0] == waits[1], log.waits
    assert uploads[0] == uploads[1], log.uploads
    assert (operations[1] - operations[0]) / 6 <= OPERATIONS[name]


KEPT = (48, 50, 48)
ANEW = (48, 66, 83)
"""Most operations of an update of a pack of four in the phases of two Hebbian blocks and a classifier, with features
that are kept and with features that are computed anew; one run makes 37, 42 and 40."""


def _steps(config: RunConfig, members: int, log: Log, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the operations inside the epochs of each phase, of one run or of a pack."""
    counts: list[int] = []

    def counted(run_epoch: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            before = log.started
            scores = run_epoch(*arguments, **options)
            counts.append(log.started - before)
            return scores

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(engine, "run_epoch", counted(engine.run_epoch))
        patch.setattr(Pack, "run_epoch", counted(Pack.run_epoch))
        seeds = tuple(range(members)) if members > 1 else ()
        configs = [replace(config, seed=seed, pack=seeds, device=DeviceKind.CUDA) for seed in range(members)]
        train.run_pack(configs, None, places=[train.Place(datasets=networks.nowhere())] * members)
    return counts


def _of_an_update(config: RunConfig, members: int, log: Log, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the operations of an update in each epoch: three more batches, of all images, make the difference."""
    few = [
        replace(
            config,
            **{role: replace(getattr(config, role), samples=samples) for role in ("dataset_sup", "dataset_unsup")},
        )
        for samples in (30, 60)
    ]
    costs = [_steps(one, members, log, monkeypatch) for one in few]
    return [(b - a) / 3 for a, b in zip(*costs, strict=True)]


@pytest.mark.parametrize(
    ("name", "epochs", "most"),
    [
        pytest.param("SoftKrotov cnn", 2, KEPT, marks=pytest.mark.fast),
        ("SoftKrotov cnn", 1, ANEW),
        ("Soft cnn", 2, KEPT),
        ("Soft cnn", 1, ANEW),
    ],
)
def test_four_members_cost_little_more_than_one(
    name: str, epochs: int, most: tuple[int, ...], log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update gathers the images or the features of all members at once, in every phase."""
    changes = (f"dataset_sup.epochs={epochs}", f"dataset_unsup.epochs={epochs}")
    config = networks.config(NETWORKS[name], *changes, curve_points=0)
    costs = _of_an_update(config, 4, log, monkeypatch)
    assert len(costs) == 3 * epochs
    assert all(cost <= most[i // epochs] for i, cost in enumerate(costs)), costs
