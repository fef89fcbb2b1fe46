"""Writes the records of a run: metrics, TensorBoard events, environment."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

import torch
from torch import Tensor

from hebb.config.vocabulary import Role
from hebb.core import documents, extras, files, machine, shipped
from hebb.core.errors import ConfigError
from hebb.data import contents
from hebb.data.contents import Contents
from hebb.energy.diagnostics import Look
from hebb.storage import curves, folders, tags, tiles
from hebb.storage.curves import Point
from hebb.storage.folders import Row, read_rows

COLUMNS = (
    "step",
    "phase",
    "kind",
    "blocks",
    "epoch",
    "train_loss",
    "train_acc",
    "val_loss",
    "val_acc",
    "test_loss",
    "test_acc",
    "convergence",
    "R1",
    "lr",
    "images_per_second",
)
"""Keys of a row of ``metrics.jsonl``; a missing value is null."""

_SCALARS = COLUMNS[5:]
_NONE: Mapping[Role, Contents] = MappingProxyType({})
_EARLIER = "memory.json"
"""What the file of costs was called when it held the memory alone."""
_LATER = 2.0
"""Seconds that the points of a curve wait for TensorBoard, so that those of a short phase are written at once."""


def make_row(**values: object) -> Row:
    """Return a complete row; numbers that are not finite become null."""
    unknown = set(values) - set(COLUMNS)
    if unknown:
        raise KeyError(f"unknown columns: {sorted(unknown)}")
    row = {column: values.get(column) for column in COLUMNS}
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


class Recorder:
    """Keeps the rows of a run, and writes the files of its folder if it has one.

    Attributes:
        rows: the rows of the run.
        blocks: measures of the Hebbian blocks, one entry for each row recorded here.
        warnings: phase, epoch (from 1), block and text of what the user was warned of.
        points: the points of its learning curves.

    Args:
        folder: an existing folder, or None to write nothing.
        position: (phase, epoch, step) of the checkpoint a continued run starts from; rows past it are
            dropped, because they will be made again. None starts new records.
    """

    def __init__(self, folder: Path | None, position: tuple[int, int, int] | None = None) -> None:
        self.rows: list[Row] = []
        self.blocks: list[dict[str, dict[str, float]]] = []
        self.points: list[Point] = []
        self._steps: dict[str, int] = {}  # step of the last scalar of each tag
        self._waiting: list[tuple[Any, int, float]] = []  # events for TensorBoard: summary, step, time
        self._sent = 0.0
        self.warnings: list[dict[str, Any]] = []
        self._warnings: Path | None = None
        self._metrics: TextIO | None = None
        self._points: TextIO | None = None
        self._events: Any = None
        if folder is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        path = folder / folders.METRICS
        if position is not None:
            if not path.exists():
                raise ConfigError(str(path), "no such file, although the run has a checkpoint")
            self.rows = _before(read_rows(path), path, position)
        self._warnings = folder / folders.WARNINGS
        if self._warnings.exists():
            self.warnings = read_rows(self._warnings, ("phase", "epoch", "block", "text"))
        self._looks = folder / folders.LOOKS
        last = 0 if position is None else position[2]
        if self._looks.exists():
            _rewrite(self._looks, [look for look in read_rows(self._looks, ("update",)) if look["update"] <= last])
            self.points = curves.read(folder)
        _rewrite(path, self.rows)
        self._metrics = open(path, "a", encoding="utf-8")  # noqa: SIM115  (closed by close)
        begun = position is not None or self.points
        self._events = SummaryWriter(str(folder), purge_step=last + 1 if begun else None)

    def row(self, row: Row, blocks: dict[str, dict[str, float]]) -> None:
        """Append a row; add its scalars and those of each Hebbian block to TensorBoard."""
        self.rows.append(row)
        self.blocks.append(blocks)
        if self._metrics is None:
            return
        self._metrics.write(json.dumps(row) + "\n")
        self._metrics.flush()
        self._add_scalars({tags.of_column(name): row[name] for name in _SCALARS}, row["step"])
        self._add_blocks(blocks, row["step"])
        self._send()

    def to_disk(self) -> None:
        """Wait until rows and points lie on the disk: a checkpoint that counts on them may outlive the machine."""
        for file in (self._metrics, self._points):
            if file is not None:
                os.fsync(file.fileno())
        if self._points is None and self._metrics is not None and self._looks.exists():
            files.to_disk(self._looks)

    def warn(self, phase: int, epoch: int, block: int, text: str) -> bool:
        """Store a warning of a block, once for each phase; return whether it is the first. ``epoch`` counts from 0."""
        if any((line["phase"], line["block"]) == (phase, block) for line in self.warnings):
            return False
        self.warnings.append({"phase": phase, "epoch": epoch + 1, "block": block, "text": text})
        if self._warnings is not None:
            folders.append_row(self._warnings, self.warnings[-1])
        return True

    def point(self, point: Point) -> None:
        """Append a point of a learning curve to ``blocks.jsonl`` and to TensorBoard.

        A run that continues at the start of a phase may have measured it before it was interrupted.
        """
        if self.points and (self.points[-1].phase, self.points[-1].update) == (point.phase, point.update):
            return
        self.points.append(point)
        if self._metrics is None:
            return
        if self._points is None:
            self._points = open(self._looks, "a", encoding="utf-8")  # noqa: SIM115  (closed by close)
        self._points.write(json.dumps(point.to_json()) + "\n")
        self._points.flush()
        self._add_scalars({tags.of_column(name): value for name, value in point.recent.items()}, point.update)
        self._add_blocks(point.blocks, point.update)
        if point.epoch == 0 or time.monotonic() - self._sent > _LATER:
            self._send()

    def _add_blocks(self, blocks: Mapping[str, curves.Numbers], step: int) -> None:
        """Add numbers of blocks to TensorBoard."""
        for block, numbers in blocks.items():
            self._add_scalars({tags.of_block(block, name): value for name, value in numbers.items()}, step)

    def _add_scalars(self, numbers: curves.Numbers, step: int) -> None:
        """Collect numbers by tag for TensorBoard, but none that it has at this step: curve and epoch may end together.

        They are one event: an event of its own for each takes five times as long.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary()
        for tag, value in numbers.items():
            if value is not None and self._steps.get(tag) != step:
                self._steps[tag] = step
                summary.value.add(tag=tag, simple_value=value)
        if summary.value:
            self._waiting.append((summary, step, time.time()))

    def _send(self) -> None:
        """Pass on what was collected: the writer's thread stops this one at each event."""
        for event in self._waiting:
            self._events.file_writer.add_summary(*event)
        self._waiting.clear()
        self._events.flush()
        self._sent = time.monotonic()

    def looks(self, looks: list[Look]) -> None:
        """Append the measures of a settling network to ``blocks.jsonl`` and to TensorBoard."""
        if self._metrics is None or not looks:
            return
        with open(self._looks, "a", encoding="utf-8") as file:
            file.writelines(
                json.dumps({"update": look.update, "blocks": _finite(look.blocks)}) + "\n" for look in looks
            )
        for look in looks:
            self._add_blocks(look.blocks, look.update)
        self._send()

    def radii(self, radii: Mapping[str, Sequence[float]], step: int) -> None:
        """Store the radii of the neurons of each Hebbian block as a TensorBoard histogram."""
        for block, values in radii.items():
            if self._events is not None and len(values) and all(map(math.isfinite, values)):
                self._events.add_histogram(tags.of_weights(block, "radii"), torch.tensor(values), step)

    def filters(self, weight: Tensor, into: tuple[int, ...], order: Tensor, step: int) -> None:
        """Store the first layer's filters as an image grid; ``into`` is the shape of an image."""
        if weight.dim() == 2 and len(into) == 3:
            weight = weight.view(-1, *into)
        if self._events is not None and weight.dim() == 4 and weight.shape[-1] > 1:
            self._events.add_image(tags.of_weights("b0", "filters"), filter_grid(weight, order), step)

    def close(self) -> None:
        """Flush and close the files."""
        if self._metrics is not None:
            self._metrics.close()
            self._send()
            self._events.close()
        if self._points is not None:
            self._points.close()


