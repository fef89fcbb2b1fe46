"""What a search costs besides its training: seeds on Ray against the same runs one after the other.

    python benchmarks/search_overhead.py --preset 2SoftHebbCnnCIFAR --dataset-unsup CIFAR10_1 --dataset-sup CIFAR10_10
    python benchmarks/search_overhead.py --growth 200

Runs `multi_layer.py` once for each seed, one after the other, with one thread; then `ray_search.py` on the same
seeds with one worker of one thread, and with as many as there are cores; and last the runs one after the other with
all threads. Every side is the real command, from start to end. The ratio is that of a search with all workers to the
runs one after the other with one thread. The overhead of a trial is the time between the end of the training of one
trial and the start of the next on the same worker. Choose `--epochs` so that a run takes a minute or more.

`--growth N` runs one search of N trials of about a second instead: memory of the driver and of the larger worker at a
fourth of it and while its last trials run, and the time in which TensorBoard's reader loads all of it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import harness
from hebb.cli import describe
from hebb.cli.entry import run_command
from hebb.cli.parsing import Parser, count
from hebb.core.errors import HebbError
from hebb.core.threads import cores

ROOT = Path(__file__).resolve().parent.parent
_SAMPLE_EVERY = 1.0  # seconds between two looks at the memory
_WORKER = "ray::ImplicitFunc"  # what Ray calls a process that runs trials


def main(argv: list[str]) -> int:
    """Measure overhead and speed-up, or growth."""
    options = parse(argv)
    threads = options.threads or cores()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        if options.growth is not None:
            rows = [growth(Path(folder), options)]
            columns = {"trials": "trials", "driver MB": "driver_mb:.0f", "worker MB": "worker_mb:.0f"}
            columns |= {"driver kB a trial": "driver_kb_per_trial:.1f", "worker kB a trial": "worker_kb_per_trial:.1f"}
            columns |= {"TensorBoard s": "tensorboard_s:.1f", "ratio": "ratio:.2f"}
            harness.show("memory in the last trials of a search, and its growth since a fourth of it", rows, columns)
        else:
            rows = overhead(Path(folder), options, threads)
            columns = {"what": "what", "s": "wall_s:.1f", "ratio": "ratio:.2f", "overhead s": "overhead_s:.2f"}
            harness.show(f"{options.seeds} seeds of {options.preset}, ratio to one thread in sequence", rows, columns)
    settings = {name: str(value) for name, value in vars(options).items() if name != "out"}
    harness.write(options.out, "search_overhead", threads, settings, rows)
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser(__doc__ or "")
    parser.add_argument("--preset", default="2SoftHebbCnnDigits", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--dataset-sup", default="Digits_50", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--dataset-unsup", default="Digits_1", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--epochs", type=count, metavar="N", help="of the classifier (default: the preset's)")
    parser.add_argument("--seeds", type=count, default=4, metavar="N", help="runs (default: 4)")
    parser.add_argument("--growth", type=count, metavar="N", help="measure the growth over N trials")
    parser.add_argument("--scratch", metavar="DIR", help="where run folders go, which are removed (default: /tmp)")
    harness.add_flags(parser)
    return parser.parse(argv)


def _flags(options: argparse.Namespace) -> list[str]:
    data = ["--dataset-sup", options.dataset_sup, "--dataset-unsup", options.dataset_unsup, "--device", "cpu"]
    epochs = [] if options.epochs is None else ["--set", f"dataset_sup.epochs={options.epochs}"]
    return ["--preset", options.preset, *data, *epochs]


def overhead(folder: Path, options: argparse.Namespace, threads: int) -> list[harness.Row]:
    """Time the four sides."""
    base = _flags(options)
    one = _sequence(base, options.seeds, 1, folder)
    rows: list[harness.Row] = [
        {"what": "one after the other, 1 thread", "wall_s": sum(one), "all_s": one, "ratio": 1.0}
    ]
    for workers in sorted({1, cores()}):
        home = folder / f"workers{workers}"
        flags = [*base, "--threads", "1", "--workers", str(workers), "--folder-name", "s", "--config", "one_seed"]
        began = time.perf_counter()
        _run("ray_search.py", [*flags, "--seeds", *map(str, range(options.seeds))], home)
        spent = time.perf_counter() - began
        gaps = _gaps(home / "hebb" / "search" / "s")
        row = {"what": f"search, {workers} worker(s) of 1 thread", "wall_s": spent, "ratio": spent / sum(one)}
        rows.append(row | ({"overhead_s": max(gaps), "all_gaps_s": gaps} if gaps else {}))
    every = _sequence(base, options.seeds, threads, folder)
    what = f"one after the other, {threads} thread(s)"
    return [*rows, {"what": what, "wall_s": sum(every), "all_s": every, "ratio": sum(every) / sum(one)}]


def _sequence(flags: list[str], seeds: int, threads: int, folder: Path) -> list[float]:
    """Run `multi_layer.py` once for each seed and return the seconds of each."""
    home, seconds = folder / f"threads{threads}", []
    for seed in range(seeds):
        began = time.perf_counter()
        words = ["--threads", str(threads), "--seed", str(seed), "--model-name", f"s{seed}", "--save", "false"]
        _run("multi_layer.py", [*flags, *words, "--overwrite"], home)
        seconds.append(time.perf_counter() - began)
    shutil.rmtree(home)
    return seconds


def _command(script: str, flags: list[str]) -> list[str]:
    return [sys.executable, str(ROOT / script), *flags]


def _run(script: str, flags: list[str], home: Path) -> None:
    environment = {**os.environ, "HEBB_HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(_command(script, flags), env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HebbError(f"{script} failed: {(done.stderr or done.stdout)[-500:]}")


def _gaps(search: Path) -> list[float]:
    """Return the seconds between a trial's end and the next one's start, worker by worker.

    Workers are told apart by the process that wrote a run's events; a run began ``seconds`` before its result.
    """
    spans: dict[str, list[tuple[float, float]]] = {}
    for result in search.glob("trials/*/result.json"):
        ended = result.stat().st_mtime
        began = ended - json.loads(result.read_text())["seconds"]
        process = next(result.parent.glob("events.*")).name.split(".")[5]  # events.out.tfevents.TIME.HOST.PROCESS.N
        spans.setdefault(process, []).append((began, ended))
    return [
        round(after[0] - before[1], 3)
        for intervals in spans.values()
        for before, after in itertools.pairwise(sorted(intervals))
    ]


def growth(folder: Path, options: argparse.Namespace) -> harness.Row:
    """Run one search of many short trials and return how much memory each of them left behind."""
    flags = [*_flags(options), "--threads", "1", "--folder-name", "s", "--config", "one_seed"]
    flags += ["--seeds", *map(str, range(options.growth))]
    process = subprocess.Popen(
        _command("ray_search.py", flags),
        env={**os.environ, "HEBB_HOME": str(folder), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    search, samples = folder / "hebb" / "search" / "s", list[tuple[int, float, float]]()
    while process.poll() is None:
        done = len(list(search.glob("trials/*/result.json")))
        driver, worker = _memory(process.pid)
        if done and worker:  # the final table, which the driver makes without workers, is no trial
            samples.append((done, driver, worker))
        time.sleep(_SAMPLE_EVERY)
    if process.returncode:
        raise HebbError(f"ray_search.py failed: {(process.stderr.read() if process.stderr else '')[-500:]}")
    first = next(sample for sample in samples if sample[0] >= options.growth // 4)
    last = samples[-1]
    between = max(1, last[0] - first[0])
    return {
        "trials": options.growth,
        "driver_mb": last[1],
        "worker_mb": last[2],
        "driver_kb_per_trial": 1000 * (last[1] - first[1]) / between,
        "worker_kb_per_trial": 1000 * (last[2] - first[2]) / between,
        "tensorboard_s": _load_tensorboard(search / "trials"),
        "ratio": (last[1] + last[2]) / (first[1] + first[2]),
    }


def _memory(driver: int) -> tuple[float, float]:
    """Return the memory of the driver, and of its largest worker, in MB."""
    parents, sizes, names = {}, {}, {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            names[int(status.parent.name)] = (status.parent / "cmdline").read_text()
        except OSError:  # it has just ended
            continue
        parents[int(status.parent.name)] = int(lines["PPid"])
        sizes[int(status.parent.name)] = int(lines.get("VmRSS", "0 kB").split()[0]) / 1000

    def below(pid: int) -> bool:
        while pid > 1:
            pid = parents.get(pid, 0)
            if pid == driver:
                return True
        return False

    workers = [sizes[pid] for pid in parents if below(pid) and names[pid].startswith(_WORKER)]
    return sizes.get(driver, 0.0), max(workers, default=0.0)


def _load_tensorboard(folder: Path) -> float:
    """Return the seconds in which TensorBoard's own reader takes in all runs."""
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    began = time.perf_counter()
    events = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    spent = time.perf_counter() - began
    describe.console().print(f"TensorBoard reads {len(events.Runs())} runs")
    return spent


if __name__ == "__main__":
    run_command(main)
