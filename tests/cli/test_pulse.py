"""What is said while nothing else is: on a pipe, in a terminal and in a notebook.

Without it a phase of an hour, a download or the start of Ray would look like a program that hangs.
"""

from __future__ import annotations

import io
import sys
import threading
import time
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small

from hebb.cli import pulse, run_display
from hebb.cli.describe import CommandConsole
from hebb.cli.run_display import ConsoleReport
from hebb.cli.search_display import SearchDisplay
from hebb.data import images
from hebb.storage import folders, records
from hebb.training import train
from hebb.tuning.observer import Stage
from hebb.tuning.search import Group, Trial


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is due after a moment."""
    monkeypatch.setattr(pulse, "EVERY", 0.05)
    monkeypatch.setattr(pulse, "SOON", 0.05)


def wait_for(text: str, printed: CommandConsole) -> str:
    """Wait until a console has printed a text; return everything it printed."""
    for _ in range(400):
        if text in text_of(printed):
            break
        time.sleep(0.01)
    return text_of(printed)


def console(**options: Any) -> CommandConsole:
    """Return a console that prints into memory, by default as on a pipe."""
    return CommandConsole(file=io.StringIO(), width=140, highlight=False, markup=False, **options)


def text_of(printed: CommandConsole) -> str:
    assert isinstance(printed.file, io.StringIO)
    return printed.file.getvalue()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "hebb-pulse"]


# -- the lines ----------------------------------------------------------------------------------------------


def test_only_silence_is_filled(quick: None) -> None:
    """A console that prints by itself needs no line; the text is asked for when it is due."""
    printed = console()
    texts = iter(f"state {i}" for i in range(1000))
    beat = pulse.Pulse(lambda: next(texts))
    beat.start(printed)
    for _ in range(10):
        printed.print("a row")
        time.sleep(0.01)
    assert "state" not in text_of(printed)
    assert "state 2" in wait_for("state 2", printed)
    beat.stop()
    before = text_of(printed)
    time.sleep(0.15)
    assert text_of(printed) == before
    assert threads() == []


@pytest.mark.parametrize("fault", [BrokenPipeError, ValueError("I/O operation on closed file")])
def test_an_output_that_is_closed_ends_no_work(quick: None, fault: Any) -> None:
    asked = threading.Semaphore(0)

    def state() -> str:
        asked.release()
        raise fault

    beat = pulse.Pulse(state)
    beat.start(console())
    assert asked.acquire(timeout=5) and asked.acquire(timeout=5)  # it tries again, and never too often
    beat.stop()


# -- a run --------------------------------------------------------------------------------------------------


class Slow(ConsoleReport):
    """Waits in the middle of a phase, and before it, until the line has come."""

    def __init__(self) -> None:
        super().__init__()
        self.console = console()
        self.left = 25

    def progress(self, images: int) -> None:
        super().progress(images)
        self.left -= 1
        if self.left == 0:
            wait_for("500 of 600 images, ", self.console)


def test_a_run_on_a_pipe_says_how_far_it_is(quick: None) -> None:
    """While data are read, inside a phase of two epochs, and nothing after its end."""
    report = Slow()

    def load(*arguments: Any) -> images.Images:
        wait_for("reading Digits", report.console)
        return images.load(*arguments)

    made = small.config(small.CNN, "dataset_unsup.epochs=3")
    train.run(made, report, place=train.Place(datasets=Path("nowhere"), load=load))
    text = text_of(report.console)
    (line,) = [line for line in text.splitlines() if " 500 of 600 images" in line][:1]
    assert "phase 0: hebbian b0, 500 of 600 images, " in line
    assert line.endswith(" left")
    assert text.index("reading Digits") < text.index("SoftKrotov") < text.index("500 of 600")
    assert "\r" not in text and "\x1b" not in text
    assert threads() == []


def test_a_run_that_fails_leaves_no_thread() -> None:
    report = ConsoleReport()
    with pytest.raises(ValueError, match="broken"):
        try:
            train.run(small.config(), report, place=train.Place(datasets=Path("nowhere"), load=_broken))
        finally:
            report.close()
    assert threads() == []


def _broken(*arguments: Any) -> images.Images:
    raise ValueError("broken")


def test_a_terminal_keeps_its_live_line(quick: None) -> None:
    """Plain lines end when the run starts, so they do not disturb the bar."""
    report = ConsoleReport()
    report.console = console(force_terminal=True)
    report.loading("Digits")
    wait_for("reading Digits", report.console)
    made = small.config()
    report.start(made, (), train.Place(datasets=Path("nowhere")))
    assert threads() == []


class Cell:
    """A notebook's cell: what IPython would display."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, data: dict[str, str], *, raw: bool, display_id: bool) -> Cell:
        self.update(data, raw=raw)
        return self

    def update(self, data: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.shown.append(data["text/plain"])


def test_a_notebook_has_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends empty, so that a stored notebook has the numbers alone; no widget is needed."""
    cell = Cell()
    module = types.ModuleType("IPython.display")
    module.display = cell.display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(run_display, "_REFRESH", 0.0)
    report = ConsoleReport()
    monkeypatch.setattr(report.console, "is_jupyter", True)
    monkeypatch.setattr(report.console, "print", lambda *objects, **options: None)  # of cells of their own
    train.run(small.config(), report, place=train.Place(datasets=Path("nowhere")))
    lines = [text for text in cell.shown if text]
    assert len(lines) == 20  # ten batches of both phases
    assert lines[0].startswith("phase 0: hebbian b0, 20 of 200 images")
    assert lines[-1] == "phase 1: backprop b1, all 200 images done"
    assert cell.shown[10] == cell.shown[-1] == ""


# -- a search -----------------------------------------------------------------------------------------------


def test_a_search_on_a_pipe_says_how_far_its_trials_are(quick: None, tmp_path: Path) -> None:
    """Ray starts, and Hebbian phases report nothing: the line reads the records, also inside an epoch."""
    made = small.config(small.DEEP, "curve_points=5")
    trial = Trial(name="c-s0", label="lr=0.1", choice={}, config=made, folder=tmp_path / "trials" / "c-s0")
    other = replace(trial, name="c-s1", config=replace(made, seed=1), folder=tmp_path / "trials" / "c-s1")
    display = SearchDisplay()
    display.console = console()
    display.preparing("starting Ray")
    wait_for("starting Ray", display.console)
    display.stage(Stage(metric="test_acc", groups=3, at_once=2))
    for one in (trial, other):
        display.started(Group(name=one.name, runs=(one,)))
    trial.folder.mkdir(parents=True)
    recorder = records.Recorder(trial.folder)
    small_point(recorder, update=6)
    text = wait_for("20 % of its updates", display.console)
    assert "0 of 3 trials ended, time left unknown; lr=0.1 seed 0: 20 % of its updates; lr=0.1 seed 1: begins" in text
    assert (trial.folder / folders.LOOKS).exists()
    display.close()
    recorder.close()
    assert threads() == []


def small_point(recorder: records.Recorder, update: int) -> None:
    recorder.point(records.Point(update=update, phase=0, kind="hebbian", epoch=1, blocks={"b0": {"R1": 0}}))
