"""Searches whose trials are jobs: on a stand-in for Slurm, and as processes of this machine.

Without it a trial that a time limit ended could begin anew, a search that is continued submit a second time what still
runs, or its numbers differ from those of single runs.
"""

from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import stand_in_slurm
import torch
from conftest import ROOT, Command
from small import CNN

import hebb
from hebb.cli import search as search_command
from hebb.config import serialise
from hebb.config.vocabulary import Launcher
from hebb.core import interrupts
from hebb.core.errors import ConfigError, InterruptedRunError
from hebb.storage import folders
from hebb.training import train
from hebb.tuning import clusters, job_array, job_options, mishaps
from hebb.tuning.job_options import JobOptions
from hebb.tuning.observer import Cause, SearchObserver
from hebb.tuning.work import Ledger, Limits, Work

DATA = ("--dataset-unsup", "Digits_1", "--dataset-sup", "Digits", "--device", "cpu")
SPACE = {"b0.layer.radius": {"grid": [2, 25]}}
ARGUMENTS: dict[str, Any] = {
    "data": "Digits",
    "data_unsup": "Digits_1",
    "overrides": {"dataset_sup.samples": 300, "dataset_unsup.samples": 100, "dataset_sup.epochs": 300},
    "space": SPACE,
    "threads": 1,
    "device": "cpu",
    "save_models": True,
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's commands, and a Python that does not inherit the tests' own path."""
    folder = tmp_path / "slurm"
    for name, value in stand_in_slurm.install(folder).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(clusters, "_ASK", 0.2)
    monkeypatch.setattr(clusters.Slurm, "pause", 0.1)
    monkeypatch.setattr(clusters.Slurm, "patience", 3.0)
    monkeypatch.setattr("submitit.slurm.slurm.SlurmJob.watcher._registered", set())
    monkeypatch.setattr("submitit.slurm.slurm.SlurmJob.watcher._finished", set())
    monkeypatch.setattr("submitit.slurm.slurm.SlurmJob.watcher._info_dict", {})
    return folder


def _when(condition: Callable[[], bool], act: Callable[[], object]) -> threading.Thread:
    """Do something once, in a thread, as soon as a condition holds."""

    def wait() -> None:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            if condition():
                act()
                return
            time.sleep(0.02)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def _begun(search: Path) -> bool:
    """Whether both trials have recorded an epoch and neither has ended."""
    rows = list(search.glob("trials/*/metrics.jsonl"))
    return sum(len(path.read_bytes().splitlines()) > 2 for path in rows) == 2


def _same_as_alone(search: Path, folder: Path) -> None:
    """Compare every trial with the single run of its ``config.json``, to the bit."""
    trials = sorted((search / "trials").iterdir())
    assert len(trials) == 2
    for trial in trials:
        stored = folders.read_json(trial / folders.CONFIG)
        stored.pop("phases")
        config = serialise.run_from_json(stored, "test")
        train.run(config, place=train.Place(datasets=folder, folder=folder / trial.name))
        first, second = (folders.read_rows(where / folders.METRICS) for where in (trial, folder / trial.name))
        for row in (*first, *second):
            del row["images_per_second"]
        assert first == second
        paths = [where / folders.CHECKPOINT for where in (trial, folder / trial.name)]
        states = [torch.load(path, weights_only=True)["model"] for path in paths]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.slow
def test_jobs_go_on_after_their_time_and_after_the_command(slurm: Path, tmp_path: Path) -> None:
    """The command is interrupted while jobs run, one of them is warned of its end, and ``carry_on`` follows both."""
    folder = tmp_path / "search"
    interrupt = _when(lambda: _begun(folder), lambda: os.kill(os.getpid(), signal.SIGINT))
    arguments = {**ARGUMENTS, "launcher": "slurm", "slurm": {"time": "30m", "partition": "cpu"}, "folder": folder}
    with pytest.raises(InterruptedRunError):
        hebb.search(CNN, data_dir=tmp_path, **arguments)
    interrupt.join()
    assert (folder / "jobs" / "submitted.jsonl").exists()

    with pytest.raises(ConfigError, match="still wait or run"):  # another launcher would train the same runs
        job_array.check_left(folder, Launcher.RAY)
    subprocess.run(["scancel", "100_0", "--signal", "USR2"], check=True)  # as submitit's own jobs are warned
    found = hebb.search(CNN, data_dir=tmp_path, **arguments, carry_on=True)

    assert stand_in_slurm.starts(slurm) == {"100_0": 2, "100_1": 1}
    assert len(list(slurm.glob("*.script"))) == 1, "nothing was submitted a second time"
    assert not (folder / "jobs").exists()
    assert len(found.table()) == 2
    assert not found.failed
    _same_as_alone(folder, tmp_path / "alone")


@pytest.mark.slow
def test_local_jobs_go_on_after_a_warning(tmp_path: Path) -> None:
    """submitit's own executor for one machine, warned as Slurm would, queues a job again, which goes on."""
    folder, warned = tmp_path / "search", list[int]()

    def warn() -> None:
        job = folders.read_rows(folder / "jobs" / "submitted.jsonl")[0]["job"]
        child = Path(f"/proc/{job}/task/{job}/children").read_text().split()[0]
        warned.append(int(child))
        os.kill(int(child), signal.SIGUSR2)

    waiting = _when(lambda: _begun(folder), warn)
    found = hebb.search(
        CNN, data_dir=tmp_path, **ARGUMENTS, launcher="local", slurm={"parallel": 2, "time": "30m"}, folder=folder
    )
    waiting.join()
    assert warned
    assert not found.failed
    _same_as_alone(folder, tmp_path / "alone")


@pytest.mark.slow
def test_a_killed_command_finds_its_jobs(slurm: Path, tmp_path: Path, inside: Command) -> None:
    """What a kill leaves: the folder, and jobs. The command that goes on ends with the table of Ray."""
    flags = [
        "--preset",
        CNN,
        *DATA,
        "--threads",
        "1",
        "--config",
        "one_seed",
        "--space",
        "b0.layer.radius={grid: [2, 25]}",
    ]
    flags += ["--set", "dataset_sup.samples=300", "dataset_unsup.samples=100", "dataset_sup.epochs=60"]
    flags += ["--purpose", "search", "--final-seeds", "1"]
    home, words = tmp_path / "home", ["--launcher", "slurm", "--folder-name", "s"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "ray_search.py"), *flags, *words], env={**os.environ, "HEBB_HOME": str(home)}
    )
    folder = home / "hebb" / "search" / "s"
    kill = _when(lambda: _begun(folder), process.kill)
    process.wait()
    kill.join()
    assert process.returncode == -signal.SIGKILL
    assert inside("ray_search.py", "--restore", "s").returncode == 0
    assert stand_in_slurm.starts(slurm) == {"100_0": 1, "100_1": 1, "101": 1}
    assert inside("ray_search.py", *flags, "--folder-name", "r", "--workers", "1").returncode == 0
    for name in ("results.csv", "final.csv"):
        tables = [(home / "hebb" / "search" / one / name).read_text().splitlines() for one in ("s", "r")]
        place = tables[0][0].split(",").index("minutes")
        rows = [[line.split(",")[:place] + line.split(",")[place + 1 :] for line in table] for table in tables]
        assert rows[0] == rows[1]
    winners = [(home / "hebb" / "search" / one / "winner.json").read_bytes() for one in ("s", "r")]
    assert winners[0] == winners[1]


