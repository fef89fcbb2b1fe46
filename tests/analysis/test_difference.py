"""Two runs or searches: what differs is named, what is the same is not. Otherwise a comparison hides what it compares.

The runs are trained once; each case changes one file of a copy.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small
import stored_runs

import hebb
import hebb.api.runs
from hebb.analysis import difference
from hebb.analysis.difference import Change
from hebb.cli import verbs
from hebb.config import plugins
from hebb.core.errors import ConfigError
from hebb.storage import folders, kept_code, run_names
from hebb.storage.journal import Event, Journal

TINY = ("dataset_sup.samples=100", "dataset_unsup.samples=100", "dataset_sup.epochs=2")
Edit = Callable[[Any], object]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and a search of two rates with two seeds."""
    home, base = tmp_path_factory.mktemp("home"), small.config(small.CNN, *TINY)
    stored_runs.single(home, "one", base)
    stored_runs.sweep(home, "rates", base, {"b0.layer.lr": [0.05, 0.1]}, [0, 1])
    return home


@pytest.fixture
def run(home: Path) -> Path:
    return folders.Home(home).network("one")


@pytest.fixture
def search(home: Path) -> Path:
    return folders.Home(home).search("rates")


def copy(folder: Path, to: Path, name: str = "", edit: Edit | None = None) -> Path:
    """Copy a run or a search, and change one of its JSON files."""
    shutil.copytree(folder, to)
    if edit is not None:
        path = to / name
        data = json.loads(path.read_text())
        edit(data)
        path.write_text(json.dumps(data))
    return to


def rows(folder: Path, edit: Callable[[list[dict[str, Any]]], object]) -> Path:
    """Change the rows of a run."""
    path = folder / folders.METRICS
    stored = [json.loads(line) for line in path.read_text().splitlines()]
    edit(stored)
    path.write_text("".join(json.dumps(row) + "\n" for row in stored))
    return folder


# -- runs -----------------------------------------------------------------------------------------------------


def test_a_copy_is_the_same(run: Path, search: Path, tmp_path: Path) -> None:
    for folder in (run, search):
        differs = difference.of(folder, copy(folder, tmp_path / folder.name))
        assert not differs
        assert (differs.changes, differs.curves, differs.pairs) == ((), (), ())


@pytest.mark.parametrize(
    ("name", "edit", "change"),
    [
        ("config.json", lambda d: d.update(seed=9), ("config", "seed", 0, 9)),
        (
            "config.json",
            lambda d: d["network"]["blocks"][0]["layer"].update(lr=0.5),
            ("config", "b0.layer.lr", 0.08, 0.5),
        ),
        ("config.json", lambda d: d["dataset_sup"].update(epochs=7), ("config", "dataset_sup.epochs", 2, 7)),
        ("config.json", lambda d: d.pop("tf32"), None),
        ("config.json", lambda d: d["dataset_sup"].pop("zoom"), None),
        ("config.json", lambda d: d.pop("phases", None), None),
        (
            "config.json",
            lambda d: d.update(plugins=[{"name": "/a/b/own.py", "sha256": "ab" * 32}]),
            ("plugins", "own.py", None, "source ababababab"),
        ),
        (
            "environment.json",
            lambda d: d["versions"].update(torch="1.0"),
            ("environment", "versions.torch", ..., "1.0"),
        ),
        (
            "environment.json",
            lambda d: d["data_sha256"].update(sup="0" * 64),
            ("data", "dataset_sup", ..., "digest 0000000000"),
        ),
        ("environment.json", lambda d: d["paths"].update(folder="elsewhere"), None),
        ("environment.json", lambda d: d.update(command=["other"]), None),
    ],
)
def test_what_a_run_was_made_of(
    name: str, edit: Edit, change: tuple[str, str, object, object] | None, run: Path, tmp_path: Path
) -> None:
    """A key that an older version did not write means what it meant then, and is no difference."""
    differs = difference.of(run, copy(run, tmp_path / "other", name, edit))
    assert not differs.curves
    if change is None:
        assert not differs
        return
    (only,) = differs.changes
    assert (only.part, only.path, only.right) == (change[0], change[1], change[3])
    assert change[2] in (..., only.left)


