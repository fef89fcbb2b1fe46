"""``run(config)``: the only way a run happens. Executes the phases of the plan; no tensor maths.

Both command lines, every trial of a search, and the tests call it, or ``run_pack`` for several seeds at once. What
decides the bits is in the config; where things lie is in ``Place``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch

from hebb.config.plan import Phase, PhaseKind
from hebb.config.specs import RunConfig
from hebb.data import images
from hebb.nn.model import Network
from hebb.probing import measures, readout
from hebb.probing.measures import BlockInfo
from hebb.rules import rates
from hebb.storage import folders, records
from hebb.training import early_stop, engine, epochs, features, pack, shared_blocks, start
from hebb.training import run as runs
from hebb.training.engine import Epoch, Scores
from hebb.training.optimiser import optimiser_of, set_rates
from hebb.training.report import Report
from hebb.training.run import Place, Result, Run, stored_config

__all__ = ["Place", "Report", "Result", "due", "evaluate", "optimiser_of", "run", "run_pack", "stored_config"]


def run(config: RunConfig, report: Report | None = None, *, place: Place) -> Result:
    """Train as the config says and return the result.

    Raises:
        ConfigError: before anything is written, when the config, the data or a checkpoint cannot be used.
        DivergenceError: when weights or loss stop being finite.
    """
    return run_pack([config], None if report is None else [report], places=[place])[0]


def run_pack(
    configs: Sequence[RunConfig], reports: Sequence[Report] | None = None, *, places: Sequence[Place]
) -> list[Result]:
    """Train runs that differ in their seed together, and return the results of those that were not finished before.

    Each has its own folder, records, checkpoint and result. The first report is told how phases go on.

    Raises:
        ConfigError: before anything is written, when a config, the data or a checkpoint cannot be used.
        DivergenceError: when weights or loss of a member stopped being finite; the others are finished then.
    """
    started = time.monotonic()
    reports = reports or [Report() for _ in configs]
    members, trained = start.runs(configs, reports, places)
    try:
        for one in members:
            one.report.start(one.config, one.phases, one.place)
        phases = members[0].phases
        for index in range(members[0].state.phase, len(phases)):
            _run_or_reuse(members, trained, index)
            for one in members:
                if one.heard:
                    data = one.data.get("sup", one.data[phases[index].data])
                    one.report.trained(index, phases[index], one.network, data)
        results = runs.finish(members, started)
    finally:
        for one in members:
            one.recorder.close()
    for one, result in zip((one for one in members if one.heard), results, strict=True):
        one.report.finish(result)
    if isinstance(trained, pack.Pack):
        trained.raise_failed()
    return results


# -- phases -------------------------------------------------------------------------------------------------


def _run_or_reuse(members: Sequence[Run], trained: Network | pack.Pack, index: int) -> None:
    """Run a phase, or take its blocks from the cache of shared ones, where another run has left them."""
    phase = members[0].phases[index]
    digests = {name: loaded.sha256 for name, loaded in members[0].data.items()}
    with ExitStack() as stack:
        entries = [
            stack.enter_context(
                shared_blocks.entry(
                    one.place.shared_blocks if one.state.epoch == 0 and not _failed(members) else None,
                    one.config,
                    one.phases,
                    index,
                    digests,
                )
            )
            for one in members
        ]
        found = [entry.load() for entry in entries]
        stored = [one for one in found if one is not None]
        if len(stored) == len(members):
            for one, blocks in zip(members, stored, strict=True):
                _reuse(one, phase, blocks)
            runs.store(members)
            return
        _run_phase(members, trained, index)
        for one, entry in zip(members, entries, strict=True):
            if one.state.failed is None:
                entry.store(_left_behind(one, index))


def _failed(members: Sequence[Run]) -> bool:
    """Tell whether a member of a pack has failed, whose blocks are not worth keeping."""
    return any(one.state.failed is not None for one in members)


def _left_behind(run: Run, index: int) -> shared_blocks.Stored:
    """Return what phase ``index`` leaves to other runs."""
    recorder = run.recorder
    # from the end: an interrupted run has rows of earlier phases without their blocks
    made = [pair for pair in zip(recorder.rows[::-1], recorder.blocks[::-1], strict=False) if pair[0]["phase"] == index]
    blocks = {i: run.network[i].state_dict() for i in run.phases[index].blocks}
    return shared_blocks.Stored(blocks, made[::-1], run.state.step)


def _reuse(run: Run, phase: Phase, stored: shared_blocks.Stored) -> None:
    """Go on as if the run had trained the phase itself."""
    for i, tensors in stored.blocks.items():
        run.network[i].load_state_dict(tensors)
    for row, blocks in stored.rows:
        run.recorder.row(row, blocks)
        if row is stored.rows[-1][0] or due(phase, row["epoch"] - 1):  # the last, where the phase ended early
            run.report.row(row, {})
    run.recorder.filters(run.network[0].weight, run.network[0].shapes.into, stored.step)
    trained = {f"b{i}": layer.radius().tolist() for i, layer in run.network.hebbian() if i in phase.blocks}
    run.recorder.radii(trained, stored.step)
    run.state.phase, run.state.epoch, run.state.step = run.state.phase + 1, 0, stored.step


def due(phase: Phase, epoch: int) -> bool:
    """Tell whether an epoch, counted from 0, is evaluated and reported."""
    return epoch in (0, phase.epochs - 1) or (epoch + 1) % phase.print_freq == 0


def _run_phase(members: Sequence[Run], trained: Network | pack.Pack, index: int) -> None:
    """Run the epochs of a phase: those of one run, or of all members of a pack together."""
    first, config = members[0], members[0].config
    phase, state = first.phases[index], first.state
    behind = [_inputs(one, phase) for one in members]
    splits = [data.train for data in behind]
    optimiser, watch = optimiser_of(config, phase, trained), _watch_of(config, phase, first.network)
    _load_states(members, optimiser, watch)
    tell = next((one for one in members if one.heard), first).report
    tell.phase(index, phase, state.epoch, len(splits[0]))
    for epoch in range(state.epoch, phase.epochs):
        at = [Epoch(seed=one.config.seed, phase=phase, phase_index=index, epoch=epoch) for one in members]
        if phase.kind not in (PhaseKind.CALIBRATE, PhaseKind.SETTLE):
            set_rates(config, phase, optimiser, epoch)
        began = time.monotonic()
        scores = epochs.run(trained, splits, at, optimiser, tell.progress, watch)
        _wait_for(splits[0])
        seconds = max(time.monotonic() - began, 1e-9)
        last = epoch == phase.epochs - 1 or (watch is not None and watch.done())
        made = _Made(phase, index, epoch, last, optimiser, seconds)
        if isinstance(trained, pack.Pack):
            _note_failed(members, trained)
        shown = [
            _record(one, made, data, found) if one.heard else {}
            for one, data, found in zip(members, behind, scores, strict=True)
        ]
        _move_on(members, made, watch)
        if last or (epoch + 1) % first.place.checkpoint_every == 0:
            runs.store(members)
        for one, blocks in zip(members, shown, strict=True):
            if one.heard and (last or due(phase, epoch)):
                one.report.row(one.recorder.rows[-1], blocks)
        if last:
            return


def _inputs(run: Run, phase: Phase) -> images.Images:
    """Return the splits as the phase reads them."""
    run.network.eval()
    return features.inputs(run.network, phase, run.data[phase.data], run.config, run.place.room(), run.report)


def _load_states(
    members: Sequence[Run], optimiser: torch.optim.Optimizer | None, watch: early_stop.Watch | None
) -> None:
    """Let optimiser and watch go on from where the checkpoint left them."""
    moments = [one.state.optimiser for one in members if one.state.optimiser is not None]
    if optimiser is not None and moments:
        optimiser.load_state_dict(moments[0] if len(members) == 1 else pack.of_pack(moments))
    if watch is not None and members[0].state.watch is not None:
        watch.load_state_dict(members[0].state.watch)


def _note_failed(members: Sequence[Run], trained: pack.Pack) -> None:
    for place, error in trained.failed.items():
        one = members[place]
        if one.state.failed is None:
            one.state.failed = str(error)
            if not one.silent:
                one.report.failed(error)


@dataclass(frozen=True)
class _Made:
    """An epoch that was made: where it stands, whether it ends its phase, what moved it, and how long it took."""

    phase: Phase
    index: int
    epoch: int
    last: bool
    optimiser: torch.optim.Optimizer | None
    seconds: float

    @property
    def reported(self) -> bool:
        """Whether it is evaluated and reported."""
        return self.last or due(self.phase, self.epoch)

    def updates(self, split: images.Split) -> int:
        """Updates of such an epoch."""
        return self.phase.updates_per_epoch(len(split))


def _record(run: Run, made: _Made, data: images.Images, scores: Scores) -> dict[str, BlockInfo]:
    """Count, evaluate and record an epoch of a run, and return the numbers of its blocks."""
    network, recorder, state, phase = run.network, run.recorder, run.state, made.phase
    updates = made.updates(data.train)
    row = _row(phase, made.index, made.epoch, scores)
    step = state.step + (0 if phase.kind == PhaseKind.CALIBRATE else updates)
    if made.reported and phase.kind != PhaseKind.CALIBRATE:
        final = made.last and made.index == len(run.phases) - 1
        row.update(evaluate(phase, network, data, scores, final=final))
    done = (made.epoch + 1) * updates
    blocks = {
        f"b{i}": measures.measure(layer, rates.scheduled(layer.spec, done, phase.schedule, phase.epochs))
        for i, layer in network.hebbian()
        if i in phase.blocks
    }
    blocks |= {f"b{i}": BlockInfo(scalars=loss.means()) for i, loss in network.local() if i in phase.blocks}
    lr = scores.rate if made.optimiser is None else made.optimiser.param_groups[0]["lr"]
    learning = {} if phase.kind == PhaseKind.CALIBRATE else blocks
    speed = round(len(data.train) / made.seconds, 1)
    row.update(measures.summary(learning, lr), step=step, images_per_second=speed)
    row = records.make_row(**row)
    if phase.kind == PhaseKind.BACKPROP:
        blocks |= {f"b{i}": BlockInfo(scalars={"angle": a}) for i, a in readout.angles(network, phase.blocks)}
    recorder.row(row, {name: info.scalars for name, info in blocks.items()})
    recorder.radii({name: info.radius for name, info in blocks.items() if made.reported}, step)
    if scores.looks:
        recorder.looks([replace(look, update=look.update + step - updates) for look in scores.looks])
        blocks = {name: BlockInfo(scalars=numbers) for name, numbers in scores.looks[-1].blocks.items()}
    if made.last:
        recorder.filters(network[0].weight, network[0].shapes.into, step)
    return blocks


def _move_on(members: Sequence[Run], made: _Made, watch: early_stop.Watch | None) -> None:
    """Say in the states of the runs what comes after this epoch."""
    moments: list[dict[str, Any] | None] = [None] * len(members)
    if made.optimiser is not None and not made.last:
        moments[:] = [made.optimiser.state_dict()]
        if len(members) > 1:
            moments[:] = pack.of_members(made.optimiser.state_dict(), len(members))
    for one, optimiser in zip(members, moments, strict=True):
        state = one.state
        if made.phase.kind != PhaseKind.CALIBRATE:
            state.step += made.updates(one.data[made.phase.data].train)
        state.phase, state.epoch = (made.index + 1, 0) if made.last else (made.index, made.epoch + 1)
        state.optimiser = optimiser
        state.watch = None if watch is None or made.last else watch.state_dict()


def _watch_of(config: RunConfig, phase: Phase, network: Network) -> early_stop.Watch | None:
    """Return what may end the phase early; None where nothing does."""
    if phase.kind != PhaseKind.HEBBIAN or not config.stop.active:
        return None
    layers = [layer for i, layer in network.hebbian() if i in phase.blocks]
    return early_stop.Watch(config.stop, layers, phase.updates // phase.epochs)


def _row(phase: Phase, index: int, epoch: int, scores: Scores) -> folders.Row:
    """Start the row of an epoch with what the epoch itself gave."""
    return {
        "phase": index,
        "kind": phase.kind,
        "blocks": " ".join(f"b{i}" for i in phase.blocks),
        "epoch": epoch + 1,
        "train_loss": scores.loss,
        "train_acc": scores.accuracy,
    }


def evaluate(phase: Phase, network: Network, data: images.Images, scores: Scores, *, final: bool) -> folders.Row:
    """Measure what this phase can be measured by. With validation the test set is closed before the ``final`` epoch."""
    open_test = data.val is None or final
    top = network[phase.top]
    # back-prop descends the loss of the whole network, also when only lower blocks learn
    classifies = phase.descends or (phase.top == len(network) - 1 and top.spec.supervised)
    if not classifies and (top.spec.layer.arch == "CNN" or top.spec.local):
        return {}
    if not classifies:
        others = [data.val, data.test if open_test else None]
        train_acc, val_acc, test_acc = readout.neuron_labels(network, phase.top, data.train, others, phase.first)
        return {"train_acc": train_acc, "val_acc": val_acc, "test_acc": test_acc}
    row: folders.Row = {}
    splits = {
        "train": data.train if scores.accuracy is None else None,
        "val": data.val,
        "test": data.test if open_test else None,
    }
    for name, split in splits.items():
        if split is not None:
            found = engine.evaluate(network, split, start=phase.first)
            row |= {f"{name}_loss": found.loss, f"{name}_acc": found.accuracy}
    return row


def _wait_for(split: images.Split) -> None:
    """Let the device finish, so that a measured time is the time of the work."""
    if split.labels.device.type == "cuda":
        torch.cuda.synchronize(split.labels.device)
