"""What a terminal shows of a search whose numbers are known.

Without it the terminal could print an interval, a winner or a count that the report does not.
"""

from __future__ import annotations

import re
from pathlib import Path
from unittest.mock import MagicMock

import pandas as pd
import pytest
import small
from rich.console import Console

from hebb.analysis import fates
from hebb.analysis.fates import Fate
from hebb.cli import search, search_display
from hebb.cli.search_display import SearchDisplay
from hebb.config import search_space
from hebb.config.vocabulary import Goal
from hebb.tuning import results
from hebb.tuning.observer import Outcome, Stage, Winner
from hebb.tuning.search import Group, Search, Trial


def printed(values: dict[str, list[float]], metric: str) -> list[list[str]]:
    """Return the cells of the table of a search with these values, one a seed."""
    lines = [
        {"configuration": name, "seed": seed, metric: value, "minutes": 0.5}
        for name, each in values.items()
        for seed, value in enumerate(each)
    ]
    console = Console(width=140)
    with console.capture() as capture:
        console.print(search_display.summary_table(results.summary(pd.DataFrame(lines), metric), metric))
    return [re.split(r"\s{2,}", line.strip()) for line in capture.get().splitlines()]


TABLES = [
    (
        "test_acc",
        {"a": [98.0]},
        [["configuration", "n", "mean test_acc %", "sd", "minutes a run"], ["a", "1", "98.00", "-", "0.50"]],
    ),
    (
        "test_acc",
        {"a": [98.0, 99.0], "b": [97.0, 97.0]},
        [
            ["configuration", "n", "mean test_acc %", "sd", "each seed", "minutes a run"],
            ["a", "2", "98.50", "0.71", "98.00, 99.00", "0.50"],
            ["b", "2", "97.00", "0.00", "all 97.00", "0.50"],
        ],
    ),
    (
        "val_acc",
        {"a": [90.0, 99.0, 99.0], "b": [80.0]},  # 96 +- 4.302653 sqrt(27) / sqrt(3)
        [
            ["configuration", "n", "mean val_acc %", "sd", "95 % interval", "minutes a run"],
            ["a", "3", "96.00", "5.20", "83.09 to 100.00", "0.50"],
            ["b", "1", "80.00", "-", "-", "0.50"],
        ],
    ),
    (
        "val_loss",
        {"a": [0.0615, 0.0625]},
        [
            ["configuration", "n", "mean val_loss", "sd", "each seed", "minutes a run"],
            ["a", "2", "0.0620", "0.0007", "0.0615, 0.0625", "0.50"],
        ],
    ),
]


@pytest.mark.parametrize(("metric", "values", "table"), TABLES)
def test_the_table(metric: str, values: dict[str, list[float]], table: list[list[str]]) -> None:
    assert printed(values, metric) == table


def test_thirty_long_names_keep_their_numbers() -> None:
    """A long name is folded; no number is cut."""
    name = " ".join(f"b{i}.layer.a_long_parameter_name=0.000123456" for i in range(4))
    table = printed({f"{i} {name}": [98.0, 99.0, 97.0 + i / 100] for i in range(30)}, "test_acc")
    assert sum("98.00" in cells or "minutes a run" in cells for cells in table) >= 1
    assert sum(cells[-1] == "0.50" for cells in table) == 30
    assert not any("…" in cell for cells in table for cell in cells)


def trial(label: str) -> Trial:
    return Trial(name="x-s0", label=label, choice={}, config=small.config(), folder=Path("nowhere"))


def test_ties_are_named_behind_the_winner(capsys: pytest.CaptureFixture[str]) -> None:
    SearchDisplay().selected(Winner(trial=trial("lr=1"), network="N", changes=(), tied=(trial("lr=2"), trial("lr=3"))))
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "winner: lr=1"
    assert second == "tied with: lr=2; lr=3 (the same mean; the winner is the first in the order of the search)"
    assert third == "its network: --preset N"
    SearchDisplay().selected(Winner(trial=trial("lr=1"), network="N", changes=()))
    assert capsys.readouterr().out.splitlines() == ["winner: lr=1", "its network: --preset N"]


