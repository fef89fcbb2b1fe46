"""The pages for those who come from another code base: each line of "ours" is run, each name of "theirs" is there.

A page of ``docs/coming-from/`` is tables (theirs | ours | what is different) and a session. The session is run first,
on Digits. Then every code span of the column "ours" is taken for what it is, one of ``KINDS``, and tried: a command is
run, a flag parsed, a value set, a name looked up, an expression evaluated, a path opened. What is none of them fails.

The published READMEs are read where they are (``SEEDS``): every command, flag, class and file in them must be on the
page.

Without it a renamed flag or preset would leave newcomers with a table of things that no longer exist.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import io
import os
import pkgutil
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import ROOT
from test_docs import BLOCK, alike

from hebb.analysis import recipes
from hebb.cli import demo, post_hoc, search, train, verbs
from hebb.cli.analysis import command as analysis
from hebb.config import catalog
from hebb.config.registry import RULES
from hebb.core.errors import HebbError
from hebb.storage import folders, records

DOCS = ROOT / "docs" / "coming-from"
SEEDS = Path(os.environ.get("HEBB_SEEDS", ROOT.parent / "shared" / "seeds"))
CATALOG = catalog.load()
SCRIPTS = {"multi_layer.py": train, "ray_search.py": search, "post_hoc_loss.py": post_hoc}

MAINS = {"analysis.py": analysis.main, **{script: module.main for script, module in SCRIPTS.items()}}

# -- what stands for the real thing -----------------------------------------------------------------------------

SMALL = {  # what takes minutes or a download, and what the session runs instead
    "2SoftHebbCnnCIFAR": "2SoftHebbCnnDigits",
    "2KrotovCnnCIFAR": "2KrotovCnnDigits",
    "CIFAR10": "Digits_1",
    "CIFAR10_1": "Digits_1",
    "CIFAR10_50": "Digits_1",
    "9LPLVggCIFAR": "3LPLCnnDigits",
    "CIFAR10_lpl": "Digits_lpl",
    "CIFAR10_lplprobe": "Digits_1",
    "2CorInfoMaxMNIST": "2CorInfoMaxDigits",
    "MNIST_settle": "Digits_settle",
    "b*.layer.warmup=2": "b*.layer.warmup=1",
    "dataset_unsup.epochs=40": "",  # of which ``FEW`` has fewer
    "dataset_sup.epochs=5": "",
}
CPU = ("--device", "cpu")
LESS = ("samples=200", "epochs=2")
FEW = ("--set", *(f"dataset_{half}.{less}" for half in ("sup", "unsup") for less in LESS), "--threads", "1", *CPU)
RUN_ELSEWHERE = ("toy", "stdp", "spiking", "figures")  # by spiking/ and cli/test_recipes.py: only parsed
STORED = ("--resume", "--resume-run", "--evaluate")  # about a stored run: only parsed
AFTER_A_SEARCH = ("results.csv", "report.html")  # files of a finished search, which no session has
PROGRAMS = ("python", "hebb", "pip", "make", "conda", "tensorboard", "ssh")


class Base(NamedTuple):
    """The run that the flags and values of a page change, and the model that its session stores."""

    preset: str
    data: str
    model: str


BASES = {
    "biopytorch": Base("2KrotovCnnCIFAR", "CIFAR10_1", "krotov"),
    "corinfomax": Base("2CorInfoMaxMNIST", "MNIST_settle", "corinfomax"),
    "lpl": Base("9LPLVggCIFAR", "CIFAR10_lpl", "lpl"),
    "softhebb": Base("2SoftHebbCnnCIFAR", "CIFAR10_1", "soft"),
}
every_page = pytest.mark.parametrize("page", BASES)


# -- reading a page ---------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A line of a table: its three cells, and the script that the head of "ours" names."""

    theirs: str
    ours: str
    different: str
    script: str | None


@dataclass(frozen=True)
class Session:
    """What the session of a page left: the folder, the names of its Python, and what differed from the page."""

    page: str
    folder: Path
    names: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def base(self) -> Base:
        return BASES[self.page]


@cache
def text(page: str) -> str:
    return (DOCS / f"{page}.md").read_text()


def spans(part: str) -> list[str]:
    """The code spans of a part of a page."""
    return re.findall(r"`([^`]+)`", part)


@cache
def rows(page: str) -> list[Row]:
    """Every line of the page's tables."""
    lines: list[Row] = []
    script: str | None = None
    for line in BLOCK.sub("", text(page)).splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]] if line.startswith("| ") else []
        if cells and cells[1].startswith("ours"):
            script = next(iter(spans(cells[1])), None)
        elif cells:
            lines.append(Row(*cells, script))
    return lines


