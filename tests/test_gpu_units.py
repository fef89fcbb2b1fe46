"""The units of ``make gpu`` on a machine without a GPU: the data in parts, and results that are not made twice.

``make gpu GPU=--rehearse`` does all of them on a pretended GPU. Without it a lent machine would be spent on a mistake.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from unittest import mock

import pytest

from benchmarks import gpu
from hebb.core.errors import ConfigError


def test_parts_make_the_file_that_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "PART", 10)
    source = tmp_path / "whole"
    source.write_bytes(bytes(range(35)))
    parts, dataset = tmp_path / "data", tmp_path / "dataset"
    with pytest.raises(ConfigError, match="holds no parts"):
        gpu.join(parts, dataset)
    gpu.split(source, parts)
    (parts / "part-02").rename(tmp_path / "part-02")
    with pytest.raises(ConfigError, match="lacks part-02"):
        gpu.join(parts, dataset)
    (parts / "part-02").write_bytes(bytes(10))
    with pytest.raises(ConfigError, match="do not make the file"):
        gpu.join(parts, dataset)
    (tmp_path / "part-02").rename(parts / "part-02")
    gpu.join(parts, dataset)
    assert (dataset / gpu.DATA).read_bytes() == bytes(range(35))


def test_a_unit_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call goes on where the one before ended; a failed unit keeps its error unless it is asked for again."""
    calls: list[str] = []

    def spawn(options: argparse.Namespace, name: str, path: Path, limit: float) -> None:
        calls.append(name)
        gpu._write(path, {"done": name != "pack-2" or options.again, "error": "full", "seconds": 2.0, "peak_bytes": 1})

    monkeypatch.setattr(gpu, "_spawn", spawn)
    monkeypatch.setattr(gpu, "units", lambda *, rehearse: dict.fromkeys(("pack-1", "pack-2")))
    flags = ["--rehearse", "--work", str(tmp_path)]
    assert gpu.main(flags) == 1
    assert gpu.main(flags) == 1
    assert calls == ["pack-1", "pack-2"]
    assert "pack-2 failed: full" in (tmp_path / "record" / "README.md").read_text()
    assert gpu.main([*flags, "--again"]) == 0
    assert calls == ["pack-1", "pack-2", "pack-2"]
    assert set(json.loads((tmp_path / "record" / "gpu.json").read_text())["units"]) == {"pack-1", "pack-2"}


@pytest.mark.parametrize(("budget", "word"), [(1, "begun anew by the next call"), (gpu.BUDGET, "failed")])
def test_a_unit_fails_only_if_it_had_its_time(
    budget: int, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    endless = mock.Mock(side_effect=subprocess.TimeoutExpired("unit", 1))
    monkeypatch.setattr(gpu.subprocess, "run", endless)
    monkeypatch.setattr(gpu, "units", lambda *, rehearse: {"pack-1": None})
    gpu.main(["--rehearse", "--work", str(tmp_path), "--budget", str(budget)])
    assert (tmp_path / "results" / "pack-1.json").exists() == (word == "failed")
    assert word in capsys.readouterr().out


def test_every_unit_of_a_gpu_is_a_run_that_can_be_trained() -> None:
    """The networks of the real units are built and planned; only their data are not here. They show every rule."""
    from hebb.config import plan
    from hebb.config.registry import RULES
    from hebb.nn import model

    for network in gpu.STEPS.values():
        config = gpu._real(network, False)
        plan.phases(config)
        model.build(config)
    words = {block.split("-")[0].split(":")[0] for network in gpu.STEPS.values() for block in network.split()}
    assert {rule.name for rule in RULES.entries()} <= words
    for network in gpu.WHOLE.values():
        assert plan.phases(gpu._real(network, True))
    names = set(gpu.units(rehearse=False))
    assert {"whole-4SoftHebbCnnCIFAR-graphs", "steps-LPL", "steps-CorInfoMax", "pack-16", "methods-0"} <= names
