"""Ray itself: its environment, its sessions, the resources of its nodes, and what its errors mean."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import secrets
import shutil
import socket
import stat
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hebb.core import temporary
from hebb.core.errors import ConfigError, HebbError
from hebb.core.interrupts import handlers_kept
from hebb.core.threads import cores
from hebb.tuning import mishaps
from hebb.tuning.processes import environment, worker_environment
from hebb.tuning.search_settings import no_room

# Ray reads these when it is imported.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "token"
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # our run folders hold the metrics
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # a trial without a GPU sees none
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")  # a busy machine starts it slowly
try:
    Path.home()
except RuntimeError:  # a user without a name and a home: Ray's import needs the name of one
    os.environ["HOME"] = "/nonexistent"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own deprecations
    import ray
    from ray import tune

__all__ = ["RayTrial", "Resources", "places", "ray", "reason", "session", "tune"]

_OBJECT_STORE = 256 << 20  # bytes beside the data: configs and numbers
_SOCKET = 103 if sys.platform == "darwin" else 107  # bytes of the path of a socket, which the kernel limits
_BELOW = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_PATIENCE = 10.0  # seconds to find a cluster; Ray tries for minutes


class RayTrial(Protocol):
    """What we use of a trial of Ray's."""

    trial_id: str
    config: dict[str, Any]
    run_metadata: Any

    @property
    def pickled_error_file(self) -> str | None:
        """The file in which Ray stores the error of the trial."""

    def get_pickled_error(self) -> BaseException | None:
        """Return the error of the trial, once Ray has copied it into its storage folder."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one trial takes, and where trials run.

    Attributes:
        cpus: the cores of a trial, which uses as many threads.
        gpu: its share of a GPU.
        gpu_id: the one GPU to use; None uses all of them.
        workers: trials at the same time; None for as many as there is room for.
        address: an existing Ray cluster; None starts Ray on this machine.
        dashboard: show Ray's dashboard on the loopback address.
    """

    cpus: int
    gpu: float
    gpu_id: int | None = None
    workers: int | None = None
    address: str | None = None
    dashboard: bool = False


@contextlib.contextmanager
def session(resources: Resources, data_bytes: int = 0) -> Iterator[None]:
    """Keep Ray running for the searches inside, since its start takes seconds; a Ray that is initialised is used.

    Args:
        resources: what a trial takes; raises where no node has it.
        data_bytes: size of the data that the trials of a node share.
    """
    if ray.is_initialized():
        _check(resources)
        yield
    else:
        with handlers_kept(), _own(resources, data_bytes):  # Ray sets one for SIGTERM
            yield


@contextlib.contextmanager
def _own(resources: Resources, data_bytes: int) -> Iterator[None]:
    """Start or join a Ray, and leave it at the end."""
    folder = None  # of Ray's own files; those of a cluster are not ours to remove
    if resources.address is None:
        folder = _start(resources, data_bytes)
    else:
        _join(resources.address)
    _quieten()
    try:
        _check(resources)
        yield
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)  # Ray never removes the files of its sessions


@contextlib.contextmanager
def joined(address: str | None) -> Iterator[bool | None]:
    """Join the cluster of a search, and yield whether any of its nodes has a GPU.

    Without an address, and while no Ray is running, yield None: the trials will run on this machine, which can tell.
    """
    if ray.is_initialized():
        yield _has_gpu()
        return
    if address is None:
        yield None
        return
    with handlers_kept():
        _join(address)
        _quieten()
        try:
            yield _has_gpu()
        finally:
            ray.shutdown()


def _quieten() -> None:
    """Keep tracebacks of failed trials off the terminal: we report them ourselves."""
    logging.getLogger("ray").setLevel(logging.CRITICAL)


def _has_gpu() -> bool:
    return any(node.get("GPU", 0) for node in _nodes())


def _start(resources: Resources, data_bytes: int) -> Path:
    """Start a local Ray and return its folder; a Ray that already runs on this machine is not joined."""
    variables = worker_environment()
    if resources.gpu_id is not None:
        variables[_VISIBLE] = visible_gpu(resources.gpu_id)
    options: dict[str, Any] = {} if resources.gpu else {"num_gpus": 0}
    variables |= token()
    short = _short_folder()
    if short is not None:
        options["_temp_dir"] = str(short)
    with environment(variables):  # Ray's processes inherit it; a runtime_env would cost each worker a second
        context = ray.init(
            address="local",
            num_cpus=cores(),
            include_dashboard=resources.dashboard,
            dashboard_host="127.0.0.1",
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=_OBJECT_STORE + int(1.2 * data_bytes),
            **options,
        )
    return short or Path(context.address_info["session_dir"])


