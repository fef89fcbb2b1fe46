"""``run(config)``: the only way a run happens. Executes the phases of the plan; no tensor maths.

Both command lines, every trial of a search, and the tests call it. What decides the bits is in the config;
where things lie is in ``Place``.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import engine
import model
import prefix
import readout
import settling
from hebb import (
    block_cache,
    catalog,
    checkpoints,
    compiling,
    folders,
    grammar,
    machine,
    measures,
    plan,
    rates,
    records,
    stopping,
)
from hebb.config import RunConfig
from hebb.config_json import to_json
from hebb.data import images
from hebb.errors import ConfigError
from hebb.geometry import Geometry
from hebb.measures import BlockInfo
from hebb.plan import Phase
from hebb.probes import Probe
from optimiser import optimiser_of, set_rates


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run reads and writes. Nothing here changes its numbers.

    Attributes:
        datasets: folder of the datasets.
        folder: the run folder; None leaves nothing on disk.
        device_index: number of the GPU, where one is used.
        keep_model: keep the checkpoint of the finished run.
        overwrite: replace what is in the run folder.
        carry_on: continue the interrupted run in the folder.
        resume_from: checkpoint with the initial weights (``config.resume``).
        layers: folder of the stored blocks, read for ``resume=MODEL/bN``.
        cache: folder of what is computed once and kept (whitenings); None keeps nothing.
        shared_blocks: folder of trained blocks that runs share (``hebb.block_cache``); None shares none.
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

    def room(self) -> prefix.Room | None:
        """Return where features may be kept."""
        if not self.keep_features:
            return None
        folder = None if self.cache is None else self.cache / "features"
        return prefix.Room(file_limit=self.cache_limit, folder=folder, trials=self.trials)


class Report:
    """What a run tells while it goes on. Every method does nothing here; override what is wanted."""

    def start(self, config: RunConfig, phases: tuple[Phase, ...], place: Place) -> None:
        """The run begins."""

    def phase(self, index: int, phase: Phase, epoch: int, images: int) -> None:
        """A phase begins, or continues, at ``epoch`` (from 0) with ``images`` images an epoch."""

    def features(self, phase: Phase, images: int) -> None:
        """The features that a phase reads are computed first, those of ``images`` images."""

    def progress(self, images: int) -> None:
        """``images`` more images are done."""

    def row(self, row: records.Row, blocks: dict[str, BlockInfo]) -> None:
        """An epoch was evaluated."""

    def trained(self, index: int, phase: Phase, network: model.Network, data: images.Images) -> None:
        """A phase is complete, and stored; ``data`` has labels where the run has any."""

    def finish(self, result: Result) -> None:
        """The run is complete."""


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
    rows: list[records.Row]
    network: model.Network = field(repr=False)
    probes: list[Probe]
    geometry: list[Geometry]
    seconds: float
    folder: Path | None

    @property
    def metrics(self) -> records.Row:
        """The last row."""
        return self.rows[-1]


@dataclass
class _State:
    """What changes while a run goes on; all of it is in the checkpoint."""

    phase: int = 0
    epoch: int = 0
    step: int = 0
    optimiser: dict[str, Any] | None = None
    watch: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Run:
    """All that the phases of a run work on."""

    config: RunConfig
    phases: tuple[Phase, ...]
    place: Place
    report: Report
    network: model.Network
    data: dict[str, images.Images]
    state: _State
    recorder: records.Recorder


def run(config: RunConfig, report: Report | None = None, *, place: Place) -> Result:
    """Train as the config says and return the result.

    Raises:
        ConfigError: before anything is written, when the config, the data or a checkpoint cannot be used.
        DivergenceError: when weights or loss stop being finite.
    """
    started = time.monotonic()
    report = report or Report()
    device = model.device_of(config, place.device_index)
    config = compiling.resolved(replace(config, device=device.type), device, required=place.carry_on)
    _settle_process(config)
    phases = plan.phases(config)
    network = model.build(config)
    state, stored = _starting_point(config, network, place)
    data = _load_data(config, phases, place, device)
    network.to(device)
    recorder = _open_records(config, phases, place, data, state if stored else None)
    whole = _Run(config, phases, place, report, network, data, state, recorder)
    report.start(config, phases, place)
    try:
        for index in range(state.phase, len(phases)):
            _run_or_reuse(whole, index)
            report.trained(index, phases[index], network, data.get("sup", data[phases[index].data]))
        probed, measured = readout.probe(config, network, data.get("sup", data[phases[-1].data]))
        result = Result(
            config=config,
            rows=recorder.rows,
            network=network,
            probes=probed,
            geometry=measured,
            seconds=time.monotonic() - started,
            folder=place.folder,
        )
        _finish(result, place)
    finally:
        recorder.close()
    report.finish(result)
    return result


def _settle_process(config: RunConfig) -> None:
    """Set what is global to the process, which a search's workers reuse from trial to trial."""
    machine.keep_freed_memory()
    torch.set_num_threads(config.threads)
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(config.seed)  # nothing draws from it; a plugin that does is at least repeatable


