"""The pages do what they say: commands are run, outputs compared; pages and pictures made from the code are the code's.

A block ``bash`` is run line by line in one folder for each page (``bash fails``: it ends with exit code 2); a block
whose first line names a file is saved under that name; every line of a block ``console`` must be printed by the block
before it, with numbers of its own, and a conclusion (``winner: ...``) to the letter; ``sh`` needs a cluster, and what
it searches is resolved. ``text`` is text.

Without it the tutorial would go stale with the first renamed flag.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import notebooks
import pytest
from conftest import ROOT

import hebb
from hebb.cli import search, train, verbs
from hebb.config import plugins, rule
from hebb.config.fields import LayerFields
from hebb.config.registry import DATASETS, RULES
from hebb.core.errors import HebbError

sys.path.insert(0, str(ROOT / "docs"))
import check_links
import draw_architecture
import write_rules

DOCS = ROOT / "docs"
FOLDERS = ("docs", "tests", "benchmarks", "records", "figures", "search_configs", "cluster")
LINKING = (
    "README.md",
    "CONTRIBUTING.md",
    *(str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / folder).rglob("*.md")),
)
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
SCRIPTS = {"multi_layer.py": "train", "ray_search.py": "search"}
"""The scripts that train, by the verb of ``hebb`` that does the same."""
LONG = ("own-rule.md", "python.md")
"""Pages with a search of minutes; ``make slow`` runs them."""
SMALL = ("--threads", "1", "--device", "cpu")
BLOCK = re.compile(r"^```(\w+) ?(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?")
CONCLUSIONS = ("winner:", "tied with:", "no winner:")
"""How lines begin that say what follows from the numbers."""
Block = tuple[str, str, str]


def blocks(page: str) -> list[Block]:
    """Kind, rest of the first line, and content of every block."""
    return BLOCK.findall((DOCS / page).read_text())


def headings(page: Path) -> set[str]:
    """The anchors of a page, made from its headings as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def alike(line: str) -> str:
    """A line in which numbers and spaces are all the same; the numbers of a conclusion say what it is about."""
    if line.startswith(CONCLUSIONS):
        return " ".join(line.split())
    return " ".join(NUMBER.sub("#", line).split())


@pytest.fixture
def registries() -> Iterator[None]:
    """Forget the plugins of a page."""
    stored = [(found, dict(found)) for found in (RULES._entries, DATASETS._entries, plugins._LOADED)]
    yield
    for found, entries in stored:
        found.clear()
        found.update(entries)


def execute(line: str, folder: Path) -> int:
    """Run one line; our commands in this process, which knows one Ray."""
    words = shlex.split(line)
    if words[0] != "hebb" and words[1] not in SCRIPTS:
        assert words[0] == "python"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
        print(done.stdout)
        return done.returncode
    verb = words[1] if words[0] == "hebb" else SCRIPTS[words[1]]
    trains = verb in SCRIPTS.values() and not {"--list", "--run-config", "--evaluate"} & {*words}
    more = SMALL if trains else ()
    if verb == "search" and more and "--restore" not in words:
        more = (*more, "--workers", "1")  # which starts in half the time of two
    try:
        return verbs.main([verb, *words[2:], *more])
    except HebbError as error:
        print(error)
        return error.exit_code


@pytest.mark.ray
@pytest.mark.usefixtures("registries", "one_ray")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page in LONG else [])
        for page in PAGES
        if any(kind == "bash" for kind, *_ in blocks(page))
    ],
)
def test_the_commands_of_a_page_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEBB_HOME", raising=False)
    monkeypatch.delenv("HEBB_DATASETS", raising=False)
    printed = ""
    for kind, rest, text in blocks(page):
        if kind == "bash":
            codes = {line: execute(line, tmp_path) for line in text.splitlines()}
            printed = capsys.readouterr().out
            assert set(codes.values()) == {2 if rest == "fails" else 0}, f"{codes}\n{printed}"
        elif kind == "console":
            shown = {alike(line) for line in printed.splitlines()}
            assert [line for line in text.splitlines() if alike(line) not in shown] == [], printed
        elif rest:
            (tmp_path / rest).write_text(text)


@pytest.mark.parametrize("page", PAGES)
def test_what_needs_a_cluster_is_understood(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, _, text in blocks(page):
        for line in text.splitlines() if kind == "sh" else ():
            words = shlex.split(line)
            if words[0] == "sbatch":
                assert (ROOT / words[1]).exists()
            elif "ray_search.py" not in words:
                continue
            words = words[2:]
            if "--restore" not in words:
                assert search.main([*words, "--dry-run"]) == 0
                assert "trials" in capsys.readouterr().out


@pytest.mark.parametrize("page", LINKING)
def test_links_lead_somewhere(page: str) -> None:
    """A page that was moved or a heading that was renamed would leave readers at a dead end."""
    for path, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", (ROOT / page).read_text()):
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), path
        assert not heading or heading in headings(target), f"{path}#{heading}"


def test_the_tutorial_lists_every_page() -> None:
    """The site makes its table of contents from these lists."""
    listed = re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "README.md").read_text())
    assert sorted([*listed, "README.md"]) == PAGES


def test_the_rule_of_the_tutorial_is_twenty_lines() -> None:
    (code,) = (text for kind, rest, text in blocks("own-rule.md") if rest == "confident.py")
    assert len([line for line in code.splitlines() if line.strip()]) <= 20


