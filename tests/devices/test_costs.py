"""What an update costs: no wait of the host, no blocking upload, and no more operations than it takes.

Twice the images are twice the updates, and the difference of two runs is the cost of updates alone. Without it a wait
in every update would be seen only as a slow GPU.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import networks
import pytest
from networks import NETWORKS
from pretended import Log

from hebb.config import plan
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import DeviceKind
from hebb.core.errors import ConfigError
from hebb.training import engine, train
from hebb.training.pack import Pack

FAST = ("SoftKrotov cnn", "EP", "bp")
NAMES = (*NETWORKS, *networks.WAYS)
PARAMETERS = [pytest.param(name, marks=[pytest.mark.fast] if name in FAST else []) for name in NAMES]

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
    "repu": 70,
    "strides": 77,
    "bp": 46,
    "FA": 35,
    "joint": 124,
    "SPHeRe": 259,
    "SPHeRe of distances": 142,
    "SCFF": 367,
    "SCFF of vectors": 351,
    "residual": 138,
    "stale": 551,
    "shuffle": 540,
}
"""Most operations that start a kernel, an update of every phase together: gathers, features and classifier included."""


WAYS = {
    "consecutive": 114,
    "simultaneous": 101,
    "stop": 240,
    "sgd": 120,
    "adamw": 121,
    "mse": 122,
    "validation": 104,
    "features of 16 bits": 125,
    "consecutive, local losses": 656,
    "simultaneous, local losses": 649,
    "simultaneous, without a gradient": 59,
    "frozen blocks": 63,
    "frozen blocks, consecutive": 94,
    "blockwise": 124,
    "probes": 121,
    "simultaneous, by rule and gradient": 77,
    "compute in bfloat16": 142,
    "back-prop in bfloat16": 59,
    "zca": 115,
    "zoom": 124,
    "augmentation": 130,
}
"""The same of the ways to train, each two more than it makes."""

PACKS: dict[str, tuple[int, ...]] = {
    "Hard cnn": (48, 64, 83),
    "Hard mlp": (37, 54),
    "HardKrotov cnn": (49, 65, 83),
    "HardKrotov mlp": (38, 54),
    "Krotov cnn": (53, 73, 91),
    "Krotov mlp": (37, 58),
    "KWTA cnn": (46, 62, 83),
    "KWTA mlp": (33, 54),
    "Oja cnn": (37, 51, 83),
    "Oja mlp": (26, 54),
    "Sanger cnn": (42, 56, 83),
    "Sanger mlp": (29, 54),
    "Hebb cnn": (41, 55, 83),
    "Hebb mlp": (28, 54),
    "BCM cnn": (65, 89, 103),
    "BCM mlp": (50, 62),
    "HardInstar cnn": (56, 80, 103),
    "HardInstar mlp": (41, 62),
    "ThresholdInstar cnn": (68, 96, 103),
    "ThresholdInstar mlp": (54, 62),
    "Soft cnn": (47, 63, 83),
    "Soft mlp": (36, 54),
    "SoftKrotov cnn": (50, 66, 83),
    "SoftKrotov mlp": (39, 54),
    "supervised": (47, 45),
    "bias": (54, 55),
    "repu": (53, 61),
    "strides": (50, 71),
    "surround": (72, 91, 104),
    "bp": (97,),
    "FA": (72,),
    "joint": (91, 63, 81),
    "residual": (99, 66, 84),
    "consecutive": (100, 83),
    "simultaneous": (153,),
    "sgd": (50, 66, 82),
    "adamw": (50, 66, 83),
    "mse": (50, 66, 69),
    "validation": (34, 45, 56),
    "features of 16 bits": (50, 68, 85),
    "simultaneous, without a gradient": (76,),
    "frozen blocks": (86, 83),
    "frozen blocks, consecutive": (42, 66, 83),
    "blockwise": (91, 80, 80),
    "probes": (50, 66, 83),
    "simultaneous, by rule and gradient": (129,),
    "compute in bfloat16": (56, 75, 89),
    "back-prop in bfloat16": (108,),
    "zca": (48, 64, 81),
    "zoom": (62, 78, 95),
    "augmentation": (70, 86, 103),
}
"""Most operations of an update of a pack of four in each phase, each two more than it makes. Features are computed
anew; one run of SoftKrotov cnn makes 37, 42 and 40."""
KEPT = (48, 50, 48)
"""The same of two Hebbian blocks and a classifier, with features that are kept."""


def _few(config: RunConfig, samples: int) -> RunConfig:
    """Return the run with fewer images."""
    few = {role: replace(getattr(config, role), samples=samples) for role in ("dataset_sup", "dataset_unsup")}
    return replace(config, **few)


def _config(name: str, *more: str) -> RunConfig:
    """Return the run of a network or of a way to train."""
    network, changes, fields = networks.WAYS.get(name) or (NETWORKS[name], [], {})
    return networks.config(network, *changes, *more, curve_points=0, **fields)


@pytest.mark.parametrize("name", PARAMETERS)
def test_an_update_waits_for_nothing(name: str, log: Log) -> None:
    waits, uploads, operations = [], [], []
    for samples in (60, 120):
        log.clear()
        networks.on_gpu(_few(_config(name), samples))
        waits.append(log.waits.copy())
        uploads.append(log.uploads.copy())
        operations.append(log.started)
    assert waits[0] == waits[1]
    assert uploads[0] == uploads[1]
    assert (operations[1] - operations[0]) / 6 <= {**OPERATIONS, **WAYS}[name]


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
        seeds = tuple(range(members))
        configs = [replace(config, seed=seed, pack=seeds, device=DeviceKind.CUDA) for seed in seeds]
        train.run_pack(configs, None, places=[train.Place(datasets=networks.nowhere())] * members)
    return counts


def _of_an_update(config: RunConfig, members: int, log: Log, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the operations of an update in each epoch: three more batches, of all images, make the difference.

    Fail where an update waits or uploads.
    """
    costs, waits, uploads = [], [], []
    for samples in (30, 60):
        log.clear()
        costs.append(_steps(_few(config, samples), members, log, monkeypatch))
        waits.append(log.waits.copy())
        uploads.append(log.uploads.copy())
    assert waits[0] == waits[1]
    assert uploads[0] == uploads[1]
    return [(b - a) / 3 for a, b in zip(*costs, strict=True)]


PACKED = [
    pytest.param("SoftKrotov cnn", 2, KEPT, marks=pytest.mark.fast),
    ("Soft cnn", 2, KEPT),
    *((name, 1, most) for name, most in PACKS.items()),
]


@pytest.mark.parametrize(("name", "epochs", "most"), PACKED)
def test_four_members_cost_little_more_than_one(
    name: str, epochs: int, most: tuple[int, ...], log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update gathers the images or the features of all members at once, in every phase, and waits for nothing."""
    more = [f"dataset_{role}.epochs={epochs}" for role in ("sup", "unsup")]
    costs = _of_an_update(_config(name, *more), 4, log, monkeypatch)
    assert len(costs) == len(most) * epochs
    assert all(cost <= most[i // epochs] for i, cost in enumerate(costs)), costs


def test_no_cost_is_left_out() -> None:
    """A new network or way to train has to be named here, and in ``PACKS`` if its seeds may train together."""
    assert set(NAMES) == OPERATIONS.keys() | WAYS.keys()
    packed = set()
    for name in NAMES:
        with contextlib.suppress(ConfigError):
            plan.phases(replace(_config(name), pack=(0, 1)))
            packed.add(name)
    assert packed == PACKS.keys()
