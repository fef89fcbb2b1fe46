"""Whole runs of every method on a pretended GPU, against the CPU's, with their waits and uploads.

Without it a tensor made on the CPU, or a wait in every update, would be seen only by those who have a GPU.
"""

from __future__ import annotations

import networks
import pytest
import torch
from networks import CNN, NETWORKS, WAYS
from pretended import Log

from hebb.config import plan
from hebb.config.vocabulary import ProbeKind


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_method_learns_what_it_learns_on_the_cpu(name: str, index: int, log: Log) -> None:
    config = networks.config(NETWORKS[name])
    result = networks.on_gpu(config, index)
    assert log.used == {index}
    assert networks.devices(result) == {torch.device("cuda", index)}
    networks.assert_alike(result, networks.on_cpu(config))


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("name", WAYS)
def test_every_way_to_train_is_that_of_the_cpu(name: str, index: int, log: Log) -> None:
    network, changes, fields = WAYS[name]
    config = networks.config(network, *changes, **fields)
    result = networks.on_gpu(config, index)
    assert log.used == {index}
    assert networks.devices(result) == {torch.device("cuda", index)}
    networks.assert_alike(result, networks.on_cpu(config))


def test_no_mode_and_no_probe_is_left_out() -> None:
    """A new one has to be named here."""
    assert set(plan.MODES) <= {"successive", *(fields.get("mode") for _, _, fields in WAYS.values())}
    assert set(ProbeKind) | {"geometry"} <= {
        probe for *_, fields in WAYS.values() for probe in fields.get("probes", ())
    }


SINGLE = {
    "SoftKrotov cnn": (CNN, []),
    "back-prop, resized": (NETWORKS["bp"], ["dataset_sup.dataset=Digits"]),
    "LPL": (NETWORKS["LPL"], []),
    "SPHeRe": (NETWORKS["SPHeRe"], []),
    "SCFF": (NETWORKS["SCFF"], []),
    "EP": (NETWORKS["EP"], []),
    "FA": (NETWORKS["FA"], []),
    "CorInfoMaxSparse": (NETWORKS["CorInfoMaxSparse"], []),
}


SINGLE_NAMES = [pytest.param(name, marks=[pytest.mark.fast] if name == "FA" else []) for name in SINGLE]


@pytest.mark.parametrize("name", SINGLE_NAMES)
def test_a_device_without_float64_trains(name: str, log: Log) -> None:
    """As Apple's GPUs are: float64 there raises, and sums are fetched without a wait in every update."""
    log.double = False
    waits = []
    network, changes = SINGLE[name]
    probes = () if name in ("EP", "CorInfoMaxSparse") else ("linear", "geometry")
    for samples in (60, 120):
        log.clear()
        few = [f"dataset_{role}.samples={samples}" for role in ("sup", "unsup")]
        config = networks.config(network, *few, *changes, probes=probes)
        result = networks.on_gpu(config)
        waits.append(sum(log.waits.values()))
        if samples == 60 and name != "LPL":  # which draws other views in single precision
            other = networks.on_cpu(config)
            networks.assert_close(result, other, tolerance=5e-3)
            for row, expected in zip(result.rows, other.rows, strict=True):
                for key in ("train_loss", "train_acc", "test_acc"):
                    if expected.get(key) is not None:
                        assert row[key] == pytest.approx(expected[key], rel=1e-2, abs=2.0), key
    assert waits[1] <= waits[0] + 8


@pytest.mark.parametrize("kept", [True, False])
def test_features_may_be_computed_anew(kept: bool, log: Log) -> None:
    config = networks.config(CNN)
    networks.assert_alike(networks.on_gpu(config, keep_features=kept), networks.on_cpu(config))
