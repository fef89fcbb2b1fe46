"""A classifier epoch over features in memory, against its bare parts and against one pass over those features.

    python benchmarks/classifier_epoch.py --preset 2SoftHebbCnnCIFAR --dataset-sup CIFAR10_50

The epoch is the engine's own: `engine.backprop` with order, gather by index, dropout, products, loss and Adam. The
features are random numbers of the right shape, as many as the dataset has images (`--images` for fewer); the time
does not depend on their values. The bare parts are what a batch cannot do without, each as torch does it: its rows
gathered, the random bits of its dropout drawn, the product with the weights and that with the gradient, and Adam on
the weights. Dropout itself, the loss and all that stands between them are not counted. One pass is the sum over all
features, which reads every value once and does nothing else: the limit of the memory. All take turns; medians count.
"cores" is the processor time of the epoch over its time: a run asked for one thread should use one core. `--busy`
measures the epochs again beside a process that keeps one core busy, `--one-thread` again on one thread.

Expect a minute or two and 5 GB of memory for the 50,000 x 24,576 features of 2SoftHebbCnnCIFAR.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import before_torch  # noqa: F401 - sets how torch's idle threads wait

# isort: split
import torch

from benchmarks import harness
from hebb import builtin
from hebb.cli.entry import run_command
from hebb.cli.parsing import Parser, count
from hebb.config import catalog, plan
from hebb.config.phase import PhaseKind
from hebb.config.specs import RunConfig
from hebb.core import machine
from hebb.core.errors import ConfigError
from hebb.data.images import Split
from hebb.nn import model
from hebb.nn.noise import Noise
from hebb.training import engine, train
from hebb.training.epoch import Epoch


def main(argv: list[str]) -> int:
    """Measure the classifier phase of the preset."""
    options = parse(argv)
    threads = harness.set_threads(options.threads)
    builtin.load()
    presets = catalog.load()
    data = presets.dataset(options.dataset_sup, "--dataset-sup")
    run = RunConfig(
        network=presets.network(options.preset),
        mode="successive",
        dataset_sup=data,
        dataset_unsup=data,
        device=options.device,
    )
    row = measure(run, data.train_samples() if options.images is None else options.images, options)
    harness.show(
        f"classifier epoch of {run.network.name}, {threads} thread(s); medians of {options.repeats}",
        [row],
        {
            "images": "images:,",
            "features": "features:,",
            "batch": "batch_size",
            "epoch s": "epoch_s:.3f",
            "one pass s": "pass_s:.3f",
            "pass GB/s": "pass_gb_per_s:.1f",
            "epoch / pass": "ratio:.2f",
            "parts s": "parts_s:.3f",
            "epoch / parts": "parts_ratio:.2f",
            "cores": "cores:.2f",
            **({"busy s": "busy_s:.3f", "busy / quiet": "busy_ratio:.2f"} if options.busy else {}),
            **({"one thread s": "one_s:.3f", "epoch / one thread": "one_ratio:.2f"} if options.one_thread else {}),
        },
    )
    settings = {"preset": run.network.name, "dataset": options.dataset_sup, "repeats": options.repeats}
    harness.write(options.out, "classifier_epoch", threads, settings, [row])
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser(__doc__ or "")
    parser.add_argument("--preset", default="2SoftHebbCnnCIFAR", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--dataset-sup", default="CIFAR10_50", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--images", type=count, metavar="N", help="(default: those of the dataset)")
    parser.add_argument("--repeats", type=count, default=5, metavar="N", help="epochs (default: 5)")
    parser.add_argument("--busy", action="store_true", help="measure again beside a busy process of one thread")
    parser.add_argument("--one-thread", action="store_true", help="measure again on one thread")
    parser.add_argument("--device", help="cpu or cuda (default: cpu)", choices=("cpu", "cuda"), default="cpu")
    harness.add_flags(parser)
    return parser.parse(argv)


def measure(run: RunConfig, images: int, options: argparse.Namespace) -> harness.Row:
    """Return the times of epoch and pass."""
    device = model.device_of(run)
    phase = plan.phases(run)[-1]
    if phase.kind != PhaseKind.BACKPROP or len(phase.blocks) != 1:
        raise ConfigError("--preset", f"{run.network.name} does not end with a phase of its classifier alone")
    block = model.build(run)[phase.top]
    network = model.Network(replace(run.network, blocks=(block.spec,)), block.shapes.into, run.classes)
    network.initialise(0).to(device)
    phase = replace(phase, blocks=(0,))
    optimiser = train.optimiser_of(run, phase, network)
    assert optimiser is not None
    draw = torch.Generator(device=device).manual_seed(0)
    features = torch.rand((images, *block.shapes.into), generator=draw, device=device)
    split = Split(features, torch.randint(run.classes, (images,), generator=draw, device=device))
    epochs = itertools.count()
    spent_cores: list[float] = []

    def epoch() -> None:
        at = Epoch(seed=0, phase=phase, phase_index=0, epoch=next(epochs))
        began, used = time.perf_counter(), time.process_time()
        engine.backprop(network, split, at, optimiser, lambda _: None)
        spent_cores.append((time.process_time() - used) / (time.perf_counter() - began))

    functions: dict[str, harness.Function] = {
        "epoch": epoch,
        "pass": features.sum,
        "parts": bare_parts(features, phase.batch_size, run.classes),
    }
    seconds = harness.in_turns(functions, device, options.repeats, warm_up=1)
    summaries = {name: harness.summary(values, unit=1.0) for name, values in seconds.items()}
    spent, read, parts = (summaries[name]["median"] for name in functions)
    row: harness.Row = {
        "images": images,
        "features": features[0].numel(),
        "batch_size": phase.batch_size,
        "epoch_s": spent,
        "pass_s": read,
        "pass_gb_per_s": features.nbytes / read / 1e9,
        "ratio": spent / read,
        "parts_s": parts,
        "parts_ratio": spent / parts,
        "cores": statistics.median(spent_cores),
        "all_s": summaries,
    }

    def again(name: str) -> float:
        summary = harness.summary(harness.in_turns({"epoch": epoch}, device, options.repeats, 1)["epoch"], 1.0)
        row[f"all_{name}_s"], row[f"{name}_s"] = summary, summary["median"]
        return float(summary["median"])

    if options.busy:
        with busy_core():
            row["busy_ratio"] = again("busy") / spent
    if options.one_thread:
        with machine.one_thread():
            row["one_ratio"] = spent / again("one")
    return row


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """Keep one core busy with a process of one thread."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def bare_parts(features: torch.Tensor, batch_size: int, classes: int) -> harness.Function:
    """Return a function that does, for each batch of an epoch, what no classifier with dropout can leave out."""
    flat = features.flatten(1)
    weight = torch.nn.Parameter(torch.zeros(classes, flat.shape[1], device=flat.device))
    weight.grad = torch.zeros_like(weight)
    optimiser = torch.optim.Adam([weight], fused=True)
    noise, host = Noise(0), flat.device.type == "cpu"
    slopes = torch.zeros(batch_size, classes, device=flat.device)

    @torch.no_grad()
    def parts() -> None:
        for places in torch.randperm(len(flat)).to(flat.device).split(batch_size):
            rows = flat.index_select(0, places)
            if host:
                noise.bits(rows.numel())
            else:
                noise.keep_mask(rows.shape, 0.5, rows.device)
            rows @ weight.T
            slopes[: len(rows)].T @ rows
            optimiser.step()

    return parts


if __name__ == "__main__":
    run_command(main)
