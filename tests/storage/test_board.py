"""The labelled links that TensorBoard is pointed at; no run is trained.

Without it TensorBoard could show hashes, a run twice, or nothing after a folder was moved.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hebb.core import commands
from hebb.storage import board, folders

LONG = "Soft-c96-k5-p2:bn:triangle_0.7 " * 12


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["b0.layer.lr"], ["lr"]),
        (["b0.layer.lr", "b1.layer.lr", "b0.layer.radius"], ["b0.lr", "b1.lr", "radius"]),
        (["dataset_sup.epochs", "dataset_unsup.epochs"], ["dataset_sup.epochs", "dataset_unsup.epochs"]),
        (["b*.layer.lr", "b0.activation", "seed"], ["lr", "activation", "seed"]),
        (["mode"], ["mode"]),
        (["a.b.lr", "a.c.lr"], ["a.b.lr", "a.c.lr"]),
    ],
)
def test_short_names(paths: list[str], names: list[str]) -> None:
    assert list(board.short_names(paths).values()) == names


@pytest.mark.parametrize(
    ("choice", "label"),
    [
        ({"b0.layer.radius": 2.5}, "radius=2.5 seed=1"),
        ({}, "seed=1"),
        ({"b0.layer.lr": 0.016684267}, "lr=0.01668 seed=1"),
        ({"b0.activation": "triangle_0.7", "b0.layer.bias": True}, "activation=triangle_0.7 bias=True seed=1"),
        ({"data": "npz:/home/me/a b.npz"}, "data=npz__home_me_a b.npz seed=1"),
        ({"data": "été\n\x00?"}, "data=été___ seed=1"),
    ],
)
def test_labels(choice: dict[str, object], label: str, tmp_path: Path) -> None:
    """Each is a name that every file system takes."""
    assert next(board.labels(choice, 1, board.short_names(choice))) == label  # type: ignore[arg-type]
    (tmp_path / label).mkdir()


def test_a_long_label_is_cut_and_stays_unique() -> None:
    names = {next(board.labels({"b0.x": LONG + end}, 3, {"b0.x": "x"})) for end in "ab"}
    assert len(names) == 2
    for name in names:
        assert len(name.encode()) <= 160
        assert name.startswith("x=Soft-c96")
        assert name.endswith(" seed=3")


def stored(home: Path, name: str, choices: dict[str, dict[str, object]], seeds: tuple[int, ...] = (0, 1)) -> Path:
    """Store what the links are made from: the search, and the runs that have begun."""
    search = home / "hebb" / "search" / name
    runs = [(f"{digest}-s{seed}", choice) for digest, choice in choices.items() for seed in seeds]
    for run, _ in runs:
        (search / "trials" / run).mkdir(parents=True)
        (search / "trials" / run / folders.CONFIG).write_text("{}")
    axes: dict[str, object] = {path: {} for choice in choices.values() for path in choice}
    trials = [{"name": run, "choice": choice} for run, choice in runs]
    (search / folders.SEARCH).write_text(json.dumps({"spec": {"space": axes}, "trials": trials}))
    return search


def shown(folder: Path) -> dict[str, str]:
    """Return the folder names of runs by the names under which TensorBoard shows them."""
    found = {}
    for place, below, files in os.walk(folder, followlinks=True):
        below.sort()
        if folders.CONFIG in files:
            found[os.path.relpath(place, folder)] = Path(place).resolve().name
    return dict(sorted(found.items()))


def test_all_searches_and_single_runs(tmp_path: Path) -> None:
    """An earlier search without links is shown too; links are renewed when runs are added, and go with their runs."""
    stored(tmp_path, "earlier", {"aa": {"b0.layer.lr": 0.1}}, seeds=(7,))
    search = stored(tmp_path, "radius", {"bb": {"b0.layer.radius": 2.5}, "cc": {"b0.layer.radius": 25}})
    board.renew(search)
    everything = board.of_search(search)
    assert everything == tmp_path / "hebb" / "tensorboard"
    expected = {
        "earlier/lr=0.1 seed=7": "aa-s7",
        **{f"radius/radius={r} seed={s}": f"{h}-s{s}" for h, r in (("bb", 2.5), ("cc", 25)) for s in (0, 1)},
    }
    assert shown(everything) == expected

    more = search / "trials" / "final-dd-s2"
    more.mkdir()
    (more / folders.CONFIG).write_text("{}")
    assert board.link(more, {"b0.layer.radius": 2.5}, 2) == "final radius=2.5 seed=2"
    single = tmp_path / "hebb" / "result" / "network" / "mine"
    single.mkdir(parents=True)
    (single / folders.CONFIG).write_text("{}")
    assert board.of_run(single) == everything
    expected |= {"radius/final radius=2.5 seed=2": "final-dd-s2", "single runs/mine": "mine"}
    assert shown(everything) == expected

    for path in (search / "trials" / "bb-s0").iterdir():
        path.unlink()
    (search / "trials" / "bb-s0").rmdir()
    board.renew(search)
    assert "radius/radius=2.5 seed=0" not in shown(everything)
    assert not [path for path in (search / "tensorboard").iterdir() if not path.exists()]


def test_a_folder_that_was_moved(tmp_path: Path) -> None:
    """A whole home and a search by itself keep their links, which are relative; what has gone is not shown."""
    search = stored(tmp_path / "old", "s", {"aa": {"b0.layer.lr": 0.1}}, seeds=(0,))
    board.renew(search)
    (tmp_path / "old").rename(tmp_path / "new")
    everything = tmp_path / "new" / "hebb" / "tensorboard"
    assert shown(everything) == {"s/lr=0.1 seed=0": "aa-s0"}
    moved = (tmp_path / "new" / "hebb" / "search" / "s").rename(tmp_path / "s")
    assert shown(moved / "tensorboard") == {"lr=0.1 seed=0": "aa-s0"}
    board.renew(moved)
    assert board.of_search(moved) == moved / "tensorboard"
    other = stored(tmp_path / "new", "t", {"bb": {}}, seeds=(4,))
    board.renew(other)
    assert shown(everything) == {"t/seed=4": "bb-s4"}


def test_values_that_differ_late_get_more_digits(tmp_path: Path) -> None:
    search = stored(tmp_path, "s", {"aa": {"lr": 0.123456}, "bb": {"lr": 0.123457}, "cc": {"lr": 0.1}}, seeds=(0,))
    board.renew(search)
    names = {"lr=0.1 seed=0": "cc-s0", "lr=0.1235 seed=0": "aa-s0", "lr=0.123457 seed=0": "bb-s0"}
    assert shown(search / "tensorboard") == names
    board.renew(search)
    assert shown(search / "tensorboard") == names


def test_a_search_is_read_once_for_all_its_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its description lists every trial, so reading it at each would cost the square of their number."""
    search = stored(tmp_path, "s", {name: {"b0.layer.lr": rate} for name, rate in (("aa", 0.1), ("bb", 0.2))})
    reads, read_json = [], folders.read_json
    monkeypatch.setattr(folders, "read_json", lambda path: reads.append(path) or read_json(path))
    trials = search / "trials"
    assert board.link(trials / "aa-s0", {"b0.layer.lr": 0.1}, 0) == "lr=0.1 seed=0"
    assert board.link(trials / "bb-s0", {"b0.layer.lr": 0.2}, 0) == "lr=0.2 seed=0"
    assert len(reads) == 1

    description = search / folders.SEARCH
    data = read_json(description)
    data["spec"]["space"] |= {"b1.layer.lr": {}}
    description.write_text(json.dumps(data))
    os.utime(description, ns=(1, 1))
    assert board.link(trials / "aa-s1", {"b0.layer.lr": 0.1}, 1) == "b0.lr=0.1 seed=1", "it was written again"


def test_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the folders of the runs are shown, as they are where a search is damaged."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("the file system has no links")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    search = stored(tmp_path, "s", {"aa": {"lr": 0.1}}, seeds=(0,))
    single = tmp_path / "hebb" / "result" / "network" / "mine"
    single.mkdir(parents=True)
    assert board.link(search / "trials" / "aa-s0", {"lr": 0.1}, 0) == "aa-s0"
    board.renew(search)
    assert board.of_search(search) == search / "trials"
    assert board.of_run(single) == single.parent


def test_a_damaged_search_does_not_hide_the_others(tmp_path: Path) -> None:
    (stored(tmp_path, "bad", {"aa": {}}) / folders.SEARCH).write_text("{")
    search = stored(tmp_path, "good", {"bb": {"lr": 0.1}}, seeds=(0,))
    board.renew(search)
    assert shown(board.of_search(search)) == {"good/lr=0.1 seed=0": "bb-s0"}


def test_the_printed_command_needs_quotes_only_where_the_folder_does(tmp_path: Path) -> None:
    assert commands.tensorboard(tmp_path / "a b") == f"tensorboard --logdir '{tmp_path}/a b'"
