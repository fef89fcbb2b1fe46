"""Batch systems that take the groups of a search as jobs, through submitit: Slurm, or processes of this machine.

Imports neither Ray nor torch, and submitit inside functions only.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import hebb
from hebb.config.vocabulary import Launcher
from hebb.core.errors import ConfigError
from hebb.core.interrupts import children_uninterrupted
from hebb.core.threads import cores
from hebb.tuning.job import GroupJob
from hebb.tuning.job_options import FLAG, WARNING, JobOptions
from hebb.tuning.processes import environment, worker_environment

_INSTALLED = ("site-packages", "dist-packages")
_WARNING_HERE = 30
_ARRAY = 1000  # jobs of an array; Slurm's own limit is 1001 unless its administrators raise it
_ALIVE = (
    *("SUSPENDED", "RESIZING", "STOPPED", "SIGNALING", "REQUEUE", "SPECIAL_EXIT"),
    *("CONFIGURING", "STAGE_OUT", "RESV_DEL_HOLD"),
)
"""How states of Slurm begin from which a job goes on, and which submitit counts as ends."""
_ASK = 20.0  # seconds between two questions to Slurm
_GOODBYE = 60.0  # seconds that cancelled jobs have to end
_LAST_WORDS = 30.0  # seconds from the last report of a job to its end


class Cluster(Protocol):
    """A batch system.

    Attributes:
        launcher: which one.
        pause: seconds between two looks at the files of jobs.
        patience: seconds for which the files of a job that is gone may be late, on a disk that several machines share.
        outlives: whether jobs go on when the command that submitted them ends.
    """

    launcher: Launcher
    pause: float
    patience: float
    outlives: bool

    def room(self, open_jobs: int, waiting: int) -> int:
        """Return how many jobs to submit now, at most those of one ``submit``, beside those that are open."""

    def submit(self, jobs: Sequence[GroupJob], name: str, cpus: int) -> list[str]:
        """Submit jobs and return their numbers."""

    def gone(self, numbers: Sequence[str]) -> set[str]:
        """Return the jobs that neither wait nor run."""

    def fate(self, number: str) -> str:
        """Say how a job ended that left no result; empty where nobody knows."""

    def cancel(self, numbers: Sequence[str]) -> None:
        """End jobs, and wait until they are gone."""

    def settle(self, numbers: Sequence[str]) -> None:
        """Wait a moment for jobs that have said their last word to write the files of submitit."""


def _wait(condition: Callable[[], bool], seconds: float, pause: float) -> None:
    """Wait until a condition holds, for so many seconds at most."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(pause)


def of(launcher: Launcher, folder: Path, options: JobOptions, cpus: int) -> Cluster:
    """Return the batch system of a launcher, whose files lie in ``folder``."""
    return Slurm(folder, options) if launcher == Launcher.SLURM else Processes(folder, options, cpus)


def _inherited() -> contextlib.AbstractContextManager[None]:
    """Set the environment that jobs begin with: they need our package, and the settings of a worker."""
    variables, home = worker_environment(), Path(hebb.__file__).parents[1]
    if home.name not in _INSTALLED:
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, (str(home), os.environ.get("PYTHONPATH"))))
    return environment(variables)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Say in a line why a batch system takes no jobs."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        yield
    except (FailedJobError, FailedSubmissionError) as error:
        lines = [line.strip() for line in str(error).splitlines() if "error" in line.lower()] or [str(error)]
        raise ConfigError(FLAG, f"sbatch refuses the jobs: {' '.join(lines[-1].split())[:300]}") from None