def test_a_winner_that_may_be_chance_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    doubt = "Two seeds are too few for an interval or a test: the order may be chance."
    SearchDisplay().selected(Winner(trial=trial("lr=1"), network="N", changes=(), doubt=doubt))
    assert capsys.readouterr().out.splitlines() == ["winner: lr=1", doubt, "its network: --preset N"]


def test_no_winner_names_what_none_keeps(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"description": "a test", "purpose": "search", "seeds": [0], "constraints": ["train_acc <= 40"]}
    search = Search(
        spec=search_space.parse(data, "mine", "test"),
        base=small.config(),
        seeds=(0,),
        metric="val_acc",
        mode=Goal.MAX,
        folder=Path("nowhere"),
    )
    display = SearchDisplay()
    display.start(search)
    display.stage(Stage(metric="val_acc", groups=1, at_once=1))
    display.selected(None)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "no winner: no configuration has a finite val_acc on every seed and keeps train_acc <= 40"


def test_an_end_with_stopped_trials_says_that_nothing_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    SearchDisplay().summed_up(Outcome(tally=fates.tally([None] * 3 + [Fate.STOPPED] * 5)), 3, 8)
    assert capsys.readouterr().out.splitlines() == ["complete: 3 of 8 ran to the end, 5 stopped early"]
    SearchDisplay().summed_up(Outcome(tally=fates.tally([None] * 8)), 8, 8)
    assert capsys.readouterr().out == ""


def test_a_continued_search_counts_over_the_whole_by_one_clock(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of six trials ended before; on a pipe every step is said at once, and the clock never starts again."""
    clock = iter(range(1000, 2000, 10))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    display = SearchDisplay()
    monkeypatch.setattr(display, "_pulse", MagicMock())
    group = Group(name="a", runs=(trial("lr=1"),))
    display.preparing("starting Ray")
    for stage in (Stage(metric="val_acc", groups=4, at_once=2, before=2), Stage(metric="x", groups=1, at_once=2)):
        display.stage(stage)
        display.started(group)
        display.ended(group, "done")
        display.stage_over()
    lines = capsys.readouterr().out.splitlines()
    texts = [line.split(" s  ")[1] for line in lines]
    assert texts[:2] == ["starting Ray", "4 trials to go, 2 at a time, 2 ended before"]
    assert texts[2].startswith("seed 0  lr=1  done (3 of 6, ")
    assert texts[3:] == ["1 trial to go, 2 at a time", "seed 0  lr=1  done (1 of 1, none left)"]
    seconds = [float(line.split(" s  ")[0]) for line in lines]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0


def test_what_to_know_first_is_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    note = f"note: {'word ' * 40}end"
    SearchDisplay().noted([note, "note: b"])
    assert capsys.readouterr().out.splitlines() == [note, "note: b"]


@pytest.mark.parametrize(("flags", "notes"), [((), 1), (("--purpose", "search"), 0)])
def test_a_dry_run_says_that_the_model_sees_the_test_images(
    flags: tuple[str, ...], notes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    space = ("--space", "b0.layer.lr={loguniform: [0.001, 0.1]}", "--algorithm", "optuna", "--sampler", "gp")
    words = ("--preset", small.CNN, "--dataset", "Digits", *space, "--num-samples", "20", "--dry-run", *flags)
    assert search.main([*words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "chosen by optuna (gp)" in next(line for line in lines if "configurations x seeds" in line)
    steered = [
        line for line in lines if line.startswith("note: optuna (gp) is steered by the test accuracy (test_acc)")
    ]
    assert len(steered) == notes
    assert all("--purpose search selects on validation images and names one" in line for line in steered)
