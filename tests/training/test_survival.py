"""Runs that are killed and continued have the bits of runs that were left in peace.

Without it a killed run could continue with other numbers.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Command
from kill_runs import NETWORKS

from hebb.storage import folders


@pytest.mark.parametrize(
    ("times", "network"),
    [
        (3, "soft"),
        (1, "bcm"),
        (1, "local"),
        (1, "mirrored"),
        *(pytest.param(10, n, marks=pytest.mark.survival) for n in NETWORKS),
    ],
)
def test_kills_at_random_moments(times: int, network: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "kill_runs.py"), str(tmp_path), str(times), network],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("equal") == times


def test_a_killed_command_is_continued(inside: Command, tmp_path: Path) -> None:
    """The real command: SIGKILL in the middle of the classifier's phase, then --resume-run."""
    flags = ["--dataset-unsup", "Digits_1", "--dataset-sup", "Digits_50", "--set", "dataset_sup.samples=400"]
    whole = inside("multi_layer.py", *flags, "--model-name", "whole")
    assert whole.returncode == 0, whole.stderr
    models = tmp_path / "home" / "hebb" / "result" / "network"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "multi_layer.py"), *flags, "--model-name", "cut", "--checkpoint-every", "3"],
        cwd=tmp_path,
        env={**os.environ, "HEBB_HOME": str(tmp_path / "home")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    metrics = models / "cut" / "metrics.jsonl"
    deadline = time.monotonic() + 100
    while (not metrics.exists() or len(folders.read_rows(metrics)) < 5) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (models / "cut" / "result.json").exists()

    refused = inside("multi_layer.py", *flags, "--model-name", "cut")
    assert refused.returncode == 2
    assert f"--resume-run {models / 'cut'}" in refused.stderr

    again = inside("multi_layer.py", "--resume-run", str(models / "cut"))
    assert again.returncode == 0, again.stderr
    first, second = (
        torch.load(models / n / "checkpoint" / "last.pt", weights_only=True)["model"] for n in ("whole", "cut")
    )
    assert all(torch.equal(first[name], second[name]) for name in {*first, *second})
    strip = [
        [
            {k: v for k, v in row.items() if k != "images_per_second"}
            for row in folders.read_rows(models / n / "metrics.jsonl")
        ]
        for n in ("whole", "cut")
    ]
    assert strip[0] == strip[1]
    twice = inside("multi_layer.py", "--resume-run", str(models / "cut"))
    assert twice.returncode == 2
    assert "nothing to continue" in twice.stderr