class Slurm:
    """Jobs of Slurm, submitted as arrays."""

    launcher, pause, patience, outlives = Launcher.SLURM, 2.0, 60.0, True

    def __init__(self, folder: Path, options: JobOptions) -> None:
        self.folder, self.options = folder, options
        self._asked = -math.inf

    def room(self, open_jobs: int, waiting: int) -> int:
        """Take an array at once; with a limit on those that run, one array after the other."""
        return min(waiting, _ARRAY) if self.options.parallel is None or open_jobs == 0 else 0

    def parameters(self, name: str, cpus: int) -> dict[str, Any]:
        """Return the options of ``sbatch``, by submitit's names."""
        options = self.options
        extra = dict(_option(line) for line in options.extra)
        asked = {
            "partition": options.partition,
            "account": options.account,
            "qos": options.qos,
            "constraint": options.constraint,
            "gpus_per_node": options.gpus or None,
            "mem": None if options.memory is None else f"{math.ceil(1024 * options.memory)}MB",
            "setup": list(options.setup) or None,
            "array_parallelism": options.parallel or _ARRAY,
        }
        fixed = {
            "job_name": name,
            "time": math.ceil(options.time / 60),
            "cpus_per_task": cpus,
            "signal_delay_s": WARNING,
            "additional_parameters": {"requeue": True, **extra},
        }
        return fixed | {key: value for key, value in asked.items() if value is not None}

    def submit(self, jobs: Sequence[GroupJob], name: str, cpus: int) -> list[str]:
        """Submit jobs as one array and return their numbers; a second one could be refused when the first is queued."""
        import submitit

        executor = submitit.SlurmExecutor(self.folder, max_num_timeout=self.options.requeues)
        executor.update_parameters(**self.parameters(name, cpus))
        with _inherited(), _refusals(), children_uninterrupted():
            return [job.job_id for job in executor.submit_array(list(jobs))]

    def _watcher(self, numbers: Iterable[str]) -> Any:
        """Return what asks Slurm after jobs, all in one question."""
        from submitit.slurm.slurm import SlurmJob

        for number in numbers:
            SlurmJob.watcher.register_job(number)
        if time.monotonic() > self._asked + _ASK:
            SlurmJob.watcher.clear()  # else it never asks again after a job that ended and was then requeued
            SlurmJob.watcher.update()
            self._asked = time.monotonic()
        return SlurmJob.watcher

    def gone(self, numbers: Sequence[str]) -> set[str]:
        """Return the jobs that Slurm says have ended; one that it does not know yet has not."""
        watcher = self._watcher(numbers)
        done = [number for number in numbers if watcher.is_done(number, mode="cache")]
        return {number for number in done if not watcher.get_state(number, mode="cache").upper().startswith(_ALIVE)}

    def fate(self, number: str) -> str:
        """Return the state that Slurm gives a job."""
        return str(self._watcher([number]).get_state(number, mode="cache")).lower()

    def cancel(self, numbers: Sequence[str]) -> None:
        """Cancel jobs, and wait until they are gone."""
        import subprocess

        for first in range(0, len(numbers), _ARRAY):
            subprocess.run(["scancel", *numbers[first : first + _ARRAY]], check=False)
        _wait(lambda: len(self.gone(numbers)) == len(set(numbers)), _GOODBYE, self.pause)

    def settle(self, numbers: Sequence[str]) -> None:
        """Wait for the results that submitit writes; a job without one has died."""
        paths = [self.folder / f"{number}_0_result.pkl" for number in numbers]
        _wait(lambda: all(path.exists() for path in paths), _LAST_WORDS, self.pause)


def _option(line: str) -> tuple[str, object]:
    """Read an option of ``sbatch``; one without a value is a switch."""
    name, separator, value = line.strip().removeprefix("--").partition("=")
    return name, value if separator else True


def _family(process: int) -> list[int]:
    """List a process and those that it has started, and these."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8").split()
    except OSError:
        children = []
    return [process, *(other for child in children for other in _family(int(child)))]


class Processes:
    """Jobs as processes of this machine, which end with the command that started them."""

    launcher, pause, patience, outlives = Launcher.LOCAL, 0.2, 0.0, False

    def __init__(self, folder: Path, options: JobOptions, cpus: int) -> None:
        self.folder, self.options = folder, options
        self.parallel = options.parallel or max(1, cores() // cpus)
        self._own: dict[str, Any] = {}

    def room(self, open_jobs: int, waiting: int) -> int:
        """Start as many as may run at the same time."""
        return min(waiting, max(0, self.parallel - open_jobs))

    def submit(self, jobs: Sequence[GroupJob], name: str, cpus: int) -> list[str]:
        """Start processes and return their numbers."""
        import submitit

        options = self.options
        executor = submitit.LocalExecutor(self.folder, max_num_timeout=options.requeues)
        executor.update_parameters(
            timeout_min=options.time / 60,
            gpus_per_node=options.gpus,
            signal_delay_s=_WARNING_HERE,
            setup=list(options.setup),
        )
        with _inherited():
            return self._started(executor, jobs)

    def _started(self, executor: Any, jobs: Sequence[GroupJob]) -> list[str]:
        """Start all of the jobs, or none."""
        numbers: list[str] = []
        try:
            for job in jobs:
                process = executor.submit(job)
                numbers.append(process.job_id)
                self._own[process.job_id] = process
        except BaseException:
            self.cancel(numbers)
            raise
        return numbers

    def gone(self, numbers: Sequence[str]) -> set[str]:
        """Return the processes that have ended, also those that a killed command has left."""
        return {number for number in numbers if not self._lives(number)}

    def _lives(self, number: str) -> bool:
        if number in self._own:
            return not self._own[number].done()
        try:
            return b"submitit" in Path("/proc", number, "cmdline").read_bytes()  # not another one of that number
        except OSError:
            return False

    def fate(self, number: str) -> str:
        """Nobody knows."""
        return ""

    def cancel(self, numbers: Sequence[str]) -> None:
        """Kill processes, which may ignore gentler signals and are safe to kill, and wait until they are gone."""
        for number in numbers:
            for process in _family(int(number)) if self._lives(number) else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        _wait(lambda: len(self.gone(numbers)) == len(set(numbers)), _GOODBYE, self.pause)

    def settle(self, numbers: Sequence[str]) -> None:
        """Wait until processes have ended."""
        _wait(lambda: len(self.gone(numbers)) == len(set(numbers)), _LAST_WORDS, self.pause)
