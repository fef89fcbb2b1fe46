"""What a search asks of the batch system that runs its trials as jobs. Imports neither Ray nor torch."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from hebb.config.vocabulary import DeviceKind, Launcher
from hebb.core import documents, extras
from hebb.core.errors import ConfigError
from hebb.core.values import number_or_none
from hebb.tuning.search import Search

FLAG = "--slurm"
_WORDS = ("partition", "account", "qos", "constraint")
_LISTS = ("setup", "extra")
_WHOLE = {"cpus": 1, "gpus": 0, "parallel": 1, "requeues": 0}
"""Options that are whole numbers, and the least of each."""
_OF_SLURM = (*_WORDS, "memory", "extra")
"""Options that processes of this machine cannot have."""
_AT_ONCE = "but all jobs of an array start at once"
WARNING = 90
"""Seconds before the end of its time at which a job of Slurm is warned."""
_LEAST = 300.0  # seconds of a job of Slurm
_INSIDE = "cluster/slurm.sh runs the whole search, with Ray, inside one job"


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What each job takes, and how many run at once. Nothing here changes the numbers of a run.

    Attributes:
        partition: where the jobs queue; None is the cluster's default.
        account: who is charged.
        qos: quality of service.
        constraint: features that a node must have.
        time: seconds after which the batch system ends a job; what is left of its run queues again.
        cpus: cores of a job, at least the threads of a run; None is as many as those.
        gpus: GPUs of a job.
        memory: GB of a job; None is the cluster's default.
        parallel: jobs at the same time; None leaves it to the cluster.
        requeues: times that a job may use up its time and queue again.
        setup: lines of shell that a job runs first, such as ``module load cuda``.
        extra: further options of ``sbatch``, such as ``mail-type=END``.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: float = 4 * 3600.0
    cpus: int | None = None
    gpus: int = 0
    memory: float | None = None
    parallel: int | None = None
    requeues: int = 20
    setup: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    def stored(self) -> dict[str, object]:
        """Return what differs from the defaults, as ``parse`` takes it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = {name: value for name, value in values.items() if value != getattr(DEFAULT, name)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}

    def threads(self) -> int:
        """Return the threads of a run that asks for none."""
        return self.cpus or 1

    def cpus_of(self, search: Search) -> int:
        """Return the cores of a job."""
        return max(self.cpus or 1, search.base.threads)


DEFAULT = JobOptions()
"""Options that nobody has changed."""
NAMES = tuple(field.name for field in fields(JobOptions))
"""The options, as users write them."""


