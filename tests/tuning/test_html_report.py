"""The page of a search: its numbers by hand, its importance by theory, its looks in a real browser.

Without it the report could rank configurations or importances wrongly.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small
import stored_runs

import hebb
from hebb.analysis import importance, parallel, scales
from hebb.cli import search_display
from hebb.cli.analysis import command
from hebb.config import domains, objectives
from hebb.config.domains import Axis
from hebb.config.vocabulary import DomainKind, Goal, Purpose
from hebb.core.errors import ConfigError
from hebb.storage import folders
from hebb.tuning import comparison, html_report, report_charts, results, verdict

RATES, POWERS = [0.05, 0.1], ["triangle", "triangle_2"]
EVIL = "<script>alert('x')</script> & \"more\""
LEAST = 4


class Page(HTMLParser):
    """Tags with their attributes, and the cells of every row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self._labelled: list[tuple[str, list[str]]] = []
        self.words = ""
        self.best: list[str] = []
        self.charts: list[dict[str, str | None]] = []
        self.code: list[str] = []
        self._in_code = False
        self.feed(text)

    @property
    def configurations(self) -> dict[str, dict[str, str]]:
        """The rows of the table of configurations: cell by the name of the column."""
        names = next(row for row in self.rows if row and row[0] == "rank")
        return {label: dict(zip(names, row, strict=True)) for label, row in self._labelled}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
            label = dict(attrs).get("data-configuration")
            if label is not None:
                self._labelled.append((label, self.rows[-1]))
            if dict(attrs).get("class") == "best":
                self.best.append(label or "")
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "svg":
            self.charts.append(dict(attrs))
        elif tag == "code":
            self.code.append("")
            self._in_code = True

    def handle_endtag(self, tag: str) -> None:
        self._in_code = self._in_code and tag != "code"

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._in_code:
            self.code[-1] += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parent folder with a search of two rates, two activations and two seeds."""
    parent = tmp_path_factory.mktemp("home")
    base = small.config(small.CNN, "dataset_sup.samples=60", "dataset_unsup.samples=60", "dataset_sup.epochs=3")
    folder = stored_runs.sweep(
        parent, "rates", base, {"b0.layer.lr": RATES, "b0.activation": POWERS}, [0, 1], leave_out=1
    )
    described = folders.read_json(folder / folders.SEARCH)
    described["spec"]["description"] = EVIL
    described["options"]["commands"] = ["python ray_search.py --space 'b0.layer.lr={grid: [0.05, 0.1]}'"]
    folders.write_json(folder / folders.SEARCH, described)
    return parent


@pytest.fixture(scope="module")
def folder(home: Path) -> Path:
    return home / "hebb" / "search" / "rates"


@pytest.fixture(scope="module")
def page(home: Path, folder: Path) -> Path:
    """The page, by the command line; twice, because it may be made at any time."""
    kept, importance.LEAST = importance.LEAST, LEAST
    try:
        assert [command.main(["report", "rates", "--data-dir", str(home)]) for _ in range(2)] == [0, 0]
    finally:
        importance.LEAST = kept
    return folder / "report.html"


def reached(folder: Path) -> dict[str, list[float]]:
    """Test accuracies by configuration, read from the run folders by hand."""
    described = json.loads((folder / "search.json").read_text())
    accuracies: dict[str, list[float]] = {}
    for trial in described["trials"]:
        path = folder / "trials" / trial["name"] / "result.json"
        if path.exists():
            label = " ".join(f"{key}={value}" for key, value in trial["choice"].items())
            accuracies.setdefault(label, []).append(json.loads(path.read_text())["metrics"]["test_acc"])
    return accuracies


def test_the_table_by_hand(page: Path, folder: Path) -> None:
    """n, mean, deviation and the seeds, of which two are too few for an interval; best first, incomplete last."""
    lines = Page(page.read_text()).configurations
    by_hand = reached(folder)
    assert set(lines) == set(by_hand)
    assert sorted(len(values) for values in by_hand.values()) == [1, 2, 2, 2]
    for name, line in lines.items():
        n, mean, sd, seeds = (line[column] for column in ("n", "mean test accuracy (%)", "s.d.", "each seed"))
        values = by_hand[name]
        middle = sum(values) / len(values)
        assert f"b0.layer.lr={line['b0.layer.lr']} b0.activation={line['b0.activation']}" == name
        assert n == str(len(values))
        assert float(mean) == pytest.approx(middle, abs=0.005001)
        if len(values) == 1:
            assert (sd, seeds) == ("-", "-")
            continue
        deviation = abs(values[0] - values[1]) / math.sqrt(2)
        assert float(sd) == pytest.approx(deviation, abs=0.005001)
        assert [float(text) for text in seeds.split(", ")] == pytest.approx(values, abs=0.005001)
    assert [line["n"] for line in lines.values()] == ["2", "2", "2", "1"]
    means = [float(line["mean test accuracy (%)"]) for line in list(lines.values())[:3]]
    assert means == sorted(means, reverse=True)
    csv = pd.read_csv(folder / "report.csv")
    assert dict(zip(csv["configuration"], csv["mean"], strict=True)) == pytest.approx(
        {name: sum(values) / len(values) for name, values in by_hand.items()}
    )


def test_one_file_without_a_network(page: Path, folder: Path) -> None:
    """Nothing is loaded, and the policy of the page lets only its own two scripts run."""
    text = page.read_text()
    html = Page(text)
    assert not {"link", "iframe", "object", "embed"} & {tag for tag, _ in html.tags}
    sources = [attributes["src"] or "" for tag, attributes in html.tags if tag == "img"]
    assert [source.partition(";")[0] for source in sources] == ["data:image/png"]  # the filters
    assert all(attributes.get("alt") for tag, attributes in html.tags if tag == "img")
    assert not re.search(r"""\b(src|href)\s*=\s*["'](?!data:|#)""", text)
    assert "url(" not in text
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|import)\s*\(", text)
    assert len(text) < 300_000
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    (policy,) = (str(a["content"]) for tag, a in html.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ")
    assert policy.endswith("script-src " + " ".join(f"'sha256-{digest}'" for digest in hashes))
    assert sorted(p.name for p in folder.iterdir() if p.is_file()) == ["report.csv", "report.html", "search.json"]


def test_a_reader_of_screens_finds_its_way(page: Path) -> None:
    """One first heading, no level left out, every chart and section has a name, every link of the contents a target."""
    tags = Page(page.read_text()).tags
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels))
    ids = {attributes["id"] for _, attributes in tags if "id" in attributes}
    assert {str(a["href"])[1:] for tag, a in tags if tag == "a"} <= ids
    assert all(a["aria-labelledby"] in ids for tag, a in tags if tag == "section")
    assert all(a.get("aria-label") or a.get("aria-hidden") for tag, a in tags if tag == "svg")


