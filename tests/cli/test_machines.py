"""The real command lines on machines that are unlike ours: no home, no user name, odd folders, full disks, two at once.

Without it a condition of somebody's machine shows as a traceback, as an error that should not happen, or as a folder
that mixes two runs.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Command

from hebb.analysis import runs
from hebb.core import locks
from hebb.core.errors import ConfigError
from hebb.storage import folders

SMALL = "Soft-c4-k3-p1-t1-lr0.005:bn:triangle:max_2_2_0 BP:flatten"
LARGE = "BP-c30000:flatten:relu BP"
TRAIN = ("multi_layer.py", "--dataset", "Digits", "--threads", "1", "--gpu-id", "cpu")
SET = ("--set", "dataset_sup.epochs=1", "dataset_unsup.epochs=1")
Outcome = Callable[..., tuple[int, str]]
ENDLESS = ("--set", "dataset_sup.epochs=100000", "dataset_sup.print_freq=1000")


def start(*words: str, home: Path, preset: str = SMALL, **changes: Any) -> subprocess.Popen[str]:
    """Start a command; ``env`` adds variables, and None removes one."""
    environment: dict[str, str | None] = {**os.environ, "HEBB_HOME": str(home), **changes.pop("env", {})}
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": home.parent}
    script, *rest = words
    network = ["--preset", preset] if rest[: len(TRAIN) - 1] == list(TRAIN[1:]) else []
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *network, *rest],
        env={name: value for name, value in environment.items() if value is not None},
        errors="replace",
        **{**options, **changes},
    )


def ended(*words: str, home: Path, **changes: Any) -> tuple[int, str]:
    """Run a command to its end; return exit code and output."""
    process = start(*words, home=home, **changes)
    output = process.communicate(timeout=240)[0] or ""
    assert "Traceback" not in output
    assert "should not happen" not in output
    return process.returncode, output


@pytest.fixture
def outcome(forked: Command) -> Outcome:
    """Do what ``ended`` does where nothing depends on how the process starts; its home is ``tmp_path / "home"``."""

    def run(*words: str, preset: str = SMALL) -> tuple[int, str]:
        network = ["--preset", preset] if words[: len(TRAIN)] == TRAIN else []
        done = forked(words[0], *network, *words[1:])
        output = done.stdout + done.stderr
        assert "Traceback" not in output
        assert "should not happen" not in output
        return done.returncode, output

    return run


def _closed() -> None:
    os.close(1)


CONDITIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "no home": lambda home: {"env": {"HOME": None}},
    "a home that is absent": lambda home: {"env": {"HOME": "/proc/self/none", "MPLCONFIGDIR": None}},
    "caches that cannot be written": lambda home: {
        "env": {"MPLCONFIGDIR": "/proc/self/none", "NUMBA_CACHE_DIR": "/proc/self/none", "XDG_CACHE_HOME": "/proc/none"}
    },
    "a temporary folder that is absent": lambda home: {"env": {"TMPDIR": "/proc/self/none"}},
    "no UTF-8": lambda home: {"env": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}},
    "a dumb terminal": lambda home: {"env": {"TERM": "dumb"}},
    "a closed output": lambda home: {"preexec_fn": _closed, "stdout": None},
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_run_on_another_machine(condition: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    code, output = ended(*TRAIN, *SET, home=home, **CONDITIONS[condition](home))
    assert code == 0, output


@pytest.mark.parametrize("name", ["ein größerer Ordner", b"latin-\xe9".decode("utf-8", "surrogateescape")])
def test_a_folder_with_an_odd_name(name: str, tmp_path: Path) -> None:
    home = tmp_path / name
    locale = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for env in ({}, locale):
        code, output = ended(*TRAIN, *SET, "--overwrite", home=home, env=env)
        assert code == 0 or (code == 2 and "$HEBB_HOME: must be a path in UTF-8" in output), output


NAMELESS = """
import pwd
def nobody(uid):
    raise KeyError(uid)
