"""Runs commands in a process that cannot import anything heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from conftest import ROOT

HEAVY = ("torch", "torchvision", "sklearn", "ray", "pandas", "scipy", "matplotlib")

_BLOCKED = """
import json, runpy, sys
tried = []
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {heavy!r}:
            tried.append(name)
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
record, script, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = script
sys.path[0] = {root!r}
try:
    runpy.run_path(script, run_name="__main__")
finally:
    loaded = sorted(name for name in sys.modules if name.partition(".")[0] in {heavy!r})
    with open(record, "w") as file:
        json.dump(tried + loaded, file)
"""


class Light(NamedTuple):
    """How a command ended that could not import anything heavy, and the heavy modules it asked for."""

    code: int
    out: str
    err: str
    asked: list[str]


def light(folder: Path, script: str, *arguments: str) -> Light:
    """Run a command as ``python script`` does, with every import of ``HEAVY`` recorded and refused."""
    record = folder / "asked.json"
    environment = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "HEBB_DATASETS")}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            _BLOCKED.format(heavy=HEAVY, root=str(ROOT)),
            str(record),
            str(ROOT / script),
            *arguments,
        ],
        cwd=folder,
        env={**environment, "HEBB_HOME": str(folder / "home"), "TERM": "xterm-256color"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    asked = json.loads(record.read_text())
    record.unlink()
    return Light(done.returncode, done.stdout, done.stderr, asked)
