"""An LPL step of the engine, against forward and backward of the same blocks alone.

    python benchmarks/lpl_step.py --preset 9LPLVggCIFAR --batch-size 64

A step is an update as the engine makes it: both views of every image through all blocks, losses, gradients that stay
in their block, Adam. Making the views is left out. It takes turns with two bare passes over the same 2 x 64 images:

    whole     forward and backward of the blocks in one piece, from the mean of the last output
    blocks    forward and backward of each block, cut off from the others, from the mean of its output

each in both memory layouts, of which the faster counts. Medians count. Expect less than 1.2 for both: 0.8 to 1 for
whole, whose gradients also go down from block to block, and about 1.1 for blocks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import before_torch  # noqa: F401 - sets how torch's idle threads wait

# isort: split
import torch
from torch import Tensor

from benchmarks import harness
from hebb import builtin
from hebb.cli.entry import run_command
from hebb.cli.parsing import Parser, count
from hebb.config import catalog, overrides, plan
from hebb.config.specs import RunConfig
from hebb.core.errors import ConfigError
from hebb.data.images import Split
from hebb.nn import model
from hebb.nn.blocks import Block
from hebb.training import engine, train
from hebb.training.epoch import Epoch

LAYOUTS = {"planes": torch.contiguous_format, "pixels": torch.channels_last}


def main(argv: list[str]) -> int:
    """Measure the preset's blocks with a local loss."""
    options = parse(argv)
    threads = harness.set_threads(options.threads)
    row = measure(config(options), options)
    harness.show(
        f"LPL step of {options.preset}, {threads} thread(s); medians of {options.steps}",
        [row],
        {
            "images": "batch_size",
            "step ms": "step_ms:.1f",
            "whole ms": "whole_ms:.1f",
            "blocks ms": "blocks_ms:.1f",
            "step / whole": "ratio:.2f",
            "step / blocks": "ratio_blocks:.2f",
        },
    )
    settings = {"preset": options.preset, "batch_size": options.batch_size, "steps": options.steps}
    harness.write(options.out, "lpl_step", threads, settings, [row])
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser(__doc__ or "")
    parser.add_argument("--preset", default="9LPLVggCIFAR", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--dataset", default="CIFAR10", metavar="NAME", help="whose shapes (default: %(default)s)")
    parser.add_argument(
        "--batch-size", type=count, default=64, metavar="N", help="images, two views each (default: 64)"
    )
    parser.add_argument("--steps", type=count, default=20, metavar="N", help="(default: 20)")
    parser.add_argument("--device", help="cpu or cuda (default: cpu)", choices=("cpu", "cuda"), default="cpu")
    harness.add_flags(parser)
    return parser.parse(argv)


def config(options: argparse.Namespace) -> RunConfig:
    """Return a run whose first phase is that of the blocks with a local loss, an update an epoch."""
    builtin.load()
    presets = catalog.load()
    data = replace(presets.dataset(options.dataset, "--dataset"), batch_size=options.batch_size, epochs=1)
    run = RunConfig(
        network=presets.network(options.preset),
        mode="consecutive",
        dataset_sup=data,
        dataset_unsup=data,
        device=options.device,
    )
    if not any(block.local for block in run.network.blocks):
        raise ConfigError("--preset", f"{run.network.name} has no block with a loss of its own")
    return overrides.apply(run, {"b*.layer.warmup": 0}, presets)


def measure(run: RunConfig, options: argparse.Namespace) -> harness.Row:
    """Return the times of the step and of the bare passes."""
    device = model.device_of(run)
    phase = plan.phases(run)[0]
    network, twin = (model.build(run).to(device) for _ in range(2))
    optimiser = train.optimiser_of(run, phase, network)
    draw = torch.Generator(device=device).manual_seed(0)
    views = torch.rand((2 * phase.batch_size, *network[0].shapes.into), generator=draw, device=device)
    split = Ready(views, torch.zeros(phase.batch_size, dtype=torch.int64, device=device))
    at = Epoch(seed=0, phase=phase, phase_index=0, epoch=0)
    functions: dict[str, Callable[[], object]] = {
        "step": lambda: engine.hebbian(network, split, at, lambda _: None, optimiser)
    }
    for layout, kind in LAYOUTS.items():
        x, blocks = views.contiguous(memory_format=kind), [twin[i] for i in phase.blocks]
        functions[f"whole {layout}"] = lambda x=x, blocks=blocks: passes(x, blocks, apart=False)  # type: ignore[misc]
        functions[f"blocks {layout}"] = lambda x=x, blocks=blocks: passes(x, blocks, apart=True)  # type: ignore[misc]
    seconds = harness.in_turns(functions, device, options.steps, warm_up=2)
    summaries = {name: harness.summary(values) for name, values in seconds.items()}
    step = summaries["step"]["median"]
    whole, apart = (min(summaries[f"{kind} {layout}"]["median"] for layout in LAYOUTS) for kind in ("whole", "blocks"))
    return {
        "batch_size": phase.batch_size,
        "step_ms": step,
        "whole_ms": whole,
        "blocks_ms": apart,
        "ratio": step / whole,
        "ratio_blocks": step / apart,
        "all_ms": summaries,
    }


class Ready(Split):
    """A split whose only batch, with both views, is there already."""

    def batches(self, *_: object, **__: object):  # type: ignore[no-untyped-def]
        """Yield the batch."""
        yield self.images, self.labels.repeat(2)


def passes(x: Tensor, blocks: list[Block], *, apart: bool) -> None:
    """Run forward and backward through the blocks, as one network or one by one."""
    out = x
    for block in blocks:
        block.zero_grad(set_to_none=True)
        out = block(out.detach() if apart else out)
        if apart:
            out.mean().backward()
    if not apart:
        out.mean().backward()


if __name__ == "__main__":
    run_command(main)
