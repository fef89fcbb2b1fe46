"""The map of the house, read from the code: imports point one way, and the light rooms stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

ORDER = (
    "no torch",
    "functions",
    "modules",
    "model",
    "engine",
    "train",
    "search",
    "commands",
)
NO_TORCH = (
    "errors",
    "experiment",
    "registry",
    "fields",
    "config",
    "config_json",
    "grammar",
    "catalog",
    "overrides",
    "shapes",
    "plan",
    "plugins",
    "data_spec",
    "protocols",
    "settle",
    "space",
    "spiking",
    "spiking.config",
    "domains",
    "derive",
    "folders",
    "journal",
    "analysis",
    "analysis.output",
    "analysis.recipes",
    "analysis.runs",
    "analysis.style",
)
LIGHT_DATA = ("data.entries", "data.own", "data.scan", "data.npz")
LIGHT_SEARCH = ("search.resolve", "search.steps", "search.stored", "search.trials")
LIGHT = ("cli.arguments", "cli.describe", "cli.entry", "cli.search_flags", *LIGHT_SEARCH)
COMMANDS = ("analysis", "multi_layer", "ray_search", "demo", "post_hoc_loss")


def modules() -> dict[str, Path]:
    """Every module of the project by dotted name."""
    files = [p for folder in ("hebb", "cli", "search") for p in (ROOT / folder).rglob("*.py")]
    files += list(ROOT.glob("*.py"))
    names = {}
    for path in files:
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = modules()


def room(name: str) -> str:
    """The room a module belongs to."""
    if name in COMMANDS:
        return "commands"
    if name in ("model", "engine", "train"):
        return name
    if name in ("readout", "settling", "prefix", "optimiser", "pack", "epochs"):
        return "engine"
    if name in ("begin", "runs", "evaluate", "post_hoc", "subject"):
        return "train"
    if name.startswith("search"):
        return "no torch" if name in ("search", *LIGHT_SEARCH) else "search"
    if name.startswith("cli"):
        return "no torch" if name in LIGHT or name == "cli" or name.startswith("cli.analysis") else "search"
    short = name.removeprefix("hebb.")
    if name == "hebb" or short in NO_TORCH or short == "data":
        return "no torch"
    return "functions" if short.startswith(("rules", "rates", "activations", "toy", *LIGHT_DATA)) else "modules"


def imports(name: str, *, top_level: bool) -> set[str]:
    """Modules that ``name`` imports: at its top level alone, or anywhere outside TYPE_CHECKING blocks."""
    tree = ast.parse(MODULES[name].read_text())
    found: set[str] = set()

    def visit(node: ast.AST, depth: int) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                found.add(child.module)
                found.update(f"{child.module}.{alias.name}" for alias in child.names)
            if (
                isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                and top_level
                and not isinstance(child, ast.ClassDef)
            ):
                continue
            visit(child, depth + 1)

    visit(tree, 0)
    return found


def test_the_walk_sees_imports_where_they_are() -> None:
    assert "torch" in imports("hebb.layers", top_level=True)
    assert "torch" not in imports("hebb.rules.hard", top_level=True)
    assert "torch" in imports("hebb.rules.hard", top_level=False)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_one_way(name: str) -> None:
    mine = ORDER.index(room(name))
    for other in imports(name, top_level=True) & set(MODULES):
        assert ORDER.index(room(other)) <= mine, f"{name} ({room(name)}) imports {other} ({room(other)})"


@pytest.mark.parametrize("name", [n for n in MODULES if n.startswith("hebb")])
def test_the_library_never_reaches_up(name: str) -> None:
    """Not even inside a function; and it neither parses arguments nor prints nor knows Ray."""
    found = imports(name, top_level=False)
    above = {n for n in MODULES if not n.startswith("hebb")}
    assert not found & (above | {"argparse", "ray", "rich"})
    calls = [n for n in ast.walk(ast.parse(MODULES[name].read_text())) if isinstance(n, ast.Call)]
    assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id in ("print", "eval", "exec")]


@pytest.mark.parametrize("name", MODULES)
def test_ray_stays_in_its_room(name: str) -> None:
    heads = {found.split(".")[0] for found in imports(name, top_level=False)}
    assert "ray" not in heads or name.startswith("search.")


@pytest.mark.parametrize(
    "name", [n for n in MODULES if room(n) in ("no torch", "functions") or n in (*COMMANDS, *LIGHT)]
)
def test_light_rooms_import_without_torch(name: str) -> None:
    """Really imported, in a process where the heavy packages are missing."""
    heavy = ("torch", "torchvision", "sklearn", "ray", "pandas", "scipy", "matplotlib", "tensorboard")
    code = (
        "import sys\n"
        "class Missing:\n    def find_spec(self, name, *rest):\n"
        f"        if name.split('.')[0] in {heavy}: raise ImportError(name)\n"
        f"sys.meta_path.insert(0, Missing()); sys.path.insert(0, {str(ROOT)!r})\n"
        f"import {name}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_small(name: str) -> None:
    """A file that outgrows this has two owners."""
    assert len(MODULES[name].read_text().splitlines()) <= 500


def test_no_path_of_a_machine_in_the_code() -> None:
    for path in MODULES.values():
        assert "/home/" not in path.read_text()
