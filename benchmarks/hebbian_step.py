"""A whole Hebbian step against the two bare convolutions it cannot avoid, layer by layer.

    python benchmarks/hebbian_step.py --preset 4SoftHebbCnnCIFAR --dataset-unsup CIFAR10_1

The step is the engine's own, one batch of `engine.hebbian`: gather by index, normalisation, batch norm, padding,
gate, update and rate; nobody reads the output of the block that learns. The floor is the convolution and its weight
gradient on the same padded input, in the faster of the contiguous and the channels-last layout. They take turns, so
a busy machine slows both; the medians of 50 count. A layer above the first reads features of images that went
through the layers below.

With `--compile` the compiled steps of `multi_layer.py --compile` follow, with the floor measured anew between them.
With `--compute-dtype bfloat16` the step's products have that type; the floor stays float32.

Expect a minute, and one more to compile. A ratio of 1 would be the machine's limit; the first layer, whose kernels are
small and whose maps are large, is bound by memory traffic and stays farther from it than the others.
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
from torch.nn import functional as F

from benchmarks import harness
from hebb import builtin
from hebb.cli.entry import run_command
from hebb.cli.parsing import Parser, count
from hebb.config import catalog, plan
from hebb.config.phase import Phase, PhaseKind
from hebb.config.specs import RunConfig
from hebb.core.errors import ConfigError
from hebb.data import images
from hebb.data.images import Split
from hebb.kernels.private_torch import convolution_weight_gradient
from hebb.nn import compiled as compiling
from hebb.nn import model
from hebb.nn.layers import ConvHebbLayer
from hebb.probing import readout
from hebb.storage import folders
from hebb.training import engine
from hebb.training.epoch import Epoch

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def main(argv: list[str]) -> int:
    """Measure every convolutional layer of the preset that learns by a Hebbian rule."""
    options = parse(argv)
    threads = harness.set_threads(options.threads)
    run = config(options)
    rows = measure(run, options)
    compiled = {"compiled": "compiled_ms:.3f", "its ratio": "compiled_ratio:.2f"} if options.compile else {}
    harness.show(
        f"Hebbian step of {run.network.name}, batch {rows[0]['batch_size']}, {threads} thread(s); medians of "
        f"{options.steps}, ms",
        rows,
        {
            "layer": "layer",
            "weights": "weights",
            "input": "input",
            "step": "step_ms:.3f",
            "forward": "forward_ms:.3f",
            "gradient": "gradient_ms:.3f",
            "layout": "layout",
            "both": "floor_ms:.3f",
            "ratio": "ratio:.2f",
            **compiled,
        },
    )
    settings = {"preset": run.network.name, "dataset": options.dataset_unsup, "steps": options.steps}
    settings |= {"compile": options.compile, "compute_dtype": options.compute_dtype}
    harness.write(options.out, "hebbian_step", threads, settings, rows)
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser(__doc__ or "")
    parser.add_argument("--preset", default="4SoftHebbCnnCIFAR", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--dataset-unsup", default="CIFAR10_1", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=count, metavar="N", help="(default: that of the dataset)")
    parser.add_argument("--steps", type=count, default=harness.STEPS, metavar="N", help="(default: 50)")
    parser.add_argument("--warm-up", type=count, default=harness.WARM_UP, metavar="N", help="(default: 10)")
    parser.add_argument("--features", type=count, default=1000, metavar="N", help="of upper layers (1000)")
    parser.add_argument("--compile", action="store_true", help="measure the compiled steps too")
    parser.add_argument(
        "--compute-dtype", metavar="TYPE", default="float32", help="of the step's products: float32 or bfloat16"
    )
    parser.add_argument("--device", help="cpu or cuda (default: cpu)", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--data-dir", metavar="DIR", help="as in multi_layer.py")
    harness.add_flags(parser)
    return parser.parse(argv)


def config(options: argparse.Namespace) -> RunConfig:
    """Return the run whose Hebbian phases are measured."""
    builtin.load()
    presets = catalog.load()
    data = presets.dataset(options.dataset_unsup, "--dataset-unsup")
    if options.batch_size is not None:
        data = replace(data, batch_size=options.batch_size)
    return RunConfig(
        network=presets.network(options.preset),
        mode="successive",
        dataset_sup=data,
        dataset_unsup=data,
        device=options.device,
        compute_dtype=options.compute_dtype,
        compile=options.compile,
    )


def measure(run: RunConfig, options: argparse.Namespace) -> list[harness.Row]:
    """Return one row per layer, from the bottom; each layer learns while it is measured, and feeds the next."""
    device = model.device_of(run)
    if run.compile and (problem := compiling.missing(device)) is not None:
        raise ConfigError("--compile", f"nothing compiles here: {problem}")
    network = model.build(run).to(device)
    datasets = folders.Home.find(options.data_dir).datasets
    split = images.load(run.dataset_unsup, datasets, run.split_seed, device).train
    phases = {phase.top: phase for phase in plan.phases(run) if phase.kind == PhaseKind.HEBBIAN}
    rows = []
    for i in range(len(network)):
        layer = network[i].hebb
        if isinstance(layer, ConvHebbLayer):
            rows.append(_row(i, _alone(network, i), layer, split, phases[i], options))
        split = _features(network, i, split, options.features)
    if not rows:
        raise ConfigError("--preset", f"{run.network.name} has no convolution that learns by a Hebbian rule")
    return rows


def _alone(network: model.Network, i: int) -> model.Network:
    """Return a network of block ``i`` alone, the same object: what the engine runs when its input is at hand."""
    block = network[i]
    alone = model.Network(replace(network.spec, blocks=(block.spec,)), block.shapes.into, block.shapes.out_channels)
    alone.blocks[0] = block
    return alone


@torch.no_grad()
def _features(network: model.Network, i: int, split: Split, most: int) -> Split:
    """Return what block ``i`` passes on of the first images of ``split``."""
    if isinstance(split.images, Tensor):
        split = replace(split, images=split.images[:most], labels=split.labels[:most])
    network.eval()
    batches = [(network(x, i, i + 1), labels) for x, labels in split.batches(readout.BATCH)]
    features = torch.cat([x for x, _ in batches])
    if features.dim() == 4:
        features = features.contiguous(memory_format=torch.channels_last)  # as the engine keeps them
    return Split(features, torch.cat([labels for _, labels in batches]))


def _row(
    i: int, network: model.Network, layer: ConvHebbLayer, split: Split, phase: Phase, options: argparse.Namespace
) -> harness.Row:
    """Measure the steps of one block and, between them, its bare convolutions."""
    padded, bare = _bare(network, layer, split, phase.batch_size)
    compiled, network[0].compiled = network[0].compiled, None
    seconds = _timed(network, split, phase, bare, options)
    step, layout, forward, gradient = _medians(seconds)
    row: harness.Row = {
        "layer": f"b{i}",
        "batch_size": phase.batch_size,
        "weights": "x".join(map(str, layer.weight.shape)),
        "input": "x".join(map(str, padded.shape)),
        "step_ms": step,
        "forward_ms": forward,
        "gradient_ms": gradient,
        "layout": layout,
        "floor_ms": forward + gradient,
        "ratio": step / (forward + gradient),
        "all_ms": seconds,
    }
    if compiled is not None:
        network[0].compiled = compiled
        again = _timed(network, split, phase, bare, options)
        step, _, *floor = _medians(again)
        row |= {"compiled_ms": step, "compiled_ratio": step / sum(floor), "all_compiled_ms": again}
    return row


def _timed(
    network: model.Network,
    split: Split,
    phase: Phase,
    bare: dict[str, Callable[[], Tensor]],
    options: argparse.Namespace,
) -> dict[str, harness.Row]:
    """Return the times of the engine's steps and of the bare convolutions between them."""
    steps = _Steps(bare, options.warm_up, options.steps, split.labels.device)
    phase, epoch = replace(phase, blocks=(0,)), 0
    while not steps.complete:
        try:
            engine.hebbian(network, split, Epoch(seed=0, phase=phase, phase_index=0, epoch=epoch), steps)
        except _Enough:
            break
        epoch += 1
    return {name: harness.summary(seconds) for name, seconds in steps.seconds.items()}


