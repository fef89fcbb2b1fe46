"""What LPL adds to the forward and backward pass of its blocks: the ratio of a training step to the bare passes.

    python benchmarks/lpl_step.py [--preset NAME] [--batch N] [--threads N] [--repeats N] [--device D] [--json FILE]

Times three things on the same batches of 2 x N images, in turn, and prints the median time of each and the median
ratio of the first to the others:

    step          an update of the engine: both views through all blocks, losses, gradients, Adam
    block passes  forward and backward of the same blocks, each cut off from the others, from the mean of its output
    whole passes  forward and backward of the same blocks in one piece, from the mean of the last output

Making the views is not counted. The step may cost 1.2 times the whole passes at most.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import engine
import model
import train
from hebb import catalog, overrides, plan, shapes
from hebb.config import DataSpec, RunConfig

BOUND = 1.2


class Ready:
    """A split whose batches are ready: one step."""

    def __init__(self, x: Tensor, labels: Tensor) -> None:
        self.x, self.labels = x, labels

    def __len__(self) -> int:
        return len(self.x) // 2

    def batches(self, *_: Any, **__: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the one batch."""
        yield self.x, self.labels


def config(preset: str, batch: int, device: str) -> RunConfig:
    """Return a run of the preset whose epoch is one update."""
    known = catalog.load()
    data = DataSpec(dataset="CIFAR10", batch_size=batch, samples=batch)
    run = RunConfig(
        network=known.network(preset), mode="consecutive", dataset_sup=data, dataset_unsup=data, device=device
    )
    return overrides.apply(run, {"b*.layer.warmup": 0}, known)


def functions(run: RunConfig, batch: int, device: torch.device) -> dict[str, Any]:
    """Return what is timed."""
    phase = plan.phases(run)[0]
    network = model.build(run).to(device)
    optimiser = train.optimiser_of(run, phase, network)
    x = torch.rand(2 * batch, *shapes.input_shape(run), device=device)
    split = Ready(x, torch.zeros(2 * batch, dtype=torch.int64, device=device))
    at = engine.Epoch(seed=0, phase=replace(phase, updates=1), phase_index=0, epoch=0)
    twin = model.build(run).to(device)
    blocks = [twin[i] for i in phase.blocks]

    def step() -> None:
        engine.hebbian(network, split, at, lambda _: None, optimiser)  # type: ignore[arg-type]

    def block_passes() -> None:
        twin.zero_grad(set_to_none=True)
        out = x
        for block in blocks:
            out = block(out.detach())
            out.mean().backward()

    def whole_passes() -> None:
        twin.zero_grad(set_to_none=True)
        out = x
        for block in blocks:
            out = block(out)
        out.mean().backward()

    return {"step": step, "block passes": block_passes, "whole passes": whole_passes}


def measure(timed: dict[str, Any], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Return the seconds of every repeat, the functions in turn, after a round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for repeat in range(repeats + 1):
        for name, function in timed.items():
            began = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def main(words: list[str]) -> int:
    """Time, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="9LPLVggCIFAR")
    parser.add_argument("--batch", type=int, default=64, help="images, each with two views (default: 64)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    run = config(options.preset, options.batch, device.type)
    seconds = measure(functions(run, options.batch, device), options.repeats, device)
    found: dict[str, Any] = {
        **{key: value for key, value in vars(options).items() if key != "json"},
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "milliseconds": {name: round(1000 * statistics.median(times), 2) for name, times in seconds.items()},
        "ratio": {
            name: round(statistics.median(a / b for a, b in zip(seconds["step"], times, strict=True)), 3)
            for name, times in seconds.items()
            if name != "step"
        },
    }
    for name, milliseconds in found["milliseconds"].items():
        ratio = f"  step / {name} = {found['ratio'][name]}" if name in found["ratio"] else ""
        print(f"{name:13} {milliseconds:9.2f} ms{ratio}")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return int(found["ratio"]["whole passes"] > BOUND)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
