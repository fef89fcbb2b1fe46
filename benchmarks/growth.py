"""What a step costs as a network grows: width, depth, batch, kernel and image size, each doubled again and again.

    python benchmarks/growth.py --out growth.json

One quantity of a base network varies at a time. A Hebbian step is the engine's own (`hebbian_step.py`); a settling
batch is one update of a network that settles (`energy_step.py`). Beside the time stands the number of
multiply-accumulates of its products: two passes of an image through each Hebbian layer, the answers and the update;
for a network that settles the products of one batch, counted as they run. The exponent is that of time against
operations over the last doubling: at 1 a step costs what its operations cost, below 1 a larger network is used better,
above 1 something else grows faster. `--figure FILE` draws both on logarithmic axes, as PNG or SVG.

Random images: the time does not depend on them. Expect a minute.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import before_torch  # noqa: F401 - sets how torch's idle threads wait

# isort: split
import torch

from benchmarks import harness
from benchmarks.energy_step import Products
from hebb import builtin
from hebb.analysis import style
from hebb.cli.entry import run_command
from hebb.cli.parsing import Parser, count
from hebb.config import catalog, plan
from hebb.config.specs import RunConfig
from hebb.data.images import Split
from hebb.nn import model
from hebb.training import engine
from hebb.training.epoch import Epoch

CLASSES = 10


@dataclass(frozen=True)
class Size:
    """A Hebbian network of equal convolutions: neurons, blocks, images of a batch, side of kernel and image."""

    width: int = 48
    depth: int = 1
    batch: int = 10
    kernel: int = 5
    image: int = 32

    @property
    def network(self) -> str:
        """The preset string; ``--mode`` simultaneous trains all blocks at once."""
        block = f"Soft-c{self.width}-k{self.kernel}-p{self.kernel // 2}-t1-lr0.01:bn:triangle"
        return " ".join([*[block] * self.depth, "BP:flatten"])


@dataclass(frozen=True)
class SettlingSize:
    """A network that settles: neurons of a hidden layer, hidden layers, images of a batch."""

    width: int = 128
    depth: int = 2
    batch: int = 20

    def network(self, method: str) -> str:
        """The preset string."""
        return " ".join([f"{method}-c{self.width}:flatten", *[f"{method}-c{self.width}"] * (self.depth - 1), method])


HEBBIAN = {
    "width": (24, 48, 96, 192, 384),
    "depth": (1, 2, 4),
    "batch": (5, 10, 20, 40, 80),
    "kernel": (3, 5, 7, 9),
    "image": (8, 16, 32, 64),
}
SETTLING = {"width": (64, 128, 256, 512), "depth": (1, 2, 4), "batch": (10, 20, 40, 80)}
METHODS = ("PC", "CorInfoMax")
"""A network of one relaxation, and one of two phases with lateral weights."""


def main(argv: list[str]) -> int:
    """Measure and show every series, and draw them."""
    options = parse(argv)
    threads = harness.set_threads(options.threads)
    builtin.load()
    steps: list[tuple[str, dict[str, tuple[int, ...]], Prepare]] = [("Hebbian step", HEBBIAN, _hebbian)]
    steps += [(f"{method} batch", SETTLING, functools.partial(_grown, method)) for method in METHODS]
    rows = [
        row
        for name, axes, prepare in steps
        for axis, values in axes.items()
        for row in series(name, axis, values, prepare, options)
    ]
    harness.show(
        f"cost of a step, {threads} thread(s); medians of {options.steps}",
        rows,
        {
            "step": "step",
            "varied": "axis",
            "value": "value:,",
            "ms": "ms:.2f",
            "Mmac": "mega:.1f",
            "Gmac/s": "speed:.1f",
            "exponent": "exponent:.2f",
        },
    )
    if options.figure is not None:
        draw(rows, options.figure)
    harness.write(options.out, "growth", threads, {"steps": options.steps}, rows)
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser(__doc__ or "")
    parser.add_argument("--steps", type=count, default=20, metavar="N", help="measured steps of a size (default: 20)")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the series there: .png or .svg")
    harness.add_flags(parser)
    return parser.parse(argv)


@dataclass(frozen=True)
class Step:
    """A step that can be repeated, and its multiply-accumulates."""

    make: Callable[[], object]
    operations: int


Prepare = Callable[[str, int], Step]
"""Returns the step of a network with one quantity at a value."""


def series(
    name: str, axis: str, values: tuple[int, ...], prepare: Prepare, options: argparse.Namespace
) -> list[harness.Row]:
    """Measure a step at every value of one quantity; each row has the exponent since the one before."""
    rows: list[harness.Row] = []
    for value in values:
        step = prepare(axis, value)
        seconds = harness.in_turns({"step": step.make}, torch.device("cpu"), options.steps, min(5, options.steps))
        spent = harness.summary(seconds["step"])
        rows.append(
            {
                "step": name,
                "axis": axis,
                "value": value,
                "ms": spent["median"],
                "mega": step.operations / 1e6,
                "speed": step.operations / spent["median"] / 1e6,
                "exponent": None,
                "all_ms": spent,
            }
        )
    for before, after in itertools.pairwise(rows):
        after["exponent"] = math.log(after["ms"] / before["ms"]) / math.log(after["mega"] / before["mega"])
    return rows


def _hebbian(axis: str, value: int) -> Step:
    """Return an update of all Hebbian blocks on one batch of random images."""
    size = replace(Size(), **{axis: value})
    presets = catalog.load()
    data = replace(presets.dataset("CIFAR10_1", "growth"), batch_size=size.batch)
    run = RunConfig(network=presets.network(size.network), mode="simultaneous", dataset_sup=data, dataset_unsup=data)
    network = model.Network(run.network, (3, size.image, size.image), CLASSES).initialise(0)
    phase = replace(plan.phases(run)[0], blocks=tuple(range(size.depth)))
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (size.batch, 3, size.image, size.image), generator=draw, dtype=torch.uint8)
    split = Split(pixels, torch.zeros(size.batch, dtype=torch.int64))
    epochs = itertools.count()

    def step() -> None:
        at = Epoch(seed=0, phase=phase, phase_index=0, epoch=min(next(epochs), phase.epochs - 1))
        engine.hebbian(network, split, at, lambda _: None)

    once = sum(network[i].shapes.multiply_accumulates for i in phase.blocks)
    return Step(step, 2 * size.batch * once)


def _grown(method: str, axis: str, value: int) -> Step:
    return _settling(replace(SettlingSize(), **{axis: value}), method)


def _settling(size: SettlingSize, method: str) -> Step:
    """Return an update of a settling network on one batch of random images of MNIST's size."""
    spec = catalog.load().network(size.network(method))
    network = model.Network(spec, (1, 28, 28), CLASSES).initialise(0)
    energy = network.energy
    assert energy is not None
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(size.batch, 784, generator=draw)
    target = energy.one_hot(torch.randint(CLASSES, (size.batch,), generator=draw), x)
    optimiser = energy.optimiser()

    def step() -> None:
        with torch.inference_mode():
            energy.learn(x, target, 1, 1.0, optimiser)

    return Step(step, Products.of(step).operations // 2)


@style.drawn
def draw(rows: list[harness.Row], path: Path) -> None:
    """Draw time over operations: a panel for each kind of step, a line for each quantity."""
    names = list(dict.fromkeys(row["step"] for row in rows))
    figure, panels = style.figure(1, len(names), width=3.2, squeeze=False)
    for panel, name in zip(panels.flat, names, strict=True):
        own = [row for row in rows if row["step"] == name]
        for number, axis in enumerate(dict.fromkeys(row["axis"] for row in own)):
            points = [row for row in own if row["axis"] == axis]
            panel.plot([p["mega"] for p in points], [p["ms"] for p in points], label=axis, **style.line(number))
        panel.set(xscale="log", yscale="log")
        style.log_ticks(panel.xaxis, *panel.get_xlim())
        style.log_ticks(panel.yaxis, *panel.get_ylim())
        style.label(panel, "multiply-accumulates (millions)", "time (ms)" if name == names[0] else "", name)
        panel.legend()
    style.save(figure, path, path.suffix.removeprefix("."))


if __name__ == "__main__":
    run_command(main)