# -- beginning ----------------------------------------------------------------------------------------------


def _starting_point(config: RunConfig, network: model.Network, place: Place) -> tuple[_State, bool]:
    """Load initial weights or the checkpoint of an interrupted run; say whether there was one."""
    if config.resume is not None:
        if place.resume_from is None:
            raise ConfigError("--resume", f"this config starts from stored weights ({config.resume}); name the model")
        found = checkpoints.sha256(place.resume_from)
        if config.resume_sha256 not in (None, found):
            raise ConfigError("--resume", f"{place.resume_from} is not the checkpoint the config was run with")
        model.load_weights(network, place.resume_from, classifier=config.resume == "all")
    model.load_blocks(network, place.layers)
    if not (place.carry_on and place.folder is not None):
        return _State(), False
    path = place.folder / folders.CHECKPOINT
    if not path.exists():
        return _State(), False
    data = checkpoints.load(path)
    model.load_weights(network, path)
    position = data.get("position")
    if not isinstance(position, dict) or set(position) != {"phase", "epoch", "step"}:
        raise ConfigError(str(path), "holds weights, and not the position of a run")
    state = _State(**position, optimiser=data.get("optimiser"), watch=data.get("watch"))
    return state, True


def _load_data(
    config: RunConfig, phases: tuple[Phase, ...], place: Place, device: torch.device
) -> dict[str, images.Images]:
    """Load the datasets that the phases use, once when both are the same."""
    specs = {"sup": config.dataset_sup, "unsup": config.dataset_unsup}
    loaded: dict[tuple[Any, ...], images.Images] = {}
    data = {}
    for name in dict.fromkeys(phase.data for phase in phases):
        spec = specs[name]
        content = replace(spec, epochs=1, batch_size=1, print_freq=1)
        if (content,) not in loaded:
            load = images.load if place.load is None else place.load
            loaded[(content,)] = load(spec, place.datasets, config.split_seed, device, place.cache)
        data[name] = loaded[(content,)]
    return data


def _open_records(
    config: RunConfig,
    phases: tuple[Phase, ...],
    place: Place,
    data: dict[str, images.Images],
    state: _State | None,
) -> records.Recorder:
    if place.folder is None:
        return records.Recorder(None)
    environment = records.environment(
        {"datasets": str(place.datasets), "folder": str(place.folder)},
        {name: loaded.sha256 for name, loaded in data.items()},
        str(place.resume_from) if place.resume_from else None,
    )
    path = place.folder / folders.ENVIRONMENT
    if place.carry_on:
        environment = records.continued(path, environment) if path.exists() else environment
    else:
        folders.claim(place.folder, place.overwrite)
        folders.write_json(place.folder / folders.CONFIG, stored_config(config, phases))
    folders.write_json(path, environment)
    position = None if state is None else (state.phase, state.epoch, state.step)
    return records.Recorder(place.folder, position)


def stored_config(config: RunConfig, phases: tuple[Phase, ...]) -> dict[str, Any]:
    """Return the content of ``config.json``: the run, and its phases for the reader."""
    return {**to_json(config), "phases": plan.described(phases)}