pwd.getpwuid = nobody
import hebb.tuning.ray_session
"""


def test_ray_of_a_user_without_a_name_and_a_home() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME")}
    done = subprocess.run(
        [sys.executable, "-c", NAMELESS], env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (("--model-name", "a" * 300), "--model-name"),
        (("--model-name", "é" * 200), "--model-name"),
        (("--data-dir", "/tmp/" + "a" * 300), "--data-dir"),
        (("--data-dir", "/tmp/" + "/".join(["a" * 200] * 20)), "--data-dir"),
        (("--preset-file", "a" * 300), "a" * 20),
    ],
)
def test_names_that_are_too_long(words: tuple[str, ...], place: str, outcome: Outcome) -> None:
    code, output = outcome(*TRAIN, *SET, *words)
    assert code == 2, output
    assert place in output
    assert len(output) < 800


def _run_folder(home: Path, name: str) -> Path:
    return home / "hebb" / "result" / "network" / name


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists() and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()[0]


def test_a_run_has_one_process(tmp_path: Path, outcome: Outcome) -> None:
    """A running run is neither replaced nor continued; a killed one leaves no lock that holds anybody back."""
    home, folder = tmp_path / "home", _run_folder(tmp_path / "home", "x")
    first = start(*TRAIN, "--model-name", "x", *ENDLESS, home=home)
    try:
        _wait_for(folder / folders.CHECKPOINT, first)
        for words in ((*TRAIN, "--model-name", "x", "--overwrite", *SET), ("multi_layer.py", "--resume-run", "x")):
            code, output = outcome(*words)
            assert (code, f"by process {first.pid} on " in output) == (2, True), output
    finally:
        first.kill()
        first.communicate()
    code, output = outcome(*TRAIN, "--model-name", "x", "--overwrite", *SET)
    assert code == 0, output
    assert not (folder / folders.LOCK).exists()


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGHUP, 130)])
def test_an_interrupt_while_a_checkpoint_is_written(kind: signal.Signals, code: int, tmp_path: Path) -> None:
    home, folder = tmp_path / "home", _run_folder(tmp_path / "home", "x")
    words = ("--set", "dataset_sup.samples=64", "dataset_sup.batch_size=64", *ENDLESS[1:])
    process = start(*TRAIN, "--model-name", "x", *words, home=home, preset=LARGE)
    kept = {"last.pt", "costs.json"}
    try:
        _wait_for(folder / folders.CHECKPOINT, process)
        while process.poll() is None:
            if {path.name for path in (folder / folders.CHECKPOINT).parent.iterdir()} - kept:
                break
            time.sleep(0.0005)
        process.send_signal(kind)
        output = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == code, output
    assert "--resume-run" in output
    assert {path.name for path in (folder / folders.CHECKPOINT).parent.iterdir()} == kept


@pytest.mark.parametrize(("preset", "limit"), [(LARGE, 1_000_000), (SMALL, 3_000), (SMALL, 500)])
def test_a_full_disk(preset: str, limit: int, tmp_path: Path, outcome: Outcome) -> None:
    """A limit on the size of files stops checkpoints, events or rows; the run says so, and goes on without it."""
    home = tmp_path / "home"
    full = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # noqa: E731
    code, output = ended(*TRAIN, "--model-name", "x", *SET, home=home, preset=preset, preexec_fn=full)
    assert (code, "no space left" in output) == (1, True), output
    folder = _run_folder(home, "x")
    assert not folder.exists() or not list(folder.rglob("*.tmp"))
    if "--resume-run" in output and preset == SMALL:
        code, output = outcome("multi_layer.py", "--resume-run", str(folder))
        assert code == 0, output


@pytest.mark.parametrize("flags", [["--list", "presets"], ["--help"], ["--help-all"]])
def test_the_output_on_a_full_disk(flags: list[str], tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        code, _ = ended("multi_layer.py", *flags, home=tmp_path / "home", stdout=full, stderr=None)
    assert code == 1


def test_a_lock_is_released_and_refused(tmp_path: Path) -> None:
    """Also where the file system has no locks: the lock of a dead process is taken, that of a live one is not."""
    path = tmp_path / "new" / "lock"
    with locks.held(path, busy="busy"), locks.held(path, busy="busy"):
        assert path.read_text().startswith(str(os.getpid()))
    assert not path.parent.exists()
    path.parent.mkdir()
    mark = path.with_name("lock.pid")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locks, "_flock", lambda file, wait: False)
        mark.write_text(f"{dead.pid} {os.uname().nodename}\n")
        with locks.held(path, busy="busy"):
            assert mark.read_text() == f"{os.getpid()} {os.uname().nodename}\n"
        assert list(path.parent.iterdir()) == []
        for owner in (f"1 {os.uname().nodename}\n", "5 elsewhere\n"):
            mark.write_text(owner)
            with pytest.raises(ConfigError, match="busy by process"), locks.held(path, where="w", busy="busy"):
                pass


def test_stored_weights_are_checked_by_the_dry_run(tmp_path: Path, outcome: Outcome) -> None:
    code, output = outcome(*TRAIN, "--model-name", "x", *SET)
    assert code == 0, output
    wide = SMALL.replace("c4", "c6")
    code, output = outcome(*TRAIN, "--resume", "x", "--model-name", "y", "--dry-run", preset=wide)
    assert (code, "--resume" in output) == (2, True), output
    block = SMALL.replace("Soft-", "Soft-resume=nope/b0-")
    code, output = outcome(*TRAIN, "--set", "b0.resume=nope/b0", "--dry-run", preset=block)
    assert code == 2, output
    result = json.loads((_run_folder(tmp_path / "home", "x") / folders.RESULT).read_text())
    assert result["status"] == "finished"


@pytest.mark.parametrize("name", [folders.CONFIG, folders.RESULT])
def test_a_damaged_run_hides_no_other(name: str, tmp_path: Path, outcome: Outcome) -> None:
    home = tmp_path / "home"
    assert outcome(*TRAIN, "--model-name", "x", *SET)[0] == 0
    shutil.copytree(_run_folder(home, "x"), _run_folder(home, "y"))
    assert [run.folder.name for run in runs.read([home]).runs] == ["x", "y"]
    (_run_folder(home, "y") / name).write_text('{"seed": ')
    stored = runs.read([home])
    assert [run.folder.name for run in stored.runs] == ["x"]
    code, output = outcome("analysis.py", "runs", str(home / "hebb"))
    assert code == 0, output
    assert f"cannot be read: {_run_folder(home, 'y') / name}" in output
