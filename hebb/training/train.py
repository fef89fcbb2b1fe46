"""``run(config)`` trains a network through the phases of its plan; there is no tensor maths here.

The commands, every trial of a search and the tests call it, or ``run_pack`` for several seeds at once. The config
alone decides the bits; ``Place`` says where files are.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from typing import Protocol, TypeVar

import torch

from hebb.config.phase import Phase
from hebb.config.specs import RunConfig
from hebb.nn import numerics
from hebb.nn.model import Network
from hebb.storage import folders
from hebb.training import early_stop, pack_run, start
from hebb.training.early_stop import Watch
from hebb.training.epoch import EpochEnd
from hebb.training.optimiser import optimiser_of, set_rates
from hebb.training.place import Place
from hebb.training.report import Report
from hebb.training.result import Result
from hebb.training.run import RunState, stored_config

__all__ = ["Place", "Report", "Result", "optimiser_of", "run", "run_pack", "stored_config"]

Data = TypeVar("Data")
Gain = TypeVar("Gain")


def run(config: RunConfig, report: Report | None = None, *, place: Place) -> Result:
    """Train as the config says and return the result.

    Raises:
        ConfigError: before anything is written, when the config, the data or a checkpoint cannot be used.
        DivergenceError: when weights or loss stop being finite.
    """
    with folders.all_held([place.folder]):
        return _train(start.run(config, report or Report(), place))[0]


def run_pack(
    configs: Sequence[RunConfig], reports: Sequence[Report] | None = None, *, places: Sequence[Place]
) -> list[Result]:
    """Train runs that differ only in their seed together; return the results of those not finished before.

    Each run has its own folder, records, checkpoint and result. One report receives the progress within the phases.

    Raises:
        ConfigError: before anything is written, when a config, the data or a checkpoint cannot be used.
        DivergenceError: when weights or loss of a member stopped being finite; raised after the others are finished.
    """
    reports = reports or [Report() for _ in configs]
    if len(configs) == 1:
        return [run(configs[0], reports[0], place=places[0])]
    with folders.all_held((place.folder for place in places), carry_on=places[0].carry_on):
        return _train(pack_run.start_pack(configs, reports, places))


class Trainee(Protocol[Data, Gain]):
    """What the loop trains: a run, or a pack of runs. ``Run`` documents the methods.

    ``Data`` are the images of a phase and ``Gain`` the scores of an epoch: for one run, or for every member of a pack.
    """

    @property
    def config(self) -> RunConfig: ...
    @property
    def phases(self) -> tuple[Phase, ...]: ...
    @property
    def place(self) -> Place: ...
    @property
    def network(self) -> Network: ...
    @property
    def state(self) -> RunState: ...
    def begin(self) -> None: ...
    def shared(self, index: int) -> AbstractContextManager[bool]: ...
    def inputs(self, phase: Phase) -> Data: ...
    def optimiser(self, phase: Phase) -> torch.optim.Optimizer | None: ...
    def resume(self, index: int, data: Data, optimiser: torch.optim.Optimizer | None, watch: Watch | None) -> None: ...
    def epoch(
        self, index: int, epoch: int, data: Data, optimiser: torch.optim.Optimizer | None, watch: Watch | None
    ) -> Gain: ...
    def record(self, end: EpochEnd, data: Data, scores: Gain) -> None: ...
    def store(self) -> None: ...
    def tell(self) -> None: ...
    def end_phase(self, index: int) -> None: ...
    def finish(self) -> list[Result]: ...
    def close(self) -> None: ...
    def announce(self, results: list[Result]) -> None: ...


def _train(trainee: Trainee[Data, Gain]) -> list[Result]:
    """Run the remaining phases, or take their blocks from the cache if another run has trained them."""
    with closing(trainee), numerics.subnormals_flushed():
        trainee.begin()
        first = trainee.state.phase
        if first > 0 and trainee.state.epoch == 0:
            trainee.end_phase(first - 1)  # a kill may have come between its checkpoint and its end
        for index in range(first, len(trainee.phases)):
            with trainee.shared(index) as reused:
                if not reused:
                    _train_phase(trainee, index)
            trainee.end_phase(index)
        results = trainee.finish()
    trainee.announce(results)
    return results


def _train_phase(trainee: Trainee[Data, Gain], index: int) -> None:
    """Run the remaining epochs of a phase."""
    config, phase = trainee.config, trainee.phases[index]
    data, optimiser = trainee.inputs(phase), trainee.optimiser(phase)
    watch = early_stop.watch_of(config, phase, trainee.network)
    trainee.resume(index, data, optimiser, watch)
    for epoch in range(trainee.state.epoch, phase.epochs):
        set_rates(config, phase, optimiser, epoch)
        began = time.monotonic()
        scores = trainee.epoch(index, epoch, data, optimiser, watch)
        seconds = max(time.monotonic() - began, 1e-9)
        last = epoch == phase.epochs - 1 or (watch is not None and watch.done())
        end = EpochEnd(
            phase=phase, index=index, epoch=epoch, last=last, seconds=seconds, optimiser=optimiser, watch=watch
        )
        trainee.record(end, data, scores)
        if last or (epoch + 1) % trainee.place.checkpoint_every == 0:
            trainee.store()
        if end.reported:
            trainee.tell()
        if last:
            return