def test_a_lost_environment_is_one_difference(run: Path, tmp_path: Path) -> None:
    other = copy(run, tmp_path / "other")
    (other / folders.ENVIRONMENT).unlink()
    assert difference.of(run, other).changes == (Change("environment", "environment.json", "stored", None),)


def test_curves_say_where_they_part_and_how_far(run: Path, tmp_path: Path) -> None:
    """The step, the last values and the largest difference are those of the rows that were changed."""

    def edit(stored: list[dict[str, Any]]) -> None:
        stored[-1]["test_acc"] += 1.5
        stored[-2]["train_loss"] -= 4.0
        stored[-1]["train_loss"] += 0.5
        stored[-1]["images_per_second"] = 1.0

    before = folders.read_rows(run / folders.METRICS)
    loss, accuracy = difference.of(run, rows(copy(run, tmp_path / "other"), edit)).curves
    assert (loss.metric, loss.step, loss.at) == ("train_loss", before[-2]["step"], before[-2]["step"])
    assert loss.largest == pytest.approx(-4.0)
    assert (loss.left, loss.right) == (before[-1]["train_loss"], before[-1]["train_loss"] + 0.5)
    assert (accuracy.metric, accuracy.step) == ("test_acc", before[-1]["step"])
    assert accuracy.largest == pytest.approx(1.5)


def test_a_run_that_went_on_longer_differs_from_its_first_extra_row(run: Path, tmp_path: Path) -> None:
    other = rows(copy(run, tmp_path / "other"), lambda stored: stored.append({**stored[-1], "step": 10**6}))
    curves = difference.of(run, other).curves
    assert {(curve.step, curve.largest, curve.at) for curve in curves} == {(10**6, None, None)}


# -- searches -------------------------------------------------------------------------------------------------


def test_a_search_that_went_another_way(search: Path, tmp_path: Path) -> None:
    """The mean of the differences seed by seed is 2, and with two seeds there is no interval."""
    other = copy(search, tmp_path / "other", "search.json", lambda d: d.update(metric="test_acc", mode="min"))
    stored = json.loads((search / "search.json").read_text())["trials"]
    changed = [trial for trial in stored if trial["choice"]["b0.layer.lr"] == 0.1]
    for trial, more in zip(changed, (1.0, 3.0), strict=True):
        rows(
            other / folders.TRIALS / trial["name"], lambda r, more=more: r[-1].update(test_acc=r[-1]["test_acc"] + more)
        )
    differs = difference.of(search, other)
    assert differs.changes == (Change("search", "mode", "max", "min"),)
    (pair,) = differs.pairs
    assert (pair.metric, pair.label, pair.n) == ("test_acc", "b0.layer.lr=0.1", 2)
    assert (pair.low, pair.high) == (None, None)
    assert pair.difference == pytest.approx(2.0)
    assert pair.right - pair.left == pytest.approx(2.0)