def test_what_slurm_is_asked(slurm: Path, tmp_path: Path) -> None:
    """Every option ends up in the script that ``sbatch`` gets."""
    words = ["partition=gpu", "account=lab", "qos=low", "constraint=a100", "time=90m", "cpus=4", "gpus=1"]
    words += ["memory=1.5", "parallel=2", "setup=module load cuda", "extra=--mail-type=END", "extra=exclusive"]
    options = job_options.parse(job_options.of_words(words))
    cluster = clusters.Slurm(tmp_path / "jobs", options)
    numbers = cluster.submit([_nothing, _nothing, _nothing], "hebb-s", 4)  # type: ignore[list-item]
    assert numbers == ["100_0", "100_1", "100_2"]
    script = (slurm / "100.script").read_text().splitlines()
    assert "module load cuda" in script
    directives = {line.removeprefix("#SBATCH --") for line in script if line.startswith("#SBATCH")}
    assert directives >= {
        *(
            "partition=gpu",
            "account=lab",
            "qos=low",
            "constraint=a100",
            "time=90",
            "cpus-per-task=4",
            "gpus-per-node=1",
        ),
        *("mem=1536MB", "array=0-2%2", "mail-type=END", "exclusive", "requeue", "signal=USR2@90", "job-name=hebb-s"),
    }
    deadline = time.monotonic() + 60
    while cluster.gone(numbers) != set(numbers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert cluster.gone(numbers) == set(numbers)


def _nothing() -> None:
    """A job that ends at once."""


def test_what_sbatch_refuses_is_one_line(slurm: Path, tmp_path: Path) -> None:
    cluster = clusters.Slurm(tmp_path / "jobs", JobOptions(partition="none"))
    with pytest.raises(ConfigError, match=r"--slurm: sbatch refuses the jobs: .*invalid partition specified: none"):
        cluster.submit([_nothing], "hebb-s", 1)  # type: ignore[list-item]


def test_options_come_back_as_they_were_stored() -> None:
    options = job_options.parse({"time": "8h", "gpus": "1", "memory": 16, "setup": ["module load cuda"]})
    assert options == JobOptions(time=8 * 3600.0, gpus=1, memory=16.0, setup=("module load cuda",))
    assert job_options.parse(options.stored()) == options
    assert JobOptions().stored() == {}


def test_options_of_a_file_and_of_words(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("partition: gpu\ntime: 8h\nsetup: module load cuda\n")
    options = job_options.parse(job_options.of_words([str(file), "time=2h", "setup=export X=1"]))
    assert options == JobOptions(partition="gpu", time=7200.0, setup=("module load cuda", "export X=1"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("partiton=gpu",), r"--slurm: unknown option 'partiton' \(did you mean 'partition'\?\)"),
        (("gpu",), r"--slurm: must be KEY=VALUE or a YAML file, got 'gpu'"),
        (("nope.yaml",), r"--slurm: no such file 'nope.yaml'"),
        (("gpus=-1",), r"--slurm gpus: must be a whole number >= 0, got '-1'"),
        (("cpus=1.5",), r"--slurm cpus: must be a whole number >= 1, got '1.5'"),
        (("memory=much",), r"--slurm memory: must be a number of GB > 0, got 'much'"),
        (("memory=nan",), r"--slurm memory: must be a number of GB > 0, got 'nan'"),
        (("time=8",), r"--slurm time: must be a time > 0 with its unit, got '8'"),
        (("time=5s",), r"--slurm time: must be at least one minute, got '5s'"),
    ],
)
def test_wrong_options(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        job_options.parse(job_options.of_words(words))


DRAWN = ("--space", "b0.layer.lr={uniform: [0.01, 0.1]}", "--num-samples", "2")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--launcher", "slrum"), r"--launcher: unknown 'slrum' \(did you mean 'slurm'\?\)"),
        (("--slurm", "time=2h"), r"--slurm: has no effect on Ray"),
        (("--launcher", "slurm", "--workers", "2"), r"--workers: is for Ray.*\n--slurm parallel=N"),
        (("--launcher", "slurm", "--address", "auto"), r"--address: is for Ray"),
        (("--launcher", "slurm", "--dashboard"), r"--dashboard: is for Ray"),
        (("--launcher", "slurm", "--gpu-exp", "2"), r"--gpu-exp: is for Ray"),
        (
            ("--launcher", "slurm", "--algorithm", "optuna", *DRAWN),
            r"optuna \(tpe\) chooses each.*\n--algorithm random",
        ),
        (
            ("--launcher", "local", "--scheduler", "asha", *DRAWN),
            r"asha judges each trial .* start at once\n--scheduler none",
        ),
        (("--launcher", "slurm", "--slurm", "gpus=1"), r"--slurm gpus: must be 0 for runs on the CPU, got 1"),
        (("--launcher", "slurm", "--slurm", "cpus=1", "--threads", "2"), r"--slurm cpus: must be at least .* 2, got 1"),
        (
            ("--launcher", "slurm", "--slurm", "time=2m"),
            r"--slurm time: must be at least 5 minutes, .* got 120 seconds",
        ),
        (("--launcher", "local", "--slurm", "partition=a"), r"--slurm partition: is an option of Slurm"),
    ],
)
def test_what_jobs_cannot_do_is_refused(flags: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        search_command.main(["--preset", CNN, *DATA, "--data-dir", str(tmp_path), *flags, "--dry-run"])
    assert not list(tmp_path.iterdir())


def test_without_slurm_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"--launcher slurm: there is no command sbatch or srun or scontrol"):
        job_options.check_installed(Launcher.SLURM)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(
        ConfigError, match=r"needs submitit, which is not installed\npip install 'hebb-learning\[slurm\]'"
    ):
        job_options.check_installed(Launcher.LOCAL)


