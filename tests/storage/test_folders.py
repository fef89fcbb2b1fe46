"""Where the files of runs are. Without it a search that was moved, or lies elsewhere, loses sight of its images."""

from __future__ import annotations

from pathlib import Path

import pytest

from hebb.core.errors import ConfigError
from hebb.probing import stored
from hebb.storage import folders
from hebb.storage.folders import FolderState, Home

PLACES = [
    ("where it was trained, whatever the home", "a/hebb/search/s/trials/t", ("a", "other"), ["a", "other"]),
    ("moved with its images", "b/hebb/search/s/trials/t", ("b", "other"), ["b", "other"]),
    ("a single run, moved with its images", "b/hebb/result/network/r", ("b",), ["b"]),
    ("the search alone was moved", "archive/s/trials/t", ("a", "other"), ["a", "other"]),
    ("an archive on another machine", "archive/s/trials/t", ("other",), ["other"]),
    ("nowhere: the home is named", "archive/s/trials/t", (), ["other"]),
    ("a folder called hebb is no home", "b/hebb/mine/s/trials/t", ("b", "other"), ["other"]),
]


@pytest.mark.parametrize(("place", "existing", "expected"), [row[1:] for row in PLACES], ids=[row[0] for row in PLACES])
def test_the_images_of_a_run_are_looked_for(
    place: str, existing: tuple[str, ...], expected: list[str], tmp_path: Path
) -> None:
    """The run was trained in the home ``a``; the command names the home ``other``."""
    run = tmp_path / place
    run.mkdir(parents=True)
    folders.write_json(run / folders.ENVIRONMENT, {"paths": {"datasets": str(tmp_path / "a" / "dataset")}})
    for home in existing:
        (tmp_path / home / "dataset").mkdir(parents=True)
    assert folders.datasets_of(run, Home(tmp_path / "other")) == [tmp_path / home / "dataset" for home in expected]


@pytest.mark.parametrize("text", [None, "{}", "[]", '{"paths": 3}', "{"])
def test_a_run_that_does_not_know_where_it_read_its_images(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / folders.ENVIRONMENT).write_text(text)
    assert folders.datasets_of(tmp_path, Home(tmp_path / "other")) == [tmp_path / "other" / "dataset"]


def test_the_first_folder_that_has_the_images_is_read(tmp_path: Path) -> None:
    def read(folder: Path) -> str:
        if folder.name == "none":
            raise ConfigError("MNIST", f"is not in {folder.parent.name}")
        return folder.name

    places = [Path("a/none"), Path("b/has"), Path("c/none")]
    assert stored.read_first(places, read) == "has"
    with pytest.raises(ConfigError, match="is not in c"):
        stored.read_first(places[::2], read)


def test_what_a_kill_leaves_of_the_first_file_is_nothing(tmp_path: Path) -> None:
    """Killed while ``config.json`` is written, a run has not begun, and may begin."""
    (tmp_path / ".0123456789ab-0.tmp").write_text("{")
    assert folders.state(tmp_path) == FolderState.ABSENT
    folders.claim(tmp_path, overwrite=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "notes.tmp").write_text("mine")
    with pytest.raises(ConfigError, match="is not a run folder and is not empty"):
        folders.claim(tmp_path, overwrite=True)