def _medians(found: dict[str, harness.Row]) -> tuple[float, str, float, float]:
    """Return the step, the faster layout, and its forward pass and gradient."""
    pairs = {name: (found[f"forward {name}"]["median"], found[f"gradient {name}"]["median"]) for name in LAYOUTS}
    layout = min(pairs, key=lambda name: sum(pairs[name]))
    return found["step"]["median"], layout, *pairs[layout]


@torch.no_grad()
def _bare(
    network: model.Network, layer: ConvHebbLayer, split: Split, batch_size: int
) -> tuple[Tensor, dict[str, Callable[[], Tensor]]]:
    """Return the padded input of a batch, and the convolutions on it in both layouts."""
    x, labels = next(split.batches(batch_size))
    padded = layer.prepare(network[0].train().before(x))
    return padded, convolutions(layer, padded, layer.gate(layer.respond(padded), labels))


def convolutions(layer: ConvHebbLayer, padded: Tensor, gate: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Return the convolution of a padded batch and its weight gradient for the output gradient ``gate``, by layout."""
    spec = layer.spec
    functions: dict[str, Callable[[], Tensor]] = {}
    for name, layout in LAYOUTS.items():
        a, w, y = (t.float().clone().contiguous(memory_format=layout) for t in (padded, layer.weight, gate))

        def forward(a: Tensor = a, w: Tensor = w) -> Tensor:
            return F.conv2d(a, w, None, spec.stride, 0, spec.dilation, spec.groups)

        def gradient(a: Tensor = a, w: Tensor = w, y: Tensor = y) -> Tensor:
            return convolution_weight_gradient(a, y, w, stride=spec.stride, dilation=spec.dilation, groups=spec.groups)

        functions |= {f"forward {name}": forward, f"gradient {name}": gradient}
    return functions


class _Enough(Exception):  # noqa: N818  (no error: it ends an epoch early)
    """All steps are measured."""


class _Steps:
    """Called by the engine after every step: notes its time, then runs the bare convolutions off the clock."""

    def __init__(self, bare: dict[str, Callable[[], Tensor]], warm_up: int, steps: int, device: torch.device) -> None:
        self.bare, self.device = bare, device
        self.seconds: dict[str, list[float]] = {name: [] for name in ("step", *bare)}
        self._left = warm_up + steps
        self._steps = steps
        self._resumed = harness.now(device)

    @property
    def complete(self) -> bool:
        return self._left == 0

    def __call__(self, images: int) -> None:
        spent = {"step": harness.now(self.device) - self._resumed, **harness.once(self.bare, self.device)}
        if self._left <= self._steps:
            for name, seconds in spent.items():
                self.seconds[name].append(seconds)
        self._left -= 1
        if self.complete:
            raise _Enough
        self._resumed = harness.now(self.device)


if __name__ == "__main__":
    run_command(main)
