"""Runs commands in a process that cannot import anything heavy."""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from conftest import ROOT
from forks import Forks

HEAVY = ("torch", "torchvision", "sklearn", "ray", "pandas", "scipy", "matplotlib")

_BLOCK = f"""
import json, os, sys
tried = []
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            tried.append(name)
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
def at_end():
    loaded = sorted(name for name in sys.modules if name.partition(".")[0] in {HEAVY!r})
    with open(os.environ["RECORD"], "w") as file:
        json.dump(tried + loaded, file)
"""
_ALONE = """
import runpy
sys.argv = sys.argv[1:]
sys.path[0] = {root!r}
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    at_end()
"""
_COMMON = """
import hebb.cli.train, hebb.cli.search, hebb.cli.demo, hebb.cli.analysis.command
from hebb import builtin
builtin.load()
"""
# what the commands import before they know what is asked of them


class Light(NamedTuple):
    """How a command ended that could not import anything heavy, and the heavy modules it asked for."""

    code: int
    out: str
    err: str
    asked: list[str]


@functools.cache
def _forks() -> Forks:
    """Return the process with the block and what commands share; its children report what it asked for, too."""
    forks = Forks(_BLOCK + _COMMON)
    atexit.register(forks.close)
    return forks


def light(folder: Path, script: str, *arguments: str, alone: bool = False) -> Light:
    """Run a command as ``python script`` does, with every import of ``HEAVY`` recorded and refused.

    Args:
        folder: its working directory.
        script: the script.
        arguments: those of the script.
        alone: in a new process, as somebody's machine does; else in a fork, which starts in a tenth of the time.
    """
    record = folder / "asked.json"
    environment = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "HEBB_DATASETS")}
    environment |= {"HEBB_HOME": str(folder / "home"), "TERM": "xterm-256color", "RECORD": str(record)}
    if alone:
        code = _BLOCK + _ALONE.format(root=str(ROOT))
        done = subprocess.run(
            [sys.executable, "-c", code, str(ROOT / script), *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    else:
        done = _forks().run(ROOT / script, *arguments, cwd=folder, env=environment)
    asked = json.loads(record.read_text())
    record.unlink()
    return Light(done.returncode, done.stdout, done.stderr, asked)
