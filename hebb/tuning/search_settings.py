"""How and where the trials of a search run. Imports neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hebb.config.vocabulary import Launcher
from hebb.core.errors import ConfigError
from hebb.storage.folders import CACHE_LIMIT, Home
from hebb.tuning import job_options
from hebb.tuning.job_options import DEFAULT, JobOptions


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How and where the trials of a search run. Nothing here changes their numbers.

    Attributes:
        home: the parent folder of datasets, stored layers and the cache.
        gpu: index of the one GPU to use; None uses all of them.
        trials_per_gpu: trials that share a GPU.
        workers: trials at the same time; None for as many as there is room for.
        address: an existing Ray cluster; None starts Ray on this machine, or uses the Ray that is initialised.
        dashboard: show Ray's dashboard on the loopback address.
        max_failures: times that a trial is tried again after an error, or after its worker has died.
        retry_failed: also run again what failed by its own code or weights, in a search that is continued.
        share_blocks: train first blocks that several trials share once.
        keep_features: keep the output of frozen blocks from epoch to epoch.
        cache_limit: bytes of them that may lie in files.
        save_models: keep the trained model of every trial.
        keep_best: keep the trained models of the best configuration, and of its final runs.
        save_trials: keep the run folders of the trials when the search is over.
        preset_file: presets of the user's own, read again when the search is continued.
        on_end: a command of the user's own for the end of the search; None for none.
        launcher: what runs the trials.
        jobs: what each trial takes as a job of a batch system, where the launcher is not Ray.
        storage: where the Optuna study is kept, for optuna-dashboard; None keeps it in memory.
        commands: the commands that began and continued the search, for its report.
    """

    home: Home
    gpu: int | None = None
    trials_per_gpu: int = 1
    workers: int | None = None
    address: str | None = None
    dashboard: bool = False
    max_failures: int = 1
    retry_failed: bool = False
    share_blocks: bool = True
    keep_features: bool = True
    cache_limit: int = CACHE_LIMIT
    save_models: bool = False
    keep_best: bool = True
    save_trials: bool = True
    preset_file: Path | None = None
    on_end: str | None = None
    launcher: Launcher = Launcher.RAY
    jobs: JobOptions = DEFAULT
    storage: str | None = None
    commands: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for flag, value, least in (
            ("--gpu-exp", self.trials_per_gpu, 1),
            ("--max-failures", self.max_failures, 0),
            ("--workers", self.workers, 1),
        ):
            if value is not None and value < least:
                raise ConfigError(flag, f"must be a whole number >= {least}, got {value}")
        if self.address is not None and self.dashboard:
            raise ConfigError("--dashboard", "cannot be combined with --address: a cluster has its own dashboard")
        self._check_launcher()

    def _check_launcher(self) -> None:
        """Raise for settings of Ray beside another launcher, and for settings of jobs beside Ray."""
        if self.launcher == Launcher.RAY:
            if self.jobs != DEFAULT:
                hint = "--launcher slurm runs each trial as a job, --launcher local as a process of this machine"
                raise ConfigError(job_options.FLAG, "has no effect on Ray", hint=hint)
            return
        for flag, used, hint in (
            ("--address", self.address is not None, "leave it out"),
            ("--dashboard", self.dashboard, "hebb watch NAME follows the search"),
            ("--workers", self.workers is not None, f"{job_options.FLAG} parallel=N limits the jobs that run"),
            ("--gpu-exp", self.trials_per_gpu != 1, f"{job_options.FLAG} gpus=N gives each job its own"),
            ("--gpu-id or --device", bool(self.gpu), f"{job_options.FLAG} gpus=N gives each job its own"),
        ):
            if used:
                raise ConfigError(flag, f"is for Ray, and --launcher {self.launcher} starts none", hint=hint)

    def stored(self) -> dict[str, object]:
        """Return what a continued search keeps, under the keys of ``search.json``."""
        return {
            "no_feature_cache": not self.keep_features,
            "cache_limit": self.cache_limit,
            "gpu_exp": self.trials_per_gpu,
            "save": self.save_trials,
            "save_model": self.save_models,
            "save_best": self.keep_best,
            "share_blocks": self.share_blocks,
            "max_failures": self.max_failures,
            "preset_file": None if self.preset_file is None else str(self.preset_file.absolute()),
            "on_end": self.on_end,
            **self._launched(),
            "storage": self.storage,
            "commands": list(self.commands),
        }

    def _launched(self) -> dict[str, object]:
        """Return the launcher and its options; searches on Ray, as most are, have no such keys."""
        if self.launcher == Launcher.RAY:
            return {}
        return {"launcher": self.launcher.value, "slurm": self.jobs.stored()}

    @staticmethod
    def restored(data: Mapping[str, Any], home: Home) -> SearchSettings:
        """Return the settings that a search was started with, from the options of its ``search.json``."""
        file = data.get("preset_file")
        return SearchSettings(
            home=home,
            keep_features=not data.get("no_feature_cache", False),
            cache_limit=data.get("cache_limit", CACHE_LIMIT),
            trials_per_gpu=data.get("gpu_exp", 1),
            save_trials=data.get("save", True),
            save_models=data.get("save_model", False),
            keep_best=data.get("save_best", True),
            share_blocks=data.get("share_blocks", True),
            max_failures=data.get("max_failures", 1),
            preset_file=None if file is None else Path(file),
            on_end=data.get("on_end"),
            launcher=Launcher(data.get("launcher", Launcher.RAY)),
            jobs=job_options.parse(data.get("slurm", {})),
            storage=data.get("storage"),
            commands=tuple(data.get("commands", ())),
        )


def no_room(cpus: int, gpu: float, most: Mapping[str, float]) -> ConfigError:
    """Return the error for a trial that needs more than any node has; ``most`` is what one has, by Ray's names."""
    problem = (
        f"a trial needs {cpus} cores and {gpu:g} GPU, and a node has at most {most.get('CPU', 0):g} and "
        f"{most.get('GPU', 0):g}"
    )
    return ConfigError("resources", problem, hint="set fewer --threads, or --gpu-id cpu")