def _before(rows: list[Row], path: Path, position: tuple[int, int, int]) -> list[Row]:
    """Return the rows of the epochs before a checkpoint; raise where one is missing or is there twice."""
    if any(set(row) != set(COLUMNS) for row in rows):
        raise ConfigError(str(path), "does not hold the rows of a run")
    kept = [row for row in rows if (row["phase"], row["epoch"] - 1) < position[:2]]
    places = [(row["phase"], row["epoch"]) for row in kept]
    complete = [(phase, epoch) for phase, last in sorted(dict(sorted(places)).items()) for epoch in range(1, last + 1)]
    missing = position[:2] > (0, 0) and not kept
    if position[1]:
        missing = missing or position[:2] not in places
    if missing or places != complete:
        raise ConfigError(
            str(path),
            "must have one row for each epoch before the checkpoint, in order",
            hint="put the file of the run back, or start a new run",
        )
    return kept


def costs(folder: Path) -> Mapping[str, Any]:
    """Return what a run had cost at its last checkpoints; nothing where there are none.

    ``seconds`` has a line of phase, epoch, step and seconds for each of the last two: a kill may come between the costs
    and the checkpoint. ``peak_memory`` is the largest memory in bytes, or None.
    """
    kept: Mapping[str, Any] = next((folders.read_json(path) for path in _files_of_costs(folder) if path.exists()), {})
    if isinstance(kept.get("seconds"), float):  # an earlier version did not say of which checkpoint
        return {**kept, "seconds": []}
    return kept