def test_the_names_that_a_layer_reads_are_listed() -> None:
    text = (DOCS / "own-rule.md").read_text().partition("<!-- names that the layer reads -->")[2]
    names = text.partition("<!-- /names -->")[0]
    assert re.findall("`([a-z_]+)`", names) == list(LayerFields.__annotations__)


# -- the site --------------------------------------------------------------------------------------------------


@pytest.mark.ray
def test_a_notebook_runs_the_public_interface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel has an event loop and a display of its own, which a script does not; ``make docs`` runs the others."""
    for package in ("nbclient", "nbformat", "ipykernel"):
        pytest.importorskip(package, reason="the extra 'test' installs it")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    code = notebooks.cells(DOCS / "gallery" / "interface.md")
    assert {name for name in hebb.__all__ if f"hebb.{name}" in "\n".join(code)} == {*hebb.__all__} - {"__version__"}
    outputs = notebooks.run(code, tmp_path)
    tables = [output for output in outputs if "<table" in output.get("data", {}).get("text/html", "")]
    assert len(tables) == 2
    assert notebooks.errors(outputs) == []


def test_the_public_names_are_documented() -> None:
    text = "\n".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    documented = re.findall(r"^\.\. auto(?:function|class|exception):: hebb\.(\w+)$", text, re.MULTILINE)
    assert sorted(documented) == sorted({*hebb.__all__} - {"__version__"})


def test_every_part_of_a_rule_is_documented() -> None:
    """Else the site refuses to be built: its pages refer to them."""
    text = (DOCS / "api" / "rules.md").read_text()
    kinds = [name for name, kind in vars(rule).items() if isinstance(kind, type) and kind.__module__ == rule.__name__]
    assert [
        name for name in kinds if not re.search(rf"autoclass:: hebb\.(config\.rule\.)?{name}$", text, re.MULTILINE)
    ] == []


def test_every_page_is_listed_in_the_index_of_its_folder() -> None:
    """The table of contents of the site is made from these lists."""
    for index in DOCS.glob("*/README.md"):
        listed = re.findall(r"\]\(([\w-]+\.md)\)", index.read_text())
        pages = sorted(path.name for path in index.parent.glob("*.md") if path != index)
        assert sorted(set(listed) & set(pages)) == pages, index


def test_the_picture_of_the_floors_is_that_of_the_code() -> None:
    """``python docs/draw_architecture.py`` draws it anew."""
    assert draw_architecture.PAGE.read_text() == draw_architecture.picture(), "python docs/draw_architecture.py"


def test_a_link_of_the_site_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.html").write_text(
        '<a href="../c.html#there">x</a><a href="#me"></a><p id="me"><img src="d.png">'
    )
    (tmp_path / "c.html").write_text(
        '<p id="there"><a href="a/b.html#nowhere"></a><a href="e.html"></a><a href="https://x.org/y">y</a>'
        '<a href="https://localhost/y">y</a>'
    )
    assert check_links.broken(tmp_path) == [
        "a/b.html: d.png",
        "c.html: a/b.html#nowhere",
        "c.html: e.html",
        "c.html: https://localhost/y",
    ]


# -- pages of the rules ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return write_rules.pages()


def test_the_pages_of_the_rules_are_those_of_the_code(pages: dict[str, str]) -> None:
    """``python docs/write_rules.py`` writes them anew."""
    stored = {path.name: path.read_text() for path in (DOCS / "rules").glob("*.md")}
    stale = [name for name in {**stored, **pages} if stored.get(name) != pages.get(name)]
    assert stale == [], "python docs/write_rules.py"
    assert (DOCS / "paths.md").read_text() == write_rules.paths_page(), "python docs/write_rules.py"


@pytest.mark.parametrize("name", RULES.names())
def test_equations_name_what_the_table_of_fields_has(name: str, pages: dict[str, str]) -> None:
    """A p, a bias or a response only where the rule has one; a gradient where one is announced."""
    equations, table = pages[f"{name}.md"].split("## Fields")
    if isinstance(RULES.get(name, "test"), rule.HebbianRule):
        opening = equations.partition("```text\ny  = signal")[0]
        for words, field in (("(p-1)", "lebesgue_p"), ("+ bias", "add_bias"), ("by `response`", "response")):
            assert (words in opening) == (f"| `{field}` |" in table), field
    announced = "The whole, and the gradient" in equations
    assert announced == ("The whole" in equations and re.search(r"^ +d\w+/d[uz]", equations, re.MULTILINE) is not None)


@pytest.mark.parametrize("name", RULES.names())
def test_a_rule_has_equations_source_and_a_network(
    name: str, pages: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    text, rule = pages[f"{name}.md"], RULES.get(name, "test")
    assert rule.source in text
    (equations,) = re.findall(r"## Equations\n(.*?)\n## Fields", text, re.DOTALL)
    assert re.search(r"(=|<-|\+=)", equations)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (DOCS / "rules" / target).exists(), target
    fields = {entry.token for entry in rule.own_fields if entry.token}
    assert all(f"| `{token}` |" in text for token in fields)
    (line,) = re.findall(r"```bash\n(.*?)\n```", text)
    assert train.main(shlex.split(line)[2:]) == 0
    assert name in capsys.readouterr().out
