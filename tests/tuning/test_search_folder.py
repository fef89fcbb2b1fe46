"""When a search that keeps no runs removes them; no run is trained.

Without it a search that says how it goes on could have removed what it would go on from.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hebb.core.errors import ConfigError
from hebb.storage import folders
from hebb.storage.journal import Event, Journal
from hebb.tuning import search_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a search that keeps no runs, with one that is finished and one that is not."""
    keys = ("config", "purpose", "metric", "mode", "seeds", "final_seeds", "spec", "base", "resume_from")
    folders.write_json(tmp_path / folders.SEARCH, {**dict.fromkeys(keys), "options": {"save": False}})
    for name in ("abc-s0", "abc-s1"):
        (tmp_path / folders.TRIALS / name).mkdir(parents=True)
    Journal.load(tmp_path).note(Event.FINISHED, "abc-s0", node=None)
    return tmp_path


@pytest.mark.parametrize(
    ("events", "removed"),
    [
        ((), False),
        (((Event.ENDED, {"succeeded": True}),), True),
        (((Event.FAILED, {"again": False, "reason": "NaN"}), (Event.ENDED, {"succeeded": False})), True),
        # a worker that died: the next session goes on from the checkpoint
        (((Event.FAILED, {"again": True, "reason": "it died"}), (Event.ENDED, {"succeeded": False})), False),
        (((Event.ENDED, {"succeeded": False}), (Event.AGAIN, {})), False),
    ],
)
def test_runs_stay_while_something_is_left(
    events: tuple[tuple[Event, dict[str, object]], ...], removed: bool, folder: Path
) -> None:
    for event, more in events:
        Journal.load(folder).note(event, "abc-s1", **more)
    search_folder.remove_runs(folder)
    assert (folder / folders.TRIALS).exists() is not removed
    assert search_folder.without_runs(folder) is removed
    if removed:
        with pytest.raises(ConfigError, match=r"carry_on: needs the runs of .* which --save false removed"):
            search_folder.check_runs(folder, "carry_on")
    else:
        search_folder.check_runs(folder, "carry_on")


@pytest.mark.parametrize("over", [True, False])
def test_a_search_that_began_nothing(over: bool, folder: Path) -> None:
    """A budget may end before the first trial begins."""
    shutil.rmtree(folder / folders.TRIALS)
    if over:
        Journal.load(folder).note(Event.ENDED, "", succeeded=True)
    search_folder.remove_runs(folder)
    assert search_folder.without_runs(folder) is over


def test_a_removal_that_was_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All runs are gone, for a search that had half of them would train the others again."""
    Journal.load(folder).note(Event.ENDED, "", succeeded=True)

    def kill(path: Path, **_: object) -> None:
        if path.exists():
            next(path.iterdir()).rmdir()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(search_folder.shutil, "rmtree", kill)
        search_folder.remove_runs(folder)
    assert search_folder.without_runs(folder)
    search_folder.remove_runs(folder)
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []


def test_a_search_that_keeps_its_runs_is_another_matter(folder: Path) -> None:
    """Where somebody else removed them, they are trained again."""
    data = folders.read_json(folder / folders.SEARCH)
    folders.write_json(folder / folders.SEARCH, {**data, "options": {"save": True}})
    Journal.load(folder).note(Event.ENDED, "", succeeded=True)
    shutil.rmtree(folder / folders.TRIALS)
    assert not search_folder.without_runs(folder)


def test_what_a_kill_leaves_of_the_first_file_is_nothing(tmp_path: Path) -> None:
    (tmp_path / ".0123456789ab-0.tmp").write_text("{")
    search_folder.check_free(tmp_path, overwrite=False)
    (tmp_path / "notes.tmp").write_text("mine")
    with pytest.raises(ConfigError, match="is not the folder of a search and is not empty"):
        search_folder.check_free(tmp_path, overwrite=True)
