"""What an update costs: no wait of the host, no blocking upload, and no more operations than it takes.

Twice the images are twice the updates, and the difference of two runs is the cost of updates alone. Without it a wait
in every update would be seen only as a slow GPU.
"""

from __future__ import annotations

import networks
import pytest
from networks import NETWORKS
from pretended import Log

FAST = ("SoftKrotov cnn", "EP", "bp", "shuffle")
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
    "Oja cnn": 95,
    "Oja mlp": 42,
    "Sanger cnn": 103,
    "Sanger mlp": 44,
    "Hebb cnn": 103,
    "Hebb mlp": 44,
    "CorInfoMax": 340,
    "CorInfoMaxSparse": 1192,
    "EP": 199,
    "CSM": 173,
    "PC": 558,
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