# -- phases -------------------------------------------------------------------------------------------------


def _run_or_reuse(run: _Run, index: int) -> None:
    """Run a phase, or take its blocks from the cache of shared ones, where another run has left them."""
    phase, recorder = run.phases[index], run.recorder
    folder = run.place.shared_blocks if run.state.epoch == 0 else None
    digests = {name: loaded.sha256 for name, loaded in run.data.items()}
    with block_cache.entry(folder, run.config, run.phases, index, digests) as entry:
        stored = entry.load()
        if stored is not None:
            _reuse(run, phase, stored)
            return
        _run_phase(run, index)
        # from the end: an interrupted run has rows of earlier phases without their blocks
        made = [
            pair for pair in zip(recorder.rows[::-1], recorder.blocks[::-1], strict=False) if pair[0]["phase"] == index
        ]
        blocks = {i: run.network[i].state_dict() for i in phase.blocks}
        entry.store(block_cache.Stored(blocks, made[::-1], run.state.step))


def _reuse(run: _Run, phase: Phase, stored: block_cache.Stored) -> None:
    """Go on as if the run had trained the phase itself."""
    for i, tensors in stored.blocks.items():
        run.network[i].load_state_dict(tensors)
    for row, blocks in stored.rows:
        run.recorder.row(row, blocks)
        if row is stored.rows[-1][0] or due(phase, row["epoch"] - 1):  # the last, where the phase ended early
            run.report.row(row, {})
    run.recorder.filters(run.network[0].weight, run.network[0].shapes.into, stored.step)
    run.state.phase, run.state.epoch, run.state.step = run.state.phase + 1, 0, stored.step
    _checkpoint(run.network, run.state, run.place)


def due(phase: Phase, epoch: int) -> bool:
    """Tell whether an epoch, counted from 0, is evaluated and reported."""
    return epoch in (0, phase.epochs - 1) or (epoch + 1) % phase.print_freq == 0


