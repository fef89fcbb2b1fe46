"""Locks between real processes, with the kernel's locks and without: one at a time, and none outlives its process.

Without it two commands that start together could unpack one archive, or write one cache, at the same time.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

HOLD = """
import sys, time
from pathlib import Path
from hebb.core import locks
if sys.argv[3] == "without":
    locks._flock = lambda file, wait: False
log = Path(sys.argv[2])
def note(word):
    with open(log, "a") as file:
        file.write(f"{word} {sys.argv[4]}\\n")
with locks.held(Path(sys.argv[1])):
    note("begin")
    time.sleep(float(sys.argv[5]))
    note("end")
"""


def hold(tmp_path: Path, kind: str, name: str, seconds: float) -> subprocess.Popen[bytes]:
    arguments = [str(tmp_path / "new" / "data.lock"), str(tmp_path / "log"), kind, name, str(seconds)]
    return subprocess.Popen([sys.executable, "-c", HOLD, *arguments], cwd=ROOT)


def logged(tmp_path: Path) -> list[list[str]]:
    log = tmp_path / "log"
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.parametrize("kind", ["with", "without"])
def test_one_process_at_a_time_holds_a_lock(kind: str, tmp_path: Path) -> None:
    processes = [hold(tmp_path, kind, name, 0.1) for name in "abc"]
    assert [process.wait(30) for process in processes] == [0, 0, 0]
    lines = logged(tmp_path)
    assert [word for word, _ in lines] == ["begin", "end"] * 3
    assert [name for _, name in lines[::2]] == [name for _, name in lines[1::2]]
    assert {name for _, name in lines} == set("abc")
    assert not list((tmp_path / "new").glob("*")), "the last one removes the lock"


@pytest.mark.parametrize("kind", ["with", "without"])
def test_a_killed_process_holds_nothing(kind: str, tmp_path: Path) -> None:
    killed = hold(tmp_path, kind, "killed", 60)
    deadline = time.monotonic() + 30
    while not logged(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert hold(tmp_path, kind, "next", 0).wait(30) == 0
    assert logged(tmp_path) == [["begin", "killed"], ["begin", "next"], ["end", "next"]]
