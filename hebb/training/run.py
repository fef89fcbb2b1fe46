"""One run: the methods that the loop of ``train.py`` calls, records, checkpoint and result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hebb.config import catalog, grammar, plan
from hebb.config.phase import Phase, PhaseKind
from hebb.config.serialise import to_json
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import Role
from hebb.core import machine
from hebb.core.peak import PeakMemory
from hebb.data.images import Images, Split
from hebb.nn import model
from hebb.nn.model import Network
from hebb.probing import measures, neuron_order, readout
from hebb.probing.measures import BlockInfo
from hebb.rules import rates
from hebb.storage import checkpoints, folders, records
from hebb.training import curves, engine, evaluation, features, graphs, shared_blocks
from hebb.training.curves import Curves
from hebb.training.early_stop import Watch
from hebb.training.epoch import Epoch, EpochEnd, Scores
from hebb.training.graphs import Graphs
from hebb.training.optimiser import optimiser_of
from hebb.training.place import Place
from hebb.training.report import Report
from hebb.training.result import Result
from hebb.training.stillness import Stillness

Position = tuple[int, int, int]
"""Phase, epoch and step of a checkpoint."""


@dataclass
class RunState:
    """The changing state of a run, all of it in the checkpoint.

    Attributes:
        phase, epoch: the next epoch to train.
        step: number of updates made.
        optimiser: state of the phase's optimiser; for a member of a pack, its own part.
        watch: state of the early stop.
        failed: why a member of a pack has failed; None if it has not.
    """

    phase: int = 0
    epoch: int = 0
    step: int = 0
    optimiser: dict[str, Any] | None = None
    watch: dict[str, Any] | None = None
    failed: str | None = None

    @property
    def position(self) -> Position:
        """The next epoch, and the updates before it."""
        return self.phase, self.epoch, self.step


@dataclass(eq=False)
class Run:
    """A run of one seed.

    Attributes:
        data: the datasets that its phases use, by role (``sup``, ``unsup``).
        started: start time on the monotonic clock, earlier by what the sessions before this one took.
        shown: numbers of the blocks after the last epoch, for the report.
        graphs: the recorded updates of the phase, where the config asks for them.
        memory: follows the memory of the run; None for a member of a pack, whose memory is that of all.
    """

    config: RunConfig
    phases: tuple[Phase, ...]
    place: Place
    report: Report
    network: Network
    data: dict[Role, Images]
    state: RunState
    recorder: records.Recorder
    started: float
    shown: dict[str, BlockInfo]
    graphs: Graphs | None = None
    memory: PeakMemory | None = None

    def labelled(self, phase: Phase) -> Images:
        """Return the supervised data, or in a run without them the data of the phase."""
        return self.data.get(Role.SUP, self.data[phase.data])

    # -- called by the training loop ----------------------------------------------------------------------

    def begin(self) -> None:
        """Report the start."""
        self.report.start(self.config, self.phases, self.place)
        notes = _streamed(self.data)
        if self.config.cuda_graphs:
            notes += graphs.notes(self.config)
        for note in notes:
            self.report.warning(note)

    @contextmanager
    def shared(self, index: int) -> Iterator[bool]:
        """Yield True if the cache has the blocks of a phase; otherwise yield False and cache what the body trains."""
        with self.cache_entry(index) as entry:
            stored = entry.load()
            if stored is not None:
                self.reuse(index, stored)
                self.store()
            yield stored is not None
            if stored is None:
                entry.store(self.left_behind(index))

    def inputs(self, phase: Phase, shelf: features.Shelf | None = None) -> Images:
        """Return the inputs of a phase, computed by the frozen blocks below it; a pack keeps them on a ``shelf``."""
        self.network.eval()
        data, room = self.data[phase.data], self.place.room()
        return features.inputs(self.network, phase, data, self.config, room, self.report, shelf)

    def optimiser(self, phase: Phase) -> torch.optim.Optimizer | None:
        """Return a new optimiser for a phase."""
        return optimiser_of(self.config, phase, self.network)

    def resume(self, index: int, data: Images, optimiser: torch.optim.Optimizer | None, watch: Watch | None) -> None:
        """Restore optimiser and early stop from the checkpoint, and report the phase."""
        if optimiser is not None and self.state.optimiser is not None:
            optimiser.load_state_dict(self.state.optimiser)
        if watch is not None and self.state.watch is not None:
            watch.load_state_dict(self.state.watch)
        phase, tell = self.phases[index], self.report.warning
        self.graphs = graphs.of_phase(self.config, phase, self.network, data.train, optimiser, tell)
        self.report.phase(index, self.phases[index], self.state.epoch, len(data.train))

    def epoch(
        self, index: int, epoch: int, data: Images, optimiser: torch.optim.Optimizer | None, watch: Watch | None
    ) -> Scores:
        """Train for one epoch, and wait until the device has finished."""
        at = Epoch(seed=self.config.seed, phase=self.phases[index], phase_index=index, epoch=epoch)
        stillness = Stillness(self.network, at.phase)
        progress, followed = self.report.progress, curves_of([self], at, data.train)
        scores = engine.run_epoch(self.network, data.train, at, optimiser, progress, watch, followed, self.graphs)
        machine.wait_for(data.train.labels.device)
        self.warn(index, epoch, stillness)
        return scores

    def warn(self, index: int, epoch: int, stillness: Stillness) -> None:
        """Report and record the blocks whose weights an epoch left as they were, once in a phase."""
        for still in stillness.still(epoch):
            self._warn(index, epoch, still.block, still.text)

    def _warn(self, index: int, epoch: int, block: int, text: str) -> None:
        if self.recorder.warn(index, epoch, block, text):
            self.report.warning(text)

    def record(self, end: EpochEnd, data: Images, scores: Scores) -> None:
        """Evaluate and record an epoch, and note what comes next."""
        self.write_row(end, data, scores)
        optimiser = None if end.last or end.optimiser is None else end.optimiser.state_dict()
        watch = None if end.last or end.watch is None else end.watch.state_dict()
        self.advance(end, data, optimiser, watch)

    def store(self) -> None:
        """Write the checkpoint."""
        self.write_checkpoint(folders.CHECKPOINT)

    def tell(self) -> None:
        """Report the last epoch."""
        self.report.row(self.recorder.rows[-1], self.shown)

    def end_phase(self, index: int) -> None:
        """Report that a phase is complete."""
        self.graphs = None  # and their memory
        phase = self.phases[index]
        self.report.trained(index, phase, self.network, self.labelled(phase))

    def finish(self) -> list[Result]:
        """Fit the probes, then write the result, which marks the run as finished."""
        result = self.result()
        self.write_result(result)
        self.drop_checkpoint()
        return [result]

    def close(self) -> None:
        """Close the records."""
        self.recorder.close()

    def announce(self, results: list[Result]) -> None:
        """Report the result."""
        self.report.finish(results[0])

    # -- an epoch -----------------------------------------------------------------------------------------

    def write_row(self, end: EpochEnd, data: Images, scores: Scores) -> None:
        """Evaluate an epoch if it is due, and record it."""
        phase, network, recorder = end.phase, self.network, self.recorder
        learns = phase.kind != PhaseKind.CALIBRATE
        updates = phase.updates_per_epoch(len(data.train))
        step = self.state.step + (updates if learns else 0)
        row = _first_columns(end, scores)
        if end.reported and learns:
            final = end.last and end.index == len(self.phases) - 1
            row.update(evaluation.of_phase(phase, network, data, scores, final=final))
        blocks = _measured(network, phase, (end.epoch + 1) * updates)
        lr = scores.rate if end.optimiser is None else end.optimiser.param_groups[0]["lr"]
        speed = round(len(data.train) / end.seconds, 1)
        row.update(measures.summary(blocks if learns else {}, lr), step=step, images_per_second=speed)
        row = records.make_row(**row)
        if phase.kind == PhaseKind.BACKPROP:
            angles = readout.angles(network, phase.blocks)
            blocks |= {f"b{i}": BlockInfo(scalars={"angle": angle}) for i, angle in angles}
        recorder.row(row, {name: info.scalars for name, info in blocks.items()})
        recorder.radii({name: info.radius for name, info in blocks.items() if end.reported}, step)
        if scores.looks:
            recorder.looks([replace(look, update=look.update + step - updates) for look in scores.looks])
            blocks = {name: BlockInfo(scalars=numbers) for name, numbers in scores.looks[-1].blocks.items()}
        if end.last:
            self._filters(step)
        self.shown = blocks

    def advance(
        self, end: EpochEnd, data: Images, optimiser: dict[str, Any] | None, watch: dict[str, Any] | None
    ) -> None:
        """Move the state past an epoch."""
        state = self.state
        if end.phase.kind != PhaseKind.CALIBRATE:
            state.step += end.phase.updates_per_epoch(len(data.train))
        state.phase, state.epoch = (end.index + 1, 0) if end.last else (end.index, end.epoch + 1)
        state.optimiser, state.watch = optimiser, watch

    def _filters(self, step: int) -> None:
        """Store the filters of the first layer, sorted by radius and, where the last epoch counted them, by wins."""
        block = self.network[0]
        mass = None if block.hebb is None else block.hebb.gate_mass.cpu()
        share = None if mass is None or not bool(mass.any()) else mass / mass.sum()
        order = neuron_order.of_block(block, share)
        self.recorder.filters(block.weight, block.shapes.into, order, step)

    # -- blocks that runs share ---------------------------------------------------------------------------

    def cache_entry(self, index: int, *, usable: bool = True) -> AbstractContextManager[shared_blocks.Entry]:
        """Open the cache entry of a phase, empty if the phase has begun or is not ``usable``."""
        folder = self.place.shared_blocks if usable and self.state.epoch == 0 else None
        digests = {name: loaded.key for name, loaded in self.data.items()}
        return shared_blocks.entry(folder, self.config, self.phases, index, digests, self.place.device_index)

    def left_behind(self, index: int) -> shared_blocks.Stored:
        """Return the blocks and rows of phase ``index`` for other runs."""
        recorder = self.recorder
        # from the end: an interrupted run has rows of earlier phases without their blocks
        pairs = zip(recorder.rows[::-1], recorder.blocks[::-1], strict=False)
        rows = [(row, blocks) for row, blocks in pairs if row["phase"] == index]
        states = {i: self.network[i].state_dict() for i in self.phases[index].blocks}
        points = [point for point in recorder.points if point.phase == index]
        warnings = [line for line in recorder.warnings if line["phase"] == index]
        return shared_blocks.Stored(states, rows[::-1], points, self.state.step, warnings)

    def reuse(self, index: int, stored: shared_blocks.Stored) -> None:
        """Go on as if this run had trained the phase itself."""
        phase, network, recorder = self.phases[index], self.network, self.recorder
        if self.memory is not None:
            self.memory.lose()
        for i, tensors in stored.blocks.items():
            network[i].load_state_dict(tensors)
        for point in stored.points:
            recorder.point(point)
        for row, blocks in stored.rows:
            recorder.row(row, blocks)
            if row is stored.rows[-1][0] or phase.evaluates(row["epoch"] - 1):  # last: an early stop
                self.report.row(row, {})
        for line in stored.warnings:
            self._warn(index, line["epoch"] - 1, line["block"], line["text"])
        self._filters(stored.step)
        radii = {f"b{i}": layer.radius().tolist() for i, layer in network.hebbian() if i in phase.blocks}
        recorder.radii(radii, stored.step)
        self.state.phase, self.state.epoch, self.state.step = index + 1, 0, stored.step

    # -- files --------------------------------------------------------------------------------------------

    def write_checkpoint(self, name: Path) -> None:
        """Write a checkpoint of this name into the run folder."""
        if self.place.folder is None:
            return
        state = self.state
        self.recorder.to_disk()
        records.store_costs(
            self.place.folder, (state.phase, state.epoch, state.step), self.seconds(), self.peak_memory()
        )
        checkpoints.save(
            self.place.folder / name,
            {
                "network": grammar.format_network(self.network.spec, catalog.load().defaults),
                "model": self.network.state_dict(),
                "optimiser": state.optimiser,
                "watch": state.watch,
                "failed": state.failed,
                "position": {"phase": state.phase, "epoch": state.epoch, "step": state.step},
            },
        )

    def seconds(self) -> float:
        """Return the time of the run so far, without what an interruption lost."""
        return time.monotonic() - self.started

    def peak_memory(self) -> int | None:
        """Return the largest memory of the run so far in bytes; None where it cannot be told."""
        return None if self.memory is None else self.memory.bytes()

    def result(self) -> Result:
        """Fit the probes and return the result."""
        probes, geometry = readout.probe(self.config, self.network, self.labelled(self.phases[-1]))
        return Result(
            config=self.config,
            rows=self.recorder.rows,
            points=self.recorder.points,
            network=self.network,
            probes=probes,
            geometry=geometry,
            seconds=self.seconds(),
            peak_memory=self.peak_memory(),
            folder=self.place.folder,
        )

    def write_result(self, result: Result) -> None:
        """Store the blocks and write ``result.json``."""
        place, network = self.place, result.config.network
        if place.layers is not None and place.store_blocks is not None:
            model.save_blocks(result.network, place.layers / place.store_blocks)
        if place.folder is None:
            return
        folders.write_json(
            place.folder / folders.RESULT,
            {
                "status": "finished",
                "preset": network.name,
                "network": grammar.format_network(network, catalog.load().defaults),
                "seed": result.config.seed,
                "metrics": result.metrics,
                "probes": [vars(probe) for probe in result.probes],
                "geometry": [shape.row for shape in result.geometry],
                "seconds": round(result.seconds, 3),
                "peak_memory": result.peak_memory,
                **leaks(result.config),
            },
        )
        records.forget_costs(place.folder)

    def drop_checkpoint(self) -> None:
        """Remove the checkpoint unless the place keeps the model."""
        if self.place.folder is not None and not self.place.keep_model:
            shutil.rmtree(self.place.folder / folders.CHECKPOINT.parent, ignore_errors=True)


def curves_of(runs: Sequence[Run], at: Epoch, split: Split, recorded: Container[Run] | None = None) -> Curves:
    """Return what measures an epoch of a run, or of the members of a pack, inside it.

    Args:
        runs: the run, or all members.
        at: the epoch.
        split: its images, of the first member.
        recorded: the members whose points are recorded; None: all.
    """
    updates = at.phase.updates_per_epoch(len(split))
    tells = [run.recorder.point if recorded is None or run in recorded else None for run in runs]
    places = curves.places(at.phase, updates, runs[0].config.curve_points)
    return Curves([run.network for run in runs], at, places, runs[0].state.step, tells)


def leaks(config: RunConfig) -> dict[str, dict[str, list[str]]]:
    """Return what ``result.json`` says of test images that were not left alone; most runs have nothing to say."""
    said = {f"dataset_{role}": spec.leaks for role, spec in config.datasets.items()}
    return {"test images": {role: list(texts) for role, texts in said.items() if texts}} if any(said.values()) else {}


def stored_config(config: RunConfig, phases: tuple[Phase, ...]) -> dict[str, Any]:
    """Return the content of ``config.json``: the run, and its phases for the reader."""
    return {**to_json(config), "phases": plan.described(phases)}


def _first_columns(end: EpochEnd, scores: Scores) -> folders.Row:
    """Return the columns of a row that need no evaluation."""
    return {
        "phase": end.index,
        "kind": end.phase.kind,
        "blocks": " ".join(f"b{i}" for i in end.phase.blocks),
        "epoch": end.epoch + 1,
        "train_loss": scores.loss,
        "train_acc": scores.accuracy,
    }


def _measured(network: Network, phase: Phase, updates: int) -> dict[str, BlockInfo]:
    """Measure the blocks that learn locally, after ``updates`` updates of the phase."""
    blocks = {
        f"b{i}": measures.measure(layer, rates.scheduled(layer.spec, updates, phase.schedule, phase.epochs))
        for i, layer in network.hebbian()
        if i in phase.blocks
    }
    return blocks | {f"b{i}": BlockInfo(scalars=loss.means()) for i, loss in network.local() if i in phase.blocks}


def _streamed(data: dict[Role, Images]) -> list[str]:
    """Say which images are too many to be decoded before the first update: damage inside a file is found late."""
    names = []
    for role, loaded in data.items():
        splits = {"training": loaded.train, "validation": loaded.val, "test": loaded.__dict__.get("test")}
        names += [f"{name} images of dataset_{role}" for name, split in splits.items() if split and split.streamed]
    if not names:
        return []
    return [
        f"note: the {' and '.join(names)} are decoded when they are used: only headers and ends of their files "
        "have been checked"
    ]
