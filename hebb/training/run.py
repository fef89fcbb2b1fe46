"""What a run is, in memory and on disk: where it lies, what it tells, its checkpoints and its result.

Runs of a pack are stored and end together.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hebb.config import catalog, grammar, plan
from hebb.config.plan import Phase
from hebb.config.serialise import to_json
from hebb.config.specs import RunConfig
from hebb.data import images
from hebb.nn import model
from hebb.probing import readout
from hebb.probing.geometry import Geometry
from hebb.probing.probes import Probe
from hebb.storage import checkpoints, folders, records
from hebb.training import features
from hebb.training.report import Report

Position = tuple[int, int, int]
"""Phase, epoch and step: the work that a checkpoint holds."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run reads and writes. Nothing here changes its numbers.

    Attributes:
        datasets: folder of the datasets.
        folder: the run folder; None leaves nothing on disk.
        device_index: number of the GPU, where one is used.
        keep_model: keep the checkpoint of the finished run.
        overwrite: replace what is in the run folder.
        carry_on: continue the interrupted run in the folder; members of a pack that are finished stay as they are.
        resume_from: checkpoint with the initial weights (``config.resume``).
        layers: folder of the stored blocks, read for ``resume=MODEL/bN``.
        cache: folder of what is computed once and kept (whitenings); None keeps nothing.
        shared_blocks: folder of trained blocks that runs share (``hebb.training.shared_blocks``); None shares none.
        load: reads a dataset, with the arguments of ``images.load``; None stands for that function.
        store_blocks: name under which the blocks of the finished run are stored there; None stores none.
        checkpoint_every: epochs between two checkpoints; the end of a phase always has one.
        keep_features: whether the output of frozen blocks is kept from epoch to epoch.
        cache_limit: bytes of it that may lie in files below ``cache`` when it does not fit into memory.
        trials: runs at the same time on this machine, which share its memory.
    """

    datasets: Path
    folder: Path | None = None
    device_index: int = 0
    keep_model: bool = True
    overwrite: bool = False
    carry_on: bool = False
    resume_from: Path | None = None
    layers: Path | None = None
    cache: Path | None = None
    shared_blocks: Path | None = None
    load: Callable[..., images.Images] | None = None
    store_blocks: str | None = None
    checkpoint_every: int = 1
    keep_features: bool = True
    cache_limit: int = folders.CACHE_LIMIT
    trials: int = 1

    def room(self) -> features.Room | None:
        """Return where features may be kept."""
        if not self.keep_features:
            return None
        folder = None if self.cache is None else self.cache / "features"
        return features.Room(file_limit=self.cache_limit, folder=folder, trials=self.trials)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished run is.

    Attributes:
        config: the config as it was run, with the device resolved.
        rows: all rows of ``metrics.jsonl``.
        network: the trained network, on its device.
        probes: the readouts that the config asks for.
        geometry: the numbers of the representations, where the config asks for them.
        seconds: time from start to end, without the time before an interruption.
        folder: the run folder, if there is one.
    """

    config: RunConfig
    rows: list[folders.Row]
    network: model.Network = field(repr=False)
    probes: list[Probe]
    geometry: list[Geometry]
    seconds: float
    folder: Path | None

    @property
    def metrics(self) -> folders.Row:
        """The last row."""
        return self.rows[-1]


@dataclass
class State:
    """What changes while a run goes on; all of it is in the checkpoint.

    Attributes:
        phase, epoch, step: what comes next, and the updates made.
        optimiser: state of the optimiser of the phase; of a member of a pack, that of its own part.
        watch: state of what may end the phase early.
        failed: why the run, one of a pack, can learn no more.
    """

    phase: int = 0
    epoch: int = 0
    step: int = 0
    optimiser: dict[str, Any] | None = None
    watch: dict[str, Any] | None = None
    failed: str | None = None

    @property
    def position(self) -> Position:
        """What comes next."""
        return self.phase, self.epoch, self.step


@dataclass(frozen=True)
class Run:
    """All that the phases of a run work on.

    ``silent`` is a member of a pack that was finished before: it is trained for the sake of the others' bits, and
    nothing of it is told or stored.
    """

    config: RunConfig
    phases: tuple[Phase, ...]
    place: Place
    report: Report
    network: model.Network
    data: dict[str, images.Images]
    state: State
    recorder: records.Recorder
    silent: bool = False

    @property
    def heard(self) -> bool:
        """Whether anything is still to be told of it."""
        return not self.silent and self.state.failed is None


def stored_config(config: RunConfig, phases: tuple[Phase, ...]) -> dict[str, Any]:
    """Return the content of ``config.json``: the run, and its phases for the reader."""
    return {**to_json(config), "phases": plan.described(phases)}


def store(runs: Sequence[Run]) -> None:
    """Write the checkpoints of a run, or of all members of a pack.

    Those of a pack are written beside the old ones and take their places when all are there: whenever the pack is
    killed, there is a position of which all members hold a checkpoint.
    """
    kept = [run for run in runs if run.place.folder is not None]
    if len(kept) == 1:
        _store(kept[0], folders.CHECKPOINT)
        return
    for run in kept:
        _store(run, folders.NEXT)
    for run in kept:
        assert run.place.folder is not None
        os.replace(run.place.folder / folders.NEXT, run.place.folder / folders.CHECKPOINT)


def _store(run: Run, name: Path) -> None:
    state, spec = run.state, run.network.spec
    assert run.place.folder is not None
    checkpoints.save(
        run.place.folder / name,
        {
            "network": grammar.format_network(spec, catalog.load().defaults),
            "model": run.network.state_dict(),
            "optimiser": state.optimiser,
            "watch": state.watch,
            "failed": state.failed,
            "position": {"phase": state.phase, "epoch": state.epoch, "step": state.step},
        },
    )


def finish(runs: Sequence[Run], started: float) -> list[Result]:
    """Make the probes of what was trained, and write the results last: they are what makes a run finished."""
    results = []
    for run in runs:
        if not run.heard:
            continue
        probed, measured = readout.probe(run.config, run.network, run.data.get("sup", run.data[run.phases[-1].data]))
        results.append(
            Result(
                config=run.config,
                rows=run.recorder.rows,
                network=run.network,
                probes=probed,
                geometry=measured,
                seconds=time.monotonic() - started,
                folder=run.place.folder,
            )
        )
    for result, run in zip(results, (run for run in runs if run.heard), strict=True):
        _write(result, run.place)
    for run in runs:  # until all results are there, those of a pack are still wanted
        if run.heard and run.place.folder is not None and not run.place.keep_model:
            shutil.rmtree(run.place.folder / folders.CHECKPOINT.parent, ignore_errors=True)
    return results


def _write(result: Result, place: Place) -> None:
    if place.layers is not None and place.store_blocks is not None:
        model.save_blocks(result.network, place.layers / place.store_blocks)
    if place.folder is None:
        return
    network = result.config.network
    folders.write_json(
        place.folder / folders.RESULT,
        {
            "status": "finished",
            "preset": network.name,
            "network": grammar.format_network(network, catalog.load().defaults),
            "seed": result.config.seed,
            "metrics": result.metrics,
            "probes": [vars(probe) for probe in result.probes],
            "geometry": [{"block": found.block, **found.numbers} for found in result.geometry],
            "seconds": round(result.seconds, 3),
        },
    )