def store_costs(folder: Path, position: tuple[int, int, int], seconds: float, peak_memory: int | None) -> None:
    """Write what a run has cost up to a checkpoint: not into it, because its digest is that of the run's numbers."""
    before = [line for line in costs(folder).get("seconds", []) if tuple(line[:3]) != position]
    (folder / folders.COSTS).parent.mkdir(parents=True, exist_ok=True)
    lines = [*before[-1:], [*position, round(seconds, 3)]]
    folders.write_json(folder / folders.COSTS, {"seconds": lines, "peak_memory": peak_memory})


def forget_costs(folder: Path) -> None:
    """Remove these files from a run that is finished; its result has them."""
    for path in _files_of_costs(folder):
        path.unlink(missing_ok=True)


def _files_of_costs(folder: Path) -> tuple[Path, Path]:
    return folder / folders.COSTS, folder / folders.COSTS.with_name(_EARLIER)


def _rewrite(path: Path, rows: list[Row]) -> None:
    files.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _finite(blocks: dict[str, dict[str, float]]) -> dict[str, dict[str, float | None]]:
    """Replace numbers that are not finite by None."""
    return {
        block: {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        for block, numbers in blocks.items()
    }


def filter_grid(weight: Tensor, order: Tensor, most: int = 256) -> Tensor:
    """Lay out filters (n, C, h, w) in an order, with the scale of their colours, as one image (3, H, W) in [0, 1].

    Three channels are shown as red, green and blue; of other widths the mean over channels has a colour.
    """
    shown = tiles.visible(weight.detach().float().cpu())[order[:most].cpu()]
    end = tiles.reach(shown) or 1.0
    words = "in red, green and blue; " if shown.shape[1] == 3 else ""
    total = f"{len(shown)} of {len(weight)}" if len(shown) < len(weight) else f"all {len(weight)}"
    return tiles.with_scale(tiles.tiled(tiles.coloured(shown, end)), end, f"{words}{total}, what was learned first")


def environment(paths: dict[str, str], data: dict[str, str], resumed_from: str | None, gpu: int = 0) -> dict[str, Any]:
    """Describe the environment of a run; nothing in it affects the results. ``gpu`` is the number of its GPU."""
    packages = (
        "hebb-learning",
        "torch",
        "torchvision",
        "numpy",
        "scikit-learn",
        "pandas",
        "tensorboard",
        "ray",
        "rich",
    )
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": any(_git(*question) for question in _CHANGES),
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": {name: extras.version(name) for name in packages},
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "gpu": machine.gpu_name(gpu),
        },
        "paths": paths,
        "data_sha256": data,
        "resumed_from": resumed_from,
    }