def test_slurm_needs_a_folder_that_nodes_see() -> None:
    with pytest.raises(ConfigError, match=r"launcher: slurm needs folder="):
        hebb.search(CNN, launcher="slurm")


def test_a_full_gpu_names_what_its_launcher_takes() -> None:
    assert "a smaller batch, or fewer trials on a GPU (--gpu-exp, on Ray)" in mishaps.reason("CUDA out of memory", "")


class _Queue:
    """A batch system of numbers; ``act`` is called while it takes jobs."""

    launcher, pause, patience = Launcher.SLURM, 0.0, 0.0

    def __init__(self, outlives: bool = True, act: Callable[[int], object] = lambda _: None) -> None:
        self.outlives, self.act = outlives, act
        self.alive: list[str] = []
        self.cancelled: list[str] = []

    def room(self, open_jobs: int, waiting: int) -> int:
        return min(waiting, 2)

    def submit(self, jobs: Sequence[object], name: str, cpus: int) -> list[str]:
        numbers = [f"{len(self.alive)}_{i}" for i in range(len(jobs))]
        self.act(len(self.alive))
        self.alive += numbers
        return numbers

    def gone(self, numbers: Sequence[str]) -> set[str]:
        return set(numbers) - set(self.alive)

    def fate(self, number: str) -> str:
        return ""

    def cancel(self, numbers: Sequence[str]) -> None:
        self.cancelled += numbers
        self.alive = [number for number in self.alive if number not in numbers]

    def settle(self, numbers: Sequence[str]) -> None:
        pass


