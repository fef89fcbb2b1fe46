"""Trained blocks that several runs share: the first run trains them, the others read them.

The result of the first phases of a run depends on the blocks up to the highest one they use, on data, seed, threads
and device, and on no block above: every generator derives from (seed, purpose, phase, block, epoch).
A digest of all of these, and of the code and the machine, names a file

    <folder>/<digest>.pt     weights and statistics of the blocks of one phase, and the rows it recorded

A run that finds the file goes on as if it had trained the phase itself. A file is written whole or not at all.
When two runs need the same phase at the same time, one waits for the other. The folder may be deleted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hebb.config import shapes
from hebb.config.phase import Phase, PhaseKind
from hebb.config.serialise import to_json
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import Role
from hebb.core import locks, machine, shipped
from hebb.core.errors import ConfigError
from hebb.storage import checkpoints, curves
from hebb.storage.curves import Point
from hebb.storage.folders import Row

_ABOVE = ("classifier", "probes", "probe_blocks", "probe_samples", "mode", "training_blocks", "bp_blockwise")
"""Fields that affect only later phases, or only the list of phases, which is itself part of the key."""


@dataclass(frozen=True)
class Stored:
    """The result of a phase, as other runs read it.

    Attributes:
        blocks: state of each of its blocks, by number.
        rows: the rows it recorded, each with the numbers of its Hebbian blocks.
        points: the points of its learning curves.
        step: updates made in the run by the end of the phase.
        warnings: what its user was warned of, as ``Recorder.warnings``.
    """

    blocks: dict[int, dict[str, Tensor]]
    rows: list[tuple[Row, dict[str, dict[str, float]]]]
    points: list[Point]
    step: int
    warnings: list[dict[str, Any]]


class Entry:
    """The cache entry of one phase; ``path`` is None when the phase is not shared."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def load(self) -> Stored | None:
        """Read the stored phase; None if there is none or it cannot be read, and the run then trains it itself."""
        if self.path is None or not self.path.exists():
            return None
        try:
            data = checkpoints.load(self.path)
            rows = [(row, blocks) for row, blocks in json.loads(data["rows"])]
            blocks: dict[int, dict[str, Tensor]] = {}
            for name, tensor in data["model"].items():
                number, _, tail = name.partition(".")
                blocks.setdefault(int(number), {})[tail] = tensor
            points = [curves.of_json(line) for line in json.loads(data["points"])]
            return Stored(blocks, rows, points, int(data["step"]), json.loads(data["warnings"]))
        except (ConfigError, KeyError, TypeError, ValueError):
            return None

    def store(self, stored: Stored) -> None:
        """Write the result of the phase."""
        if self.path is None:
            return
        flat = {f"{i}.{name}": tensor for i, state in stored.blocks.items() for name, tensor in state.items()}
        points = json.dumps([point.to_json() for point in stored.points])
        texts = {"rows": json.dumps(stored.rows), "points": points, "warnings": json.dumps(stored.warnings)}
        checkpoints.save(self.path, {"model": flat, "step": stored.step, **texts})


@contextlib.contextmanager
def entry(
    folder: Path | None,
    config: RunConfig,
    phases: tuple[Phase, ...],
    index: int,
    data: Mapping[Role, str],
    gpu: int = 0,
) -> Iterator[Entry]:
    """Open the cache entry of phase ``index`` and keep other processes from training it at the same time.

    Args:
        folder: folder of the cache; None shares nothing.
        config: config of the run, with its device resolved.
        phases: all phases of the run.
        index: number of the phase.
        data: digests of the datasets.
        gpu: number of the GPU, where one is used.
    """
    digest = None if folder is None else key(config, phases, index, data, gpu)
    if folder is None or digest is None:
        yield Entry(None)
        return
    path = folder / f"{digest}.pt"
    with contextlib.nullcontext() if path.exists() else locks.held(folder / f"{digest}.lock"):
        yield Entry(path)


def key(config: RunConfig, phases: tuple[Phase, ...], index: int, data: Mapping[Role, str], gpu: int = 0) -> str | None:
    """Return the digest of everything that decides the result of phase ``index``; None if it is not shared.

    Runs share the phases before the first one that uses the classifier, but never their last phase.
    """
    first = phases[: index + 1]
    top = max(phase.top for phase in first)
    blocks = config.network.blocks[: top + 1]
    local = all(phase.kind in (PhaseKind.HEBBIAN, PhaseKind.CALIBRATE) for phase in first)
    if index == len(phases) - 1 or not local or any(block.resume is not None for block in blocks):
        return None
    content = {name: value for name, value in to_json(config).items() if name not in _ABOVE}
    content["network"] = {**content["network"], "name": "", "blocks": content["network"]["blocks"][: top + 1]}
    used = {phase.data for phase in first}
    for name in set(Role) - used:
        del content[f"dataset_{name}"]
    content |= {
        "phases": [dataclasses.asdict(phase) for phase in first],
        "data": {name: data[name] for name in sorted(used)},
        "shape": shapes.input_shape(config),
        "classes": config.classes,
        "made by": _maker(config.device, gpu),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


@functools.cache
def _maker(device: str, gpu: int) -> list[str]:
    """Identify the code and the machine, since others may give other bits."""
    digest = hashlib.sha256()
    for path in sorted(shipped.PACKAGE.rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    own = machine.gpu_name(gpu) if device != "cpu" else torch.backends.cpu.get_cpu_capability()
    return [digest.hexdigest(), torch.__version__, str(own), os.uname().machine if hasattr(os, "uname") else ""]
