"""Kill runs with SIGKILL at random moments, continue them, and compare with an uninterrupted one.

    python tests/kill_runs.py FOLDER TIMES [NETWORK]

The network is one of ``NETWORKS``: ``soft``, or another with its own state, statistics or random orders.
Prints ``moment (s)  position of the checkpoint  equal`` per kill and exits with 1 if a continued run differs. Every
run is a forked child of this process, which never computes with torch itself, so that a run starts at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import small
import torch

from hebb.storage import folders

NETWORKS = {
    "soft": small.DEEP,
    "bcm": "BCM-c8-k3-p1:bn:triangle:surround=3 TemporalInstar-c8-k3-p1:bn:triangle:avg_2_2_0 BP:flatten:drop_0.5",
    "mirrored": "HardInstar-c8-k3-p1:bn:triangle:max_2_2_0 BP:flatten:drop_0.5",
    "local": "SPHeRe-c8-k3-p1:bn_affine:leaky:max_2_2_0:residual SCFF-c12-k3-p1:relu:avg_2_2_0 BP:flatten:drop_0.5",
}
CHANGES = ("dataset_sup.epochs=12", "dataset_unsup.epochs=6", "dataset_sup.samples=600", "dataset_unsup.samples=600")
MORE = {
    "mirrored": [f"dataset_{role}.{name}=true" for role in ("sup", "unsup") for name in ("mirror", "zca", "zca_test")]
}
MORE["mirrored"].append("dataset_sup.mirror_test=true")
"""What else is changed for a network."""


def fork(folder: Path, carry_on: bool, network: str) -> int:
    """Start a run in a child process."""
    child = os.fork()
    if child == 0:
        small.run(small.config(NETWORKS[network], *CHANGES, *MORE.get(network, ())), folder, carry_on=carry_on)
        os._exit(0)
    return child


def digest_of(folder: Path) -> str:
    """Return a digest of the weights and rows of a finished run."""
    digest = hashlib.sha256()
    for name, tensor in sorted(torch.load(folder / folders.CHECKPOINT, weights_only=True)["model"].items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    rows = folders.read_rows(folder / folders.METRICS)
    digest.update(json.dumps([{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]).encode())
    return digest.hexdigest()


def main(folder: Path, times: int, network: str = "soft") -> int:
    """Run once undisturbed, then ``times`` with a SIGKILL."""
    began = time.monotonic()
    os.waitpid(fork(folder / "whole", False, network), 0)
    length = time.monotonic() - began
    expected = digest_of(folder / "whole")
    moments = random.Random(int.from_bytes(os.urandom(4), "little"))
    different = 0
    for k in range(times):
        run, moment = folder / f"run{k}", moments.uniform(0.02, 0.95) * length
        child = fork(run, False, network)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        checkpoint, result = run / folders.CHECKPOINT, run / folders.RESULT
        position = torch.load(checkpoint, weights_only=True)["position"] if checkpoint.exists() else "none"
        if not result.exists():
            os.waitpid(fork(run, (run / folders.CONFIG).exists(), network), 0)
        same = result.exists() and digest_of(run) == expected
        different += not same
        print(f"{moment:.2f}  {position}  {'equal' if same else 'DIFFERENT'}", flush=True)
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
