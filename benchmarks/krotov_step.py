"""The step of a Krotov-Hopfield convolution against the two bare convolutions it cannot avoid.

    python benchmarks/krotov_step.py --rank 9 --lebesgue-p 2

The step is `layer.learn` on a batch of 64: memory format, effective weight, currents, the ranks of every pixel's
neurons, change, decay, normaliser per filter and update. The floor is the convolution and its weight gradient on the
same input in the faster of the contiguous and the channels-last layout. They take turns, so that a busy machine
slows both; the medians of 50 count. The shapes are those of the first three blocks of the benchmark network at
their largest maps.

Expect half a minute. The ratio must be at most 2.5 for the first shape, whose small kernels leave the step bound by
memory traffic and by the ranking, and at most 1.3 for the others; with `--check` a larger ratio is an error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import before_torch  # noqa: F401 - sets how torch's idle threads wait

# isort: split
import torch

from benchmarks import harness, hebbian_step
from hebb import builtin
from hebb.cli.entry import run_command
from hebb.cli.parsing import Parser, count
from hebb.config import catalog
from hebb.config.specs import make_layer
from hebb.core.errors import HebbError
from hebb.nn.layers import ConvHebbLayer


@dataclass(frozen=True)
class Case:
    """A layer, the side of its maps, and the largest ratio allowed."""

    channels: int
    filters: int
    kernel: int
    side: int
    most: float


CASES = (Case(3, 96, 5, 32, 2.5), Case(96, 128, 3, 16, 1.3), Case(128, 192, 3, 16, 1.3))


def main(argv: list[str]) -> int:
    """Measure the three layers."""
    options = parse(argv)
    threads = harness.set_threads(options.threads)
    rows = [measure(case, options) for case in CASES]
    harness.show(
        f"Krotov step, batch {options.batch_size}, p {options.lebesgue_p:g}, rank {options.rank}, {threads} thread(s); "
        f"medians of {options.steps}, ms",
        rows,
        {
            "weights": "weights",
            "input": "input",
            "step": "step_ms:.3f",
            "of it ranking": "gate_ms:.3f",
            "forward": "forward_ms:.3f",
            "gradient": "gradient_ms:.3f",
            "layout": "layout",
            "both": "floor_ms:.3f",
            "ratio": "ratio:.2f",
            "at most": "most:.1f",
        },
    )
    names = ("batch_size", "rank", "lebesgue_p", "steps", "warm_up", "device")
    settings = {name: getattr(options, name) for name in names}
    harness.write(options.out, "krotov_step", threads, settings, rows)
    slow = [row["weights"] for row in rows if row["ratio"] > row["most"]]
    if options.check and slow:
        raise HebbError(f"slower than asked for: {' and '.join(slow)}")
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser(__doc__ or "")
    parser.add_argument("--batch-size", type=count, default=64, metavar="N", help="(default: 64)")
    parser.add_argument("--rank", type=count, default=9, metavar="K", help="punished neuron (default: 9)")
    parser.add_argument("--lebesgue-p", type=float, default=2, metavar="P", help="(default: 2)")
    parser.add_argument("--steps", type=count, default=harness.STEPS, metavar="N", help="(default: 50)")
    parser.add_argument("--warm-up", type=count, default=harness.WARM_UP, metavar="N", help="(default: 10)")
    parser.add_argument("--device", help="cpu or cuda (default: cpu)", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a ratio is larger than asked for")
    harness.add_flags(parser)
    return parser.parse(argv)


@torch.no_grad()
def measure(case: Case, options: argparse.Namespace) -> harness.Row:
    """Return the row of one layer; it learns from one batch again and again."""
    values = {
        "out_channels": case.filters,
        "kernel_size": case.kernel,
        "ranking_param": options.rank,
        "lebesgue_p": options.lebesgue_p,
        "delta": 0.08,
    }
    builtin.load()
    spec = make_layer("Krotov", "CNN", values, catalog.load().defaults, "benchmark")
    device = torch.device(options.device)
    layer = ConvHebbLayer(spec, case.channels, case.filters)
    layer.initialise(torch.Generator().manual_seed(0))
    layer.to(device)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(options.batch_size, case.channels, case.side, case.side, generator=generator).to(device)
    u = layer(x)
    functions: dict[str, Callable[[], object]] = {
        "step": lambda: layer.learn(x, 1e-4),
        "gate": lambda: layer.gate(u),
        **hebbian_step.convolutions(layer, layer.prepare(x), layer.gate(u)),
    }
    taken = harness.in_turns(functions, device, options.steps, options.warm_up)
    summaries = {name: harness.summary(seconds) for name, seconds in taken.items()}
    pairs = {
        name: (summaries[f"forward {name}"]["median"], summaries[f"gradient {name}"]["median"])
        for name in hebbian_step.LAYOUTS
    }
    layout = min(pairs, key=lambda name: sum(pairs[name]))
    step, floor = summaries["step"]["median"], sum(pairs[layout])
    return {
        "weights": "x".join(map(str, layer.weight.shape)),
        "input": "x".join(map(str, x.shape)),
        "step_ms": step,
        "gate_ms": summaries["gate"]["median"],
        "forward_ms": pairs[layout][0],
        "gradient_ms": pairs[layout][1],
        "layout": layout,
        "floor_ms": floor,
        "ratio": step / floor,
        "most": case.most,
        "all_ms": summaries,
    }


if __name__ == "__main__":
    run_command(main)
