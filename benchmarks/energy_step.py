"""One batch of a network that settles: ours, and the published code's if there is a checkout of it.

    python benchmarks/energy_step.py --published DIR --threads 1

DIR is a checkout of BariscanBozkurt/Supervised-CorInfoMax; it is imported as it is and needs pandas and matplotlib.
Both sides learn from the same random images (batch 20, the sizes of the preset), with the preset's own settings,
starting from the same weights; first five batches are compared weight by weight, then both are timed in turns of five
batches, so that a busy machine slows both, and medians count. The products of our batch, alone and one after the
other on tensors of the same shapes and orders of memory, are its limit. Both have the allocator that a run of ours has,
which keeps freed memory: in favour of the published code, which allocates large tensors anew in every batch. Expect
two minutes with --published, seconds without.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import before_torch  # noqa: F401 - sets how torch's idle threads wait

# isort: split
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import harness
from benchmarks.energy_published import Published
from hebb import builtin
from hebb.cli.entry import run_command
from hebb.cli.parsing import Parser, count
from hebb.config import catalog
from hebb.config.registry import DATASETS
from hebb.core.errors import ConfigError
from hebb.nn import model

PRESETS = ("2CorInfoMaxMNIST", "2CorInfoMaxSparseMNIST", "2EPMNIST", "2CSMMNIST", "3PCMNIST", "3PCNudgeMNIST")
BATCH = 20
COMPARED = TURN = 5
"""Batches after which the weights of both sides are compared, and batches that one side makes before the other."""


def main(argv: list[str]) -> int:
    """Measure every preset."""
    options = parse(argv)
    threads = harness.set_threads(options.threads)
    rows = [measure(name, options) for name in options.presets]
    harness.show(
        f"one batch of {BATCH}, {threads} thread(s); medians of {options.steps} turns, ms",
        rows,
        {
            "preset": "preset",
            "ours": "ours_ms:.2f",
            "products": "products_ms:.2f",
            "ours / products": "products_ratio:.2f",
            "GFLOP/s of products": "products_gflops:.0f",
            "published": "published_ms:.1f",
            "ratio": "ratio:.2f",
            f"largest difference after {COMPARED}": "difference:.1e",
        },
    )
    settings = {"presets": list(options.presets), "batch_size": BATCH, "steps": options.steps}
    harness.write(options.out, "energy_step", threads, settings, rows)
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser(__doc__ or "")
    parser.add_argument("--published", type=Path, metavar="DIR", help="checkout of the published code")
    parser.add_argument("--presets", nargs="+", default=PRESETS, metavar="NAME", help=f"(default: {' '.join(PRESETS)})")
    parser.add_argument("--steps", type=count, default=20, metavar="N", help="turns (default: 20)")
    parser.add_argument("--warm-up", type=count, default=2, metavar="N", help="turns (default: 2)")
    harness.add_flags(parser)
    return parser.parse(argv)


def measure(preset: str, options: argparse.Namespace) -> harness.Row:
    """Compare and time one preset on random images of its dataset."""
    builtin.load()
    spec = catalog.load().network(preset, "--presets")
    entry = max((e for e in DATASETS.entries() if e.name in preset), key=lambda e: len(e.name), default=None)
    if not spec.settles or entry is None:
        raise ConfigError("--presets", f"{preset} is no preset of a network that settles, named after its dataset")
    network = model.Network(spec, entry.shape(None, preset), entry.classes).initialise(0)
    energy = network.energy
    assert energy is not None
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(BATCH, energy.layers[0].weight.shape[1], generator=generator)
    labels = torch.randint(entry.classes, (BATCH,), generator=generator)
    target, optimiser = energy.one_hot(labels, x), energy.optimiser()
    sign = 1

    def ours() -> None:
        with torch.inference_mode():
            energy.learn(x, target, sign, 1.0, optimiser)

    functions: dict[str, harness.Function] = {"ours": ours}
    row: harness.Row = {"preset": preset}
    if options.published is not None:
        theirs = Published(options.published, energy)
        for i in range(COMPARED):
            sign = 1 - 2 * (i % 2)
            ours()
            theirs.learn(x, labels, sign)
        row["difference"] = theirs.difference()
        functions["published"] = lambda: theirs.learn(x, labels, sign)
    products = Products.of(ours)
    functions["products"] = products.repeat
    turns = {name: functools.partial(_repeat, function) for name, function in functions.items()}
    seconds = harness.in_turns(turns, torch.device("cpu"), options.steps, options.warm_up)
    for name, spent in seconds.items():
        numbers = harness.summary(spent, unit=1e-3 * TURN)
        row |= {f"{name}_ms": numbers["median"], f"{name}_p10_ms": numbers["p10"], f"{name}_p90_ms": numbers["p90"]}
    row["products_ratio"] = row["ours_ms"] / row["products_ms"]
    row["products_gflops"] = products.operations / row["products_ms"] / 1e6
    if "published" in seconds:
        row["ratio"] = row["published_ms"] / row["ours_ms"]
    return row


class Products(TorchDispatchMode):
    """Counts the matrix products of what runs inside, and repeats them alone.

    Attributes:
        operations: multiplications and additions of all of them.
        pairs: both factors of each, and memory for the result.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0
        self._twins: dict[tuple[int, torch.Size, tuple[int, ...]], torch.Tensor] = {}
        self.pairs: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    @classmethod
    def of(cls, function: harness.Function) -> Products:
        """Run the function once and return its products."""
        products = cls()
        with products:
            function()
        return products

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "matmul", "addmm", "addmm_", "linear"):
            a, b = (args[0], args[1].T) if name == "linear" else args[-2:]
            a, b = self._twin(a), self._twin(b)
            self.pairs.append((a, b, a.new_empty(len(a), b.shape[1])))
            self.operations += 2 * a.numel() * b.shape[1]
        return func(*args, **(kwargs or {}))

    def _twin(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return random numbers of the same shape and order of memory, the same ones for the same weights."""
        key = tensor.data_ptr(), tensor.shape, tensor.stride()
        if key not in self._twins:
            across = tensor.stride(0) == 1
            self._twins[key] = torch.rand(tensor.T.shape).T if across else torch.rand(tensor.shape)
        return self._twins[key]

    @torch.inference_mode()
    def repeat(self) -> None:
        """Multiply all pairs once."""
        for a, b, out in self.pairs:
            torch.mm(a, b, out=out)


def _repeat(function: harness.Function) -> None:
    for _ in range(TURN):
        function()


if __name__ == "__main__":
    run_command(main)
