"""The runs of a pack, which start, train and end together behind the interface of a single run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from hebb import builtin
from hebb.config import plan
from hebb.config.phase import Phase
from hebb.config.specs import RunConfig
from hebb.core import machine
from hebb.core.errors import ConfigError, DivergenceError
from hebb.data.images import Images
from hebb.nn.model import Network
from hebb.storage import checkpoints, folders
from hebb.storage.folders import FolderState
from hebb.training import features, start
from hebb.training import optimiser as optimisers
from hebb.training import pack as packs
from hebb.training.early_stop import Watch
from hebb.training.epoch import Epoch, EpochEnd, Scores
from hebb.training.pack import Pack
from hebb.training.place import Place
from hebb.training.report import Report
from hebb.training.result import Result
from hebb.training.run import Run, RunState, curves_of
from hebb.training.stillness import Stillness


def start_pack(configs: Sequence[RunConfig], reports: Sequence[Report], places: Sequence[Place]) -> PackRun:
    """Build the networks of a pack, or restore them, and open the records of the members.

    Raises:
        ConfigError: before anything is written, when a config, the data or a checkpoint cannot be used.
    """
    started = time.monotonic()
    builtin.load(configs[0].plugins)  # the process may be a worker that has only unpickled them
    configs, devices = zip(*map(start.resolved, configs, places), strict=True)
    start.settle_process(configs[0], devices[0])
    phases = plan.phases(configs[0])
    networks = list(map(start.initial_network, configs, places))
    finished = [place.carry_on and _is_finished(place.folder) for place in places]
    states = _continued(networks, places, finished, len(phases))
    data = start.load_data(configs[0], phases, places[0], devices[0], reports[0])
    start.check_data(configs[0], phases, data)
    if any(images.train.streamed for images in data.values()):
        raise ConfigError(
            "--pack-seeds",
            "the training images are too many to keep decoded, and a pack cannot read them in an order for each seed",
            hint="leave it out: the seeds are then trained one by one",
        )
    for network in networks:
        network.to(devices[0])
    pack = Pack(networks)
    pack.rehearse(phases)
    members = []
    for i, (config, network, place) in enumerate(zip(configs, networks, places, strict=True)):
        if finished[i]:
            place = replace(place, folder=None, store_blocks=None)
        count = len(networks)  # they share the memory
        place = replace(place, trials=place.trials * count, trials_on_gpu=place.trials_on_gpu * count)
        state = None if states is None else states[i]
        recorder = start.open_records(config, phases, place, data, state)
        report = Report() if finished[i] else reports[i]
        began = started - start.seconds_before(place, state)
        state = state or RunState()
        members.append(Run(config, phases, place, report, network, data, state, recorder, began, {}))
        if state.failed is not None:
            pack.failed[i] = DivergenceError(state.failed)
    return PackRun(pack, members, finished)


def _is_finished(folder: Path | None) -> bool:
    return folder is not None and folders.state(folder) == FolderState.FINISHED


def _continued(
    networks: Sequence[Network], places: Sequence[Place], finished: Sequence[bool], end: int
) -> list[RunState] | None:
    """Load the checkpoints of an interrupted pack; None when there is nothing to continue.

    The pack continues from the newest position for which all members have a checkpoint. A finished member only has
    the position ``end``: either the others have it too, or the whole pack starts again.
    """
    unfinished = [place for place, done in zip(places, finished, strict=True) if not done]
    interrupted = [place.folder for place in unfinished if place.carry_on and place.folder is not None]
    if len(interrupted) < len(unfinished) or not interrupted:
        return None
    stored = [start.stored_positions(folder) for folder in interrupted]
    common = set(stored[0]).intersection(*stored[1:])
    if any(finished):
        common = {position for position in common if position[0] == end}
    elif not common and any(path.name == checkpoints.NAME for paths in stored for path in paths.values()):
        raise ConfigError(
            str(interrupted[0]),
            "the checkpoints of this pack are not of one moment",
            hint="--overwrite starts it anew",
        )
    if not common:
        return None
    newest = max(common)
    left, states = iter(stored), []
    for network, done in zip(networks, finished, strict=True):
        states.append(RunState(*newest) if done else start.load_state(network, next(left)[newest]))
    for paths in stored:
        start.settle_on(paths[newest])
    return states


@dataclass
class PackRun:
    """The runs of a pack; its methods are those of ``Run``.

    A member that was already ``finished`` is trained again, so that the others keep their bits; it neither reports nor
    stores anything. A failed member is computed for the same reason, and stores its failure.
    """

    pack: Pack
    members: list[Run]
    finished: list[bool]
    _teller: Report = field(default_factory=Report)

    @property
    def config(self) -> RunConfig:
        """The config of the first member."""
        return self.members[0].config

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases of every member."""
        return self.members[0].phases

    @property
    def place(self) -> Place:
        """The place of the first member."""
        return self.members[0].place

    @property
    def network(self) -> Network:
        """The network of the first member."""
        return self.members[0].network

    @property
    def state(self) -> RunState:
        """State of the first member; all members are at the same position."""
        return self.members[0].state

    @property
    def active(self) -> list[Run]:
        """The members that still report."""
        members = zip(self.members, self.finished, strict=True)
        return [member for member, done in members if not done and member.state.failed is None]

    def begin(self) -> None:
        """Report the start of every member."""
        for member in self.members:
            member.begin()

    @contextmanager
    def shared(self, index: int) -> Iterator[bool]:
        """Take the blocks of a phase from the cache if it holds them for all members."""
        usable = all(member.state.failed is None for member in self.members)
        with ExitStack() as stack:
            entries = [stack.enter_context(member.cache_entry(index, usable=usable)) for member in self.members]
            stored = [blocks for entry in entries if (blocks := entry.load()) is not None]
            reused = len(stored) == len(self.members)
            if reused:
                for member, blocks in zip(self.members, stored, strict=True):
                    member.reuse(index, blocks)
                self.store()
            yield reused
            if reused:
                return
            for member, done, entry in zip(self.members, self.finished, entries, strict=True):
                if not done and member.state.failed is None:  # a finished one has recorded nothing
                    entry.store(member.left_behind(index))

    def inputs(self, phase: Phase) -> list[Images]:
        """Return each member's inputs of a phase, computed by its own frozen blocks.

        On a GPU those of training images that are not mirrored lie in one tensor. A CPU gathers each member's from its
        own, which costs it no more.
        """
        on_gpu = self.pack.device.type != "cpu"
        shelf = features.Shelf(members=len(self.members)) if on_gpu else None
        return [member.inputs(phase, shelf) for member in self.members]

    def optimiser(self, phase: Phase) -> torch.optim.Optimizer | None:
        """Return the optimiser of the stacked parameters of a phase."""
        return optimisers.of_blocks(self.config, phase, self.pack.learnt)

    def resume(
        self, index: int, data: list[Images], optimiser: torch.optim.Optimizer | None, watch: Watch | None
    ) -> None:
        """Load the states of the members' optimisers, and report the phase; a pack has no early stop."""
        states = [member.state.optimiser for member in self.members if member.state.optimiser is not None]
        if optimiser is not None and states:
            optimiser.load_state_dict(packs.of_pack(states))
        self._teller = next(iter(self.active), self.members[0]).report  # one member reports the progress of the phase
        self._teller.phase(index, self.phases[index], self.state.epoch, len(data[0].train))

    def epoch(
        self, index: int, epoch: int, data: list[Images], optimiser: torch.optim.Optimizer | None, watch: Watch | None
    ) -> list[Scores]:
        """Train all members for one epoch, and wait until the device has finished."""
        phase = self.phases[index]
        at = [Epoch(seed=m.config.seed, phase=phase, phase_index=index, epoch=epoch) for m in self.members]
        stillness = [Stillness(member.network, phase) for member in self.members]
        splits, progress = [images.train for images in data], self._teller.progress
        followed = curves_of(self.members, at[0], splits[0], self.active)
        scores = self.pack.run_epoch(splits, at, optimiser, progress, followed)
        machine.wait_for(data[0].train.labels.device)
        for member, of_member in zip(self.members, stillness, strict=True):
            if member in self.active:
                member.warn(index, epoch, of_member)
        return scores

    def record(self, end: EpochEnd, data: list[Images], scores: list[Scores]) -> None:
        """Evaluate and record the epoch of every active member, and note what comes next for all."""
        self._note_failed()
        for member, images, of_member in zip(self.members, data, scores, strict=True):
            if member in self.active:
                member.write_row(end, images, of_member)
        states: list[dict[str, Any] | None] = [None] * len(self.members)
        if end.optimiser is not None and not end.last:
            states[:] = packs.of_members(end.optimiser.state_dict(), len(self.members))
        for member, images, state in zip(self.members, data, states, strict=True):
            member.advance(end, images, state, None)

    def _note_failed(self) -> None:
        for i, error in self.pack.failed.items():
            member = self.members[i]
            if member.state.failed is None:
                member.state.failed = str(error)
                if not self.finished[i]:
                    member.report.failed(error)

    def store(self) -> None:
        """Write all checkpoints beside the old ones, then replace the old ones.

        Whenever the pack is killed, all members have a checkpoint of one common position.
        """
        stored = [member for member in self.members if member.place.folder is not None]
        if len(stored) == 1:
            stored[0].store()
            return
        for member in stored:
            member.write_checkpoint(folders.NEXT)
        for member in stored:
            assert member.place.folder is not None
            os.replace(member.place.folder / folders.NEXT, member.place.folder / folders.CHECKPOINT)

    def tell(self) -> None:
        """Report the last epoch of every active member."""
        for member in self.active:
            member.tell()

    def end_phase(self, index: int) -> None:
        """Report for every active member that a phase is complete."""
        for member in self.active:
            member.end_phase(index)

    def finish(self) -> list[Result]:
        """Fit the probes of all active members, then write their results, then drop the checkpoints.

        Until all results are there the checkpoints are still needed.
        """
        active = self.active
        results = [member.result() for member in active]
        for member, result in zip(active, results, strict=True):
            member.write_result(result)
        for member in active:
            member.drop_checkpoint()
        return results

    def close(self) -> None:
        """Close the records of every member."""
        for member in self.members:
            member.close()

    def announce(self, results: list[Result]) -> None:
        """Report the results, and raise when a member has failed."""
        for member, result in zip(self.active, results, strict=True):
            member.report.finish(result)
        self.pack.raise_failed()
