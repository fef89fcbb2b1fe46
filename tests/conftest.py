"""What all tests share: the real commands as subprocesses, and the place of the real data."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from forks import Forks  # noqa: E402

from hebb import builtin  # noqa: E402
from hebb.cli.entry import run_command  # noqa: E402

builtin.load()

# behind & or nohup these are ignored, by the tests and by all that they start, and tests that send them would wait
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)

SHARED_DATA = Path(os.environ.get("HEBB_DATASETS", ROOT.parent / "shared" / "data"))
GOLDEN = ROOT / "tests" / "golden"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the tests on pretended GPUs to a process of their own, whose torch knows another device."""
    apart = (
        collection_path == ROOT / "tests" / "devices" and "devices" not in str(config.getoption("markexpr")).split()[:1]
    )
    return True if apart else None


Command = Callable[..., subprocess.CompletedProcess[str]]


def _environment(home: Path, datasets: Path | None) -> dict[str, str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("HEBB_HOME", "HEBB_DATASETS")}
    places = {"HEBB_HOME": str(home)} | ({} if datasets is None else {"HEBB_DATASETS": str(datasets)})
    return environment | places


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run one of the commands as a user does: ``command("multi_layer.py", "--dry-run")``.

    Everything it stores goes below ``tmp_path / "home"``; datasets come from there too, unless ``datasets=`` names
    a folder.
    """

    def run(
        script: str, *arguments: str, datasets: Path | None = None, timeout: float = 240
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / script), *arguments],
            cwd=tmp_path,
            env=_environment(tmp_path / "home", datasets),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@functools.cache
def _forks() -> Forks:
    forks = Forks("import hebb.cli.train, hebb.cli.analysis.command, hebb.training.train, pandas, matplotlib.pyplot")
    atexit.register(forks.close)
    return forks


@pytest.fixture
def forked(tmp_path: Path) -> Command:
    """Run a command as ``command`` does, in a process of its own that has torch from its start."""

    def run(script: str, *arguments: str, datasets: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = _environment(tmp_path / "home", datasets)
        return _forks().run(ROOT / script, *arguments, cwd=tmp_path, env=environment)

    return run


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command as ``command`` does, but in this process, which has imported torch already."""

    def run(script: str, *arguments: str, datasets: Path | None = None) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HEBB_HOME", str(tmp_path / "home"))
        monkeypatch.delenv("HEBB_DATASETS", raising=False)
        if datasets is not None:
            monkeypatch.setenv("HEBB_DATASETS", str(datasets))
        monkeypatch.setattr(sys, "argv", [str(ROOT / script), *arguments])
        main = importlib.import_module(Path(script).stem).main
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as end:
                run_command(main)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(sys.argv, int(end.value.code or 0), said.out, said.err)

    return run


_RAY = contextlib.ExitStack()
_SEARCHING: set[Path] = set()
"""The files whose tests share a Ray."""


@pytest.hookimpl(trylast=True)  # after those that are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with searches first: they have few tests and take longest, and one Ray serves those that follow."""
    _SEARCHING.update(item.path for item in items if "one_ray" in getattr(item, "fixturenames", ()))
    items.sort(key=lambda item: item.path not in _SEARCHING)


@pytest.fixture(scope="module")
def one_ray() -> None:
    """Keep one local Ray, whose start takes seconds, for all files of searches that follow one another."""
    from hebb.tuning import ray_session

    if not ray_session.ray.is_initialized():
        _RAY.enter_context(ray_session.session(ray_session.Resources(cpus=1, gpu=0)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Stop the Ray before tests of other files, which may start their own or count what is running."""
    if item.path not in _SEARCHING:
        _RAY.close()


def pytest_sessionfinish() -> None:
    _RAY.close()


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Give each test the same random numbers of torch where its process has torch: what fails will fail again."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.manual_seed(0)


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Count of torch's threads during the test."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def shared_data() -> Path:
    """Folder with the real ``mnist.npz`` and ``cifar10.npz``; a test that needs it is skipped without it."""
    if not (SHARED_DATA / "cifar10.npz").exists():
        pytest.skip(f"the real data are not at {SHARED_DATA}")
    return SHARED_DATA
