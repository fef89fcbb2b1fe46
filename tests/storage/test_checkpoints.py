"""A checkpoint that is being written when an interrupt comes is whole, and the interrupt is not lost.

torch calls Python back for each piece of the file, from C, which may drop a KeyboardInterrupt: the run would go on.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from hebb.storage import checkpoints


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_waits_for_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    path, save = tmp_path / "last.pt", torch.save
    came: list[int] = []

    def interrupted(data: Any, file: Any) -> None:
        os.kill(os.getpid(), number)
        assert not came, "it is held back"
        save(data, file)

    before = signal.signal(number, lambda arrived, _: came.append(arrived))
    monkeypatch.setattr(torch, "save", interrupted)
    try:
        checkpoints.save(path, {"w": torch.ones(3)})
    finally:
        signal.signal(number, before)
    assert came == [number]
    assert torch.load(path, weights_only=True)["w"].tolist() == [1, 1, 1]
