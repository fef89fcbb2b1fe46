"""What the pages conclude from numbers follows from the numbers beside it.

Without it a page keeps saying which of two is better after its numbers have changed, or when they were equal all along.
A sentence that compares measurements needs a line in ``CLAIMS``.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable

import pytest
from conftest import ROOT

PAGES = ("README.md", "search_configs/README.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(r"^```\w*[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?"
MEASURED = re.compile(rf"{NUMBER}(?: %| s\b| ms\b| GB\b| points)")
COMPARES = re.compile(
    r"\b(wins|won|better|worse|best|beats?|faster|slower|higher|lower|more|less|fewer|reach(es)?|ahead)\b"
)

Numbers = tuple[float, ...]
CLAIMS: list[tuple[str, str, Callable[[Numbers], bool]]] = [
    ("docs/speed.md", r"one by one are faster: .* # s as a pack and # s one after the other", lambda n: n[1] < n[0]),
    ("docs/speed.md", r": # s \| (?:the published code: )?# s \(computed[^|]*\) \| # \|", lambda n: is_ratio(n)),
    ("docs/methods.md", r"reaches # %, where the random network .* reaches # %", lambda n: n[0] > n[1]),
]
"""Page, sentence with # for its numbers, and whether they bear it out."""


def is_ratio(numbers: Numbers) -> bool:
    """Ours, theirs, and how many times as fast ours is."""
    ours, theirs, times = numbers
    return abs(theirs / ours - times) < 0.05


def paragraphs(page: str) -> list[str]:
    """The prose and the table lines of a page, each paragraph in one line, without its code blocks."""
    text = BLOCK.sub("\n\n", (ROOT / page).read_text(encoding="utf-8"))
    lines = re.sub(r"^(\||\d+\. |- )", r"\n\n\1", text, flags=re.MULTILINE)
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", lines) if part.strip()]


def sentences(page: str) -> list[str]:
    """The sentences of the prose; rows of tables and notes are compared by tests of their own."""
    prose = [part for part in paragraphs(page) if not re.match(r"\||\d+\. ", part)]
    return [sentence for part in prose for sentence in re.split(r"(?<=\.) (?=[A-Z`\[])", part)]


def pattern(claim: str) -> re.Pattern[str]:
    return re.compile(claim.replace("#", f"({NUMBER})"))


# -- tables with a winner ---------------------------------------------------------------------------------------


def follows(text: str) -> bool:
    """Whether the winner of a block has the largest mean of its table, and those tied with it have the same."""
    means = {m[1]: float(m[2]) for m in re.finditer(rf"^(\S+) +\d+ +({NUMBER})\b", text, re.MULTILINE)}
    named = re.findall(r"^(?:winner|tied with): (\S+)", text, re.MULTILINE)
    top = max(means.values(), default=None)
    return {name for name, mean in means.items() if mean == top} == set(named)


@pytest.mark.parametrize("page", PAGES)
def test_a_winner_has_the_largest_mean(page: str) -> None:
    for text in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        if re.search(r"^winner: ", text, re.MULTILINE):
            assert follows(text), text


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("a=0 1 94.43 0.2\na=2 1 94.43 0.2\nwinner: a=2\n", False),
        ("a=0 1 94.43 0.2\na=2 1 94.43 0.2\nwinner: a=0\ntied with: a=2 (the same mean)\n", True),
        ("a=0 1 94.43 0.2\na=2 1 95.12 0.2\nwinner: a=0\n", False),
        ("a=0 1 94.43 0.2\na=2 1 95.12 0.2\nwinner: a=2\n", True),
        ("winner: a=2\n", False),
    ],
)
def test_a_tie_is_told_from_a_winner(text: str, right: bool) -> None:
    assert follows(text) is right


# -- sentences that compare ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "claim", "holds"), CLAIMS, ids=[claim for _, claim, _ in CLAIMS])
def test_a_claim_follows_from_its_numbers(page: str, claim: str, holds: Callable[[Numbers], bool]) -> None:
    matches = [match for part in paragraphs(page) if (match := pattern(claim).search(part))]
    assert matches, f"{page} does not say so any more"
    assert all(holds(tuple(float(text.replace(",", "")) for text in match.groups())) for match in matches)


