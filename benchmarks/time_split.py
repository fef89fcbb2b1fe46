"""Where the time of a whole run goes, and what the machine would allow: start, Hebbian epochs, features, and so on.

    python benchmarks/time_split.py --preset 2SoftHebbCnnCIFAR --dataset-unsup CIFAR10_1 --dataset-sup CIFAR10_50

The run is that of `multi_layer.py` with the same data, in this process, into a temporary folder. Each part is timed
where the training loop calls it; "start and end" is the rest: the start of Python and torch, the data, the network,
and the last files. The limit of a part is the largest of three: its multiply-accumulates at the speed of one large
product of matrices, its bytes at the speed of one pass over memory, and the bytes that it keeps at the speed at which
the system hands out memory that the process had not used before, all measured here before the run. It counts the
convolutions and products that nobody can leave out, and each image or feature once where it is read or written.

Expect the time of the run, and a few seconds.
"""

from __future__ import annotations

import argparse
import functools
import mmap
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import before_torch  # noqa: F401 - sets how torch's idle threads wait

# isort: split
import torch

from benchmarks import harness
from hebb import builtin
from hebb.cli import train as command
from hebb.cli.entry import run_command
from hebb.cli.parsing import Parser
from hebb.config import catalog, plan, shapes
from hebb.config.phase import PhaseKind
from hebb.config.registry import DATASETS
from hebb.config.specs import RunConfig
from hebb.core import machine
from hebb.storage import folders
from hebb.training import evaluation, train
from hebb.training.run import Run

START, WHOLE = "start and end", "whole"
_FLOAT = 4
_FRESH = 1 << 29


