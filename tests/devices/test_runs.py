"""Whole runs of every method on a pretended GPU, against the CPU's, with their waits and uploads.

Without it a tensor made on the CPU, or a wait in every update, would be seen only by those who have a GPU.
"""

from __future__ import annotations

import networks
import pytest
import torch
from networks import NETWORKS
from pretended import Log


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_method_learns_what_it_learns_on_the_cpu(name: str, index: int, log: Log) -> None:
    config = networks.config(NETWORKS[name])
    result = networks.on_gpu(config, index)
    assert log.used == {index}
    assert networks.devices(result) == {torch.device("cuda", index)}
    networks.assert_close(result, networks.on_cpu(config))
