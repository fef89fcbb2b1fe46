"""Peak memory of Hebbian training on STL-10's unlabelled images: expect less than 4 GB for all 100,000.

    python benchmarks/memory_stl10.py [--images N] [--updates N] [--out FILE]

Writes random images in STL-10's binary format to a temporary folder (2.8 GB for 100,000), loads the splits as a
run does, trains the Hebbian block of 2SoftHebbCnnCIFAR for some updates and prints what it took. The weights of a
deeper network come on top: 0.4 GB for 5SoftHebbCnnSTL. The ratio is the peak over the size of the images in uint8.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import harness
from hebb import builtin
from hebb.cli.entry import run_command
from hebb.cli.parsing import Parser, count
from hebb.config import catalog, plan
from hebb.config.specs import RunConfig
from hebb.data import images
from hebb.nn import model
from hebb.training import engine
from hebb.training.epoch import Epoch

VALUES = 3 * 96 * 96


def main(argv: list[str]) -> int:
    """Write, load, train, report."""
    parser = Parser(__doc__ or "")
    parser.add_argument(
        "--images", type=count, default=100_000, metavar="N", help="unlabelled images (default: 100,000)"
    )
    parser.add_argument("--updates", type=count, default=20, metavar="N", help="updates of batch 32 (default: 20)")
    harness.add_flags(parser)
    options = parser.parse(argv)
    threads = harness.set_threads(options.threads)
    rows: list[harness.Row] = []

    def note(stage: str) -> None:
        rows.append({"stage": stage, "peak_gb": peak() / 1e9})

    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "stl10_binary", unlabeled=options.images)
        note("before loading")
        config = _config()
        device = torch.device("cpu")
        unsup, _sup = (images.load(d, Path(folder), 0, device) for d in (config.dataset_unsup, config.dataset_sup))
        note("loaded")
        train(config, unsup.train, options.updates)
        note("trained")
    size = len(unsup.train) * VALUES
    rows[-1] |= {"images_gb": size / 1e9, "ratio": peak() / size}
    columns = {"stage": "stage", "peak GB": "peak_gb:.2f", "images GB": "images_gb:.2f", "ratio": "ratio:.2f"}
    harness.show(f"peak memory, {len(unsup.train):,} images of STL-10, {threads} thread(s)", rows, columns)
    settings = {"images": len(unsup.train), "updates": options.updates}
    harness.write(options.out, "memory_stl10", threads, settings, rows)
    return 0


def write(folder: Path, unlabeled: int, train: int = 5000, test: int = 8000) -> None:
    """Write random files in the format of STL-10, a thousand images at a time."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, total in (("train", train), ("test", test), ("unlabeled", unlabeled)):
        with open(folder / f"{part}_X.bin", "wb") as file:
            for start in range(0, total, 1000):
                file.write(rng.bytes(min(1000, total - start) * VALUES))
        if part != "unlabeled":
            (np.arange(total) % 10 + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")


def train(config: RunConfig, split: images.Split, updates: int) -> None:
    """Run one Hebbian epoch of the first phase over as many images as the updates take, a view of the split."""
    phase = plan.phases(config)[0]
    assert isinstance(split.images, torch.Tensor)
    total = updates * phase.batch_size
    part = replace(split, images=split.images[:total], labels=split.labels[:total])
    at = Epoch(seed=0, phase=phase, phase_index=0, epoch=0)
    engine.hebbian(model.build(config), part, at, lambda _: None)


def peak() -> int:
    """Return the bytes of the largest resident memory of this process so far."""
    return harness.peak_bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _config() -> RunConfig:
    builtin.load()
    presets = catalog.load()
    return RunConfig(
        network=presets.network("2SoftHebbCnnCIFAR"),
        mode="successive",
        dataset_sup=presets.dataset("STL10", "benchmark"),
        dataset_unsup=presets.dataset("STL10_unlabel", "benchmark"),
    )


if __name__ == "__main__":
    run_command(main)