def test_what_others_wrote_is_escaped(page: Path) -> None:
    assert EVIL in Page(page.read_text()).words
    assert EVIL not in page.read_text()
    assert page.read_text().count("<script") == 2


def test_facts_and_commands(page: Path, folder: Path) -> None:
    words = Page(page.read_text()).words
    assert "7 of 8 finished, seeds 0 1; not complete: 1 never started" in words
    assert "python ray_search.py --space 'b0.layer.lr={grid: [0.05, 0.1]}'" in words
    assert f"hebb search --restore {folder}" in words
    (config,) = re.findall(r"hebb train --run-config (\S+) --model-name again", words)
    best = max(reached(folder).items(), key=lambda item: (len(item[1]), sum(item[1])))[0]
    stored = json.loads(Path(config).read_text())
    assert str(stored["network"]["blocks"][0]["layer"]["lr"]) in best
    typed = search_display.commands(html_report.read(folder))
    assert Page(page.read_text()).code[:-1] == ["\n".join(lines) for lines in typed.values()]  # as they are printed
    assert Page(page.read_text()).code[-1].startswith("--preset ")
    buttons = [attributes for tag, attributes in Page(page.read_text()).tags if tag == "button"]
    assert len(buttons) == 1 + len(typed) + 1  # light or dark, and one for each command
    assert f"First layer of {best}" in words


def test_filters_are_those_of_the_best(page: Path, folder: Path) -> None:
    """The picture is the one that the run left for TensorBoard."""
    read = html_report.read(folder)
    (shown,) = (a["src"] for tag, a in Page(page.read_text()).tags if a.get("class") == "picture")
    picture = base64.b64decode((shown or "").partition(",")[2])
    (events,) = read.best.folder.glob("events.*")
    assert picture in events.read_bytes()


def test_a_search_without_a_result_has_no_page(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "empty"
    shutil.copytree(home / "hebb" / "search" / "rates", copy)
    for result in copy.glob("trials/*/result.json"):
        result.unlink()
    (copy / "report.html").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match="no run of this search is finished"):
        command.main(["report", str(copy)])
    assert not (copy / "report.html").exists()
    with pytest.raises(ConfigError, match="report: must name a search"):
        command.main(["report", str(tmp_path)])