def commands(page: str) -> set[tuple[str, ...]]:
    """Every command on a page, split into words; braces stand for one command for each place in them."""
    lines = [
        line for kind, _, content in BLOCK.findall(text(page)) if kind != "python" for line in content.splitlines()
    ]
    lines += [line for span in spans(text(page)) if span.startswith("python ") for line in in_step(span)]
    return {tuple(shlex.split(line)) for line in lines if line.startswith("python ")}


def in_step(span: str) -> list[str]:
    """The commands of a span with braces: the first of each pair together, then the second, and so on."""
    choices = [group.split(",") for group in re.findall(r"\{([^}]*)\}", span)]
    if not choices or "--space" in span:
        return [span]
    lines = []
    for place in zip(*choices, strict=True):
        values = iter(place)
        lines.append(re.sub(r"\{[^}]*\}", lambda _, values=values: next(values), span))
    return lines


# -- the session ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Session]]:
    """Play the session of a page when it is first asked for."""
    unset = {name: os.environ.pop(name) for name in ("HEBB_HOME", "HEBB_DATASETS") if name in os.environ}

    @cache
    def session_of(page: str) -> Session:
        session = Session(page, tmp_path_factory.mktemp(page))
        with contextlib.chdir(session.folder):
            play(session)
        return session

    yield session_of
    os.environ.update(unset)


def play(session: Session) -> None:
    """Run every block of a page; a line that fails, or is not printed as the page shows it, is a fault."""
    printed = ""
    for kind, name, content in BLOCK.findall(text(session.page)):
        if kind == "console":
            shown = set(map(alike, printed.splitlines()))
            session.faults.extend(line for line in content.splitlines() if alike(line) not in shown)
            continue
        with contextlib.redirect_stdout(io.StringIO()) as out:
            if kind == "python":
                try:
                    exec(compile(content, name, "exec"), session.names)
                except Exception as error:  # a fault of the page, told once
                    session.faults.append(f"{name}: {error!r}")
            elif kind == "bash":
                session.faults.extend(fault for fault in map(run_small, content.splitlines()) if fault)
        printed = out.getvalue()


def run_small(line: str) -> str | None:
    """Run a command of a session on the networks and data of ``SMALL``, and return what is wrong with it."""
    _, script, *arguments = filter(None, (SMALL.get(word, word) for word in shlex.split(line)))
    added = {"analysis.py": (), "ray_search.py": ("--dry-run",), "multi_layer.py": FEW}[script]
    try:
        code = MAINS[script]([*arguments, *(CPU if "--evaluate" in arguments else added)])
    except HebbError as error:
        return f"{line}: {error}"
    return None if code == 0 else f"{line}: exit code {code}"


# -- what a code span may be, and how it is tried -----------------------------------------------------------------


def run_command(span: str, session: Session, _: str | None) -> None:
    """A command of ours is run, of other programs its names are looked up."""
    program, *arguments = shlex.split(span)
    if program == "python":
        run_script(arguments[0], arguments[1:], session)
    elif program == "hebb":
        assert verbs.main([*arguments, "--dry-run"]) == 0
    elif program == "pip":
        with open(ROOT / "pyproject.toml", "rb") as file:
            extras = tomllib.load(file)["project"]["optional-dependencies"]
        assert set(re.findall(r"\[(.*)\]", arguments[-1])) <= set(extras)
    elif program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "conda":
        environment = (ROOT / "environment.yml").read_text()
        assert arguments[-1] == "environment.yml" or f"\nname: {arguments[-1]}\n" in environment
    elif program == "tensorboard":
        assert is_home(arguments[arguments.index("--logdir") + 1], session)


def run_script(script: str, arguments: list[str], session: Session) -> None:
    """Run a script: a verb of ``analysis.py`` on the runs of the session, any other with ``--dry-run``."""
    stored = [session.base.model if word == "NAME" else SMALL.get(word, word) for word in arguments]
    if script == "analysis.py":
        run_analysis(stored, session)
    elif script == "demo.py":
        assert demo.main([*arguments, "--dry-run"]) == 0
    elif "--evaluate" in arguments:
        assert train.main([*stored, *CPU]) == 0
    elif "--help" not in arguments and ("python", script, *arguments) not in published_by_softhebb():
        assert SCRIPTS[script].main([*arguments, "--dry-run"]) == 0