def test_every_metric_of_searches_is_compared(search: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also what neither search was asked for, and where they were asked for different things."""
    other = copy(search, tmp_path / "other", "search.json", lambda d: d.update(metric="train_acc"))
    trial = json.loads((search / "search.json").read_text())["trials"][0]
    rows(other / folders.TRIALS / trial["name"], lambda r: r[-1].update(test_loss=r[-1]["test_loss"] + 0.5))
    differs = difference.of(search, other)
    assert differs.metrics == ("test_acc", "train_acc")
    assert [(pair.metric, pair.difference) for pair in differs.pairs] == [("test_loss", pytest.approx(0.25))]
    assert verbs.main(["diff", str(search), str(other)]) == 0
    assert ["test_loss", "1", "+0.25", "b0.layer.lr=0.05"] in [
        line.split() for line in capsys.readouterr().out.splitlines()
    ]


def test_final_runs_are_compared(search: Path, tmp_path: Path) -> None:
    """A winner's runs on all training images are runs of the search, which lists them nowhere."""
    sides = [copy(search, tmp_path / name) for name in ("one", "other")]
    trial = json.loads((search / "search.json").read_text())["trials"][0]
    for side in sides:
        shutil.copytree(side / folders.TRIALS / trial["name"], side / folders.TRIALS / f"final-{trial['name']}")
    final = sides[1] / folders.TRIALS / f"final-{trial['name']}"
    assert not difference.of(*sides)
    rows(final, lambda stored: stored[-1].update(test_acc=stored[-1]["test_acc"] + 1))
    (pair,) = difference.of(*sides).pairs
    assert (pair.metric, pair.label, pair.n) == ("test_acc", "final runs of b0.layer.lr=0.05", 1)
    shutil.rmtree(final)
    gone = Change("trials", "final runs of b0.layer.lr=0.05 seed 0", "finished", None)
    assert difference.of(*sides).changes == (gone,)


def test_rows_that_are_lost_are_no_end_of_a_run(run: Path, tmp_path: Path) -> None:
    """A copy that was cut short would otherwise show an earlier epoch as the last one."""
    cut = rows(copy(run, tmp_path / "cut"), lambda stored: stored.pop())
    says = r"metrics.jsonl: ends after update [\d,]+, and its run after [\d,]+\nrows are lost: put the file back"
    with pytest.raises(ConfigError, match=says):
        difference.of(run, cut)
    with pytest.raises(ConfigError, match=says):
        hebb.load(cut)


def test_runs_that_one_search_lacks_are_named(search: Path, tmp_path: Path) -> None:
    other = copy(search, tmp_path / "other", "search.json", lambda d: d["trials"].pop(0))
    gone = json.loads((search / "search.json").read_text())["trials"]
    (other / folders.TRIALS / gone[1]["name"] / folders.RESULT).unlink()
    assert difference.of(search, other).changes == (
        Change("trials", "b0.layer.lr=0.05 seed 0", "finished", None),
        Change("trials", "b0.layer.lr=0.05 seed 1", "finished", "not finished"),
    )


def test_searches_whose_algorithm_chose_the_points(search: Path, run: Path, tmp_path: Path) -> None:
    """They list no trials: what was chosen stands in the journal, and its runs are compared like any others."""
    trials = json.loads((search / "search.json").read_text())["trials"]
    chosen = {run_names.configuration(trial["name"]): trial["choice"] for trial in trials}
    sides = []
    for name, groups in (("some", dict([*chosen.items()][:1])), ("all", chosen)):
        sides.append(copy(search, tmp_path / name, "search.json", lambda d: d.update(trials=[])))
        journal = Journal(sides[-1] / folders.JOURNAL)
        for group, choice in groups.items():
            journal.note(Event.CHOSEN, group, params={}, choice=choice)
    lacking = [Change("trials", f"b0.layer.lr=0.1 seed {seed}", None, "finished") for seed in (0, 1)]
    assert difference.of(*sides).changes == tuple(lacking)
    assert not difference.of(search, sides[1])
    like = copy(next((search / folders.TRIALS).glob("*-s1")), tmp_path / "like")
    assert not difference.of(like, sides[1])


# -- the command ----------------------------------------------------------------------------------------------


def test_the_command(home: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = copy(run, tmp_path / "other", "config.json", lambda d: d.update(seed=9))
    line = ["diff", "one", str(other), "--data-dir", str(home)]
    assert verbs.main(line) == 0
    text = capsys.readouterr().out
    assert f"A: one\nB: {other}\n" in text
    assert ["config", "seed", "0", "9"] in [row.split() for row in text.splitlines()]
    assert verbs.main([*line, "--exit-code"]) == 1
    assert verbs.main(["diff", "one", "one", "--exit-code", "--data-dir", str(home)]) == 0
    assert "the same: one and one" in capsys.readouterr().out
    assert verbs.main([*line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changes"] == [{"part": "config", "path": "seed", "left": 0, "right": 9}]


def _without_result(folder: Path) -> None:
    (folder / folders.RESULT).unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_without_result, "must name finished runs or searches, and .* is interrupted"),
        (lambda folder: (folder / "config.json").write_text("[]"), r"config.json: must hold an object, got list"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config.json, line 1: is not JSON"),
        (lambda folder: (folder / "environment.json").write_text("3"), r"environment.json: must hold an object"),
        (lambda folder: (folder / "metrics.jsonl").write_text("{}\n"), r"metrics.jsonl, line 1: does not hold a row"),
    ],
)
def test_what_cannot_be_compared_is_named(
    spoil: Callable[[Path], object], says: str, run: Path, tmp_path: Path
) -> None:
    other = copy(run, tmp_path / "other")
    spoil(other)
    with pytest.raises(ConfigError, match=says):
        difference.of(run, other)


def test_a_run_and_a_search(run: Path, search: Path, tmp_path: Path) -> None:
    """The run against its like in the search; else against the base, and what the search varies against its values."""
    trial = next((search / folders.TRIALS).glob("*-s0"))
    like = copy(trial, tmp_path / "like")
    assert not difference.of(search, like)
    rows(like, lambda stored: stored[-1].update(test_acc=1.0))
    (curve,) = difference.of(like, search).curves
    assert (curve.metric, curve.left) == ("test_acc", 1.0)
    (curve,) = difference.of(search, like).curves
    assert (curve.metric, curve.right) == ("test_acc", 1.0)
    other = copy(run, tmp_path / "other", "config.json", lambda d: d.update(seed=9, threads=77))
    rate = json.loads((run / "config.json").read_text())["network"]["blocks"][0]["layer"]["lr"]
    assert rate not in (0.05, 0.1)
    seeds, space = Change("space", "seed", 9, [0, 1]), Change("space", "b0.layer.lr", rate, [0.05, 0.1])
    threads = Change("config", "threads", 77, json.loads((run / "config.json").read_text())["threads"])
    assert set(map(str, difference.of(other, search).changes)) == set(map(str, (threads, space, seeds)))
    assert Change("space", "seed", [0, 1], 9) in difference.of(search, other).changes
    assert list(difference.of(other, search).table().columns) == ["part", "path", "left", "right"]


def test_the_lines_of_plugins(run: Path, search: Path, tmp_path: Path) -> None:
    """As far as the folder keeps the source of that digest; of a package only the files that differ."""
    texts = {"A": {"rule.py": "a = 1\nb = 2\n"}, "B": {"rule.py": "a = 1\nb = 3\n"}}
    packages = {"A": {"__init__.py": "", "one.py": "x\n"}, "B": {"__init__.py": "", "one.py": "y\n", "two.py": "z\n"}}
    sides = []
    for side in ("A", "B"):
        folder, specs = copy(run, tmp_path / side), []
        for name, files in (("rule.py", texts[side]), ("pack", packages[side])):
            sources = {file: text.encode() for file, text in files.items()}
            sha256 = plugins.digest_of(sources, package=name == "pack")
            specs.append({"name": f"/gone/{side}/{name}", "sha256": sha256})
            for file, content in sources.items():
                path = folder / kept_code.place(sha256) / ("pack" if name == "pack" else "") / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        data = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(data | {"plugins": specs}))
        sides.append(folder)
    differs = difference.of(*sides)
    assert [change.path for change in differs.changes if change.part == "plugins"] == ["rule.py", "pack"]
    assert [source.path for source in differs.sources] == ["rule.py", "pack/one.py", "pack/two.py"]
    assert differs.sources[0].text.splitlines()[-3:] == [" a = 1", "-b = 2", "+b = 3"]
    turned = difference.of(sides[1], sides[0]).sources[0].text.splitlines()
    assert turned[:2] == ["--- A/rule.py", "+++ B/rule.py"]
    assert turned[-2:] == ["-b = 3", "+b = 2"]
    shutil.rmtree(sides[0] / kept_code.PLUGINS)
    assert not difference.of(*sides).sources
    assert difference.of(*sides).changes == differs.changes


def test_from_python(home: Path, run: Path, search: Path) -> None:
    assert not hebb.diff("one", run, data_dir=home)
    assert not hebb.diff(hebb.load(run), "one", data_dir=home)
    changes = hebb.diff("one", hebb.load(search), data_dir=home).table()
    assert "b0.layer.lr" in set(changes["path"])
    with pytest.raises(ConfigError, match=r"^left: must be a run or a search"):
        hebb.diff(3, run)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^right: must be a run that is stored"):
        hebb.diff(run, hebb.api.runs.of_result(small.run(small.config(small.CNN, *TINY)), folders.Home(home)))


def test_what_is_stored_nowhere(home: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run and no search"):
        difference.of(tmp_path, run)
    with pytest.raises(ConfigError, match=r"'on' is not a folder.*did you mean 'one'"):
        verbs.main(["diff", "on", "one", "--data-dir", str(home)])