def test_runs_that_measured_nothing_are_not_said_to_be_unfinished(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "empty"
    shutil.copytree(home / "hebb" / "search" / "rates", copy)
    described = folders.read_json(copy / folders.SEARCH)
    folders.write_json(copy / folders.SEARCH, {**described, "metric": "val_acc"})
    with pytest.raises(ConfigError, match="no finished run of this search has measured val_acc"):
        html_report.read(copy)


# -- what a page says of a search whose numbers are known ------------------------------------------------------------

A, B, C, D = (f"b0.layer.lr={rate} b0.activation={power}" for rate in RATES for power in POWERS)


@pytest.fixture
def known(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copy the search, with test accuracies by configuration, one a seed; a run without one is not there."""

    def copy(accuracies: dict[str, list[float]], journal: list[dict[str, object]] = [], **changes: object) -> Path:  # noqa: B006
        home = tmp_path / "known"
        shutil.copytree(folder, home)
        described = folders.read_json(home / folders.SEARCH) | changes
        folders.write_json(home / folders.SEARCH, described)
        for trial in described["trials"]:
            name = " ".join(f"{key}={value}" for key, value in trial["choice"].items())
            run, values = home / "trials" / trial["name"], accuracies.get(name, [])
            if trial["seed"] >= len(values):
                shutil.rmtree(run, ignore_errors=True)
                continue
            if not run.exists():  # the last one was never made
                shutil.copytree(run.with_name(run.name.replace("-s1", "-s0")), run)
                stored = folders.read_json(run / folders.CONFIG)
                folders.write_json(run / folders.CONFIG, {**stored, "seed": 1})
            result = folders.read_json(run / folders.RESULT)
            result["metrics"]["test_acc"] = values[trial["seed"]]
            folders.write_json(run / folders.RESULT, result)
        configurations = {}
        for trial in described["trials"]:
            label = " ".join(f"{key}={value}" for key, value in trial["choice"].items())
            configurations[LETTERS[label]] = trial["name"].rpartition("-s")[0]
        lines = [{**entry, "group": str(entry["group"]).format(**configurations)} for entry in journal]
        if lines:
            (home / folders.JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return home

    return copy


LETTERS = {A: "A", B: "B", C: "C", D: "D"}


def read_page(folder: Path) -> Page:
    return Page(html_report.page(html_report.read(folder), {}, folders.Home(folder)))


TIES = [  # better, accuracies, the bold row, those tied with it
    ("max", {A: [90.0, 91.0], B: [80.0, 80.0], C: [91.0, 90.0], D: [85.0, 85.0]}, A, [C]),
    ("max", {A: [10.0, 10.0], B: [90.5, 90.5], C: [91.0, 90.0], D: [90.0, 91.0]}, B, [C, D]),
    ("min", {A: [90.0, 91.0], B: [80.0, 80.0], C: [79.0, 81.0], D: [85.0, 85.0]}, B, [C]),
    ("max", {A: [99.0], B: [90.0, 90.0], C: [90.0, 90.0], D: [99.0]}, B, [C]),
    ("max", {A: [50.0, 50.0], B: [50.0, 50.0], C: [50.0, 50.0], D: [50.0, 50.0]}, A, [B, C, D]),
    ("max", {A: [50.0, 51.0], B: [60.0, 60.0], C: [50.0, 50.0], D: [40.0, 50.0]}, B, []),
]


@pytest.mark.parametrize(("mode", "accuracies", "bold", "tied"), TIES)
def test_the_marked_row_leads_and_ties_are_named(
    mode: str, accuracies: dict[str, list[float]], bold: str, tied: list[str], known: Callable[..., Path]
) -> None:
    folder = known(accuracies, mode=mode)
    report, page = html_report.read(folder), read_page(folder)
    assert next(iter(page.configurations)) == bold
    assert page.best == [bold]
    assert (f"{bold} is tied with {'; '.join(tied)}: the same mean" in page.words) == bool(tied)
    end = "highest" if mode == "max" else "lowest"
    assert f"{bold} {'shares' if tied else 'has'} the {end} mean." in page.words
    assert [label for label, row in page.configurations.items() if row["rank"] == "1"] == [bold, *tied]
    assert report.best.label == bold


def test_nothing_is_marked_where_no_configuration_is_complete(known: Callable[..., Path]) -> None:
    page = read_page(known({A: [90.0], B: [91.0]}))
    assert page.best == []
    assert f"{B} comes first so far; no configuration has a finite test_acc on every seed." in page.words
    assert set(page.configurations) == {A, B, C, D}


ASHA = {"name": "asha", "grace": 1, "reduction": 3}
BOTH = [50.0, 60.0]


def _ended(journal: list[dict[str, object]], label: str) -> bool:
    """Whether the journal has a line about a configuration."""
    return any(f"{{{LETTERS[label]}}}" in str(entry["group"]) for entry in journal)


PROGRESS = [  # accuracies, journal, what is said of the runs
    ({A: BOTH, B: BOTH, C: BOTH, D: BOTH}, [], "8 of 8 finished, seeds 0 1"),
    (
        {A: BOTH, B: [50.0]},
        [{"event": "stopped", "group": f"{{{name}}}", "step": 1, "score": 50.0, "n": 1} for name in "BCD"],
        "complete: 3 of 8 ran to the end, 5 stopped early by asha; seeds 0 1",
    ),
    (
        {A: BOTH, B: BOTH, C: BOTH},
        [{"event": "failed", "group": "{D}", "reason": "it diverged", "again": False}],
        "complete: 6 of 8 ran to the end, 2 failed; seeds 0 1",
    ),
    (
        {A: BOTH, B: BOTH, C: BOTH, D: [50.0]},
        [{"event": "failed", "group": "{D}-s1", "reason": "it diverged", "again": False}],
        "complete: 7 of 8 ran to the end, 1 failed; seeds 0 1",
    ),
    (
        {A: BOTH, B: BOTH},
        [{"event": "stopped", "group": "{C}", "step": 1, "score": 50.0, "n": 1}],
        "not complete: 4 of 8 ran to the end, 2 stopped early by asha, 2 never started; seeds 0 1",
    ),
]


@pytest.mark.parametrize(("accuracies", "journal", "says"), PROGRESS)
def test_what_became_of_the_runs(
    accuracies: dict[str, list[float]], journal: list[dict[str, object]], says: str, known: Callable[..., Path]
) -> None:
    folder = known(accuracies, journal)
    described = folders.read_json(folder / folders.SEARCH)
    described["spec"]["scheduler"] = ASHA
    folders.write_json(folder / folders.SEARCH, described)
    report = html_report.read(folder)
    assert html_report.facts(report)["runs"] == says
    failures = {D: "it diverged"} if "6 of 8" in says else {f"{D}, seed 1": "it diverged"} if "7 of 8" in says else {}
    assert dict(report.failed) == failures
    table = read_page(folder).configurations
    assert set(table) == {A, B, C, D}
    for label in (A, B, C, D):
        finished = len(accuracies.get(label, []))
        state = table[label].get("state", "")
        assert bool(state) == (finished < 2)
        assert ("stopped by asha at step 1, test accuracy then 50.00 %" in state) == (
            "stopped" in says and finished < 2 and _ended(journal, label)
        )
        assert ("failed: it diverged" in state) == ("failed" in says and finished < 2)


@pytest.mark.parametrize(("accuracies", "left"), [({A: BOTH, B: BOTH, C: BOTH, D: BOTH}, False), ({A: BOTH}, True)])
def test_a_complete_search_offers_nothing_to_continue(
    accuracies: dict[str, list[float]], left: bool, known: Callable[..., Path]
) -> None:
    commands = search_display.commands(html_report.read(known(accuracies)))
    assert ("what is left of it" in commands) is left


def test_the_curves_say_that_there_are_more(known: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = known({A: [50.0, 51.0], B: [60.0, 60.0], C: [50.0, 50.0], D: [40.0, 50.0]})
    assert html_report.curves_shown(html_report.read(folder)) == ""
    monkeypatch.setattr(html_report, "CURVES", 2)
    report = html_report.read(folder)
    assert "2 of 4 configurations, the best by test accuracy (%)." in read_page(folder).words
    shown = html_report._curves(report)
    assert shown is not None
    assert [label for _, label in shown[1]] == [B, A]


def test_the_table_says_what_it_leaves_out(known: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The worst of the finished ones are left out before those that tell why they failed."""
    monkeypatch.setattr(html_report.report_table, "MOST", 3)
    failed = [{"event": "failed", "group": "{D}", "reason": "it diverged", "again": False}]
    page = read_page(known({A: BOTH, B: [90.0, 91.0], C: [70.0, 71.0]}, failed))
    assert list(page.configurations) == [B, C, D]
    assert "1 of 4 configurations are left out." in page.words


def test_stopped_configurations_have_no_curves_and_that_is_said(known: Callable[..., Path]) -> None:
    folder = known({A: BOTH}, [{"event": "stopped", "group": "{B}", "step": 1, "score": 50.0, "n": 1}])
    words = read_page(folder).words
    assert "1 of 4 configurations, those with a finished run." in words
    assert "1 of 4 configurations has a finished run." in words


@pytest.mark.parametrize("values", [[[98.0, 99.0]] * 4, [[98.0]] * 4, [[98.0, 98.0]] * 4])
def test_no_number_that_there_is_not(values: list[list[float]], known: Callable[..., Path]) -> None:
    page = read_page(known(dict(zip((A, B, C, D), values, strict=True))))
    assert not re.search(r"\b(nan|None|inf)\b", page.words)
    assert "95 % interval" not in [cell for row in page.rows for cell in row]


def test_the_question_is_that_of_this_search(page: Path) -> None:
    words = Page(page.read_text()).words
    assert (
        f"How does the test accuracy (%) of {small.CNN} depend on what is varied? Varied: b0.layer.lr (0.05, 0.1); "
        "b0.activation (triangle, triangle_2). 4 configurations compared, mean over seeds 0 1." in words
    )
    assert "60 images of Digits, 1 epoch (hebbian); 60 images of Digits, 3 epochs (backprop)" in words


# -- the answer -----------------------------------------------------------------------------------------------------

SEEDS = (0, 1, 2, 3)


def judged(
    folder: Path,
    values: dict[str, list[float]],
    *,
    maximises: bool = True,
    purpose: Purpose = Purpose.SWEEP,
    bounds: Sequence[str] = (),
) -> verdict.Verdict:
    """The verdict on values by configuration, one a seed; A changes nothing of the preset but its activation."""
    frame = pd.DataFrame(
        [
            {"configuration": label, "seed": seed, "status": "finished", "test_acc": value, "minutes": 1.0}
            for label, every in values.items()
            for seed, value in enumerate(every)
        ]
    )
    search = html_report.read(folder).search
    seeds = SEEDS[: max(map(len, values.values()))]
    spec = replace(search.spec, purpose=purpose, constraints=objectives.constraints(bounds, "test"))
    search = replace(search, spec=spec, seeds=seeds, mode=Goal.MAX if maximises else Goal.MIN)
    ranking = results.ranked(results.judged(results.summary(frame, "test_acc"), search), search)
    return verdict.of_search(search, frame, ranking, results.best(search, ranking), pd.DataFrame())


def test_by_how_much_and_whether_the_seeds_can_tell(known: Callable[..., Path]) -> None:
    """Differences 2, 4, 3, 3: their mean is 3, their deviation 0.8165, and t(0.975, 3) = 3.1824."""
    values = {A: [90.0, 91.0, 90.0, 91.0], B: [92.0, 95.0, 93.0, 94.0], C: [93.0, 94.0, 92.0, 94.5]}
    folder = known({A: [90.0, 91.0]})
    answer = judged(folder, values)
    assert answer.leader == B
    assert answer.number == "93.50 %"
    assert "4 seeds" in answer.spread
    text = " ".join(answer.sentences)
    assert f"against the next, {C}" in text
    assert "so the seeds cannot tell them apart" in text
    assert "Of the 2 others 1 is lower beyond the chance of the seeds" in text
    half = 3.182446 * math.sqrt(2 / 3) / 2
    apart = judged(folder, {A: values[A], B: values[B]})
    assert f"+3.00 points (95 % interval +{3 - half:.2f} to +{3 + half:.2f}; paired t-test, n = 4" in apart.sentences[0]
    assert "cannot tell" not in apart.sentences[0]


def test_one_of_several_tests_is_corrected(known: Callable[..., Path]) -> None:
    """The best against the next has p = 0.043 by t(3), and 0.13 among three tests: the caution and the text agree."""
    best, second = [93.0, 94.0, 93.5, 94.2], [92.0, 93.5, 92.2, 93.9]
    folder = known({A: [90.0, 91.0]})
    alone = judged(folder, {A: best, B: second}, purpose=Purpose.SEARCH)
    assert "p = 0.043)" in alone.sentences[0]
    assert alone.verb == "wins"
    others = {C: [91.0, 93.9, 92.0, 92.1], D: [90.0, 94.0, 91.0, 93.9]}
    among = judged(folder, {A: best, B: second, **others}, purpose=Purpose.SEARCH)
    corrected = "p = 0.13 with Holm's correction for 3 tests"
    assert f"{corrected}, so the seeds cannot tell them apart" in among.sentences[0]
    assert among.verb == "is named the winner, but the order may be chance"
    assert among.caution.startswith(f"The seeds cannot tell it from the next, {B} ({corrected})")
    assert "Of the 3 others none is lower" in among.sentences[-1]


def test_what_breaks_a_constraint_is_not_beaten(known: Callable[..., Path]) -> None:
    """D is above B and breaks the bound: the verdict is one among A, B and C alone."""
    low = {A: [60.0, 61.0, 60.0, 61.0], B: [92.0, 95.0, 93.0, 94.0], C: [70.0, 71.0, 70.0, 71.5]}
    folder = known({A: [90.0, 91.0]})
    answer = judged(folder, {**low, D: [99.0, 99.1, 99.0, 99.3]}, bounds=["test_acc <= 98"])
    assert (answer.leader, answer.verb) == (B, "has the highest mean of those that keep every constraint")
    assert D not in " ".join(answer.sentences)
    assert "Of the 2 others that keep every constraint 2 are lower beyond the chance" in answer.sentences[-1]
    alone = judged(folder, low, bounds=["test_acc >= 90"])
    assert alone.verb == "is the only configuration that keeps every constraint and has finished on every seed"
    nothing = judged(folder, low, bounds=["test_acc <= 3"])
    reason = "no configuration has a finite test_acc on every seed and keeps test_acc <= 3"
    assert nothing.verb == f"comes first so far; {reason}"


@pytest.mark.parametrize(
    ("bounds", "best", "feasible"), [([], B, True), (["test_acc <= 92"], A, True), (["test_acc <= 3"], B, False)]
)
def test_the_best_in_python_says_whether_it_keeps_the_constraints(
    bounds: list[str], best: str, feasible: bool, known: Callable[..., Path]
) -> None:
    folder = known({A: [90.0, 91.0], B: [95.0, 96.0]})
    described = folders.read_json(folder / folders.SEARCH)
    described["spec"]["constraints"] = bounds
    folders.write_json(folder / folders.SEARCH, described)
    found = hebb.load(folder).best
    assert (domains.label(found.values), found.feasible) == (best, feasible)


@pytest.mark.parametrize(
    ("values", "says", "caution"),
    [
        ({A: [90.0], B: [91.0]}, "+1.00 points against the next, {A}, with one seed each", "One seed is too few"),
        (
            {A: [90.0, 90.0], B: [91.0, 92.0]},
            "+1.50 points (seed by seed +1.00, +2.00) against",
            "Two seeds are too few",
        ),
        (
            {A: [90.0, 90.0], B: [92.0, 92.0]},
            "+2.00 points (seed by seed +2.00, +2.00) against",
            "Two seeds are too few",
        ),
    ],
)
def test_few_seeds_have_no_test(
    values: dict[str, list[float]], says: str, caution: str, known: Callable[..., Path]
) -> None:
    answer = judged(known({A: [90.0, 91.0]}), values)
    assert answer.leader == B
    assert says.format(A=A) in answer.sentences[0]
    assert answer.caution.startswith(caution)


@pytest.mark.parametrize(
    ("values", "verb", "doubt"),
    [
        ({A: [90.0], B: [99.0]}, "is named the winner, but the order may be chance", "One seed is too few"),
        ({A: [90.0, 90.0], B: [99.0, 98.0]}, "is named the winner, but the order may be chance", "Two seeds are"),
        (
            {A: [90.0, 91.0, 90.0], B: [92.0, 90.0, 91.0]},
            "is named the winner, but the order may be chance",
            "The seeds cannot tell it from the next, {A} (p = 0.53)",
        ),
        ({A: [90.0, 91.0, 92.0], B: [95.0, 96.1, 97.0]}, "wins", ""),
        ({A: [90.0, 91.0, 92.0], B: [91.0, 92.0, 93.0]}, "wins", ""),  # alike on every seed
        ({B: [91.0, 92.0]}, "is the only configuration that has finished on every seed", ""),
    ],
)
def test_a_winner_by_chance_is_not_said_to_win(
    values: dict[str, list[float]], verb: str, doubt: str, known: Callable[..., Path]
) -> None:
    """The terminal prints the same ``verdict.doubt``. Differences 2, -1, 1: t = 0.756 and p = 0.53 by t(2)."""
    answer = judged(known({A: [90.0, 91.0]}), values, purpose=Purpose.SEARCH)
    assert (answer.leader, answer.verb) == (B, verb)
    assert answer.caution.startswith(doubt.format(A=A))
    assert ("the order may be chance" in answer.caution) == bool(doubt)


@pytest.mark.parametrize(
    ("gaps", "says"),
    [
        ((1, 0), " The next is 1 of 718 test images behind."),
        ((3, -1), " The next is 2 of 718 test images behind."),
        ((9, 9), ""),  # more than a handful: the points say it
        ((0.5, 0), ""),  # not measured on these images
    ],
)
def test_a_difference_of_a_few_images_is_said_in_images(
    gaps: tuple[float, float], says: str, known: Callable[..., Path]
) -> None:
    """Digits has 359 test images, and two seeds see each of them once."""
    hits = {A: [320, 330], B: [320 + gaps[0], 330 + gaps[1]]}
    values = {label: [100 * count / 359 for count in counts] for label, counts in hits.items()}
    answer = judged(known({A: [90.0, 91.0]}), values)
    assert answer.caution == f"Two seeds are too few for an interval or a test: the order may be chance.{says}"


def test_the_least_loss_leads(known: Callable[..., Path]) -> None:
    answer = judged(known({A: [90.0, 91.0]}), {A: [3.0, 2.0], B: [4.0, 5.0]}, maximises=False)
    assert (answer.leader, answer.verb) == (A, "has the lowest mean")
    assert answer.sentences[0].startswith("−2.00 points")


def test_several_searches_are_compared_with_the_first(folder: Path, known: Callable[..., Path], tmp_path: Path) -> None:
    """Their best configurations, seed by seed; the page of several does not replace that of one."""
    one = known({A: [90.0, 92.0], B: [80.0, 81.0]})
    two = one.with_name("other")
    shutil.copytree(one, two)
    for result in two.glob("trials/*/result.json"):
        stored = folders.read_json(result)
        stored["metrics"]["test_acc"] += 3.0 if result.parent.name.endswith("-s0") else 1.0
        folders.write_json(result, stored)
    assert command.main(["report", str(one), str(two), "--out", str(tmp_path / "out"), "--name", "both"]) == 0
    page = Page((tmp_path / "out" / "both.html").read_text())
    assert "other has the highest mean of its best configuration." in page.words
    assert "other: +2.00 points (seed by seed +3.00, +1.00) against known." in page.words
    assert list(pd.read_csv(tmp_path / "out" / "both.csv")["search"]) == ["known", "other"]
    assert [row[:3] for row in page.rows if row[0] in ("known", "other")] == [
        ["known", A, "91.00"],
        ["other", A, "93.00"],
    ]
    assert not (one / "both.html").exists()
    with pytest.raises(ConfigError, match="two searches are called 'known'"):
        command.main(["report", str(one), str(shutil.copytree(one, tmp_path / "again" / "known"))])
    described = folders.read_json(two / folders.SEARCH)
    folders.write_json(two / folders.SEARCH, {**described, "metric": "train_acc"})
    with pytest.raises(ConfigError, match="compare by test_acc and train_acc"):
        command.main(["report", str(one), str(two), "--out", str(tmp_path / "out")])


def test_several_searches_say_what_else_differs(known: Callable[..., Path]) -> None:
    """A difference of batches would otherwise pass for one of the searches' spaces."""
    report = html_report.read(known({A: [90.0, 92.0], B: [80.0, 81.0]}))
    first = report.search.trials[0].config.dataset_sup.batch_size
    trials = tuple(
        replace(t, config=replace(t.config, dataset_sup=replace(t.config.dataset_sup, batch_size=7)))
        for t in report.search.trials
    )
    other = replace(report, search=replace(report.search, trials=trials))
    for second, says in ((other, f" Not the same in all searches: dataset_sup.batch_size ({first}, 7)."), (report, "")):
        reports = {"one": report, "two": second}
        caution = comparison._verdict(reports, comparison.table(reports)).caution
        assert (
            caution
            == f"The best of each search was chosen by these runs, and more configurations flatter it more.{says}"
        )


# -- which charts ---------------------------------------------------------------------------------------------------

RATE = "b0.layer.lr"
DOMAINS = [
    (Axis(name=RATE, kind=DomainKind.LOGUNIFORM, low=0.01, high=1.0), "log"),
    (Axis(name=RATE, kind=DomainKind.UNIFORM, low=0.01, high=1.0), "linear"),
    (Axis(name=RATE, kind=DomainKind.GRID, options=({RATE: 0.05}, {RATE: 0.1})), "linear"),
]


@pytest.mark.parametrize(("axis", "scale"), DOMAINS)
def test_a_sweep_over_one_number_is_a_curve_over_it(axis: Axis, scale: str, known: Callable[..., Path]) -> None:
    """On a logarithmic axis where the domain is one; once for a desk and once for a phone; nothing parallel."""
    folder = known({A: BOTH, C: [70.0, 71.0]})
    report = html_report.read(folder)
    space = replace(report.search.spec, axes=(axis,))
    text = html_report.page(replace(report, search=replace(report.search, spec=space)), {}, folders.Home(folder))
    page = Page(text)
    drawn = [chart for chart in page.charts if "data-scale" in chart]
    assert [chart["data-scale"] for chart in drawn] == [scale] * 2
    assert [chart["class"] for chart in drawn] == ["chart desk", "chart phone"]
    assert ("(logarithmic)" in text) == (scale == "log")
    assert 'id="parallel"' not in text


@pytest.mark.parametrize(("count", "parallel_too"), [(2, False), (3, True)])
def test_parallel_coordinates_need_three_axes(count: int, parallel_too: bool, known: Callable[..., Path]) -> None:
    report = html_report.read(known({A: BOTH, B: [70.0, 71.0], C: [60.0, 61.0]}))
    axes = [*report.search.spec.axes, grid("extra", [1, 2, 3])][:count]
    extra = {A: 1, B: 2, C: 3, D: 1}
    made = tuple(replace(t, choice={**t.choice, "extra": extra[t.label]}) for t in report.search.trials)
    search = replace(report.search, spec=replace(report.search.spec, axes=tuple(axes)), trials=made)
    drawn = report_charts.strands(replace(report, search=search))
    assert (drawn is not None) == parallel_too
    if drawn is not None:
        assert drawn[1] == ("55.00", "70.50")  # the worst mean and the best, under the colours
        assert drawn[0].count('class="strand') == 2 * 3  # a line each, for a desk and for a phone
    assert report_charts.multiples(replace(report, search=search)) is not None


def test_two_lists_in_full_are_a_table(known: Callable[..., Path]) -> None:
    full = {A: BOTH, B: [70.0, 71.0], C: [60.0, 61.0], D: [50.0, 52.0]}
    heat = report_charts.heat(html_report.read(known(full)))
    assert heat is not None
    assert (heat.columns, [name for name, _ in heat.rows]) == (POWERS, ["0.05", "0.1"])
    assert [[cell[0] for cell in cells] for _, cells in heat.rows] == [["55.00", "70.50"], ["60.50", "51.00"]]
    assert [best for _, cells in heat.rows for _, _, best in cells] == [False, True, False, False]


# -- importance and parallel coordinates ----------------------------------------------------------------------------


def grid(name: str, values: list[object]) -> Axis:
    return Axis(name=name, kind=DomainKind.GRID, options=tuple({name: value} for value in values))


def test_importance_is_the_share_of_the_variance() -> None:
    """Of a sum 3 f(a) + g(b) over a full grid the variances add: 9 to 1; c does nothing, d is never another."""
    axes = [grid("a", [0, 1, 2, 3]), grid("b", ["x", "y", "z", "w"]), grid("c", [0.1, 0.2, 0.3]), grid("d", [5])]
    effect = {"x": 0, "y": 1, "z": 2, "w": 3}
    choices = [{"a": a, "b": b, "c": c, "d": 5} for a in range(4) for b in effect for c in (0.1, 0.2, 0.3)]
    table = importance.compute(axes, choices, [3.0 * c["a"] + effect[c["b"]] for c in choices])
    shares = dict(zip(table["parameter"], table["importance"], strict=True))
    assert list(shares) == ["a", "b", "c"]
    assert shares == pytest.approx({"a": 0.9, "b": 0.1, "c": 0.0}, abs=0.03)
    assert set(table["n"]) == {48}


def test_importance_of_an_interaction_is_nobodys() -> None:
    """The product of two signs: neither explains anything by itself."""
    axes = [grid("a", [-1, 1]), grid("b", [-1, 1]), grid("c", list(range(16)))]
    choices = [{"a": a, "b": b, "c": c} for a in (-1, 1) for b in (-1, 1) for c in range(16)]
    table = importance.compute(axes, choices, [float(c["a"] * c["b"]) for c in choices])
    assert table["importance"].sum() < 0.25


def test_a_logarithmic_interval_is_judged_in_its_logarithm() -> None:
    """Uniform in the logarithm and linear in it: as important as an interval with the same range of effects."""
    axes = [
        Axis(name="a", kind=DomainKind.LOGUNIFORM, low=1e-3, high=1.0),
        Axis(name="b", kind=DomainKind.UNIFORM, low=0.0, high=1.0),
    ]
    random = np.random.default_rng(0)
    points = random.random((200, 2))
    choices = [{"a": 10 ** (3 * u - 3), "b": v} for u, v in points]
    table = importance.compute(axes, choices, [math.log10(c["a"]) / 3 + c["b"] for c in choices])
    shares = dict(zip(table["parameter"], table["importance"], strict=True))
    assert shares["a"] == pytest.approx(0.5, abs=0.1)
    assert shares["b"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("means", [[1.0] * 16, [1.0, 2.0]])
def test_what_cannot_be_judged_is_not(means: list[float]) -> None:
    axes = [grid("a", [0, 1, 2, 3]), grid("b", [0, 1, 2, 3])]
    choices = [{"a": a, "b": b} for a in range(4) for b in range(4)][: len(means)]
    assert importance.compute(axes, choices, means).empty


def test_a_domain_that_exists_in_part_is_left_out() -> None:
    axes = [grid("a", [0, 1]), grid("b", [0, 1]), grid("c", [0, 1, 2, 3])]
    choices = [{"a": a, "c": c, **({"b": b} if a else {})} for a in (0, 1) for b in (0, 1) for c in range(4)]
    table = importance.compute(axes, choices, [float(c["a"] + c["c"]) for c in choices])
    assert set(table["parameter"]) == {"a", "c"}


LOG, EVEN, LINEAR = "log", "even", "linear"
SCALES: list[tuple[Sequence[object], str, list[str]]] = [  # values, scale, ticks
    ([1, 3, 5], LINEAR, ["1", "3", "5"]),
    ([0, 0.99, 1], LINEAR, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),  # too near for ticks of their own
    ([0.001, 0.1, 10.0], LOG, ["0.001", "0.1", "10"]),
    ([0.5, 1, 2], LOG, ["0.5", "1", "2"]),
    ([32, 64, 128, 256], LOG, ["32", "64", "128", "256"]),
    ([1, 2, 3, 4, 5], LINEAR, ["1", "2", "3", "4", "5"]),
    ([0, 0.001, 0.01, 0.1], EVEN, ["0", "0.001", "0.01", "0.1"]),
    (["soft", "hard"], EVEN, ["hard", "soft"]),
    ([3, None, 1], LINEAR, ["-", "1", "3"]),
    (["soft", None, 2], EVEN, ["-", "2", "soft"]),
    ([True, False], EVEN, ["False", "True"]),
    ([7], EVEN, ["7"]),
]


@pytest.mark.parametrize(("values", "kind", "ticks"), SCALES)
def test_scales(values: Sequence[object], kind: str, ticks: list[str]) -> None:
    """The kind fits the values, the ticks stand at real ones, and places keep the order."""
    scale = scales.of_values(values)
    assert (scale.kind, [tick.text for tick in scale.ticks]) == (kind, ticks)
    places = [scale.at(value) for value in values]
    assert all(0 <= place <= 1 for place in places)
    assert len(set(places)) == len(values)
    assert [tick.place for tick in scale.ticks] == sorted(tick.place for tick in scale.ticks)


def test_places_on_the_axes() -> None:
    assert [scales.of_values([1, 3, 5]).at(v) for v in (1, 3, 5)] == [0, 0.5, 1]
    assert scales.of_values([0.001, 0.1, 10.0]).at(0.1) == pytest.approx(0.5)
    assert scales.of_values([3, None, 1]).at(None) == 0 < scales.of_values([3, None, 1]).at(1)
    joint = Axis(name="both", kind=DomainKind.JOINT, options=({"a": 1, "b": 2}, {"a": 3, "b": 4}))
    frame = parallel.compute([joint, grid("d", [5])], [{"a": 1, "b": 2, "d": 5}, {"a": 3, "b": 4, "d": 5}], [1, 2], "m")
    assert list(frame.columns) == ["both", "m"]  # d is never another
    assert list(frame["both"]) == ["1, 2", "3, 4"]


# -- the browser --------------------------------------------------------------------------------------------------

WIDTHS = [360, 1280]
MEASURE = """<!doctype html><body style="margin:0">{frames}<pre id="out"></pre><script>
onload = () => {{
  const seen = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, root = page.documentElement;
    const pictures = [...page.images].map(i => i.complete ? i.naturalWidth : 0);
    const font = page.defaultView.getComputedStyle(page.body).fontSize;
    const rows = () => [...page.querySelectorAll("table.sorted tbody tr")];
    const right = Math.max(...rows().flatMap(row => [...row.cells].map(cell => cell.getBoundingClientRect().right)));
    const charts = [...page.querySelectorAll("figure svg.chart")].filter(svg => svg.getBoundingClientRect().width);
    page.querySelector("table.sorted th.number:nth-child(2)").click();
    const sorted = rows().map(row => row.cells[1].textContent);
    return {{wide: root.scrollWidth, seen: root.clientWidth, pictures, font, right, sorted,
             charts: charts.map(svg => svg.getAttribute("class"))}};
  }});
  document.getElementById("out").textContent = JSON.stringify(seen);
}};
</script></body>"""


def test_a_browser_shows_it_on_a_phone_and_on_a_desk(page: Path, tmp_path: Path) -> None:
    """Nothing is cut off at the side, every picture is decoded, the style is taken, the table sorts; no network."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium here to open the page in")
    frames = "".join(
        f'<iframe src="{page.as_uri()}" style="border:0;width:{width}px;height:900px"></iframe>' for width in WIDTHS
    )
    outside = tmp_path / "frames.html"
    outside.write_text(MEASURE.format(frames=frames))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    flags += ["--allow-file-access-from-files", "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=9000"]
    done = subprocess.run(
        [browser, *flags, f"--user-data-dir={tmp_path}/profile", "--dump-dom", outside.as_uri()],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    (text,) = re.findall(r'<pre id="out">(.*?)</pre>', done.stdout)
    for width, seen in zip(WIDTHS, json.loads(text), strict=True):
        assert seen["seen"] == seen["wide"] == width
        assert seen["right"] <= width
        assert len(seen["pictures"]) == 1
        assert set(seen["charts"]) == {"chart phone" if width == 360 else "chart desk"}
        assert seen["sorted"] == ["0.1", "0.1", "0.05", "0.05"]
        assert min(seen["pictures"]) > 0
        assert seen["font"] == "16px"