def main(argv: list[str]) -> int:
    """Run, and show the parts."""
    options = parse(argv)
    threads = harness.set_threads(options.threads)
    builtin.load()
    flags = ["--preset", options.preset, "--dataset-unsup", options.dataset_unsup, "--dataset-sup", options.dataset_sup]
    run = command.resolve(command.parser().parse([*flags, "--threads", str(threads)]), catalog.load())
    speed = Speed.measured()
    clock = Clock()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, clock.watching():
        place = train.Place(datasets=folders.Home.find(options.data_dir).datasets, folder=Path(folder) / "run")
        result = train.run(run, place=place)
    whole = time.perf_counter() - began
    peak = harness.peak_bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    rows = table(run, clock.seconds, whole, speed)
    accuracy = result.metrics["test_acc"]
    harness.show(
        f"{run.network.name}: {whole:.1f} s, {threads} thread(s), test accuracy {accuracy:.2f} %, peak memory "
        f"{peak / 1e9:.1f} GB; {speed.macs / 1e9:.0f} Gmac/s, {speed.bytes / 1e9:.1f} GB/s, new memory "
        f"{speed.fresh / 1e9:.1f} GB/s",
        rows,
        {
            "part": "part",
            "s": "seconds:.1f",
            "share %": "share:.0f",
            "limit s": "limit_s:.1f",
            "s / limit": "ratio:.2f",
        },
    )
    settings = {"preset": run.network.name, "dataset_unsup": options.dataset_unsup, "dataset_sup": options.dataset_sup}
    more = {"seconds": whole, "accuracy": accuracy, "peak_bytes": peak, **vars(speed)}
    harness.write(options.out, "time_split", threads, settings, rows, run=more)
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser(__doc__ or "")
    parser.add_argument("--preset", default="2SoftHebbCnnCIFAR", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--dataset-unsup", default="CIFAR10_1", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--dataset-sup", default="CIFAR10_50", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--data-dir", metavar="DIR", help="as in multi_layer.py")
    harness.add_flags(parser)
    return parser.parse(argv)


@dataclass(frozen=True)
class Speed:
    """What the machine can do in a second.

    Attributes:
        macs: multiply-accumulates of a large product.
        bytes: bytes of memory read in one pass.
        fresh: bytes of memory that are written for the first time in the process.
    """

    macs: float
    bytes: float
    fresh: float

    @classmethod
    def measured(cls) -> Speed:
        """Measure each, the best of five."""
        a, b = torch.rand(2048, 2048), torch.rand(1 << 28)
        functions: dict[str, harness.Function] = {"product": lambda: a @ a, "pass": b.sum, "fresh": _touch}
        times = {name: min(spent) for name, spent in harness.in_turns(functions, torch.device("cpu"), 5, 1).items()}
        return cls(len(a) ** 3 / times["product"], b.nbytes / times["pass"], _FRESH / times["fresh"])


def _touch() -> None:
    """Write to memory that the system has just handed out, as the trainer does with that of features."""
    with mmap.mmap(-1, _FRESH) as memory:
        machine.use_huge_pages(torch.frombuffer(memory, dtype=torch.uint8)).zero_()


@dataclass
class Clock:
    """Adds up the time of each part while a run makes it; a part inside another counts for itself alone."""

    seconds: dict[str, float] = field(default_factory=dict)
    _inside: float = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time the methods that the training loop calls."""
        watched: list[tuple[Any, str, Callable[..., str]]] = [
            (Run, "inputs", lambda *_: "features"),
            (Run, "epoch", lambda run, index, *_: f"{run.phases[index].kind} epochs"),
            (evaluation, "of_phase", lambda *_: "evaluation"),
            (Run, "store", lambda *_: "checkpoints"),
        ]
        originals = [getattr(owner, name) for owner, name, _ in watched]
        for (owner, name, part), original in zip(watched, originals, strict=True):
            setattr(owner, name, self._timed(original, part))
        try:
            yield
        finally:
            for (owner, name, _), original in zip(watched, originals, strict=True):
                setattr(owner, name, original)

    def _timed(self, function: Callable[..., Any], part: Callable[..., str]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            outside, self._inside = self._inside, 0.0
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.perf_counter() - began
                name = part(*args)
                self.seconds[name] = self.seconds.get(name, 0.0) + spent - self._inside
                self._inside = outside + spent

        return timed


def table(run: RunConfig, seconds: dict[str, float], whole: float, speed: Speed) -> list[harness.Row]:
    """Return the parts with their limits, the longest first, then the rest and the whole."""
    limits = limits_of(run, speed)
    parts = {**dict(sorted(seconds.items(), key=lambda item: -item[1])), START: whole - sum(seconds.values())}
    rows: list[harness.Row] = []
    for name, spent in parts.items():
        row: harness.Row = {"part": name, "seconds": spent, "share": 100 * spent / whole}
        if name in limits:
            row |= {"limit_s": limits[name], "ratio": spent / limits[name]}
        rows.append(row)
    limit = sum(limits.values())
    return [*rows, {"part": WHOLE, "seconds": whole, "share": 100.0, "limit_s": limit, "ratio": whole / limit}]


def limits_of(run: RunConfig, speed: Speed) -> dict[str, float]:
    """Return the least time of each part: of its multiply-accumulates or its bytes, whichever takes longer."""
    traced = shapes.of_run(run)
    sums: dict[str, list[float]] = {}

    def add(part: str, operations: float, size: float, fresh: float = 0.0) -> None:
        before = sums.get(part, [0.0] * 3)
        spent = operations / speed.macs, size / speed.bytes, fresh / speed.fresh
        sums[part] = [a + b for a, b in zip(before, spent, strict=True)]

    for phase in plan.phases(run):
        data = run.datasets[phase.data]
        images, tests = data.train_samples(), data.pool_samples() - data.train_samples() + _tests(run)
        into, passes = prod(traced[phase.first].into), phase.epochs * images
        once = sum(traced[i].multiply_accumulates for i in range(phase.first, phase.top + 1))
        add(f"{phase.kind} epochs", 2 * once * passes, _FLOAT * into * passes)  # the answers, and the update
        if phase.keeps_features:
            below = sum(shape.multiply_accumulates for shape in traced[: phase.first])
            size = _FLOAT * into * (images + tests)
            add("features", below * (images + tests), size, size)
        if phase.kind == PhaseKind.BACKPROP:
            evaluations = sum(phase.evaluates(epoch) or epoch == phase.epochs - 1 for epoch in range(phase.epochs))
            add("evaluation", once * tests * evaluations, _FLOAT * into * tests * evaluations)
    return {part: max(spent) for part, spent in sums.items()}


def _tests(run: RunConfig) -> int:
    return DATASETS.get(run.dataset_sup.dataset, "dataset").test


if __name__ == "__main__":
    run_command(main)