def of_words(words: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` words and YAML files with such keys; a later word replaces, and a list is added to."""
    options: dict[str, Any] = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator and word.endswith((".yaml", ".yml")):
            options |= documents.as_object(documents.read_yaml(_file(word)), word)
        elif not separator or not name or not value:
            hint = "for example partition=gpu time=8h gpus=1, or a YAML file with such keys"
            raise ConfigError(FLAG, f"must be KEY=VALUE or a YAML file, got '{word}'", hint=hint)
        elif name in _LISTS:
            options[name] = [*_lines(options.get(name, ()), f"{FLAG} {name}"), value]
        else:
            options[name] = value
    return options


def _file(word: str) -> Any:
    from pathlib import Path

    path = Path(word)
    if not path.is_file():
        raise ConfigError(FLAG, f"no such file '{word}'")
    return path


def parse(data: Mapping[str, Any], where: str = FLAG) -> JobOptions:
    """Check options; numbers may be texts, as a command line has them."""
    for name in data:
        if name not in NAMES:
            raise ConfigError(where, f"unknown option '{name}'", given=str(name), choices=NAMES)
    return JobOptions(**{name: _value(name, value, f"{where} {name}") for name, value in data.items()})


def _value(name: str, value: Any, where: str) -> Any:
    from hebb.config import search_space

    if name in _LISTS:
        return tuple(_lines(value, where))
    if name in _WORDS:
        if not isinstance(value, str | int) or not str(value).strip() or "\n" in str(value):
            raise ConfigError(where, f"must be a word, got {value!r}")
        return str(value)
    if name == "time":
        seconds = search_space.duration(value, where)
        if seconds < 60:
            raise ConfigError(where, f"must be at least one minute, got '{value}'")
        return seconds
    number = number_or_none(value) if isinstance(value, str) else value
    if name == "memory":
        if not isinstance(number, int | float) or isinstance(number, bool) or not 0 < number < math.inf:
            raise ConfigError(where, f"must be a number of GB > 0, got {value!r}")
        return float(number)
    if not isinstance(number, int) or isinstance(number, bool) or number < _WHOLE[name]:
        raise ConfigError(where, f"must be a whole number >= {_WHOLE[name]}, got {value!r}")
    return number


def _lines(value: Any, where: str) -> list[str]:
    lines = [value] if isinstance(value, str) else value
    if not isinstance(lines, list | tuple) or any(not isinstance(one, str) or "\n" in one for one in lines):
        raise ConfigError(where, f"must be a line or a list of lines, got {value!r}")
    return list(lines)


def check(search: Search, launcher: Launcher, options: JobOptions, arrays: bool = False) -> None:
    """Raise for a search that jobs cannot run, and for options that have no effect.

    Args:
        search: the search.
        launcher: what runs its trials.
        options: what each job takes.
        arrays: whether its data are arrays of this process.
    """
    if launcher == Launcher.RAY:
        return
    where, plan, scheduler = f"--launcher {launcher}", search.spec.plan, search.spec.scheduler.name
    if plan.model_based:
        problem = f"{plan.chooser} chooses each point from results so far, {_AT_ONCE}"
        raise ConfigError(where, problem, hint=f"--algorithm random draws all points at once; {_INSIDE}")
    if search.stops_early:
        problem = f"{scheduler} judges each trial by results so far, {_AT_ONCE}"
        raise ConfigError(where, problem, hint=f"--scheduler none trains all to the end; {_INSIDE}")
    if arrays:
        raise ConfigError(where, "jobs cannot see the arrays of this program", hint="store them as an .npz file")
    _check_device(search, options)
    if options.cpus is not None and options.cpus < search.base.threads:
        problem = f"must be at least the threads of a run, {search.base.threads}, got {options.cpus}"
        raise ConfigError(f"{FLAG} cpus", problem, hint="--threads says how many a run uses")
    if launcher == Launcher.SLURM and options.time < _LEAST:
        problem = f"must be at least {_LEAST / 60:g} minutes, of which the last {WARNING} seconds are the warning"
        raise ConfigError(f"{FLAG} time", f"{problem}, got {options.time:g} seconds")
    if launcher == Launcher.LOCAL:
        for name in _OF_SLURM:
            if getattr(options, name) != getattr(DEFAULT, name):
                problem = "is an option of Slurm, and --launcher local starts processes of this machine"
                raise ConfigError(f"{FLAG} {name}", problem)


def _check_device(search: Search, options: JobOptions) -> None:
    """Raise where runs use a GPU that jobs do not have, or the other way round."""
    device = search.base.device
    if device == DeviceKind.CUDA and not options.gpus:
        raise ConfigError(f"{FLAG} gpus", "must be >= 1 for runs on cuda, got 0", hint=f"{FLAG} gpus=1")
    if device == DeviceKind.CPU and options.gpus:
        problem = f"must be 0 for runs on the CPU, got {options.gpus}"
        raise ConfigError(f"{FLAG} gpus", problem, hint="leave out --gpu-id cpu to use the GPU")


def check_installed(launcher: Launcher) -> None:
    """Raise where a launcher lacks its package, or the machine its batch system; nothing is imported."""
    where = f"--launcher {launcher}"
    extras.require(where, "submitit", extra=extras.EXTRAS["submitit"])
    missing = [name for name in ("sbatch", "srun", "scontrol") if shutil.which(name) is None]
    if launcher == Launcher.SLURM and missing:
        hint = "run it where jobs are submitted; --launcher local tries the same jobs on this machine"
        raise ConfigError(where, f"there is no command {' or '.join(missing)} on this machine", hint=hint)


def described(launcher: Launcher, options: JobOptions, search: Search) -> list[str]:
    """Say in a line what each job takes; nothing on Ray."""
    if launcher == Launcher.RAY:
        return []
    gpus = f", {options.gpus} GPU{'' if options.gpus == 1 else 's'}" if options.gpus else ""
    memory = f", {options.memory:g} GB" if options.memory else ""
    cores = options.cpus_of(search)
    text = f"{cores} core{'' if cores == 1 else 's'}{gpus}{memory}, {options.time / 60:g} minutes"
    return [f"each trial, or pack, is a job of {launcher}: {text}, queued again up to {options.requeues} times"]