def run_analysis(arguments: list[str], session: Session) -> None:
    """Run a verb; of a published figure, whose runs are not here, the recipe must exist."""
    verb, *others = arguments
    if verb == "figure":
        assert others[0] in recipes.names()
    elif verb in RUN_ELSEWHERE:
        analysis.parser(analysis.VERBS[verb]).parse(others)
    else:
        assert analysis.main([*arguments, "--overwrite"]) == 0


def parse_flag(span: str, session: Session, script: str | None) -> None:
    """A flag of the script that the head of the table names; with a value, a dry run of the page's base."""
    assert script is not None, "the head of the table must name the script"
    parser, arguments = SCRIPTS[script].parser(), shlex.split(span)
    assert arguments[0] in parser.flags(), f"{script} has no {arguments[0]}"
    if arguments[0] in STORED and len(arguments) > 1:
        parser.parse(arguments)
    elif len(arguments) > 1:
        preset = [] if "--preset" in arguments else ["--preset", session.base.preset]
        data = [] if any(word.startswith("--dataset") for word in arguments) else ["--dataset", session.base.data]
        assert SCRIPTS[script].main([*preset, *data, *arguments, "--dry-run"]) == 0


def set_value(span: str, session: Session, _: str | None) -> None:
    """A value behind ``--set``."""
    preset, data, _ = session.base
    assert train.main(["--preset", preset, "--dataset", data, "--set", span, "--dry-run"]) == 0


def is_name(span: str, _: Session) -> bool:
    """A network, dataset or method, or a key of a row of ``metrics.jsonl``."""
    return span in {*CATALOG.models, *CATALOG.datasets, *RULES.names(), *records.COLUMNS}


def is_expression(span: str, session: Session) -> bool:
    """Python whose names are those of the session."""
    with contextlib.suppress(SyntaxError):
        names = {node.id for node in ast.walk(ast.parse(span, mode="eval")) if isinstance(node, ast.Name)}
        return bool(names) and names <= {"hebb", *session.names}
    return False


def evaluate(span: str, session: Session, _: str | None) -> None:
    if re.fullmatch(r"hebb(\.\w+)+", span):
        pkgutil.resolve_name(span)
    else:
        eval(span, session.names)


def is_home(path: str, session: Session) -> bool:
    """A folder of the layout, whether or not the session has filled it."""
    home = folders.Home((session.folder / "hebb_data").resolve())
    leaves = (home.datasets, home.networks, home.layers, home.searches, home.analysis, home.tensorboard)
    layout = {folder for leaf in leaves for folder in (leaf, *leaf.parents) if folder.is_relative_to(home.parent)}
    return (session.folder / path).resolve() in layout


def open_path(span: str, session: Session, _: str | None) -> None:
    """A file or folder of the project, of the session, or of its run."""
    places = (
        ROOT / span,
        session.folder / span,
        session.folder / "hebb_data/hebb/result/network" / session.base.model / span,
    )
    there = any(place.exists() for place in places)
    assert there or is_home(span, session) or span in AFTER_A_SEARCH, f"there is no {span}"


def dry_network(span: str, session: Session, _: str | None) -> None:
    """A network written out; a block of its own stands before a classifier."""
    network = span if " " in span else f"{span} BP:flatten"
    assert train.main(["--preset", network, "--dataset", session.base.data, "--dry-run"]) == 0


Kind = tuple[Callable[[str, Session], object], Callable[[str, Session, str | None], None]]
KINDS: tuple[Kind, ...] = (
    (lambda span, _: span.split()[0] in PROGRAMS, run_command),
    (lambda span, _: span.startswith("--"), parse_flag),
    (lambda span, _: re.fullmatch(r"[\w*]+(\.\w+)+=\S+", span), set_value),
    (is_name, lambda *_: None),
    (is_expression, evaluate),
    (lambda span, _: re.match(r"settle:|[A-Z]\w*-c\d|BP:", span), dry_network),
    (lambda span, _: re.fullmatch(r"[\w./-]+", span), open_path),
)


def try_out(span: str, session: Session, script: str | None) -> None:
    """Try a code span as the first kind that it is."""
    attempt = next((attempt for is_kind, attempt in KINDS if is_kind(span, session)), None)
    assert attempt is not None, f"`{span}` is nothing that can be tried"
    with contextlib.chdir(session.folder):
        try:
            attempt(span, session, script)
        except (HebbError, SystemExit) as error:
            raise AssertionError(f"`{span}`: {error}") from error


# -- the tests --------------------------------------------------------------------------------------------------


@cache
def published_by_softhebb() -> frozenset[tuple[str, ...]]:
    """The commands of its README, whose dry runs are those of ``cli/test_commands.py``."""
    with open(ROOT / "tests" / "data" / "commands.csv", encoding="utf-8") as file:
        return frozenset(tuple(shlex.split(row["command"])) for row in csv.DictReader(file))


