"""Peak memory of whole runs, preset by preset, against loading the data and building the network alone.

    python benchmarks/peak_memory.py --presets 2SoftHebbCnnCIFAR 4SoftHebbCnnCIFAR --dataset-unsup CIFAR10_1 \
        --dataset-sup CIFAR10_50 --set dataset_sup.epochs=1

Every run is the command `multi_layer.py` in a process of its own, with the flags given here; its peak is the largest
resident memory the system has seen. The floor is the peak of a process that loads the same data, builds the same
network and stops. More epochs take no more memory, so one per phase is enough. `memory_stl10.py` does the same for
STL-10's 100,000 unlabelled images, without needing the files.

Expect two minutes per preset, and a ratio near 1 if no features are kept.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import harness
from hebb import builtin
from hebb.cli import describe, train
from hebb.cli.entry import run_command
from hebb.cli.parsing import Parser
from hebb.config import catalog
from hebb.core.errors import HebbError
from hebb.storage import folders

ROOT = Path(__file__).resolve().parent.parent
PRESETS = ("2SoftHebbCnnCIFAR", "4SoftHebbCnnCIFAR")
LOAD = "--load-only"
LAUNCHER = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""
"""Runs a command and prints its peak: the system counts the memory of who starts a process as the process's own."""


def main(argv: list[str]) -> int:
    """Run every preset and its floor, and show their peaks."""
    if argv[:1] == [LOAD]:
        return load(argv[1:])
    options = parse(argv)
    threads = harness.set_threads(options.threads)
    rows = [measure(preset, threads, options) for preset in options.presets]
    harness.show(
        f"peak memory, {threads} thread(s)",
        rows,
        {"preset": "preset", "run GB": "run_gb:.2f", "loading GB": "loading_gb:.2f", "ratio": "ratio:.2f"},
    )
    settings = {name: getattr(options, name) for name in ("presets", "dataset_unsup", "dataset_sup", "changes")}
    harness.write(options.out, "peak_memory", threads, settings, rows)
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser(__doc__ or "")
    parser.add_argument("--presets", nargs="+", default=PRESETS, metavar="NAME", help=f"(default: {' '.join(PRESETS)})")
    parser.add_argument("--dataset-unsup", default="CIFAR10_1", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--dataset-sup", default="CIFAR10_50", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument(
        "--set", dest="changes", nargs="+", default=["dataset_sup.epochs=1"], metavar="PATH=VALUE", help="(one epoch)"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="as in multi_layer.py: where the data are found")
    harness.add_flags(parser)
    return parser.parse(argv)


def measure(preset: str, threads: int, options: argparse.Namespace) -> harness.Row:
    """Return the peaks of the run and of its floor, each in a process of its own."""
    flags = ["--preset", preset, "--dataset-unsup", options.dataset_unsup, "--dataset-sup", options.dataset_sup]
    flags += ["--threads", str(threads), "--device", "cpu", "--set", *options.changes]
    with tempfile.TemporaryDirectory() as folder:
        here = ["--data-dir", folder]
        run = peak([str(ROOT / "multi_layer.py"), *flags, *here], options.data_dir)
        floor = peak([str(Path(__file__).resolve()), LOAD, *flags, *here], options.data_dir)
    return {"preset": preset, "run_gb": run / 1e9, "loading_gb": floor / 1e9, "ratio": run / floor}


def peak(command: list[str], data_dir: str | None) -> int:
    """Run a Python command and return the bytes of its largest resident memory."""
    environment = {**os.environ, "HEBB_DATASETS": str(folders.Home.find(data_dir).datasets)}
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, sys.executable, *command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise HebbError("\n".join([f"{Path(command[0]).name} failed", *done.stderr.strip().splitlines()[-2:]]))
    return harness.peak_bytes(int(done.stdout.split()[-1]))


def load(argv: list[str]) -> int:
    """Load the data of a run and build its network: what any way of training must hold."""
    from hebb.data import images
    from hebb.nn import model

    options = train.parser().parse(argv)
    builtin.load()
    run = train.resolve(options, catalog.load())
    datasets, device = folders.Home.find(options.data_dir).datasets, model.device_of(run)
    # once when both phases read the same images, as a run does
    contents = {replace(spec, epochs=1, batch_size=1, print_freq=1) for spec in (run.dataset_sup, run.dataset_unsup)}
    held = [model.build(run), *(images.load(spec, datasets, run.split_seed, device) for spec in contents)]
    describe.console().print(f"held: {len(held)} objects")
    return 0


if __name__ == "__main__":
    run_command(main)
