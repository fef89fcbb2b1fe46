"""A stand-in for Slurm on one machine: the commands that submitit calls, with arrays, requeues and signals.

``install(folder)`` writes them into ``folder/bin`` and returns the environment in which they are found. Every array has
a process that starts its tasks, as ``slurmd`` would, and starts one again that was queued again. Scripts, states and
the number of starts of each task lie in ``folder``. The standard library alone: a job must begin quickly.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "scontrol", "scancel", "sacct")
PLACE = "STAND_IN_SLURM"


def install(folder: Path) -> dict[str, str]:
    """Write the commands, and return the environment variables of who calls them."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(parents=True)
    for name in COMMANDS:
        script = bin_folder / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S {shlex.quote(__file__)} {name} "$@"\n')
        script.chmod(0o755)
    return {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", PLACE: str(folder)}


def starts(folder: Path) -> dict[str, int]:
    """Return how often each task began."""
    return {path.stem: len(path.read_text()) for path in folder.glob("*.starts")}


def _file(task: str, kind: str) -> Path:
    return Path(os.environ[PLACE]) / f"{task}.{kind}"


def sbatch(script: str) -> None:
    """Take a script, and let a process run its tasks."""
    folder = Path(os.environ[PLACE])
    number = str(100 + len(list(folder.glob("*.script"))))
    text = Path(script).read_text()
    if "--partition=none" in text:
        sys.exit("sbatch: error: invalid partition specified: none")
    _file(number, "script").write_text(text)
    array = re.search(r"^#SBATCH --array=0-(\d+)", text, re.MULTILINE)
    tasks = [f"{number}_{i}" for i in range(int(array[1]) + 1)] if array else [number]
    for task in tasks:
        _file(task, "state").write_text("PENDING")
    command = [sys.executable, "-S", __file__, "_run", number, *tasks]
    subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(f"Submitted batch job {number}")


def _run(number: str, *tasks: str) -> None:
    """Run the tasks of a script side by side, one that was queued again once more."""
    running = {task: _start(number, task) for task in tasks}
    while running:
        time.sleep(0.05)
        for task, process in list(running.items()):
            code = process.poll()
            if code is None:
                continue
            if _file(task, "requeue").exists():
                _file(task, "requeue").unlink()
                running[task] = _start(number, task)
                continue
            del running[task]
            if _file(task, "state").read_text() == "RUNNING":
                _file(task, "state").write_text("FAILED" if code else "COMPLETED")


def _start(number: str, task: str) -> subprocess.Popen[bytes]:
    array, _, index = task.partition("_")
    own = {"SLURM_JOB_ID": task, "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    if index:
        own |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": index}
    with open(_file(task, "starts"), "a") as file:
        file.write("x")
    process = subprocess.Popen(
        ["bash", str(_file(number, "script"))], env={**os.environ, **own}, start_new_session=True
    )
    _file(task, "pid").write_text(str(process.pid))
    _file(task, "state").write_text("RUNNING")
    return process


def srun(*words: str) -> None:
    """Run the command behind our own options, with its output in the files that they name."""
    files: dict[str, str] = {}
    words = tuple(word for word in words if word != "--unbuffered")
    while words[0].startswith("--"):
        files[words[0]], words = words[1], words[2:]
    for flag, number in (("--output", 1), ("--error", 2)):
        name = files[flag].replace("%t", "0").replace("%j", os.environ["SLURM_JOB_ID"])
        name = name.replace("%A", os.environ.get("SLURM_ARRAY_JOB_ID", ""))
        name = name.replace("%a", os.environ.get("SLURM_ARRAY_TASK_ID", ""))
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
    os.execvp(words[0], words)


def scontrol(verb: str, task: str) -> None:
    """Queue a task again."""
    assert verb == "requeue"
    _file(task, "requeue").write_text("")


def scancel(*words: str) -> None:
    """End tasks, or send them a signal."""
    number = signal.SIGKILL
    if "--signal" in words:
        place = words.index("--signal")
        number = signal.Signals[f"SIG{words[place + 1].removeprefix('SIG')}"]
        words = words[:place] + words[place + 2 :]
    for task in words:
        shell = int(_file(task, "pid").read_text())
        if number == signal.SIGKILL:
            _file(task, "state").write_text("CANCELLED")
            os.killpg(shell, number)
            continue
        for child in Path(f"/proc/{shell}/task/{shell}/children").read_text().split():  # not the script itself
            os.kill(int(child), number)


def sacct(*words: str) -> None:
    """Print the states of the tasks of jobs."""
    print("JobID|State|NodeList")
    wanted = {word for flag, word in itertools.pairwise(words) if flag == "-j"}
    for path in sorted(Path(os.environ[PLACE]).glob("*.state")):
        if path.stem.partition("_")[0] in wanted:
            print(f"{path.stem}|{path.read_text()}|here")


if __name__ == "__main__":
    {f.__name__: f for f in (sbatch, srun, scontrol, scancel, sacct, _run)}[sys.argv[1]](*sys.argv[2:])