def _array(queue: _Queue, folder: Path, groups: int = 4, trials: int | None = None) -> Any:
    """Jobs of groups that exist by name alone."""
    names = [f"g{i}" for i in range(groups)]
    parts: Any = {
        "search": SimpleNamespace(folder=folder, stops_early=False),
        "groups": tuple(SimpleNamespace(name=n, finished=False, runs=[SimpleNamespace(name=n)]) for n in names),
        "journal": SimpleNamespace(stopped={}, left_out={}, failed={}, suggested=()),
        **dict.fromkeys(("task", "catalog")),
    }
    stage = Work(**parts, limits=Limits(trials=trials))
    options: Any = SimpleNamespace(cpus_of=lambda _: 1)
    return job_array._Array(stage, queue, options, Ledger(stage, SearchObserver()))


def _noted(folder: Path) -> list[str]:
    return [str(row["job"]) for row in job_array._submitted(folder / "jobs").values()]


def test_jobs_beyond_a_limit_are_followed(tmp_path: Path) -> None:
    """A limit is on what begins; what an earlier command has queued has begun."""
    queue = _Queue()
    first = _array(queue, tmp_path)
    first.folder.mkdir()
    first._submit()
    first._submit()
    second = _array(queue, tmp_path, trials=1)
    second._adopt()
    assert sorted(second.jobs) == ["g0", "g1", "g2", "g3"]
    assert not second.waiting


