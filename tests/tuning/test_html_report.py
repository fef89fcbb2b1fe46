"""The page of a search: its numbers by hand, its importance by theory, its looks in a real browser.

Without it the report could rank configurations or importances wrongly.
"""

from __future__ import annotations

import base64
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small
import stored_runs

from hebb.analysis import importance, parallel
from hebb.cli import search_display
from hebb.cli.analysis import command
from hebb.config.domains import Axis
from hebb.config.vocabulary import DomainKind
from hebb.core.errors import ConfigError
from hebb.storage import folders
from hebb.tuning import html_report

RATES, POWERS = [0.05, 0.1], ["triangle", "triangle_2"]
EVIL = "<script>alert('x')</script> & \"more\""
LEAST = 4


class Page(HTMLParser):
    """Tags with their attributes, and the cells of every row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.words = ""
        self.bold = ""
        self._in_bold = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
            self._in_bold = dict(attrs).get("class") == "best"
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._in_bold and len(self.rows[-1]) == 1:
            self.bold += data.strip()
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
    lines = [row for row in Page(page.read_text()).rows if row[0].startswith("b0.")]
    by_hand = reached(folder)
    assert {line[0] for line in lines} == set(by_hand)
    assert sorted(len(values) for values in by_hand.values()) == [1, 2, 2, 2]
    for name, n, mean, sd, seeds, _ in lines:
        values = by_hand[name]
        middle = sum(values) / len(values)
        assert n == str(len(values))
        assert float(mean) == pytest.approx(middle, abs=0.005001)
        if len(values) == 1:
            assert (sd, seeds) == ("-", "-")
            continue
        deviation = abs(values[0] - values[1]) / math.sqrt(2)
        assert float(sd) == pytest.approx(deviation, abs=0.005001)
        assert [float(text) for text in seeds.split(", ")] == pytest.approx(values, abs=0.005001)
    assert [line[1] for line in lines] == ["2", "2", "2", "1"]
    means = [float(line[2]) for line in lines[:3]]
    assert means == sorted(means, reverse=True)
    csv = pd.read_csv(folder / "report.csv")
    assert dict(zip(csv["configuration"], csv["mean"], strict=True)) == pytest.approx(
        {name: sum(values) / len(values) for name, values in by_hand.items()}
    )


def test_one_file_without_a_network(page: Path, folder: Path) -> None:
    text = page.read_text()
    html = Page(text)
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in html.tags}
    sources = [attributes["src"] or "" for tag, attributes in html.tags if tag == "img"]
    kinds = [source.partition(";")[0] for source in sources]
    assert kinds == ["data:image/svg+xml"] * 3 + ["data:image/png"]  # curves, parallel, importance; filters
    assert all(attributes.get("alt") for tag, attributes in html.tags if tag == "img")
    assert not re.search(r"""\b(src|href)\s*=\s*["'](?!data:)""", text)
    assert "url(" not in text
    assert len(text) < 1_000_000
    drawn = base64.b64decode(sources[0].partition(",")[2]).decode()
    assert "<svg" in drawn
    assert sorted(p.name for p in folder.iterdir() if p.is_file()) == ["report.csv", "report.html", "search.json"]


def test_what_others_wrote_is_escaped(page: Path) -> None:
    assert EVIL in Page(page.read_text()).words
    assert "<script" not in page.read_text()


def test_facts_and_commands(page: Path, folder: Path) -> None:
    words = Page(page.read_text()).words
    assert "7 of 8 finished, seeds 0 1; not complete: 1 never started" in words
    assert "python ray_search.py --space 'b0.layer.lr={grid: [0.05, 0.1]}'" in words
    assert f"hebb search --restore {folder}" in words
    (config,) = re.findall(r"hebb train --run-config (\S+) --model-name again", words)
    best = max(reached(folder).items(), key=lambda item: (len(item[1]), sum(item[1])))[0]
    stored = json.loads(Path(config).read_text())
    assert str(stored["network"]["blocks"][0]["layer"]["lr"]) in best
    assert f"First layer of {best}" in words


def test_filters_are_those_of_the_best(page: Path, folder: Path) -> None:
    """The picture is the one that the run left for TensorBoard."""
    read = html_report.read(folder)
    (shown,) = (a["src"] for tag, a in Page(page.read_text()).tags if a.get("class") == "filters")
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
    with pytest.raises(ConfigError, match="holds no search"):
        command.main(["report", str(tmp_path)])


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
    return Page(html_report.page(html_report.read(folder), {}))


def black_line(report: html_report.SearchReport) -> tuple[object, ...]:
    """The values of the configuration that the parallel coordinates draw as a thick black line, read off the figure."""
    axes, choices, means = html_report._points(report.search, report.ranking)
    frame = parallel.compute(axes, choices, means, report.search.metric)
    (panel,) = parallel.draw(frame, report.search.mode, len(report.leading)).axes
    (line,) = (line for line in panel.lines if line.get_color() == "black" and line.get_linewidth() == 2)
    ticks = [dict(parallel.heights(list(frame[column]))[1]) for column in frame.columns[:-1]]
    return tuple(tick[height] for tick, height in zip(ticks, line.get_ydata(), strict=False))


