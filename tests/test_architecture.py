"""The map of the house, read from the code: a folder is a floor, imports go down, and the light rooms stay light.

Without it an import that points up goes unseen until two modules need each other, and a help text takes seconds.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

FLOORS = (
    "core",  # errors, seeds, the machine, shipped data
    "config",  # what is run; never imports torch
    "kernels",  # fast paths
    "data",  # images
    "rules",  # learning rules
    "energy",  # networks that settle
    "builtin",  # everything that comes registered
    "storage",  # files of runs and searches
    "nn",  # layers, blocks, networks
    "testing",  # the contract of a rule; needs pytest
    "spiking",  # spiking networks, the rate neuron
    "probing",  # what is read out of a network
    "training",  # the trainer
    "analysis",  # figures and tables from stored runs
    "tuning",  # searches; the only room that knows Ray
    "cli",  # the only room that parses and prints
    "api",  # what the public names are
    "__main__",
)
"""From the ground up. A module may import from its own floor and from those below, at any depth of its code."""

LIGHT = ("core", "config", "rules", "energy.methods", "data.entries", "storage.folders", "cli")
"""Entry points and rooms whose import needs neither torch nor any other heavy package."""

DOORS = ("multi_layer", "ray_search", "post_hoc_loss", "demo", "analysis")
HEAVY = ("torch", "torchvision", "sklearn", "ray", "pandas", "scipy", "matplotlib", "tensorboard")


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below ``hebb``."""
    names = {}
    for path in sorted((ROOT / "hebb").rglob("*.py")):
        parts = path.relative_to(ROOT / "hebb").with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del names[""]
    return names


MODULES = modules()


def floor(name: str) -> int:
    """The floor of a module, counted from the ground."""
    return FLOORS.index(name.partition(".")[0])


def imports(name: str, *, inside_functions: bool = True) -> set[str]:
    """Everything a module imports, by full name, leaving out what is for type checkers alone."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                names.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                names.add(child.module)
                names.update(f"{child.module}.{alias.name}" for alias in child.names)
            if inside_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                visit(child)

    visit(ast.parse(MODULES[name].read_text()))
    return names


def ours(names: set[str]) -> set[str]:
    """Those of the names that are modules of the package, below ``hebb``."""
    return {name.removeprefix("hebb.") for name in names if name.startswith("hebb.")} & set(MODULES)


def test_the_walk_sees_imports_where_they_are() -> None:
    assert "torch" in imports("nn.layers")
    assert "torch" in imports("rules.hard")
    assert "torch" not in imports("rules.hard", inside_functions=False)


def test_every_folder_is_a_floor() -> None:
    assert {name.partition(".")[0] for name in MODULES} <= set(FLOORS)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name: str) -> None:
    above = {other for other in ours(imports(name)) if floor(other) > floor(name)}
    assert not above, f"{name} reaches up to {sorted(above)}"


def test_ray_is_imported_behind_its_environment() -> None:
    """Ray reads its variables when it is imported; a module that brings it in first makes every session fail."""
    brings = 0
    for name, path in MODULES.items():
        text = path.read_text()
        ray = re.search(r"^(from|import) ray\b", text, re.MULTILINE)
        if ray is not None:
            above = text[: ray.start()]
            assert "ray_session" in above or "hebb.tuning.searchers" in above, (
                f"{name} imports Ray before its environment"
            )
            brings += 1
    assert brings > 1, "the rule sees what it is about"


def test_no_circles() -> None:
    """Two modules that need each other at import are one module, or hide a third; in config, not even later."""
    graph = {name: ours(imports(name, inside_functions=name.startswith("config"))) - {name} for name in MODULES}
    while free := {name for name, needed in graph.items() if not needed & set(graph)}:
        graph = {name: needed for name, needed in graph.items() if name not in free}
    assert not graph


@pytest.mark.parametrize("name", MODULES)
def test_only_the_command_line_parses_and_prints(name: str) -> None:
    if name.startswith(("cli", "__main__")):
        return
    assert "argparse" not in imports(name)
    calls = [n for n in ast.walk(ast.parse(MODULES[name].read_text())) if isinstance(n, ast.Call)]
    assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id in ("print", "eval", "exec")]


@pytest.mark.parametrize("name", MODULES)
def test_ray_stays_in_its_room(name: str) -> None:
    assert name.startswith("tuning") or "ray" not in {found.partition(".")[0] for found in imports(name)}


def test_jobs_do_without_ray() -> None:
    """A search of jobs, and each of its jobs, would load Ray for nothing, on machines where it may not start."""
    reached: dict[str, set[str]] = {}
    new = {"tuning.stages", "tuning.job", "tuning.worker", "tuning.html_report"}
    while new:
        reached |= {name: imports(name, inside_functions=False) for name in new}
        new = {other for name in new for other in ours(reached[name])} - set(reached)
    assert not {name for name, names in reached.items() if "ray" in {one.partition(".")[0] for one in names}}
    assert len(reached) > 50, "the walk goes on"


def test_light_rooms_import_without_torch() -> None:
    """Really imported, one after the other, in a process where the heavy packages are missing."""
    rooms = [name for name in MODULES if f"{name}.".startswith(tuple(f"{light}." for light in LIGHT))]
    code = (
        "import importlib, sys\n"
        "class Missing:\n    def find_spec(self, name, *rest):\n"
        f"        if name.split('.')[0] in {HEAVY}: raise ImportError(name)\n"
        f"sys.meta_path.insert(0, Missing()); sys.path.insert(0, {str(ROOT)!r})\n"
        f"for name in {[f'hebb.{room}' for room in rooms] + list(DOORS)}: importlib.import_module(name)\n"
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
