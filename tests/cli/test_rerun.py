"""A repetition of an archive that is called wrongly, cut off, or called again; its runs are trained in this process.

Without it a mistake in a first call, or a kill, could leave a folder that the right call refuses.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import stored_runs

from hebb.cli import search, verbs
from hebb.config.catalog import Catalog
from hebb.config.data_spec import DataSpec
from hebb.core import documents
from hebb.core.errors import ConfigError
from hebb.data import own as own_data
from hebb.storage import archive, folders
from hebb.storage.journal import Journal
from hebb.tuning import rerun, search_folder, trials
from hebb.tuning.search import Search, Trial
from hebb.tuning.search_settings import SearchSettings

RATES = {"b0.layer.lr": [0.05, 0.1, 0.2]}


def images(path: Path) -> Path:
    """Write a few images of two classes."""
    numbers = np.random.default_rng(0)
    x, y = numbers.integers(0, 256, (60, 8, 8), dtype=np.uint8), np.arange(60) % 2
    np.savez(path, x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    return path


@pytest.fixture(scope="module")
def author(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of who made the archives; the data of one of them are gone since."""
    home = tmp_path_factory.mktemp("author")
    own = DataSpec(dataset=f"npz:{images(home / 'x.npz')}", epochs=1, batch_size=20, print_freq=1)
    base = small.config(small.CNN)
    # of three runs the last is not finished, and is not repeated
    stored_runs.sweep(home, "own", replace(base, dataset_sup=own, dataset_unsup=own), RATES, [0], leave_out=1)
    stored_runs.single(home, "run", small.config(small.CNN))
    for name in ("own", "run"):
        assert verbs.main(["archive", name, "--out", str(home / f"{name}.zip"), "--data-dir", str(home)]) == 0
    (home / "x.npz").rename(home / "moved.npz")
    own_data.look_again()  # as another process, that has never seen it
    return home


@pytest.fixture(autouse=True)
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Train here what Ray would; return the names of the runs in their order."""
    names: list[str] = []

    def run(search: Search, settings: SearchSettings, catalog: Catalog, *, fresh: bool) -> int:
        stopped = Journal.load(search.folder).stopped
        for trial in search.trials:
            if not trial.finished and trial.name not in stopped:
                names.append(trial.name)
                small.run(replace(trial.config, device="cpu"), trial.folder, keep_model=settings.save_models)
        for trial in final_runs(search, 0.1):
            small.run(replace(trial.config, device="cpu"), trial.folder)
        return 0

    monkeypatch.setattr(search, "run", run)
    return names


@pytest.fixture
def again(author: Path, tmp_path: Path) -> Callable[..., int]:
    """Repeat an archive, by default that of the search on the author's own data."""

    def call(*flags: str, name: str = "own") -> int:
        return verbs.main(["rerun", str(author / f"{name}.zip"), "--data-dir", str(tmp_path), *flags])

    return call


def here(author: Path) -> tuple[str, str]:
    """Say what the data of the archive are called now."""
    return "--data", f"npz:{author / 'x.npz'}=npz:{author / 'moved.npz'}"


def final_runs(search: Search, rate: float) -> tuple[Trial, ...]:
    """List the runs of a configuration on all training images."""
    return trials.final_of(search, [next(t for t in search.trials if t.choice["b0.layer.lr"] == rate)])


class _KilledError(BaseException):
    """Stands for the end of the process."""


def folder_of(home: Path) -> Path:
    return folders.Home(home).search("own-rerun")


def test_the_right_call_follows_a_wrong_one(
    author: Path, tmp_path: Path, again: Callable[..., int], trained: list[str]
) -> None:
    """The first call lacks the place of the data."""
    with pytest.raises(ConfigError, match=r"no such file|does not exist"):
        again()
    assert not (folder_of(tmp_path) / folders.SEARCH).exists()
    assert again(*here(author)) == 0
    assert len(trained) == 2, "the run that was not finished is left out"