TIES = [  # better, accuracies, the bold row, those tied with it
    ("max", {A: [90.0, 91.0], B: [80.0, 80.0], C: [91.0, 90.0], D: [85.0, 85.0]}, A, [C]),
    ("max", {A: [10.0, 10.0], B: [90.5, 90.5], C: [91.0, 90.0], D: [90.0, 91.0]}, B, [C, D]),
    ("min", {A: [90.0, 91.0], B: [80.0, 80.0], C: [79.0, 81.0], D: [85.0, 85.0]}, B, [C]),
    ("max", {A: [99.0], B: [90.0, 90.0], C: [90.0, 90.0], D: [99.0]}, B, [C]),
    ("max", {A: [50.0, 50.0], B: [50.0, 50.0], C: [50.0, 50.0], D: [50.0, 50.0]}, A, [B, C, D]),
    ("max", {A: [50.0, 51.0], B: [60.0, 60.0], C: [50.0, 50.0], D: [40.0, 50.0]}, B, []),
]


@pytest.mark.parametrize(("mode", "accuracies", "bold", "tied"), TIES)
def test_the_black_line_is_the_bold_row_and_ties_are_named(
    mode: str, accuracies: dict[str, list[float]], bold: str, tied: list[str], known: Callable[..., Path]
) -> None:
    folder = known(accuracies, mode=mode)
    report, page = html_report.read(folder), read_page(folder)
    assert next(row[0] for row in page.rows if row[0].startswith("b0.")) == bold
    assert page.bold == bold
    assert black_line(report) == tuple(word.partition("=")[2] for word in bold.split())
    assert (f"{bold} is tied with {'; '.join(tied)}: the same mean" in page.words) == bool(tied)
    assert ("those tied with it are dashed" in page.words) == bool(tied)
    assert report.best.label == bold


def test_nothing_is_bold_where_no_configuration_is_complete(known: Callable[..., Path]) -> None:
    page = read_page(known({A: [90.0], B: [91.0]}))
    assert page.bold == ""
    assert "No configuration has finished on every seed, so none is marked as the best." in page.words
    assert "is black" not in page.words


ASHA = {"name": "asha", "grace": 1, "reduction": 3}
BOTH = [50.0, 60.0]
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


@pytest.mark.parametrize(("accuracies", "left"), [({A: BOTH, B: BOTH, C: BOTH, D: BOTH}, False), ({A: BOTH}, True)])
def test_a_complete_search_offers_nothing_to_continue(
    accuracies: dict[str, list[float]], left: bool, known: Callable[..., Path]
) -> None:
    commands = search_display.commands(html_report.read(known(accuracies)))
    assert ("what is left of it" in commands) is left


def test_the_curves_say_that_there_are_more(known: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """On the page and in the picture, which may be saved without it."""
    folder = known({A: [50.0, 51.0], B: [60.0, 60.0], C: [50.0, 50.0], D: [40.0, 50.0]})
    assert html_report.curves_shown(html_report.read(folder)) == ""
    monkeypatch.setattr(html_report, "CURVES", 2)
    report = html_report.read(folder)
    text = "2 of 4 configurations, the best by test accuracy (%)"
    assert f"{text}." in read_page(folder).words
    drawn: list[str] = []
    draw = html_report.curves.draw
    monkeypatch.setattr(html_report.curves, "draw", lambda frame, title: drawn.append(title) or draw(frame, title))
    html_report.pictures(report)
    assert drawn == [text]
    assert set(html_report._curves(report)["curve"]) == {B, A}


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


def test_places_on_the_axes() -> None:
    assert parallel.heights([1, 3, 5])[0] == [0, 0.5, 1]
    assert [text for _, text in parallel.heights([0, 0.99, 1])[1]] == ["0", "0.25", "0.5", "0.75", "1"]  # apart
    assert parallel.heights([0.001, 0.1, 10.0])[0] == pytest.approx([0, 0.5, 1])  # over more than a decade
    places, ticks = parallel.heights(["soft", None, "hard"])
    assert ticks == [(0.0, "-"), (0.5, "hard"), (1.0, "soft")]
    assert places == [1.0, 0.0, 0.5]
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
    return {{wide: root.scrollWidth, seen: root.clientWidth, pictures, font}};
  }});
  document.getElementById("out").textContent = JSON.stringify(seen);
}};
</script></body>"""


def test_a_browser_shows_it_on_a_phone_and_on_a_desk(page: Path, tmp_path: Path) -> None:
    """The page does not scroll sideways, every picture is decoded, the style is taken; without a network."""
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
        assert len(seen["pictures"]) == 4
        assert min(seen["pictures"]) > 0
        assert seen["font"] == "16px"
