"""Trials on Ray Tune: scheduling, resources and workers are Ray's, the results are our run folders."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import signal
import stat
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.arguments import cores
from hebb import config_json
from hebb.errors import ConfigError
from hebb.measures import BlockInfo
from hebb.records import Row
from search.trials import Trial

# Ray reads these when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # our run folders hold the metrics
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # a trial without a GPU sees none

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own deprecations
    import ray
    from ray import tune

_OBJECT_STORE = 512 * 1024 * 1024  # bytes; trials pass configs and numbers, not data


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one trial takes.

    Attributes:
        cpus: cores, which are its threads too.
        gpu: share of a GPU.
        gpu_id: the one GPU to use; None uses all of them.
    """

    cpus: int
    gpu: float
    gpu_id: int | None = None


class Watcher:
    """What a search tells while it goes on; every method does nothing here."""

    def started(self, trial: str) -> None:
        """A trial began."""

    def reported(self, trial: str, row: dict[str, Any]) -> None:
        """A trial reported a row with a finite metric."""

    def ended(self, trial: str, error: str | None) -> None:
        """A trial ended, with the reason when it failed."""


@dataclass(frozen=True)
class Outcome:
    """How a search ended: reasons of failed trials by name, and whether it was interrupted."""

    failed: dict[str, str]
    interrupted: bool


class _Tell(tune.Callback):
    """Passes what Ray says on to the watcher."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher

    def __getstate__(self) -> dict[str, Any]:
        return {"watcher": Watcher()}  # Ray stores its callbacks; ours holds a terminal and stays here

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.watcher.started(trial.config["trial"])

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        self.watcher.reported(trial.config["trial"], result)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.watcher.ended(trial.config["trial"], None)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.watcher.ended(trial.config["trial"], "failed")


@contextlib.contextmanager
def session(resources: Resources) -> Iterator[None]:
    """Keep a local Ray for the searches inside, which takes it seconds to start; an outer session is shared."""
    if ray.is_initialized():
        yield
        return
    _start(resources)
    try:
        _check_resources(resources)
        yield
    finally:
        ray.shutdown()


def run(
    trials: Sequence[Trial], place: dict[str, Any], metric: str, resources: Resources, storage: Path, watcher: Watcher
) -> Outcome:
    """Run every trial once, inside a session, and return when all have ended.

    Args:
        trials: what is run.
        place: keyword arguments of ``train.Place`` beside the folder.
        metric: rows without a finite value of it are not reported.
        resources: what a trial takes.
        storage: folder for Ray's own state.
        watcher: is told of every report.
    """
    at_once = cores() // resources.cpus  # on a node; more share its memory only where a GPU is shared too
    place = {**place, "trials": max(1, min(len(trials), at_once))}
    described = {t.name: (config_json.to_json(t.config), str(t.folder)) for t in trials}
    function = tune.with_parameters(_run_trial, trials=described, place=place, metric=metric)
    needed = {"cpu": resources.cpus, "gpu": resources.gpu}
    tuner = tune.Tuner(
        tune.with_resources(function, {name: amount for name, amount in needed.items() if amount}),
        param_space={"trial": tune.grid_search([t.name for t in trials])},
        tune_config=tune.TuneConfig(reuse_actors=True, trial_dirname_creator=_directory_name),
        run_config=tune.RunConfig(
            name=storage.name, storage_path=str(storage.parent), verbose=0, callbacks=[_Tell(watcher)]
        ),
    )
    with contextlib.redirect_stdout(io.StringIO()), _terminated_as_interrupted():  # Ray's banner is not for us
        grid = tuner.fit()
    failed, interrupted = {}, False
    for i in range(len(grid)):
        result = grid[i]
        if result.error is not None:
            failed[_trial_name(result)] = _reason(result.error)
        elif not (result.metrics or {}).get("done"):
            interrupted = True
    return Outcome(failed, interrupted)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM do what SIGINT does, which Ray handles by stopping its trials."""
    before = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _start(resources: Resources) -> None:
    """Start a local Ray; one that happens to run on this machine is not joined."""
    if resources.gpu_id is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(resources.gpu_id)
    options: dict[str, Any] = {} if resources.gpu else {"num_gpus": 0}
    ray.init(
        address="local",
        num_cpus=cores(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=_OBJECT_STORE,
        **options,
    )
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # a failed trial is reported by us, without its traceback
    token = Path.home() / ".ray" / "auth_token"
    if token.exists() and stat.S_IMODE(token.stat().st_mode) != 0o600:
        token.chmod(0o600)  # Ray leaves it readable by everybody


def _check_resources(resources: Resources) -> None:
    """Refuse what no node can give: Ray would wait for it for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(node.get("CPU", 0) >= resources.cpus and node.get("GPU", 0) >= resources.gpu for node in nodes):
        return
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in ("CPU", "GPU")}
    raise ConfigError(
        "resources",
        f"a trial wants {resources.cpus} cores and {resources.gpu:g} GPU; a node has at most "
        f"{most['CPU']:g} and {most['GPU']:g}",
        hint="give fewer --threads, or --gpu-id cpu",
    )


def _run_trial(parameters: dict[str, str], trials: dict[str, Any], place: dict[str, Any], metric: str) -> None:
    """Run one trial inside a worker, which is reused from trial to trial."""
    import gc

    import torch

    import train

    class ToTune(train.Report):
        """Hands every row with a finite metric to Ray, as plain floats."""

        def row(self, row: Row, blocks: dict[str, BlockInfo]) -> None:
            value = row[metric]
            if value is not None and math.isfinite(value):
                tune.report({k: float(v) for k, v in row.items() if isinstance(v, int | float)} | {"kind": row["kind"]})

    data, folder = trials[parameters["trial"]]
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    run_config = config_json.run_from_json(data, f"trial {parameters['trial']}")
    train.run(run_config, ToTune(), place=train.Place(folder=Path(folder), **place))


def _directory_name(trial: Any) -> str:
    return str(trial.config["trial"])


def _trial_name(result: Any) -> str:
    """Return the trial's name; a result that never reported has no config."""
    return str((result.config or {}).get("trial") or Path(result.path).name)


def _reason(error: BaseException) -> str:
    """Return the message of the exception inside Ray's wrapping, in one line."""
    cause = getattr(error, "cause", None) or error
    text = str(cause).strip()
    lines = [line for line in text.splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line and not line.startswith((" ", "\t"))]
    return (named[-1] if named else lines[0] if lines else type(cause).__name__)[:300]