def test_weights_that_are_not_there_leave_nothing(author: Path, tmp_path: Path, again: Callable[..., int]) -> None:
    search = folders.Home(author).search("own")
    copied = shutil.copytree(search, tmp_path / "weights")
    data = folders.read_json(copied / folders.SEARCH)
    data["resume_from"], data["base"]["resume"] = str(tmp_path / "none" / "checkpoint" / "last.pt"), "all"
    folders.write_json(copied / folders.SEARCH, data)
    archive.write(copied, tmp_path / "weights.zip")
    with pytest.raises(ConfigError, match="starts from weights that an archive does not hold"):
        verbs.main(["rerun", str(tmp_path / "weights.zip"), "--data-dir", str(tmp_path), *here(author)])
    assert not list(tmp_path.rglob("weights-rerun/*.json"))


def killed_after(steps: int, folder: Path, call: Callable[[], int]) -> bool:
    """Make a call that is killed after so many steps that write or remove something in a folder.

    Returns whether that was before the first run would have begun.
    """
    taken = 0

    def counted(step: Callable[..., Any]) -> Callable[..., Any]:
        def do(*values: Any, **more: Any) -> Any:
            nonlocal taken
            path = Path(getattr(values[0], "path", values[0]))
            if path.is_relative_to(folder) and folders.LOCKS not in path.parts:
                if taken == steps:
                    raise _KilledError("in between")
                taken += 1
            return step(*values, **more)

        return do

    def begin(*_: object, **__: object) -> int:
        raise _KilledError("before the first run")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(_KilledError) as end:
        for owner, name in ((Path, "unlink"), (shutil, "rmtree"), (folders, "write_json"), (Journal, "note")):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        patch.setattr(search, "run", begin)
        call()
    return str(end.value) == "in between"


@pytest.mark.parametrize("older", ["", "search", "repetition"])
def test_a_kill_at_any_moment_is_mended_by_the_same_call(
    older: str, author: Path, tmp_path: Path, again: Callable[..., int], trained: list[str]
) -> None:
    """Each step is the last one once, where there is nothing, or another search or repetition that is replaced."""
    folder, there = folder_of(tmp_path), folders.Home(author).search("own")
    if older == "repetition":
        assert again(*here(author)) == 0
        there = shutil.copytree(folder, tmp_path / "older")
    flags = (*here(author), *(("--overwrite",) if older else ()))
    for steps in range(40):
        shutil.rmtree(folder, ignore_errors=True)
        if older:
            shutil.copytree(there, folder)
        in_between = killed_after(steps, folder, lambda: again(*flags))
        trained.clear()
        assert again(*flags) == 0
        assert (len(trained), len(Journal.load(folder).stopped)) == (2, 1), f"killed after {steps} steps"
        if not in_between:
            break
    assert 3 < steps < 39