@pytest.mark.parametrize("page", PAGES)
def test_every_sentence_that_compares_measurements_is_a_claim(page: str) -> None:
    own = [pattern(claim) for of, claim, _ in CLAIMS if of == page]
    comparing = [s for s in sentences(page) if COMPARES.search(s) and len(MEASURED.findall(s)) > 1]
    assert [s for s in comparing if not any(claim.search(s) for claim in own)] == []


# -- the tables of the evidence --------------------------------------------------------------------------------------

CELL = rf"({NUMBER})(?: ± ({NUMBER}))?"
ROW = re.compile(rf"^\| .* \| {CELL}(?: \(n \d+\))?(?: \| [^|]*)?? \| {CELL} \| \d+ \| ({NUMBER})(?: \((\d+)\))? \|")


TABLES = {"README.md": 10, "docs/evidence.md": 30}
"""Pages with a table of the evidence, and the least number of its rows."""


def rows(page: str) -> list[re.Match[str]]:
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    return [match for line in lines if (match := ROW.match(line))]


@pytest.mark.parametrize("page", TABLES)
def test_the_differences_of_the_table_are_those_of_its_numbers(page: str) -> None:
    """Up to the last digit, since all three are rounded."""
    assert len(rows(page)) >= TABLES[page]
    for row in rows(page):
        assert float(row[5]) == pytest.approx(float(row[3]) - float(row[1]), abs=0.011), row[0]


@pytest.mark.parametrize("page", TABLES)
def test_the_notes_of_the_table_follow_from_its_rows(page: str) -> None:
    """A note that calls a difference larger or smaller than a deviation names that deviation."""
    notes = dict(re.findall(r"^(\d+)\. (.*)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE))
    checked = []
    for row in (row for row in rows(page) if row[6]):
        note, gap = notes[row[6]], abs(float(row[5]))
        claim = re.search(r"(less|more) than (a third of )?(?:the deviation of our|one of ours).*?\((\d\.\d+)\)", note)
        if claim:
            assert claim[3] == row[4], note
            limit = float(claim[3]) / (3 if claim[2] else 1)
            assert gap < limit if claim[1] == "less" else gap > limit, note
            checked.append(note)
        if points := re.match(r"(\d\.\d+) points more than the published deviation", note):
            assert gap - float(row[2]) == pytest.approx(float(points[1]), abs=0.011), note
            checked.append(note)
    compared = [note for note in notes.values() if re.search(r"(less|more) than .*deviation", note)]
    assert set(compared) <= set(checked)
    assert compared


# -- samplers ---------------------------------------------------------------------------------------------------

SAMPLERS = "records/2026-11-29-samplers"


@pytest.mark.parametrize("page", ["docs/searches.md", f"{SAMPLERS}/README.md"])
def test_the_numbers_of_the_samplers_are_those_of_the_record(page: str) -> None:
    """And the paired differences are what the pages conclude from."""
    results = json.loads((ROOT / SAMPLERS / "samplers.json").read_text())["results"]
    rows = {(row["space"], row["points"], row["sampler"]): row for row in results}
    names = ("random", "tpe", "tpe one by one", "tpe in groups", "gp")
    text = (ROOT / page).read_text(encoding="utf-8")
    for space, points in (("conditional", 60), ("conditional", 120), ("plain", 60)):
        found = [rows.get((space, points, name)) for name in names]
        cells = ["" if row is None else f"{row['mean']:.2f} ({row['error']:.2f})" for row in found]
        assert f"| {space} | {points} | {' | '.join(cells).strip()} |" in text
    differences = {key: difference(rows[key]["each"], rows[*key[:2], "tpe"]["each"]) for key in rows}
    assert all(mean > 1.9 * error for (_, _, name), (mean, error) in differences.items() if name == "random")
    for (space, _, name), (mean, error) in differences.items():
        assert space == "plain" or name not in names[2:4] or abs(mean) < 1.5 * error
    assert differences["plain", 60, "tpe one by one"] == pytest.approx((0.48, 0.16), abs=0.005)
    assert differences["plain", 60, "tpe in groups"] == (0, 0)


def difference(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """Mean and standard error of what the seeds differ by."""
    pairs = [a - b for a, b in zip(ours, theirs, strict=True)]
    return statistics.mean(pairs), statistics.stdev(pairs) / len(pairs) ** 0.5
