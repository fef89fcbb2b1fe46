"""Peak memory of Hebbian training on STL-10's unlabelled images: expect less than 4 GB for all 100,000.

    python benchmarks/memory_stl10.py [--images N] [--updates N]

Writes random images in STL-10's binary format to a temporary folder (2.8 GB for 100,000), loads the splits as a
run does, trains the Hebbian block of 2SoftHebbCnnCIFAR for some updates and prints what it took. The weights of a
deeper network come on top: 0.4 GB for 5SoftHebbCnnSTL.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import engine
import model
from hebb import catalog, plan
from hebb.config import RunConfig
from hebb.data import images

VALUES = 3 * 96 * 96


def main() -> None:
    """Write, load, train, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000, metavar="N", help="unlabelled images (default: 100,000)")
    parser.add_argument("--updates", type=int, default=20, metavar="N", help="updates of batch 32 (default: 20)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "stl10_binary", unlabeled=options.images)
        print(f"before loading  {peak():.2f} GB")
        config = _config()
        began = time.monotonic()
        device = torch.device("cpu")
        unsup, _sup = (images.load(d, Path(folder), 0, device) for d in (config.dataset_unsup, config.dataset_sup))
        print(f"loaded          {peak():.2f} GB after {time.monotonic() - began:.0f} s, {len(unsup.train):,} images")
        train(config, unsup.train, options.updates)
        print(f"trained         {peak():.2f} GB after {time.monotonic() - began:.0f} s, {options.updates} updates")


def write(folder: Path, unlabeled: int, train: int = 5000, test: int = 8000) -> None:
    """Write random files in the format of STL-10, a thousand images at a time."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test), ("unlabeled", unlabeled)):
        with open(folder / f"{part}_X.bin", "wb") as file:
            for start in range(0, count, 1000):
                file.write(rng.bytes(min(1000, count - start) * VALUES))
        if part != "unlabeled":
            (np.arange(count) % 10 + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")


def train(config: RunConfig, split: images.Split, updates: int) -> None:
    """Run one Hebbian epoch of the first phase over as many images as the updates take, a view of the split."""
    phase = plan.phases(config)[0]
    assert isinstance(split.images, torch.Tensor)
    count = updates * phase.batch_size
    part = replace(split, images=split.images[:count], labels=split.labels[:count])
    at = engine.Epoch(seed=0, phase=phase, phase_index=0, epoch=0)
    engine.hebbian(model.build(config), part, at, lambda _: None)


def peak() -> float:
    """Return the largest resident memory of this process so far, in GB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used * (1 if sys.platform == "darwin" else 1024) / 1e9


def _config() -> RunConfig:
    known = catalog.load()
    return RunConfig(
        network=known.network("2SoftHebbCnnCIFAR"),
        mode="successive",
        dataset_sup=known.dataset("STL10", "benchmark"),
        dataset_unsup=known.dataset("STL10_unlabel", "benchmark"),
    )


if __name__ == "__main__":
    main()
