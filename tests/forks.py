"""Runs scripts as forks of a process that has imported what they share: processes of their own that start at once.

Torch alone takes a second and more to import. The process itself computes nothing, so it has no threads that a fork
would lack. What depends on the start of Python itself (its locale, the imports of a help text, the memory of a
process) needs a new process instead.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class Forks:
    """A process that forks one child for each script.

    Args:
        prepare: Python code that it executes first; what it imports, every child has. A function ``at_end`` there is
            called in a child whose script has ended.
    """

    def __init__(self, prepare: str) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__, prepare],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, script: Path, *arguments: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a script as ``python script`` does, and return how it ended and what it printed."""
        assert self._server.stdin is not None and self._server.stdout is not None
        words = [str(script), *arguments]
        with tempfile.TemporaryDirectory() as folder:
            files = [str(Path(folder) / name) for name in ("out", "err")]
            job = {"words": words, "cwd": str(cwd), "env": env, "files": files}
            self._server.stdin.write(json.dumps(job) + "\n")
            self._server.stdin.flush()
            status = json.loads(self._server.stdout.readline())
            out, err = (Path(file).read_text(encoding="utf-8", errors="replace") for file in files)
        return subprocess.CompletedProcess(words, status, out, err)

    def close(self) -> None:
        """End the process, and a child that still runs."""
        with self._server as server:
            os.killpg(server.pid, signal.SIGKILL)


def _become(job: dict[str, Any]) -> None:
    """Make this child what a new process would be."""
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = os.fdopen(0, closefd=False)
    for number, file in enumerate(job["files"], start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = job["words"]


def _ended(names: dict[str, Any]) -> int:
    """Run the script, print what it does not catch as Python does, and return its exit code."""
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        names.get("at_end", int)()
    return 0


def _leave(code: int) -> None:
    """End the child as Python ends, without taking its modules apart, which costs more than most scripts."""
    for thread in threading.enumerate():
        if not (thread.daemon or thread is threading.main_thread()):
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
    os._exit(code)


def _serve(prepare: str) -> None:
    names: dict[str, Any] = {}
    exec(prepare, names)
    gc.freeze()  # a collection in a child would copy what is shared
    answers = os.fdopen(os.dup(1), "w")  # the children's stdout is a file
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _become(json.loads(line))
            _leave(_ended(names))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    _serve(sys.argv[1])