def test_what_has_begun_goes_on_as_it_was_called(
    author: Path, tmp_path: Path, again: Callable[..., int], trained: list[str]
) -> None:
    """Data and device may be left out then; other ones are refused, or taken where no run has begun."""
    other = images(tmp_path / "other.npz")
    elsewhere = ("--data", f"npz:{author / 'x.npz'}=npz:{other}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "run", lambda *_, **__: (_ for _ in ()).throw(_KilledError))
        with pytest.raises(_KilledError):
            again(*elsewhere)
    assert again(*here(author)) == 0
    assert again() == 0
    assert again(*here(author)) == 0
    assert len(trained) == 2, "what is there is compared again"
    with pytest.raises(
        ConfigError, match=rf"^--data: must be .*=npz:{author / 'moved.npz'}, with which the repetition"
    ):
        again(*elsewhere)
    with pytest.raises(ConfigError, match=r"^--device: must be cpu, with which the repetition"):
        again("--device", "cuda")
    assert again(*elsewhere, "--overwrite") == 0
    assert len(trained) == 4
    config = next(folder_of(tmp_path).glob("trials/*/config.json"))
    assert documents.read_json(config)["dataset_sup"]["dataset"] == f"npz:{other}"
    assert json.loads((folder_of(tmp_path) / rerun.RECORD).read_text())["agrees"] is True


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("own", ("--checkpoint-every", "2"), "--checkpoint-every: has no effect on a search, and .*own.zip holds one"),
        ("own", ("-v",), "--verbose: has no effect on a search"),
        ("run", ("--workers", "2"), "--workers: has no effect on a run"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(
    name: str, flags: tuple[str, ...], message: str, tmp_path: Path, again: Callable[..., int]
) -> None:
    for more in ((), ("--dry-run",)):
        with pytest.raises(ConfigError, match=f"^{message}"):
            again(*flags, *more, name=name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "models"), [((), 0), (("--save-model",), 2), (("--save", "true"), 2), (("--save", "false"), 0)]
)
def test_models_of_a_search_are_kept_when_they_are_asked_for(
    flags: tuple[str, ...], models: int, author: Path, tmp_path: Path, again: Callable[..., int]
) -> None:
    assert again(*here(author), *flags) == 0
    assert len(list(folder_of(tmp_path).glob(f"trials/*/{folders.CHECKPOINT}"))) == models


def test_no_model_of_a_search_is_kept_when_none_is_asked_for(
    author: Path, again: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the best one is, as in the archived search."""
    asked: list[tuple[bool, bool]] = []

    def run(search: Search, settings: SearchSettings, *_: object, **__: object) -> int:
        asked.append((settings.save_models, settings.keep_best))
        raise _KilledError

    monkeypatch.setattr(search, "run", run)
    for flags in ((), ("--save", "false")):
        with pytest.raises(_KilledError):
            again(*here(author), *flags)
    assert asked == [(False, True), (False, False)]


def test_final_runs_of_before_an_extension_are_not_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0.05 had won on seed 0 and was trained again with seeds 1 and 2; on seeds 0 and 1 it is 0.1, with 2 and 3."""
    folder = stored_runs.sweep(tmp_path, "more", small.config(small.CNN), RATES, [0, 1])
    data = folders.read_json(folder / folders.SEARCH)
    for rate, seeds in ((0.05, [1, 2]), (0.1, [2, 3])):
        folders.write_json(folder / folders.SEARCH, {**data, "final_seeds": seeds})
        for trial in final_runs(search_folder.stored(folder).search, rate):
            small.run(replace(trial.config, device="cpu"), trial.folder)
        folders.write_json(folder / "winner.json", {"configuration": {"b0.layer.lr": rate}})
    archive.write(folder, tmp_path / "more.zip")
    assert verbs.main(["rerun", str(tmp_path / "more.zip"), "--data-dir", str(tmp_path / "home")]) == 0
    said = capsys.readouterr().out
    assert "agree: 4 of 4 configurations to the bit" in said
    assert "final runs of the winner  2" in said


def test_final_runs_that_nobody_named_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A search that was cut off has final runs and no winner; its repetition must not pass without them."""
    folder = stored_runs.sweep(tmp_path, "cut", small.config(small.CNN), RATES, [0])
    folders.write_json(folder / folders.SEARCH, {**folders.read_json(folder / folders.SEARCH), "final_seeds": [1]})
    for trial in final_runs(search_folder.stored(folder).search, 0.2):
        small.run(replace(trial.config, device="cpu"), trial.folder)
    archive.write(folder, tmp_path / "cut.zip")
    assert verbs.main(["rerun", str(tmp_path / "cut.zip"), "--data-dir", str(tmp_path / "home")]) == 1
    assert "1 run did not finish" in capsys.readouterr().out


def test_a_journal_with_a_torn_line_is_repeated(author: Path, tmp_path: Path, trained: list[str]) -> None:
    """A full disk tore it, and the search went on."""
    folder = shutil.copytree(folders.Home(author).search("own"), tmp_path / "torn")
    (folder / folders.JOURNAL).write_bytes(b'{"event": "fail\n{"event": "ended", "group": "", "succeeded": true}\n')
    archive.write(folder, tmp_path / "torn.zip")
    assert verbs.main(["rerun", str(tmp_path / "torn.zip"), "--data-dir", str(tmp_path), *here(author)]) == 0
    assert len(trained) == 2
