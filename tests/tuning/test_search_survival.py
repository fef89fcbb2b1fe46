"""Searches whose driver, workers, nodes or disks fail. Each starts a Ray of its own, so ``make kill`` runs them.

What needs no death is tested faster elsewhere: a full disk by ``test_search_worker.py``, signals by ``test_search.py``.

Without it a crash could lose finished trials.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from kill_search import DATA, NETWORK, finished, flags_of, start, wait_for_trials

from hebb.storage import folders
from hebb.tuning.search_folder import LOCKS, Journal

pytestmark = [pytest.mark.ray, pytest.mark.survival, pytest.mark.timeout(900)]


def folder_of(home: Path) -> Path:
    return home / "hebb" / "search" / "s"


def test_a_killed_driver(tmp_path: Path) -> None:
    """Four trials, one SIGKILL; ``make kill`` does it five times in twelve."""
    script = str(ROOT / "tests" / "kill_search.py")
    done = subprocess.run(
        [sys.executable, script, str(tmp_path), "1", "4"], capture_output=True, text=True, timeout=880, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "touched 0, lost 0, equal" in done.stdout


def test_a_killed_worker(tmp_path: Path) -> None:
    """Its trial goes on in a new worker from the checkpoint, and the search ends well."""
    long = ("--set", "dataset_sup.epochs=300", "dataset_sup.print_freq=50", "dataset_sup.samples=500")
    flags = ("--preset", NETWORK, *DATA, *long, "--config", "one_seed", "--folder-name", "s")
    process, search = start(tmp_path, *flags), folder_of(tmp_path)
    wait_for_trials(search, process)
    lock = next(path for path in (search / LOCKS).iterdir() if path.name != "search.json")
    metrics = next(search.glob("trials/*/metrics.jsonl"))
    deadline = time.monotonic() + 200
    while len(folders.read_rows(metrics)) < 10 and time.monotonic() < deadline:
        time.sleep(0.05)
    before = folders.read_rows(metrics)[:9]
    os.kill(int(lock.read_text().split()[0]), signal.SIGKILL)
    out, _ = process.communicate()
    assert process.returncode == 0, out
    assert not Journal.load(search).failed
    rows = folders.read_rows(metrics)
    assert rows[:9] == before  # with the measured speeds: these epochs were not run again
    assert [row["epoch"] for row in rows if row["phase"] == 1] == list(range(1, 301))


def test_a_worker_that_always_dies(tmp_path: Path) -> None:
    """Killed once with no retry: the reason is recorded, the other trial is finished, the exit code is 1."""
    process = start(tmp_path, *flags_of(2, ("--max-failures", "0", "--workers", "1")))
    search = folder_of(tmp_path)
    wait_for_trials(search, process)
    lock = next(path for path in (search / LOCKS).iterdir() if path.name != "search.json")
    os.kill(int(lock.read_text().split()[0]), signal.SIGKILL)
    out, _ = process.communicate()
    assert process.returncode == 1, out
    ((name, entry),) = Journal.load(search).failed.items()
    assert "worker process died" in entry["reason"]
    assert f"failed: {name}: its worker process died" in out
    assert len(list(search.glob("trials/*/result.json"))) == 1
    again = start(tmp_path, "--restore", str(search))  # and what failed by a mishap is tried again
    out, _ = again.communicate()
    assert again.returncode == 0, out
    assert len(pd.read_csv(search / "results.csv")) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_well(number: signal.Signals, tmp_path: Path) -> None:
    """Exit code 130, and the command that goes on; it does."""
    process, search = start(tmp_path, *flags_of(4, ())), folder_of(tmp_path)
    wait_for_trials(search, process)
    process.send_signal(number)
    out, _ = process.communicate()
    assert process.returncode == 130, out
    assert "Traceback" not in out
    words = shlex.split(next(line for line in out.splitlines() if "--restore" in line).removesuffix(" continues"))
    assert (words[0], Path(words[1]).name) == ("python", "ray_search.py")
    before = finished(search)
    again = start(tmp_path, *words[2:])
    out, _ = again.communicate()
    assert again.returncode == 0, out
    assert len(pd.read_csv(search / "results.csv")) == 4
    assert {name: finished(search)[name] for name in before} == before


def namespaces() -> bool:
    """Tell whether this user may mount a file system of its own."""
    unshare = shutil.which("unshare")
    return (
        unshare is not None
        and not subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode
    )


def test_a_full_disk(tmp_path: Path) -> None:
    """On a file system of 400 kB the search says so, and what is finished can be read."""
    if not namespaces():
        pytest.skip("this user may not mount a file system")
    home, kept = tmp_path / "home", tmp_path / "kept"
    home.mkdir()
    flags = flags_of(40, ("--workers", "1", "--save-model", "--share-blocks", "false"))
    search = " ".join(map(shlex.quote, [sys.executable, str(ROOT / "ray_search.py"), *flags]))
    script = f"mount -t tmpfs -o size=400k tmpfs {home}; {search}; code=$?; cp -r {home} {kept}; exit $code"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        env={**os.environ, "HEBB_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no space left" in done.stderr.lower()
    assert "Traceback" not in done.stdout + done.stderr
    results = list(folder_of(kept).glob("trials/*/result.json"))
    assert 0 < len(results) < 40
    for path in results:
        assert json.loads(path.read_text())["metrics"]["test_acc"] > 0


def test_two_nodes(tmp_path: Path) -> None:
    """Trials run on both; one node dies, and no finished trial is lost or run again."""
    script = str(ROOT / "tests" / "two_nodes.py")
    done = subprocess.run(
        [sys.executable, script, str(tmp_path)], capture_output=True, text=True, timeout=880, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("nodes 2", "touched 0", "finished 10"):
        assert line in done.stdout.splitlines()
