"""What has a name is whole, also after a machine has lost its power: the order of the system calls says so.

Without it a checkpoint could count on a row that never came to the disk, or a result be an empty file.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import small

from hebb.core import files


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """Return the calls to come: ``fsync`` or ``replace``, the name of the file, and its size then."""
    log: list[tuple[str, str, int]] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        log.append(("fsync", path.name, os.fstat(descriptor).st_size))
        fsync(descriptor)

    def note_replace(source: os.PathLike[str], target: os.PathLike[str]) -> None:
        log.append(("replace", Path(target).name, Path(source).stat().st_size))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    return log


def test_files_are_on_the_disk_before_they_have_their_names(calls: list[tuple[str, str, int]], tmp_path: Path) -> None:
    """The contents of all of them first, then their names, then the folder that holds the names."""
    with files.replaced(tmp_path / "a.json", tmp_path / "b.json") as temporaries:
        for temporary, text in zip(temporaries, ("four", "seven.."), strict=True):
            temporary.write_text(text)
    assert [(call, size) for call, _, size in calls[:4]] == [("fsync", 4), ("fsync", 7), ("replace", 4), ("replace", 7)]
    assert [call[:2] for call in calls[2:]] == [("replace", "a.json"), ("replace", "b.json"), ("fsync", tmp_path.name)]
    assert (tmp_path / "b.json").read_text() == "seven.."


def test_a_file_system_that_cannot_sync_folders_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().is_dir():
            raise OSError(22, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    files.write_text(tmp_path / "a", "whole")
    assert (tmp_path / "a").read_text() == "whole"


def test_a_checkpoint_waits_for_the_rows_that_it_counts_on(calls: list[tuple[str, str, int]], tmp_path: Path) -> None:
    small.run(small.config(small.CNN, "dataset_sup.epochs=2"), tmp_path / "run", keep_model=True)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines(keepends=True)
    sizes = [sum(map(len, lines[: i + 1])) for i in range(len(lines))]
    names = [(call, name) for call, name, _ in calls]
    checkpoints = [i for i, call in enumerate(names) if call == ("replace", "last.pt")]
    assert len(checkpoints) == len(lines) == 3
    for before, size in zip(checkpoints, sizes, strict=True):
        assert [size for call, name, size in calls[:before] if (call, name) == ("fsync", "metrics.jsonl")][-1] == size
