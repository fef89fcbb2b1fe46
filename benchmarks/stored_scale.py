"""How the commands that read a stored search grow with the number of its trials: time and memory.

    python benchmarks/stored_scale.py --trials 1000 3000

Of a search of that many trials, four seeds a configuration, one is trained. The files of the others are copies of its
files, with their own configuration and seed, so the folder is what the whole search would have left. Then each
command runs once, from start to end: ``hebb search --restore`` (nothing is left to train: it reads every run and makes
table and report), ``analysis runs``, ``analysis table`` and ``watch --once``; and TensorBoard's own reader takes in all
runs. Time is that of the processor, which other work on the machine disturbs least. The exponent is the slope of its
logarithm since the next smaller number; 1 is linear, and what starting costs makes it less. So ``ms a trial more`` is
the time of each trial beyond the smaller number.

Storing 10,000 trials takes 0.7 GB of ``--scratch`` and minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import harness
from hebb import builtin
from hebb.cli.entry import run_command
from hebb.cli.parsing import Parser, count
from hebb.config import serialise
from hebb.core.errors import HebbError
from hebb.storage import folders
from hebb.storage.journal import Event
from hebb.tuning import search_folder

ROOT = Path(__file__).resolve().parent.parent
SEEDS = 4
_SAMPLE_EVERY = 0.05  # seconds between two looks at the memory
COMMANDS: dict[str, tuple[str, ...]] = {
    "restore": ("search", "--restore", "s", "--workers", "1"),
    "runs": ("analysis", "runs", "s"),
    "table": ("analysis", "table", "s", "--out", "table"),
    "watch": ("watch", "s", "--once"),
}
READER = """
import sys
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
print(len(EventMultiplexer().AddRunsFromDirectory(sys.argv[1]).Reload().Runs()))
"""


def main(argv: list[str]) -> int:
    """Measure every number of trials."""
    options = parse(argv)
    builtin.load()
    rows: list[harness.Row] = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        for trials in sorted(options.trials):
            home = Path(folder) / str(trials)
            rows += measure(store(home, trials), home, trials, options.without)
            shutil.rmtree(home)
    for row in rows:
        row.update(since(row, rows))
    harness.show(
        "commands over a stored search",
        rows,
        {
            "trials": "trials:,",
            "command": "command",
            "s": "seconds:.1f",
            "CPU s": "cpu_s:.1f",
            "ms a trial more": "ms_per_trial:.2f",
            "kB a trial more": "kb_per_trial:.1f",
            "MB": "mb:.0f",
            "exponent": "exponent:.2f",
        },
    )
    settings = {"trials": options.trials, "without": options.without}
    harness.write(options.out, "stored_scale", 1, settings, rows)
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser(__doc__ or "")
    parser.add_argument(
        "--trials", type=count, nargs="+", default=[1000, 3000], metavar="N", help="(default: 1000 3000)"
    )
    parser.add_argument(
        "--without", nargs="+", default=[], choices=[*COMMANDS, "tensorboard"], help="do not measure it"
    )
    parser.add_argument("--scratch", metavar="DIR", help="where run folders go, which are removed (default: /tmp)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the numbers there as JSON")
    return parser.parse(argv)


def store(home: Path, trials: int) -> Path:
    """Store a search of ``trials`` finished runs below ``home`` and return its folder."""
    rates = ", ".join(f"{0.01 + 0.0001 * i:.4f}" for i in range(max(1, trials // SEEDS)))
    words = ["--preset", "2SoftHebbCnnDigits", "--dataset-unsup", "Digits_1", "--dataset-sup", "Digits_5"]
    words += ["--config", "one_seed", "--seeds", *map(str, range(SEEDS)), "--space", f"b0.layer.lr={{grid: [{rates}]}}"]
    words += ["--max-trials", "1", "--workers", "1", "--threads", "1", "--device", "cpu", "--folder-name", "s"]
    called(["search", *words], home, codes=(0, 1))
    folder = home / "hebb" / "search" / "s"
    stored = search_folder.stored(folder)
    first, *others = stored.search.trials
    journal = []
    for trial in others:
        if (trial.folder / folders.RESULT).exists():
            continue
        shutil.rmtree(trial.folder, ignore_errors=True)
        shutil.copytree(first.folder, trial.folder, ignore=shutil.ignore_patterns("checkpoint", "lock"))
        folders.write_json(trial.folder / folders.CONFIG, serialise.to_json(trial.config))
        result = folders.read_json(first.folder / folders.RESULT)
        folders.write_json(trial.folder / folders.RESULT, result | {"seed": trial.config.seed})
        journal.append(json.dumps({"event": Event.FINISHED.value, "group": trial.name}) + "\n")
    with open(folder / folders.JOURNAL, "a", encoding="utf-8") as file:
        file.writelines(journal)
    return folder


def measure(folder: Path, home: Path, trials: int, without: list[str]) -> list[harness.Row]:
    """Run every command over the stored search."""
    rows = []
    for name, words in COMMANDS.items():
        if name not in without:
            rows.append({"trials": trials, "command": name, **called(list(words), home)})
    if "tensorboard" not in without:
        spent = timed([sys.executable, "-c", READER, str(folder / folders.TRIALS)], home)
        rows.append({"trials": trials, "command": "tensorboard", **spent})
    return rows


def called(words: list[str], home: Path, codes: tuple[int, ...] = (0,)) -> harness.Row:
    """Run the command ``hebb`` and return what it took."""
    return timed([sys.executable, "-m", "hebb", *words], home, codes)


def timed(command: list[str], home: Path, codes: tuple[int, ...] = (0,)) -> harness.Row:
    """Run a command and return its seconds and the peak memory of its process, without those that it starts."""
    home.mkdir(parents=True, exist_ok=True)
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "HEBB_HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    began, used = time.perf_counter(), _processor_seconds()
    with open(home / "output.txt", "w+b") as output:
        process = subprocess.Popen(command, env=environment, cwd=home, stdout=output, stderr=subprocess.STDOUT)
        peak = 0.0
        while process.poll() is None:  # ru_maxrss would count the memory of this process, too
            peak = max(peak, peak_mb(process.pid))
            time.sleep(_SAMPLE_EVERY)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode not in codes:
        raise HebbError(f"{' '.join(command[:6])} failed: {text[-500:]}")
    return {"seconds": time.perf_counter() - began, "cpu_s": _processor_seconds() - used, "mb": peak}


def _processor_seconds() -> float:
    """Return the processor time of all processes that were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def peak_mb(process: int) -> float:
    """Return the peak memory so far of a process that runs, in MB; 0 of one that has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")), 0.0)


def since(row: harness.Row, rows: list[harness.Row]) -> harness.Row:
    """Return what a command takes more than with the next smaller number of trials; nothing for the smallest."""
    before = [other for other in rows if other["command"] == row["command"] and other["trials"] < row["trials"]]
    if not before:
        return {}
    last = max(before, key=lambda other: other["trials"])
    more = row["trials"] - last["trials"]
    return {
        "ms_per_trial": 1000 * (row["cpu_s"] - last["cpu_s"]) / more,
        "kb_per_trial": 1000 * (row["mb"] - last["mb"]) / more,
        "exponent": math.log(row["cpu_s"] / last["cpu_s"]) / math.log(row["trials"] / last["trials"]),
    }


if __name__ == "__main__":
    run_command(main)
