"""Commands that are printed to be pasted: a shell reads back exactly the words, whatever a path holds.

Without it the command that continues a search fails, or does something else, where a folder has a space in its name.
"""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT, Command

from hebb.analysis.recipes import Script, TrainingCommand
from hebb.cli import describe, search_display
from hebb.core import commands
from hebb.core.errors import ConfigError
from hebb.storage import folders
from hebb.tuning import search_folder, trials
from hebb.tuning.observer import Winner

NAMES = ("plain", "my data", "it's", 'a "b"', "$HOME", "a;b", "[x]", "[/bold]", ":smile:", "a\\b", "*", "ü", "(1)")


def hint(call: Callable[[], object]) -> str:
    """Return the command at the beginning of the last line of a refusal."""
    with pytest.raises(ConfigError) as raised:
        call()
    return str(raised.value).splitlines()[-1].partition(" continues")[0]


def run_of(folder: Path) -> str:
    """An interrupted run, in whose place another one would begin."""
    folder.mkdir(parents=True)
    (folder / folders.CONFIG).write_text("{}")
    return hint(lambda: folders.refuse_existing(folder, overwrite=False))


def search_of(folder: Path) -> str:
    """A search, in whose place another one would begin."""
    folder.mkdir(parents=True)
    (folder / folders.SEARCH).write_text("{}")
    return hint(lambda: search_folder.check_free(folder, overwrite=False))


def search_named_as_a_run(folder: Path) -> str:
    """A search that is named where a run belongs."""
    folder.mkdir(parents=True)
    (folder / folders.SEARCH).write_text("{}")
    home = folders.Home(folder.parent)
    return hint(lambda: folders.run_folder(str(folder), home, "--evaluate")).rpartition("is a search; ")[2]


PRINTED: dict[str, Callable[[Path], str]] = {
    "any": lambda folder: commands.line("train", "--data-dir", folder),
    "tensorboard": commands.tensorboard,
    "interrupted run": run_of,
    "stored search": search_of,
    "search as a run": search_named_as_a_run,
    "interrupted search": lambda folder: search_display.continuation(folder).removesuffix(" continues"),
    "recipe": lambda folder: TrainingCommand(name="x", script=Script.TRAIN, words=(str(folder),)).line(),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("printed", PRINTED.values(), ids=PRINTED)
def test_a_printed_command_can_be_pasted(tmp_path: Path, printed: Callable[[Path], str], name: str) -> None:
    folder = tmp_path / name
    words = shlex.split(printed(folder))
    assert words[-1] == str(folder)


def test_the_winner_of_a_search_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers have the fewest digits that give the same float."""
    network = "Soft-c8-k3-lr0.07999999821186066:bn BP:flatten"
    choice = {
        "b0.layer.lr": 0.08,
        "classifier.lr": 0.1 + 0.2,
        "dataset_sup.epochs": 10.0,
        "dataset_sup.dataset": "folder:a b",
    }
    trial: Any = SimpleNamespace(label="x")
    winner = Winner(trial=trial, network=network, changes=trials.other_changes(choice))
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    search_display.SearchDisplay().selected(winner)
    line = sys.stdout.getvalue().splitlines()[-1].removeprefix("its network: ")  # type: ignore[attr-defined]
    changes = ["classifier.lr=0.30000000000000004", "dataset_sup.epochs=10", "dataset_sup.dataset=folder:a b"]
    assert shlex.split(line) == ["--preset", network, "--set", *changes]


@pytest.mark.parametrize("name", NAMES)
def test_the_console_prints_commands_as_they_are(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Brackets are no style and colons no picture: ``[x]`` would vanish from a path."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    out = describe.console()
    out.print(f"compare: {commands.tensorboard(Path('/data') / name)}", soft_wrap=True)
    table = describe.table("", ("name",))
    table.add_row(name)
    out.print(table)
    first, _, row = sys.stdout.getvalue().splitlines()  # type: ignore[attr-defined]
    assert shlex.split(first)[-1] == f"/data/{name}"
    assert row.strip() == name


def test_one_function_quotes() -> None:
    """A second one would be forgotten when this one changes."""
    users = {
        path.name
        for path in (ROOT / "hebb").rglob("*.py")
        if "shlex.join" in (text := path.read_text()) or "shlex.quote" in text
    }
    assert users == {"commands.py"}


def test_the_lines_of_a_run_in_a_folder_with_a_space(inside: Command, tmp_path: Path) -> None:
    network = "SoftKrotov-c4-k3-p1-t1:bn:triangle:avg_2_2_0 BP:flatten"
    changes = ("dataset_sup.epochs=1", "dataset_sup.samples=40", "dataset_unsup.samples=40")
    home = tmp_path / "my [x] data"
    flags = ("--preset", network, "--dataset", "Digits", "--threads", "1", "--data-dir", str(home), "--set", *changes)
    done = inside("multi_layer.py", *flags, "--model-name", "m")
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines() if line.startswith(("compare", "results")))
    assert shlex.split(lines["compare"]) == ["tensorboard", "--logdir", str(home / "hebb/tensorboard")]
    assert lines["results"] == str(home / "hebb/result/network/m"), "scripts read this line as it is"
