"""The 107 commands of the published README: what each must resolve to, and a dry run of every one.

``data/commands.csv`` is worked out from the tables of the published presets and datasets and from the rules of the
plan, never from what the program says: updates are epochs x ceil(images / batch), neighbouring BP blocks learn
together, frozen blocks with a batch norm are calibrated in one pass. Five commands name presets or a dataset that
nothing published defines; theirs are those of ``preset.json``. The numbers of trials of the searches 1, 2, 3a and 3b
are those of our own spaces.

Without it a published command could quietly train something other than what was published.
"""

from __future__ import annotations

import csv
import importlib
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT

from hebb.cli import demo, post_hoc, train
from hebb.cli import search as ray_search
from hebb.config import catalog, plan
from hebb.config.phase import Phase
from hebb.config.specs import RunConfig

CATALOG = catalog.load()
with open(ROOT / "tests" / "data" / "commands.csv", encoding="utf-8") as file:
    ROWS = list(csv.DictReader(file))
SEARCHES = [row for row in ROWS if row["script"] == "ray_search.py"]
HEAVY = ("torch", "torchvision", "sklearn", "ray", "pandas", "scipy", "tensorboard")

every_command = pytest.mark.parametrize("row", ROWS, ids=[f"{row['line']}-{row['preset']}" for row in ROWS])


@pytest.fixture(autouse=True)
def a_light_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty home in the current folder; a command that asks for torch or Ray fails."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEBB_HOME", raising=False)
    for name in HEAVY:
        monkeypatch.setitem(sys.modules, name, None)


def arguments(row: dict[str, str]) -> list[str]:
    """The words after the script's name, as a shell splits them."""
    python, script, *words = shlex.split(row["command"])
    assert (python, script) == ("python", row["script"])
    return words


def runs(row: dict[str, str]) -> list[RunConfig]:
    """All runs of a command."""
    words = arguments(row)
    if row["script"] == "ray_search.py":
        search = ray_search.resolve(ray_search.parser().parse(words), CATALOG)
        return [trial.config for trial in search.trials]
    if row["script"] == "post_hoc_loss.py":
        return [post_hoc.resolve(post_hoc.parser().parse(words), CATALOG)]
    words = demo.with_flags(words) if row["script"] == "demo.py" else words
    return [train.resolve(train.parser().parse(words), CATALOG)]


def phases(row: dict[str, str], run: RunConfig) -> str:
    """The phases of a run in the compact form of the table."""
    found = list(plan.phases(run))
    if row["script"] == "post_hoc_loss.py":
        found.append(plan.post_hoc(run))
    return "; ".join(map(compact, found))


def compact(phase: Phase) -> str:
    return f"{phase.kind} {' '.join(f'b{i}' for i in phase.blocks)} {phase.data} x{phase.updates}"


def test_the_table_is_whole() -> None:
    assert len(ROWS) == 107
    assert {row["script"] for row in ROWS} == {"demo.py", "multi_layer.py", "ray_search.py", "post_hoc_loss.py"}


@every_command
def test_runs(row: dict[str, str]) -> None:
    """Network, mode, data, phases and updates of every run, and the number of runs."""
    found = runs(row)
    assert len(found) == int(row["trials"])
    assert len(set(found)) == len(found)
    assert sorted({run.seed for run in found}) == [int(seed) for seed in row["seeds"].split()]
    for run in found:
        assert (run.network.name, run.mode) == (row["preset"], row["mode"])
        share = float(row["validation"])
        assert run.dataset_sup == replace(CATALOG.dataset(row["sup"], "test"), validation=share)
        assert run.dataset_unsup == replace(CATALOG.dataset(row["unsup"], "test"), validation=share)
        assert phases(row, run) == row["phases"]


@every_command
def test_dry_run(row: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command itself, with ``--dry-run``: it ends well, says how much work it is and leaves nothing behind."""
    main = importlib.import_module(row["script"].removesuffix(".py")).main
    assert main([*arguments(row), "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    trained = row["phases"].split("; ")[: 2 if row["script"] == "post_hoc_loss.py" else None]
    assert f"{sum(int(phase.rpartition('x')[2]) for phase in trained):,} updates" in printed.out
    if row["script"] == "ray_search.py":
        assert f"{row['trials']} trials: " in printed.out
        assert f"x seeds {row['seeds']}" in printed.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("row", SEARCHES, ids=[f"{row['line']}-{row['config']}" for row in SEARCHES])
def test_searches(row: dict[str, str], tmp_path: Path) -> None:
    """What is compared, where it is stored, and whether a winner is trained again, on seeds that are new."""
    search = ray_search.resolve(ray_search.parser().parse(arguments(row)), CATALOG)
    selects = row["config"] in ("1", "2", "3a", "3b")
    assert search.spec.name == row["config"]
    assert search.spec.purpose == ("search" if selects else "sweep")
    assert (search.metric, search.mode) == ("val_acc" if selects else "test_acc", "max")
    assert search.final_seeds == ((3, 4, 5) if selects else ())
    name = row["stored"] or f"{row['preset']}-{row['config']}"
    assert search.folder == tmp_path / "hebb_data" / "hebb" / "search" / name
    assert {trial.folder.parent for trial in search.trials} == {search.folder / "trials"}


def test_values_of_the_sweeps() -> None:
    """Radii 1.25^-10 to 1.25^16 of block 0; inverse temperatures 1.25^-50 to 1.25^49 of blocks 0 to 2, both rules."""
    rows = {row["line"]: row for row in ROWS}
    radii = sorted({run.network.blocks[0].layer.radius for run in runs(rows["234"])})
    assert radii == pytest.approx([1.25**k for k in range(-10, 17)])
    found = {tuple((b.layer.method, b.layer.t_invert) for b in run.network.blocks[:3]) for run in runs(rows["228"])}
    assert all(len(set(blocks)) == 1 for blocks in found)
    assert {blocks[0][0] for blocks in found} == {"Soft", "SoftKrotov"}
    assert sorted({blocks[0][1] for blocks in found}) == pytest.approx([1.25**k for k in range(-50, 50)])


def test_both_spellings_of_the_published_flags() -> None:
    """``--dataset`` sets both datasets, ``--train`` is the mode, ``--gpu-id`` and ``--gpu_id`` are one flag."""
    short = ["--dataset", "CIFAR10", "--train", "consecutive", "--gpu_id", "2"]
    long = ["--dataset-sup", "CIFAR10", "--dataset-unsup", "CIFAR10", "--training-mode", "consecutive", "--gpu-id", "2"]
    made = [train.resolve(train.parser().parse(words), CATALOG) for words in (short, long)]
    assert made[0] == made[1]