_CHANGES = (
    ("status", "--porcelain", "--untracked-files=no"),
    ("ls-files", "--others", "--exclude-standard", "--", "hebb", "search_configs", "figures"),
)
"""What is asked of git: which tracked files differ, and which files of the package it does not track.

Other untracked files, as a linked ``.venv`` or a notebook, change no run.
"""


def continued(path: Path, now: dict[str, Any], files: Mapping[Role, Contents] = _NONE) -> dict[str, Any]:
    """Return the environment in which a run was started, with ``now`` added; the data must be the same."""
    started = check_data(path, now["data_sha256"], files)
    return {**started, "continued": [*started.get("continued", []), now]}


def config_digest(stored: Mapping[str, Any]) -> str:
    """Return the digest of a stored ``config.json``, without where data and plugins lie: they may be moved."""
    content = dict(stored)
    for role in ("dataset_sup", "dataset_unsup"):
        if isinstance(content.get(role), dict) and isinstance(content[role].get("dataset"), str):
            name = content[role]["dataset"]
            kind, separator, _ = name.partition(":")
            content[role] = {**content[role], "dataset": kind if separator else name}
    if isinstance(content.get("plugins"), list):
        content["plugins"] = [plugin.get("sha256") for plugin in content["plugins"] if isinstance(plugin, dict)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def with_config(started: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the environment of a run with the digest of its config; raise where the config has changed since.

    Args:
        started: that of a run begun before digests were kept has none.
        path: the ``config.json`` of the run.
    """
    digest = config_digest(documents.as_object(folders.read_json(path), str(path)))
    if started.get("config_sha256", digest) != digest:
        raise ConfigError(
            str(path),
            "has changed since the run started, and its epochs would be of two configurations",
            hint="put it back; --run-config FILE --set PATH=VALUE trains a new run with a change",
        )
    return {**started, "config_sha256": digest}


def check_data(path: Path, digests: Mapping[Role, str], files: Mapping[Role, Contents] = _NONE) -> dict[str, Any]:
    """Return the environment in which a run was started; raise where data it was trained on have changed since.

    Args:
        path: the ``environment.json`` of the run.
        digests: of the data as they are now, by role.
        files: what else tells whether image files are the same, by role; runs of old versions have none.
    """
    if not path.exists():
        raise ConfigError(
            str(path),
            "is missing, and with it the digests of the data on which the run was trained",
            hint="nothing was written; put the file back, or start a new run",
        )
    started = folders.read_json(path)
    if not isinstance(started, dict) or not isinstance(started.get("continued", []), list):
        raise ConfigError(str(path), "is not the environment of a run")
    before = started.get("data_sha256")
    if not isinstance(before, dict):
        raise ConfigError(str(path), "lacks data_sha256, the digests of the data on which the run was trained")
    files_before = started.get("data_files")
    files_before = files_before if isinstance(files_before, dict) else {}
    changed = [
        f"dataset_{name}"
        for name, digest in digests.items()
        if before.get(name) != digest or (name in files and contents.changed(files_before.get(name), files[name]))
    ]
    if changed:
        raise ConfigError(
            str(path),
            f"the data have changed since the run started: other images or labels in {' and '.join(changed)}",
            hint="nothing was written; restore the data, or start a new run",
        )
    return started


def _git(*arguments: str) -> str | None:
    """Ask git about the checkout; an installed package may stand in the repository of another project."""
    if shipped.CHECKOUT is None:
        return None
    # a hook of git names its own repository in these; and many runs that start at once must not lock the index
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        done = subprocess.run(
            ["git", "-c", f"safe.directory={shipped.CHECKOUT}", *arguments],
            cwd=shipped.CHECKOUT,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