def test_every_page_has_a_base_and_is_listed() -> None:
    assert sorted(path.stem for path in DOCS.glob("*.md")) == sorted(BASES)
    index = (DOCS.parent / "README.md").read_text()
    assert [page for page in BASES if f"(coming-from/{page}.md)" not in index] == []


@every_page
def test_the_session_is_as_shown(page: str, sessions: Callable[[str], Session]) -> None:
    assert sessions(page).faults == []


@pytest.mark.parametrize(
    ("page", "number"),
    [pytest.param(page, i, id=f"{page}-{row.theirs[:40]}") for page in BASES for i, row in enumerate(rows(page))],
)
def test_ours(page: str, number: int, sessions: Callable[[str], Session]) -> None:
    """Every line: what "ours" names works, and a line with nothing of ours says why."""
    row = rows(page)[number]
    if row.ours == "none":
        assert row.different, "say why there is none"
        return
    assert spans(row.ours), "ours names nothing"
    for span in dict.fromkeys(spans(row.ours)):
        try_out(span, sessions(page), row.script)


@every_page
def test_a_flag_anywhere_on_a_page_is_ours_or_theirs(page: str) -> None:
    """Also in the remarks, which nothing else reads."""
    ours = {flag for module in SCRIPTS.values() for flag in module.parser().flags()}
    ours |= {flag for verb in analysis.VERBS.values() for flag in analysis.parser(verb).flags()}
    theirs = {flag for row in rows(page) for flag in re.findall(r"--\w[\w-]*", row.theirs)}
    named = {flag for span in spans(BLOCK.sub("", text(page))) for flag in re.findall(r"(?<!\S)--\w[\w-]*", span)}
    assert named - ours - theirs - {"--logdir", "--port"} == set()


def test_every_command_of_softhebb_is_on_its_page() -> None:
    assert published_by_softhebb() - commands("softhebb") == set()


README = {  # words by which a published README is told, and what of it must be on our page
    "softhebb": (
        "NeuromorphicComputing/SoftHebb",
        r"--[a-z][\w-]*|[\w=.]+\.(?:py|json|ipynb|yml)\b|DATA(?:/\w+)+|conda (?:env|activate|install) [^\n]*\S"
        r"|tensorboard --[^\n]*\S|ssh -NL \S+ \S+|(?<=• )[\w-]+(?=(?: \([^)]*\))?(?::|\n))",
    ),
    "biopytorch": (
        "PyTorch implementation of Hebbian",
        r"Bio(?:Linear|Conv2d)|nn\.\w+|F\.\w+|training_step|\w+/\w+\.py|pip install \w+|notebooks|slides|Optuna|wandb"
        r"|Classifier|Dropout|Params|#layers|Accuracy \(test\)|bias\b",
    ),
    "lpl": (
        "fmi-basel/latent-predictive-learning",
        r"--[a-z]\w*(?: \d)?|[\w./]+\.(?:py|txt)\b|notebooks/[^)]*ipynb|\w+_simulations/|~/data/[\w/$]+|VGG-11|Auryn"
        r"|Shapes3D|Errata|pytorch lightning|pip install [^\n]*|python \w+\.py|tensorboard --logdir \S+",
    ),
    "corinfomax": (
        "Supervised-CorInfoMax",
        r"(?:python )?[\w/]+\.py\b|\w+\.(?:pkl|ipynb|txt)|Contrastive\w*CorInfoMax\w+|Simulations/\w+(?:/\w+)?"
        r"|\w+_Experiments|Notebook_Examples|\bsrc\b",
    ),
}


@every_page
def test_every_name_of_the_published_readme_is_on_its_page(page: str) -> None:
    mark, pattern = README[page]
    texts = [path.read_text() for path in sorted(SEEDS.glob("*.txt"))] if SEEDS.is_dir() else []
    readme = next((readme for readme in texts if mark in readme), None)
    if readme is None:
        pytest.skip(f"the published README is not in {SEEDS}")
    names = {name.strip().rstrip(".:,") for name in re.findall(pattern, readme)}
    assert len(names) > 10
    page_text, single = text(page), set(spans(text(page)))
    lacking = [name for name in names if name not in (single if len(name) < 3 else page_text)]
    assert sorted(lacking) == []
    if page == "softhebb":
        lines = {tuple(shlex.split(line)) for line in re.findall(r"python \w+\.py[^\n`]*", readme)}
        assert lines - commands(page) == set()