def _run_phase(run: _Run, index: int) -> None:
    config, network, state, recorder, report = run.config, run.network, run.state, run.recorder, run.report
    phase, last_phase = run.phases[index], index == len(run.phases) - 1
    network.eval()
    behind = prefix.inputs(network, phase, run.data[phase.data], config, run.place.room(), report)
    split = behind.train
    optimiser = optimiser_of(config, phase, network)
    if optimiser is not None and state.optimiser is not None:
        optimiser.load_state_dict(state.optimiser)
    watch = _watch_of(config, phase, network)
    if watch is not None and state.watch is not None:
        watch.load_state_dict(state.watch)
    report.phase(index, phase, state.epoch, len(split))
    for epoch in range(state.epoch, phase.epochs):
        at = engine.Epoch(seed=config.seed, phase=phase, phase_index=index, epoch=epoch)
        began = time.monotonic()
        if phase.kind == "calibrate":
            scores = engine.calibrate(network, split, at, report.progress)
        elif phase.kind == "settle":
            scores = settling.settle(network, split, at, optimiser, report.progress)
        elif phase.lr is None:
            set_rates(config, phase, optimiser, epoch)
            scores = engine.hebbian(network, split, at, report.progress, optimiser, watch)
        else:
            assert optimiser is not None
            set_rates(config, phase, optimiser, epoch)
            scores = engine.backprop(network, split, at, optimiser, report.progress)
        _wait_for(split)
        speed = len(split) / max(time.monotonic() - began, 1e-9)
        updates = -(-len(split) // phase.batch_size)
        if phase.kind != "calibrate":
            state.step += updates
        last = epoch == phase.epochs - 1 or (watch is not None and watch.done())
        reported = last or due(phase, epoch)
        row = _row(phase, index, epoch, scores)
        if reported and phase.kind != "calibrate":
            row.update(_evaluate(phase, network, behind, scores, last and last_phase))
        done = (epoch + 1) * updates
        blocks = {
            f"b{i}": measures.measure(layer, rates.scheduled(layer.spec, done, phase.schedule, phase.epochs))
            for i, layer in network.hebbian()
            if i in phase.blocks
        }
        blocks |= {f"b{i}": BlockInfo(scalars=loss.means()) for i, loss in network.local() if i in phase.blocks}
        lr = scores.rate if optimiser is None else optimiser.param_groups[0]["lr"]
        learning = {} if phase.kind == "calibrate" else blocks
        row.update(measures.summary(learning, lr), step=state.step, images_per_second=round(speed, 1))
        row = records.make_row(**row)
        if phase.kind == "backprop":
            blocks |= {f"b{i}": BlockInfo(scalars={"angle": a}) for i, a in readout.angles(network, phase.blocks)}
        recorder.row(row, {name: info.scalars for name, info in blocks.items()})
        if scores.looks:
            recorder.looks([replace(look, update=look.update + state.step - updates) for look in scores.looks])
            blocks = {name: BlockInfo(scalars=numbers) for name, numbers in scores.looks[-1].blocks.items()}
        if last:
            recorder.filters(network[0].weight, network[0].shapes.into, state.step)
        state.epoch = epoch + 1
        if last:
            state.phase, state.epoch = index + 1, 0
        state.optimiser = None if optimiser is None or last else optimiser.state_dict()
        state.watch = None if watch is None or last else watch.state_dict()
        if last or (epoch + 1) % run.place.checkpoint_every == 0:
            _checkpoint(network, state, run.place)
        if reported:
            report.row(row, blocks)
        if last:
            return


def _watch_of(config: RunConfig, phase: Phase, network: model.Network) -> stopping.Watch | None:
    """Return what may end the phase early; None where nothing does."""
    if phase.kind != "hebbian" or not config.stop.active:
        return None
    layers = [layer for i, layer in network.hebbian() if i in phase.blocks]
    return stopping.Watch(config.stop, layers, phase.updates // phase.epochs)


def _row(phase: Phase, index: int, epoch: int, scores: engine.Scores) -> records.Row:
    """Start the row of an epoch with what the epoch itself gave."""
    return {
        "phase": index,
        "kind": phase.kind,
        "blocks": " ".join(f"b{i}" for i in phase.blocks),
        "epoch": epoch + 1,
        "train_loss": scores.loss,
        "train_acc": scores.accuracy,
    }


def _evaluate(
    phase: Phase, network: model.Network, data: images.Images, scores: engine.Scores, final: bool
) -> records.Row:
    """Measure what this phase can be measured by. The test set stays closed until the end with validation."""
    open_test = data.val is None or final
    top = network[phase.top]
    # back-prop descends the loss of the whole network, also when only lower blocks learn
    classifies = phase.lr is not None or (phase.top == len(network) - 1 and top.spec.supervised)
    if not classifies and (top.spec.layer.arch == "CNN" or top.spec.local):
        return {}
    if not classifies:
        others = [data.val, data.test if open_test else None]
        train_acc, val_acc, test_acc = readout.neuron_labels(network, phase.top, data.train, others, phase.first)
        return {"train_acc": train_acc, "val_acc": val_acc, "test_acc": test_acc}
    row: records.Row = {}
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


# -- end ----------------------------------------------------------------------------------------------------


def _checkpoint(network: model.Network, state: _State, place: Place) -> None:
    if place.folder is None:
        return
    checkpoints.save(
        place.folder / folders.CHECKPOINT,
        {
            "network": grammar.format_network(network.spec, catalog.load().defaults),
            "model": network.state_dict(),
            "optimiser": state.optimiser,
            "watch": state.watch,
            "position": {"phase": state.phase, "epoch": state.epoch, "step": state.step},
        },
    )


def _finish(result: Result, place: Place) -> None:
    """Write the result last: its presence is what makes a run finished."""
    if place.layers is not None and place.store_blocks is not None:
        model.save_blocks(result.network, place.layers / place.store_blocks)
    if place.folder is None:
        return
    if not place.keep_model:
        shutil.rmtree(place.folder / folders.CHECKPOINT.parent, ignore_errors=True)
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
