"""Learning curves: what the points inside an epoch cost, against the updates of that epoch.

    python benchmarks/curves.py --preset 2SoftHebbCnnCIFAR --dataset-unsup CIFAR10_1
    python benchmarks/curves.py --all

An update is the engine's own, with its batch of random images. A point is all that one costs: the measurements, the
copy of the weights, the wait for the device, the line of blocks.jsonl and the event of TensorBoard. Updates and points
take turns; medians count. The share is that of the points that a phase has by default, in the time of its updates.

Expect a minute for each preset.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
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
from hebb.config.catalog import Catalog
from hebb.config.phase import Phase, PhaseKind
from hebb.config.specs import RunConfig
from hebb.core.errors import ConfigError
from hebb.nn import model
from hebb.storage import records
from hebb.training import curves, engine
from hebb.training.curves import Curves
from hebb.training.epoch import Epoch

ALL = (
    ("2SoftHebbCnnDigits", "Digits_1"),
    ("2SoftHebbCnnCIFAR", "CIFAR10_1"),
    ("4SoftHebbCnnCIFAR", "CIFAR10_1"),
    ("2SoftMlpMNIST", "MNIST_1"),
)
"""Presets and datasets of ``--all``: small updates, usual ones, wide convolutions, a fully connected layer."""


def main(argv: list[str]) -> int:
    """Measure the Hebbian phases of the presets."""
    options = parse(argv)
    threads = harness.set_threads(options.threads)
    builtin.load()
    presets = catalog.load()
    chosen = ALL if options.all else ((options.preset, options.dataset_unsup),)
    rows = [row for preset, data in chosen for row in measure(presets, preset, data, options)]
    harness.show(
        f"a point of a learning curve against an update, {threads} thread(s); medians of {options.repeats}",
        rows,
        {
            "preset": "preset",
            "phase": "phase",
            "batch": "batch_size",
            "updates": "updates:,",
            "points": "points",
            "update ms": "update_ms:.3f",
            "point ms": "point_ms:.3f",
            "point / update": "ratio:.2f",
            "share %": "share_percent:.2f",
        },
    )
    settings = {"presets": [list(pair) for pair in chosen], "repeats": options.repeats, "device": options.device}
    harness.write(options.out, "curves", threads, settings, rows)
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser(__doc__ or "")
    parser.add_argument("--preset", default="2SoftHebbCnnCIFAR", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--dataset-unsup", default="CIFAR10_1", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--all", action="store_true", help="four presets, from tiny updates to wide ones")
    parser.add_argument("--repeats", type=count, default=harness.STEPS, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--device", help="cpu or cuda (default: cpu)", choices=("cpu", "cuda"), default="cpu")
    harness.add_flags(parser)
    return parser.parse(argv)


def measure(presets: Catalog, preset: str, data: str, options: argparse.Namespace) -> list[harness.Row]:
    """Return a row for each Hebbian phase."""
    spec = presets.dataset(data, "--dataset-unsup")
    network = presets.network(preset)
    run = RunConfig(
        network=network,
        mode=network.preferred_mode or "successive",
        dataset_sup=spec,
        dataset_unsup=spec,
        device=options.device,
    )
    hebbian = [(i, phase) for i, phase in enumerate(plan.phases(run)) if phase.kind == PhaseKind.HEBBIAN]
    if not hebbian:
        raise ConfigError("--preset", f"{preset} has no Hebbian phase")
    return [{"preset": preset, **_measured(run, i, phase, options)} for i, phase in hebbian]


def _measured(run: RunConfig, index: int, phase: Phase, options: argparse.Namespace) -> harness.Row:
    """Return the times of an update and of a point, and the share of the default points in a phase."""
    device = model.device_of(run)
    network = model.build(run).to(device)
    updates = phase.updates // phase.epochs
    at = Epoch(seed=0, phase=phase, phase_index=index, epoch=0)
    shape = network[phase.first].shapes.into
    x = torch.rand((phase.batch_size * phase.views, *shape), device=device)
    labels = torch.zeros(len(x), dtype=torch.int64, device=device)
    with tempfile.TemporaryDirectory() as folder, engine.training(network, at), torch.no_grad():
        recorder = records.Recorder(Path(folder))
        every = range(1, 2 * (harness.WARM_UP + options.repeats) + 1)
        follower = Curves([network], at, every, 0, [recorder.point])
        follower.begin()
        functions: dict[str, harness.Function] = {
            "update": lambda: engine.hebbian_step(network, x, labels, phase, 0),
            "point": follower.update,
        }
        seconds = harness.in_turns(functions, device, options.repeats)
        recorder.close()
    times = {name: harness.summary(values) for name, values in seconds.items()}
    update, point = times["update"]["median"], times["point"]["median"]
    points = len(curves.places(phase, updates, None)) * phase.epochs
    return {
        "phase": phase.describe(),
        "batch_size": phase.batch_size,
        "updates": phase.updates,
        "points": points,
        "update_ms": update,
        "point_ms": point,
        "ratio": point / update,
        "share_percent": 100 * points * point / (phase.updates * update),
        "all_ms": times,
    }


if __name__ == "__main__":
    run_command(main)
