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
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small
import stored_runs

from hebb.analysis import importance, parallel
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
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.words += data
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
    """n, mean, deviation and Student's interval (t(0.975, 1) = 12.706205, any table), best first, incomplete last."""
    lines = [row for row in Page(page.read_text()).rows if row[0].startswith("b0.")]
    by_hand = reached(folder)
    assert {line[0] for line in lines} == set(by_hand)
    assert sorted(len(values) for values in by_hand.values()) == [1, 2, 2, 2]
    for name, n, mean, sd, interval, _ in lines:
        values = by_hand[name]
        middle = sum(values) / len(values)
        assert n == str(len(values))
        assert float(mean) == pytest.approx(middle, abs=0.005001)
        if len(values) == 1:
            assert (sd, interval) == ("-", "-")
            continue
        deviation = abs(values[0] - values[1]) / math.sqrt(2)
        half = 12.706205 * deviation / math.sqrt(2)
        assert float(sd) == pytest.approx(deviation, abs=0.005001)
        low, high = map(float, interval.split(" to "))
        assert (low, high) == pytest.approx((middle - half, middle + half), abs=0.00501)
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
    assert "7 of 8 finished, seeds 0 1" in words
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
