"""The largest memory of a run, in a process that trains one run after the other.

Without it the peak of a trial would be that of the largest trial before it in the same worker.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import small
import torch

from hebb.analysis import run_costs
from hebb.core import peak
from hebb.core.peak import PeakMemory
from hebb.storage import folders
from hebb.training import train

CPU = torch.device("cpu")
LARGE = 200_000_000
pytestmark = pytest.mark.skipif(not peak.can_follow(CPU), reason="this system cannot forget the peak of a process")


def take(count: int) -> None:
    """Fill so many bytes with ones and free them: what is not written to is not resident."""
    np.ones(count, np.uint8)


def test_it_is_that_of_the_run_and_not_of_an_earlier_one() -> None:
    first = PeakMemory(CPU, give_back=True)
    floor = first.bytes()
    take(LARGE)
    largest, second = first.bytes(), PeakMemory(CPU, give_back=True).bytes()
    assert floor is not None
    assert largest is not None
    assert second is not None
    assert largest >= floor + 0.95 * LARGE
    assert second < floor + 0.5 * LARGE


def test_a_later_run_keeps_the_memory_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh pages would cost it more time than its arithmetic; so it cannot tell its peak unless it is asked to."""
    monkeypatch.setattr(PeakMemory, "_begun", False)
    assert PeakMemory(CPU).bytes() is not None
    monkeypatch.setattr(peak, "_forget", lambda *_: pytest.fail("memory was given back"))
    assert PeakMemory(CPU).bytes() is None


def test_an_earlier_part_of_the_run_counts() -> None:
    assert PeakMemory(CPU, 1 << 50, give_back=True).bytes() == 1 << 50
    assert PeakMemory(CPU, None, give_back=True).bytes() is None
    lost = PeakMemory(CPU, give_back=True)
    lost.lose()
    assert lost.bytes() is None


def test_a_system_that_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "_CLEAR", Path("/nothing"))
    assert not peak.can_follow(CPU)
    assert PeakMemory(CPU, give_back=True).bytes() is None
    assert not peak.can_follow("mps")
    assert peak.can_follow("cuda:1")


def test_a_run_keeps_it_over_an_interruption(tmp_path: Path) -> None:
    """It is in ``result.json``, in bytes, and a cost in MB; what came before the checkpoint counts."""
    config = small.config(small.CNN, "dataset_sup.samples=50", "dataset_unsup.samples=50", "dataset_sup.epochs=2")
    folder = tmp_path / "run"
    small.run(config, folder, give_back_memory=True)
    whole = json.loads((folder / folders.RESULT).read_text())["peak_memory"]
    assert run_costs.of_records(config, None, folder, ["peak_memory"]) == {"peak_memory": whole / 1e6}
    (folder / folders.RESULT).unlink()
    for before, after in ((whole + (1 << 40), whole + (1 << 40)), (None, None)):
        folders.write_json(folder / folders.COSTS, {"peak_memory": before})
        small.run(config, folder, carry_on=True, give_back_memory=True)
        assert json.loads((folder / folders.RESULT).read_text())["peak_memory"] == after
        (folder / folders.RESULT).unlink()


def test_its_time_goes_on_over_an_interruption(tmp_path: Path) -> None:
    """The checkpoint has the seconds so far: a run that goes on is not a run of its last minute."""
    config = small.config(small.CNN, "dataset_sup.samples=50", "dataset_unsup.samples=50", "dataset_sup.epochs=2")
    folder, stored = tmp_path / "run", []

    class Watch(train.Report):
        def trained(self, *_: object) -> None:
            stored.append(json.loads((folder / folders.COSTS).read_text())["seconds"][-1])

    train.run(config, report=Watch(), place=train.Place(datasets=tmp_path, folder=folder, keep_model=True))
    *end, last = stored[1]
    assert 0 < stored[0][-1] <= last
    assert end[:2] == [2, 0]
    whole = json.loads((folder / folders.RESULT).read_text())["seconds"]
    assert whole >= last
    for carry_on, low, high in ((True, 1e6, 1e6 + 1e5), (False, 0, 1e5)):
        (folder / folders.RESULT).unlink()
        # a kill may come between the costs of a later moment and its checkpoint
        folders.write_json(folder / folders.COSTS, {"seconds": [[*end, 1e6], [9, 0, 99, 1e9]], "peak_memory": None})
        small.run(config, folder, carry_on=carry_on, overwrite=not carry_on, keep_model=True)
        assert low < json.loads((folder / folders.RESULT).read_text())["seconds"] < high