def _short_folder() -> Path | None:
    """Make a folder for Ray's files where the usual one cannot hold its sockets; None if it can.

    Raises:
        ConfigError: when there is no such folder.
    """
    name, usual = temporary.variable(), temporary.folder()
    problem = f"must be a folder with a path of at most {_SOCKET - _BELOW} bytes, got '{usual}'"
    if len(os.fsencode(usual.absolute())) + _BELOW <= _SOCKET and str(usual).isascii():
        with contextlib.suppress(OSError), tempfile.TemporaryDirectory(prefix="hebb-", dir=usual):
            return None
        problem = f"must be a folder you may write to, got '{usual}'"
    for folder in ("/tmp", "/var/tmp"):
        with contextlib.suppress(OSError):
            return Path(tempfile.mkdtemp(prefix="hebb-", dir=folder))
    raise ConfigError(name or "TMPDIR", problem, hint="Ray keeps its sockets there: export TMPDIR=DIR names another")


def visible_gpu(index: int) -> str:
    """Return what ``CUDA_VISIBLE_DEVICES`` must be to show GPU ``index`` alone, of those that it shows now."""
    listed = os.environ.get(_VISIBLE)
    if listed is None:
        return str(index)
    names = [name.strip() for name in listed.split(",") if name.strip()]
    if index >= len(names):
        raise ConfigError("--gpu-id or --device", f"{_VISIBLE}={listed} shows no GPU {index}")
    return names[index]


def token() -> dict[str, str]:
    """Return the environment variables that give this user's Ray its token; none if it is in the user's home.

    The file is readable by nobody else; Ray would make it readable by everybody. A user without a home that can be
    written gets a token for this session.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return {}
    try:
        make_token(Path.home() / ".ray" / "auth_token")
    except (OSError, RuntimeError):  # no home, no right to write there, or no space
        return {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return {}


def make_token(path: Path) -> None:
    """Make the file with the token, unless it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        new = path.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        os.replace(new, path)
    if stat.S_IMODE(path.stat().st_mode) != 0o600:
        path.chmod(0o600)


def _join(address: str) -> None:
    """Join the cluster at the address."""
    if address != "auto":
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if not host or not port.isdigit():
            raise ConfigError("--address", f"must be HOST:PORT or auto, got '{address}'")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
        except OSError as error:
            raise HebbError(f"--address {address}: no Ray cluster answers there ({error})") from None
    try:
        ray.init(
            address=address, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": worker_environment()}
        )
    except Exception as error:  # Ray has many: no cluster, another version, another token
        text = " ".join(str(error).split())[:300]
        raise HebbError(f"--address {address}: {text or type(error).__name__}") from None


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _check(resources: Resources) -> None:
    """Raise where no node has the resources of a trial: Ray would wait for ever."""
    nodes = _nodes()
    if any(node.get("CPU", 0) >= resources.cpus and node.get("GPU", 0) >= resources.gpu for node in nodes):
        return
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in ("CPU", "GPU")}
    raise no_room(resources.cpus, resources.gpu, most)


def places(resources: Resources, *, on_one: bool = False) -> int:
    """Return how many trials run at the same time, on all nodes or on the largest one."""
    rooms = []
    for node in _nodes():
        by_cpu = int(node.get("CPU", 0) // resources.cpus)
        rooms.append(by_cpu if not resources.gpu else min(by_cpu, int(node.get("GPU", 0) / resources.gpu + 1e-9)))
    room = max(rooms) if on_one else sum(rooms)
    return max(1, room if resources.workers is None else min(room, resources.workers))


def forget_metrics(trial: RayTrial) -> None:
    """Drop the 26 kB that Ray keeps of the metrics of a trial that is over; we choose among trials ourselves."""
    trial.run_metadata.metric_n_steps.clear()
    trial.run_metadata.metric_analysis.clear()


def error_of(trial: RayTrial) -> BaseException | None:
    """Return the error with which one of Ray's trials failed, from where Ray writes it first.

    ``trial.get_pickled_error`` looks into the storage folder, to which the file is copied some time later.
    """
    path = trial.pickled_error_file
    if path is None or not Path(path).is_file():
        return trial.get_pickled_error()
    with open(path, "rb") as file:
        error: BaseException = pickle.load(file)  # by this very process
    return error


def reason(error: BaseException | None) -> str:
    """Return the message of the exception inside Ray's wrapping, in one line."""
    if error is None:
        return "it failed, and Ray does not say why"
    cause = getattr(error, "cause", None) or error
    text = str(cause).strip()
    if "CUDA out of memory" in text:
        return mishaps.reason(text, type(cause).__name__)
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "OutOfMemory" in text or "memory pressure" in text:
        return "its worker was killed: the machine was out of memory"
    if isinstance(error, ray.exceptions.RayActorError):
        return "its worker process died"
    return mishaps.reason(text, type(cause).__name__)
