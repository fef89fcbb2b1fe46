"""A search that runs elsewhere, read from its folder.

Without it nobody could tell a search that hangs from one that works.

Two runs are made once; each case takes a part of them away and holds the lock, or not.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest
import small
import stored_runs

from hebb.analysis import checklist
from hebb.analysis.progress import Follower, RunStatus, SearchState
from hebb.cli import verbs, watch
from hebb.cli.analysis import command as analysis
from hebb.config import costs, serialise
from hebb.config.specs import RunConfig
from hebb.core import locks
from hebb.core.errors import ConfigError
from hebb.storage import folders, run_names
from hebb.storage.journal import Event, Journal

TINY = ("dataset_sup.samples=100", "dataset_unsup.samples=100", "dataset_sup.epochs=2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    return stored_runs.sweep(home, "rates", small.config(small.CNN, *TINY), {"b0.layer.lr": [0.05, 0.1]}, [0])


@pytest.fixture
def search(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "rates", symlinks=True)


def trials(search: Path) -> list[Path]:
    return [search / folders.TRIALS / t["name"] for t in json.loads((search / folders.SEARCH).read_text())["trials"]]


def held(search: Path) -> contextlib.AbstractContextManager[None]:
    return locks.held(search / folders.LOCKS / folders.SEARCH)


def half(run: Path) -> None:
    """Take away the result, and the rows after the first of the last phase."""
    (run / folders.RESULT).unlink()
    lines = (run / folders.METRICS).read_text().splitlines()
    (run / folders.METRICS).write_text("\n".join(lines[:2]) + "\n")


def look(search: Path, *more: str) -> int:
    return verbs.main(["watch", str(search), *more])


def test_a_search_that_runs(search: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half(trials(search)[1])
    before = {path: path.stat().st_mtime_ns for path in search.rglob("*")}
    with held(search):
        assert look(search, "--once") == 0
    text = capsys.readouterr().out
    assert "1 backprop b1  1 of 2" in text
    assert f"running, by process {os.getpid()} on " in text
    assert "1 of 2 runs finished, 1 running; best run: b0.layer.lr=0.05 seed 0" in text
    assert {path: path.stat().st_mtime_ns for path in search.rglob("*") if folders.LOCKS not in str(path)}.items() <= (
        before | {search: search.stat().st_mtime_ns}
    ).items(), "nothing is written"


@pytest.mark.parametrize(
    ("fate", "state", "code", "text"),
    [
        ("finished", SearchState.FINISHED, 0, "finished: 2 of 2 runs finished"),
        ("interrupted", SearchState.INTERRUPTED, 1, "interrupted: 1 of 2 runs finished, 1 interrupted; best"),
        ("never started", SearchState.INTERRUPTED, 1, "interrupted: 1 of 2 runs finished, 1 never started; best"),
        ("failed", SearchState.FAILED, 1, "failed: 1 of 2 runs finished, 1 failed; best"),
        ("stopped", SearchState.FINISHED, 0, "finished: 1 of 2 runs finished, 1 stopped early; best"),
    ],
)
def test_how_a_search_ended(
    fate: str, state: SearchState, code: int, text: str, search: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trials(search)[1]
    if fate == "never started":
        shutil.rmtree(run)
    elif fate != "finished":
        half(run)
    if fate in ("failed", "stopped"):
        Journal.load(search).note(Event(fate), run.name, reason="x", again=False, step=1, score=None, n=1)
    assert Follower(search).look().state == state
    assert look(search) == code
    out = capsys.readouterr().out
    assert text in out
    assert ("search --restore" in out) is (state == SearchState.INTERRUPTED)


def change(search: Path, **keys: object) -> None:
    data = json.loads((search / folders.SEARCH).read_text())
    (search / folders.SEARCH).write_text(json.dumps(data | keys))


def removed(search: Path) -> None:
    """What ``--save false`` does when a search has ended: tables and journal stay."""
    lines = [f"{trial.name},{90 + i}" for i, trial in enumerate(trials(search))]
    (search / "results.csv").write_text("\n".join(["trial,test_acc", *lines]))
    for trial in trials(search):
        Journal.load(search).note(Event.FINISHED, trial.name, node=None)
    shutil.rmtree(search / folders.TRIALS)
    change(search, options={"save": False})


@pytest.mark.parametrize(
    ("more", "state", "text"),
    [
        ("nothing", SearchState.FINISHED, "finished: 2 of 2 runs finished; best run: b0.layer.lr=0.1 seed 0, 91.00 %"),
        ("the end", SearchState.FINISHED, "finished: 2 of 2 runs finished; best"),
        ("a winner", SearchState.FINISHED, "finished: 2 of 2 runs finished; best"),
        ("no winner", SearchState.FAILED, "failed: 2 of 2 runs finished; best"),
        ("a run left", SearchState.INTERRUPTED, "interrupted: 2 of 3 runs finished, 1 never started"),
    ],
)
def test_a_search_that_kept_no_runs(
    more: str, state: SearchState, text: str, search: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    removed(search)
    if more == "a winner":
        change(search, purpose="search", final_seeds=[4, 5])
        Journal.load(search).note(Event.FINISHED, "final-abc-s4+5", node=None)
    elif more == "a run left":
        data = json.loads((search / folders.SEARCH).read_text())
        extra = {**data["trials"][0], "name": "other-s0", "choice": {"b0.layer.lr": 0.7}}
        change(search, trials=[*data["trials"], extra])
    if more != "nothing":
        Journal.load(search).note(Event.ENDED, "", succeeded=more != "no winner")
    progress = Follower(search).look()
    assert progress.state == state
    assert [(run.seed, run.value) for run in progress.final] == ([(4, None), (5, None)] if more == "a winner" else [])
    assert look(search) == int(state != SearchState.FINISHED)
    assert text in capsys.readouterr().out


def test_what_an_older_journal_does_not_say(search: Path) -> None:
    """Without a line for the end, a search with final runs to come is interrupted; what a later session did counts."""
    change(search, purpose="search", final_seeds=[4])
    assert Follower(search).look().state == SearchState.INTERRUPTED
    Journal.load(search).note(Event.ENDED, "", succeeded=True)
    assert Follower(search).look().state == SearchState.FINISHED
    half(shutil.copytree(trials(search)[0], search / folders.TRIALS / "final-abc-s4"))
    assert Follower(search).look().state == SearchState.INTERRUPTED
    Journal.load(search).note(Event.FAILED, "final-abc-s4", reason="x", again=False)
    assert Follower(search).look().state == SearchState.FAILED


def test_several_metrics_show_their_front(search: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them beside each finished run, and the configurations that no other beats; bounds count."""
    others = [{"metric": "multiply_accumulates", "mode": "min"}, {"metric": "seconds", "mode": "min"}]
    change(search, others=others)
    for trial, accuracy, seconds in zip(trials(search), (80.0, 70.0), (9.0, 5.0), strict=True):
        rows = folders.read_rows(trial / folders.METRICS)
        rows[-1]["test_acc"] = accuracy
        (trial / folders.METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
        result = json.loads((trial / folders.RESULT).read_text())
        (trial / folders.RESULT).write_text(json.dumps(result | {"seconds": seconds}))
    macs = costs.static(read_config(trials(search)[0]))["multiply_accumulates"]
    front = Follower(search).look().front
    assert [(point.label, point.means) for point in front] == [
        ("b0.layer.lr=0.05", {"test_acc": 80.0, "multiply_accumulates": macs, "seconds": 9.0}),
        ("b0.layer.lr=0.1", {"test_acc": 70.0, "multiply_accumulates": macs, "seconds": 5.0}),
    ]
    assert look(search) == 0
    out = capsys.readouterr().out
    assert f"b0.layer.lr=0.1 seed 0  finished  test_acc 70.00 %  multiply_accumulates {macs:,}  seconds 5" in out
    assert "2 configurations on the front" in out
    spec = json.loads((search / folders.SEARCH).read_text())["spec"]
    change(search, spec=spec | {"constraints": ["seconds <= 6"]})
    assert [point.label for point in Follower(search).look().front] == ["b0.layer.lr=0.1"]
    assert analysis.main(["checklist", str(search), "--out", str(search.parent / "out")]) == 0
    assert "under the constraints seconds <= 6" in (text := capsys.readouterr().out)
    assert "1. b0.layer.lr=0.1 (test_acc 70, multiply_accumulates" in text


def test_close_values_are_configurations_of_their_own(search: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rates that agree in four digits are told apart by more, also where the second one was chosen later."""
    stored = json.loads((search / folders.SEARCH).read_text())["trials"]
    names = [run_names.configuration(trial["name"]) for trial in stored]
    rates = (0.100001, 0.100002)
    change(search, trials=[])
    journal, follower = Journal.load(search), Follower(search)
    expected = (["b0.layer.lr=0.1"], ["b0.layer.lr=0.100001", "b0.layer.lr=0.100002"])
    for name, rate, labels in zip(names, rates, expected, strict=True):
        journal.note(Event.CHOSEN, name, params={}, choice={"b0.layer.lr": rate})
        assert [run.label for run in follower.look().runs] == labels
    assert analysis.main(["checklist", str(search), "--out", str(search.parent / "out")]) == 0
    assert "2 configurations; 2 of 2 runs finished" in capsys.readouterr().out


def read_config(run: Path) -> RunConfig:
    config = json.loads((run / folders.CONFIG).read_text())
    config.pop("phases")
    return serialise.run_from_json(config, str(run))


def test_a_killed_search_is_no_running_one(search: Path) -> None:
    """The lock file stays, and nobody holds it."""
    half(trials(search)[1])
    (search / folders.LOCKS).mkdir()
    (search / folders.LOCKS / folders.SEARCH).write_text("1 here\n")
    progress = Follower(search).look()
    assert progress.state == SearchState.INTERRUPTED
    assert [run.state for run in progress.runs] == [RunStatus.FINISHED, RunStatus.INTERRUPTED]


def test_jobs_run_a_search_without_its_command(search: Path) -> None:
    """A command that was interrupted has left them in the queue of a batch system; each holds its run."""
    result = next(iter(sorted((search / folders.TRIALS).glob("*/result.json"))))
    result.unlink()
    with locks.held(search / folders.LOCKS / result.parent.name):
        progress = Follower(search).look()
    assert progress.state == SearchState.RUNNING
    assert progress.holder is not None
    assert str(os.getpid()) in progress.holder
    assert Follower(search).look().state == SearchState.INTERRUPTED


def test_a_pipe_gets_what_changes_and_the_end(
    search: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second look sees nothing new, the third an old record, the fourth the end."""
    run = trials(search)[1]
    half(run)
    lock = contextlib.ExitStack()
    lock.enter_context(held(search))
    looks = []

    def wait(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            for path in search.rglob("*"):
                os.utime(path, (time.time() - 3600,) * 2, follow_symlinks=False)
        if len(looks) == 3:
            shutil.copytree(whole / folders.TRIALS / run.name, run, dirs_exist_ok=True)
            lock.close()

    monkeypatch.setattr(watch.time, "sleep", wait)
    assert look(search, "--every", "7") == 0
    assert looks == [7, 7, 7]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("b0.layer.lr=0.05 seed 0  finished  test_acc ")
    assert lines[1].startswith("b0.layer.lr=0.1 seed 0  running  phase 1 backprop b1 epoch 1 of 2  test_acc ")
    assert lines[2].startswith("no progress for 60 min: 1 of 2 runs finished, 1 running")
    assert lines[3].startswith("b0.layer.lr=0.1 seed 0  finished  test_acc ")
    assert lines[4].startswith("finished: 2 of 2 runs finished; best run: ")
    assert len(lines) == 5


def test_what_is_no_search_is_refused(whole: Path, tmp_path: Path) -> None:
    for folder in (trials(whole)[0], tmp_path):
        with pytest.raises(ConfigError, match=r"^watch: must name a search, and .* holds none"):
            look(folder)
    (tmp_path / folders.SEARCH).write_text("{}")
    with pytest.raises(ConfigError, match=r"search\.json: is not the description of a search"):
        look(tmp_path)


def test_the_checklist_says_what_the_records_hold(search: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing more: what they lack is not recorded."""
    out = ["--out", str(search.parent / "out")]
    half(trials(search)[1])
    assert analysis.main(["checklist", str(search), *out]) == 0
    text = (search.parent / "out" / "checklist.md").read_text()
    answers = dict(line.removeprefix("- **").split("**: ", 1) for line in text.splitlines() if line.startswith("- **"))
    assert text in capsys.readouterr().out
    config, environment, result = (
        json.loads((trials(search)[0] / name).read_text())
        for name in (folders.CONFIG, folders.ENVIRONMENT, folders.RESULT)
    )
    assert "data of Hebbian phases" in answers
    assert answers["numbers"].startswith("of the last epoch of each run")
    assert answers["selection"].startswith("none: a sweep")
    assert answers["seeds"] == "0 for every configuration; splits by seed 0, the same in every run"
    assert "Digits; 100 training images; 0 % of them held out" in answers["labelled data"]
    assert environment["data_sha256"]["sup"][:16] in answers["labelled data"]
    assert "`b0.layer.lr` grid [0.05, 0.1]" in answers["search space"]
    assert answers["trials"] == "2 configurations; 1 of 2 runs finished, 1 interrupted"
    assert "over 1 finished run; unfinished" in answers["compute"]
    megabytes = f"{result['peak_memory'] / 1e6:,.0f} MB, the largest of the 1 of 1 finished run that can tell, on cpu"
    assert answers["memory"] == megabytes
    assert f"cores {environment['machine']['cores']}; GPU none; runs on {config['device']}" in answers["hardware"]
    assert f"torch {environment['versions']['torch']}" in answers["versions"]
    data = json.loads((search / folders.SEARCH).read_text())
    data |= {"purpose": "search", "final_seeds": [1, 2], "options": {}}
    (search / folders.SEARCH).write_text(json.dumps(data))
    (trials(search)[0] / folders.ENVIRONMENT).unlink()
    assert analysis.main(["checklist", str(search), *out, "--overwrite"]) == 0
    text = (search.parent / "out" / "checklist.md").read_text()
    assert "**selected on test images**; the winner is trained again on all training images with 2 other seeds" in text
    for name in (
        "processor not recorded",
        "- **commands**: not recorded",
        "digest not recorded",
        "Python not recorded",
    ):
        assert name in text
    with pytest.raises(ConfigError, match=r"^checklist: must name a search"):
        analysis.main(["checklist", str(trials(search)[0]), *out, "--name", "x"])


def test_the_checklist_of_searches_with_one_name(search: Path, tmp_path: Path) -> None:
    """Each has a section of its own, under its folder; what a space varies has no value of the base."""
    other = shutil.copytree(search, tmp_path / "other" / search.name)
    data = json.loads((other / folders.SEARCH).read_text())
    data["spec"]["space"] = {"dataset_sup.epochs": {"grid": [1, 2]}, "dataset_sup.samples": {"grid": [50, 60]}}
    (other / folders.SEARCH).write_text(json.dumps(data))
    for trial in trials(other):
        config = json.loads((trial / folders.CONFIG).read_text())
        config["phases"] = [phase for phase in config["phases"] if phase["data"] == "sup"]  # back-prop alone
        (trial / folders.CONFIG).write_text(json.dumps(config))
    frame = checklist.compute([search, other, search])
    assert list(dict.fromkeys(frame["search"])) == [str(search.absolute()), str(other.absolute())]
    sections = {name: lines.set_index("question")["answer"] for name, lines in frame.groupby("search")}
    assert "data of Hebbian phases" in sections[str(search.absolute())]
    answers = sections[str(other.absolute())]
    assert "data of Hebbian phases" not in answers
    assert "a varied number of training images; 0 % of them held out" in answers["labelled data"]
    assert "epochs varied, batch size 20" in answers["labelled data"]
