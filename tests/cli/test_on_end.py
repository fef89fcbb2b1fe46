"""A command of the user's at the end. Without it nobody would know that a search of days ended on the first evening."""

from __future__ import annotations

import argparse
import errno
import io
import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import small
import stored_runs

from hebb.cli import on_end, search, search_request, verbs
from hebb.core.errors import ConfigError, InterruptedRunError
from hebb.storage import folders
from hebb.storage.journal import Event, Journal
from hebb.tuning import search_folder, stages
from hebb.tuning.search_settings import SearchSettings

TINY = ("dataset_sup.samples=100", "dataset_unsup.samples=100")


def noting(path: Path) -> str:
    """Return a command that writes what it is told."""
    code = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    return shlex.join([sys.executable, "-c", code, str(path)])


def told(path: Path) -> dict[str, str]:
    everything = json.loads(path.read_text()).items()
    return {name.removeprefix("HEBB_"): value for name, value in everything if name.startswith("HEBB_")}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    stored_runs.sweep(home, "rates", small.config(small.CNN, *TINY), {"b0.layer.lr": [0.05, 0.1]}, [0, 1], leave_out=1)
    return home


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "finished"),
        (KeyboardInterrupt(), "interrupted"),
        (InterruptedRunError("interrupted: 3 of 4"), "interrupted"),
        (RuntimeError("out of luck"), "failed"),
    ],
)
def test_a_search_tells_how_it_ended(error: BaseException | None, status: str, home: Path, tmp_path: Path) -> None:
    """The second configuration lacks a seed, so that the first is the best, whatever its value."""
    folder = folders.Home(home).search("rates")
    try:
        with on_end.at_end(noting(tmp_path / "facts"), [folder], "search"):
            if error is not None:
                raise error
    except BaseException as raised:
        assert raised is error
    facts = told(tmp_path / "facts")
    assert facts.pop("SECONDS").isdecimal()
    runs = [json.loads(path.read_text())["metrics"]["test_acc"] for path in folder.glob("trials/*/result.json")]
    assert min(runs) <= float(facts.pop("BEST")) <= max(runs)
    expected = {
        "STATUS": status,
        "KIND": "search",
        "NAME": "rates",
        "FOLDER": str(folder),
        "METRIC": "test_acc",
        "CONFIGURATION": "b0.layer.lr=0.05",
        "DONE": "3",
        "TOTAL": "4",
        "FAILED": "0",
        "ERROR": str(error or ""),
    }
    assert {name: facts[name] for name in expected} == expected


def test_a_failing_command_is_reported_and_changes_nothing(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = folders.Home(home).search("rates")
    with on_end.at_end("echo to the user; exit 3", [folder], "search"):
        pass
    with on_end.at_end("", [folder], "search"), on_end.at_end(None, [folder], "search"):
        pass
    with pytest.raises(ConfigError), on_end.at_end("/nowhere/at-all", [folder], "search"):
        raise ConfigError("x", "y")
    out, err = capfd.readouterr()
    assert out == "to the user\n"
    assert "--on-end: 'echo to the user; exit 3' ended with exit code 3\n" in err
    assert "--on-end: '/nowhere/at-all' ended with exit code 127\n" in err


class Full(io.StringIO):
    """A stream on a full disk."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


class Closed(io.StringIO):
    """A stream that a plugin has closed."""

    closed = True

    def flush(self) -> None:
        raise ValueError("I/O operation on closed file")


@pytest.mark.parametrize("stream", [Full(), Closed()])
def test_it_runs_where_nothing_can_be_printed(
    stream: io.StringIO, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message that a search has ended reaches the user all the same."""
    monkeypatch.setattr(sys, "stdout", stream)
    with on_end.at_end(noting(tmp_path / "facts"), [folders.Home(home).search("rates")], "search"):
        pass
    assert told(tmp_path / "facts")["STATUS"] == "finished"


@pytest.mark.parametrize(("place", "parent"), [("hebb/search/s", "here"), ("mine/s", "elsewhere"), ("s", "elsewhere")])
def test_a_restored_search_reads_where_it_lies(
    place: str, parent: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that Python stored in a folder of its own lies in no parent folder: $HEBB_HOME has its datasets."""
    monkeypatch.setenv("HEBB_HOME", str(tmp_path / "elsewhere"))
    folder = tmp_path / "here" / place
    shutil.copytree(folders.Home(home).search("rates"), folder)
    options = search.parser().parse(["--restore", str(folder)])
    assert search_request.restored(options, "line")[1].home == folders.Home(tmp_path / parent)
    assert search_request._home_of(Path("/s")) is None


def test_a_search_keeps_it_and_runs_it(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restored search has the command it was started with, unless another is given; an empty one is none."""
    folder = folders.Home(home).search("rates")
    data = json.loads((folder / folders.SEARCH).read_text())
    data["options"]["on_end"] = noting(tmp_path / "facts")
    (folder / folders.SEARCH).write_text(json.dumps(data))
    ended = []

    def run(*_: object, fresh: bool, **__: object) -> argparse.Namespace:
        ended.append(fresh)
        return argparse.Namespace(succeeded=False)

    monkeypatch.setattr(stages, "run", run)
    assert verbs.main(["search", "--restore", str(folder)]) == 1
    assert (ended, told(tmp_path / "facts")["STATUS"]) == ([False], "failed")
    for more, expected in ((("--on-end", "mail me"), "mail me"), (("--on-end", ""), None)):
        options = search.parser().parse(["--restore", str(folder), *more])
        assert search_request.restored(options, "line")[1].on_end == expected
    settings = SearchSettings(home=folders.Home(tmp_path), on_end="mail me")
    assert SearchSettings.restored(settings.stored(), settings.home).on_end == "mail me"
    Journal.load(folder).note(Event.FAILED, data["trials"][3]["name"], reason="x", again=False)
    with on_end.at_end(noting(tmp_path / "facts"), [folder], "search"):
        pass
    assert told(tmp_path / "facts")["FAILED"] == "1"
    assert search_folder.read(folder)["options"]["on_end"] == noting(tmp_path / "facts")


def test_a_run_tells_its_result_and_keeps_it_for_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["train", "--preset", "2SoftHebbCnnDigits", "--dataset", "Digits_1", "--set", *TINY]
    words += ["--threads", "1", "--device", "cpu", "--data-dir", str(tmp_path), "--model-name", "m"]
    assert verbs.main([*words, "--on-end", noting(tmp_path / "facts")]) == 0
    run, facts = folders.Home(tmp_path).network("m"), told(tmp_path / "facts")
    result = json.loads((run / "result.json").read_text())
    assert (facts["STATUS"], facts["KIND"], facts["NAME"], facts["DONE"]) == ("finished", "run", "m", "1")
    assert (facts["METRIC"], float(facts["BEST"])) == ("test_acc", result["metrics"]["test_acc"])
    (run / "result.json").unlink()
    (tmp_path / "facts").unlink()
    assert verbs.main(["resume", "m", "--data-dir", str(tmp_path)]) == 0
    assert told(tmp_path / "facts") == {**facts, "SECONDS": told(tmp_path / "facts")["SECONDS"]}
    assert "on_end" in json.loads((run / "environment.json").read_text())
