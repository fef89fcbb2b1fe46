"""``ray_search.py`` on the real Ray.

Without it a trial could differ from the single run of its `config.json`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT, Command

from hebb.storage import folders
from hebb.tuning import results

pytestmark = pytest.mark.ray

NETWORK = "SoftKrotov-c6-k3-p1-t1-lr0.08-lp0.5:bn:triangle_0.7:avg_2_2_0 BP:flatten"
SMALL = ("--set", "dataset_sup.samples=150", "dataset_unsup.samples=100", "dataset_sup.epochs=2")


def search(command: Command, *arguments: str) -> subprocess.CompletedProcess[str]:
    data = ("--dataset-unsup", "Digits_1", "--dataset-sup", "Digits")
    return command("ray_search.py", "--preset", NETWORK, *data, *SMALL, *arguments)


def test_a_search_over_seeds_and_a_grid(command: Command, inside: Command, tmp_path: Path) -> None:
    """The real command on a Ray of its own; its table is that of the run folders, a trial a single run to the bit."""
    config = {
        "description": "a grid",
        "seeds": [0, 1],
        "space": {"b0.layer.radius": {"grid": [2, 25]}},
    }
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(config))
    done = search(command, "--config", str(tmp_path / "grid.yaml"), "--folder-name", "s", "--save-model")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    folder = tmp_path / "home" / "hebb" / "search" / "s"
    trials = {path.name: path for path in (folder / "trials").iterdir()}
    assert sorted(name.split("-")[1] for name in trials) == ["s0", "s0", "s1", "s1"]

    table = pd.read_csv(folder / "results.csv")
    for line in table.itertuples():
        last = folders.read_rows(trials[line.trial] / "metrics.jsonl")[-1]
        assert line.test_acc == pytest.approx(last["test_acc"])
    for radius in (2, 25):
        accuracies = table[table.configuration == f"b0.layer.radius={radius}"].test_acc
        assert len(accuracies) == 2
        row = next(text.split() for text in done.stdout.splitlines() if text.startswith(f"b0.layer.radius={radius} "))
        assert row[1:4] == ["2", f"{accuracies.mean():.2f}", f"{accuracies.std(ddof=1):.2f}"]
        assert row[4:6] == [f"{accuracies.iloc[0]:.2f},", f"{accuracies.iloc[1]:.2f}"]  # two seeds, no interval
    shown = tmp_path / "home" / "hebb" / "tensorboard"
    assert f"compare: tensorboard --logdir {shown}\n" in done.stdout
    labels = sorted(path.name for path in (shown / "s").iterdir())
    assert labels == [f"radius={radius} seed={seed}" for radius in (2, 25) for seed in (0, 1)]
    assert {(shown / "s" / label).resolve() for label in labels} == set(trials.values())

    trial = trials[table.trial[3]]
    alone = inside("multi_layer.py", "--run-config", str(trial / "config.json"), "--model-name", "alone")
    assert alone.returncode == 0, alone.stderr
    single = tmp_path / "home" / "hebb" / "result" / "network" / "alone"
    assert json.loads((single / "config.json").read_text()) == json.loads((trial / "config.json").read_text())
    assert same_rows(single, trial)
    assert same_weights(single / "checkpoint" / "last.pt", trial / "checkpoint" / "last.pt")

    again = search(inside, "--config", str(tmp_path / "grid.yaml"), "--folder-name", "s")
    assert again.returncode == 2
    assert "--overwrite" in again.stderr


def same_rows(first: Path, second: Path) -> bool:
    rows = [folders.read_rows(folder / "metrics.jsonl") for folder in (first, second)]
    return [{**r, "images_per_second": 0} for r in rows[0]] == [{**r, "images_per_second": 0} for r in rows[1]]


def same_weights(first: Path, second: Path) -> bool:
    import torch

    a, b = (torch.load(path, weights_only=True)["model"] for path in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_an_interrupted_search_says_so(one_ray: None, inside: Command, tmp_path: Path) -> None:
    """SIGTERM in the middle of a run: its results stay, the exit code is 130, and the printed command goes on."""
    trials = tmp_path / "home" / "hebb" / "search" / "cut" / "trials"

    def interrupt() -> None:
        deadline = time.monotonic() + 120
        while not list(trials.glob("*/checkpoint/last.pt")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    watch = threading.Thread(target=interrupt)
    watch.start()
    long = ("--set", "dataset_sup.epochs=4000", "--config", "one_seed", "--folder-name", "cut")
    done = inside("ray_search.py", "--preset", NETWORK, "--dataset-sup", "Digits", "--threads", "1", *long)
    watch.join()
    assert done.returncode == 130, done.stdout + done.stderr
    assert "interrupted: 0 of 1 trials are finished" in done.stderr
    assert f"python {ROOT / 'ray_search.py'} --restore {trials.parent} continues" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_request_that_cannot_be_met_is_refused(one_ray: None, inside: Command) -> None:
    """Ray would wait for ever for 999 cores."""
    done = search(inside, "--threads", "999", "--folder-name", "many")
    assert done.returncode == 2
    assert "999 cores" in done.stderr


# -- the table ------------------------------------------------------------------------------------------------


def test_summary_is_mean_deviation_and_student_interval() -> None:
    """Four values by hand: mean 71, sd sqrt(20/3), interval 71 +- 3.182 sd/2."""
    runs = pd.DataFrame({"configuration": ["a"] * 4 + ["b"], "test_acc": [68.0, 70, 72, 74, 50], "minutes": [1.0] * 5})
    table = results.summary(runs, "test_acc")
    a, b = table.iloc[0], table.iloc[1]
    assert (a.n, a["mean"]) == (4, 71)
    assert a.sd == pytest.approx((20 / 3) ** 0.5)
    assert a.interval == pytest.approx(3.18245 * a.sd / 2, rel=1e-4)
    assert (b.n, b["mean"]) == (1, 50)
    assert pd.isna(b.sd)
    assert pd.isna(b.interval)