def test_the_files_of_other_jobs_stay(tmp_path: Path) -> None:
    queue = _Queue()
    first = _array(queue, tmp_path)
    first.folder.mkdir()
    first._submit()
    other = _array(queue, tmp_path, groups=0)  # another stage
    other._leave()
    assert other.folder.exists()
    queue.alive.clear()
    other._leave()
    assert not other.folder.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_submitted_is_noted_before_an_interrupt(number: int, tmp_path: Path) -> None:
    array = _array(_Queue(act=lambda _: os.kill(os.getpid(), number)), tmp_path)
    array.run()
    assert array.ledger.cause == Cause.INTERRUPTED
    assert _noted(tmp_path) == ["0_0", "0_1"]


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_terminal_does_not_interrupt_sbatch(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C reaches all processes of a terminal, and one that starts while signals are blocked does not see it."""
    seen: list[str] = []

    def start(*_: object) -> list[Any]:
        seen.append(subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout)
        return []

    monkeypatch.setattr("submitit.SlurmExecutor.submit_array", start)
    clusters.Slurm(tmp_path, JobOptions()).submit([], "s", 1)
    blocked = int(next(line for line in seen[0].splitlines() if line.startswith("SigBlk")).split()[1], 16)
    assert blocked & 1 << signal.SIGINT - 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _refuse_the_second(open_jobs: int) -> None:
    if open_jobs:
        raise ConfigError("--slurm", "no more")


@pytest.mark.parametrize(("outlives", "ended"), [(True, []), (False, ["0_0", "0_1"])])
def test_jobs_before_a_refusal(outlives: bool, ended: list[str], tmp_path: Path) -> None:
    """Slurm's jobs go on and can be followed; processes of the command end with it."""
    queue = _Queue(outlives, _refuse_the_second)
    with pytest.raises(ConfigError, match="no more"):
        _array(queue, tmp_path).run()
    assert queue.cancelled == ended
    assert _noted(tmp_path) == ["0_0", "0_1"]


def test_jobs_that_cannot_be_noted_are_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    queue = _Queue()
    monkeypatch.setattr(folders, "append_row", full)
    with pytest.raises(OSError, match="no space left"):
        _array(queue, tmp_path).run()
    assert queue.cancelled == ["0_0", "0_1"]


def test_processes_start_together_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeping = subprocess.Popen(["sleep", "60"])
    first = SimpleNamespace(job_id=str(sleeping.pid), done=lambda: sleeping.poll() is not None)
    answers = iter([first])  # and then StopIteration
    monkeypatch.setattr("submitit.LocalExecutor.submit", lambda *_: next(answers))
    with pytest.raises(StopIteration):
        clusters.Processes(tmp_path, JobOptions(), 1).submit([_nothing, _nothing], "s", 1)  # type: ignore[list-item]
    assert sleeping.wait() == -signal.SIGKILL


@pytest.mark.parametrize("parallel", [None, 2])
def test_one_array_at_a_time(parallel: int | None, tmp_path: Path) -> None:
    cluster = clusters.Slurm(tmp_path, JobOptions(parallel=parallel))
    assert cluster.room(0, 2500) == 1000
    assert cluster.room(1000, 1500) == (1000 if parallel is None else 0)


def test_what_slurm_calls_an_end(slurm: Path, tmp_path: Path) -> None:
    """A job that is suspended or held goes on."""
    ends = ["COMPLETED", "NODE_FAIL", "TIMEOUT", "CANCELLED by 7", "OUT_OF_MEMORY"]
    goes_on = ["SUSPENDED", "RESIZING", "STOPPED", "SIGNALING", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"]
    goes_on += ["PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "STAGE_OUT", "RESV_DEL_HOLD"]
    for i, state in enumerate([*ends, *goes_on]):
        (slurm / f"100_{i}.state").write_text(state)
    numbers = [f"100_{i}" for i in range(len(ends) + len(goes_on))]
    cluster = clusters.Slurm(tmp_path, JobOptions())
    assert cluster.gone(numbers) == set(numbers[: len(ends)])


@pytest.mark.parametrize("end", ["NODE_FAIL", "TIMEOUT"])
def test_a_requeued_job_is_seen_alive(end: str, slurm: Path, tmp_path: Path) -> None:
    """Also where all jobs of its array had ended, after which submitit's own watcher asks no more."""
    state, cluster = slurm / "100_0.state", clusters.Slurm(tmp_path, JobOptions())
    state.write_text(end)
    assert cluster.gone(["100_0"]) == {"100_0"}
    state.write_text("PENDING")
    cluster._asked = -math.inf
    assert not cluster.gone(["100_0"])
