"""What a search costs in hours and disk, from the real steps timed on this machine."""

from __future__ import annotations

import io
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from hebb.config import plan
from hebb.config.phase import Phase, PhaseKind
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import DeviceKind, Launcher
from hebb.core import machine
from hebb.core.threads import cores
from hebb.data import images
from hebb.data.images import Images, Split
from hebb.nn import model
from hebb.probing import measures
from hebb.storage import folders, records
from hebb.training import engine, evaluation, features, train
from hebb.training.epoch import Epoch, Scores
from hebb.training.optimiser import of_blocks, optimiser_of
from hebb.training.pack import Pack
from hebb.tuning import job_array
from hebb.tuning.search import Packs, Search, packs_of
from hebb.tuning.search_settings import SearchSettings, no_room

_WARM, _TIMED = 2, 10  # batches
_SETTLED = 40  # batches of a settling network, which is looked at before and after, however few they are
_CONFIGS = 3  # configurations of a space that are timed: the first, the middle and the last
_START = 6.0  # seconds until Ray and the first worker have started; later trials begin at once


@dataclass(frozen=True)
class Cost:
    """Seconds of a run, or of a pack, and bytes of its files.

    Attributes:
        label: the configuration.
        seconds: time from start to end.
        kept: bytes of the folder of a finished run, without a model.
        checkpoint: bytes of its checkpoint.
    """

    label: str
    seconds: float
    kept: int
    checkpoint: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a search costs.

    Attributes:
        costs: those of the configurations that were timed.
        runs: the number of runs, with the final runs of the winner.
        members: the most runs that are trained together.
        at_once: runs, or packs, at the same time.
        device: where they run.
        hours: from start to end, if no scheduler stops anything early.
        disk: bytes of the finished search, and of the checkpoints while it goes on.
    """

    costs: tuple[Cost, ...]
    runs: int
    members: int
    at_once: int
    device: str
    hours: float
    disk: float

    @property
    def seconds(self) -> float:
        """The mean over the configurations that were timed."""
        return sum(cost.seconds for cost in self.costs) / len(self.costs)


def run(search: Search, settings: SearchSettings) -> Estimate:
    """Time a few configurations of the space, and estimate the whole search."""
    firsts = {trial.configuration: trial for trial in reversed(search.trials)}
    points = [(trial.label, trial.config) for trial in reversed(firsts.values())] or [
        (search.spec.name, replace(search.base, seed=search.seeds[0], pack=search.packs[0] if search.packs else ()))
    ]
    device = model.device_of(search.base, settings.gpu or 0)
    chosen = sorted({0, len(points) // 2, len(points) - 1})[:_CONFIGS]
    costs = tuple(
        _of_run(label, replace(config, device=DeviceKind(device.type)), device, settings)
        for label, config in (points[i] for i in chosen)
    )
    places = _places(search, device, settings)
    groups, units = _work(search)
    last = _units(len(search.final_seeds), packs_of(search.final_seeds, search.pack_seeds))
    at_once = min(groups, places or groups)
    runs = search.runs + len(search.final_seeds)
    members = max([1, *map(len, search.packs)])
    seconds = sum(cost.seconds for cost in costs) / len(costs)
    kept = max(cost.kept + (cost.checkpoint if settings.save_models else 0) for cost in costs)
    models = len(search.seeds) + len(search.final_seeds) if settings.keep_best and not settings.save_models else 0
    return Estimate(
        costs=costs,
        runs=runs,
        members=members,
        at_once=at_once,
        device=DeviceKind(device.type),
        hours=(_START + seconds * (units * _rounds(groups, places) + _rounds(last, places))) / 3600,
        disk=kept * runs + max(cost.checkpoint for cost in costs) * (models + at_once * members),
    )


def _work(search: Search) -> tuple[int, int]:
    """Return how many groups are trained side by side, and how many runs, or packs, each trains one after the other."""
    configurations = search.spec.count() - len(search.left_out)
    units = _units(len(search.seeds), search.packs)
    return (configurations, units) if search.spec.grouped else (configurations * units, 1)


def _rounds(groups: int, places: int | None) -> int:
    """Return how often all places are filled until every group had one; without a number all have one at once."""
    return -(-groups // (places or max(1, groups)))


def _places(search: Search, device: torch.device, settings: SearchSettings) -> int | None:
    """Return how many trials run at the same time; None, or 0, where a cluster decides."""
    if settings.launcher != Launcher.RAY:
        return job_array.at_once_of(settings.launcher, settings.jobs, search)
    room = _room(search.base.threads, device, settings)
    return room if settings.workers is None else min(room, settings.workers)


def _room(threads: int, device: torch.device, settings: SearchSettings) -> int:
    """Return how many trials this machine has room for."""
    by_core = cores() // threads
    if not by_core and settings.address is None:
        raise no_room(threads, 0, {"CPU": cores()})
    if device.type == "cpu":
        return by_core
    gpus = 1 if settings.gpu is not None else torch.cuda.device_count()
    return min(by_core, gpus * settings.trials_per_gpu)


def _units(seeds: int, packs: Packs) -> int:
    """Return how many things are trained one after the other: packs, and seeds by themselves."""
    return seeds - sum(map(len, packs)) + len(packs)


def _of_run(label: str, config: RunConfig, device: torch.device, settings: SearchSettings) -> Cost:
    """Time a few real batches and an evaluation of every phase, and add up what a run, or its pack, has of each."""
    home = settings.home
    machine.keep_freed_memory()
    torch.set_num_threads(config.threads)
    networks = [model.build(replace(config, seed=seed)).to(device) for seed in config.pack or (config.seed,)]
    trained = Pack(networks) if config.pack else networks[0]
    phases = plan.phases(config)
    load = time.monotonic()
    data = {
        name: images.load(config.datasets[name], home.datasets, config.split_seed, device, home.cache)
        for name in sorted({phase.data for phase in phases})
    }
    seconds = time.monotonic() - load
    for index, phase in enumerate(phases):
        seconds += _of_phase(config, trained, data[phase.data], phases, index, settings.keep_features)
    kept, checkpoint = _folder(config, networks[0], phases)
    return Cost(label, seconds, kept, checkpoint)


def _of_phase(
    config: RunConfig,
    trained: model.Network | Pack,
    data: Images,
    phases: tuple[Phase, ...],
    index: int,
    keep: bool,
) -> float:
    """Return the seconds of a phase: features of frozen blocks, epochs, evaluations."""
    phase = phases[index]
    networks = trained.members if isinstance(trained, Pack) else [trained]
    network, count = networks[0].eval(), len(networks)
    inputs = features.inputs(network, phase, data, config, None, train.Report())
    read, split = _read(inputs.train, phase.batch_size, _SETTLED if phase.kind == PhaseKind.SETTLE else _TIMED)
    step, scores = _epoch(config, trained, count, split, phase, index)
    evaluation, names = _evaluation(network, split, phase, data, scores)
    sizes = {name: len(getattr(data, name)) for name in names}
    due = sum(phase.evaluates(epoch) for epoch in range(phase.epochs))
    last = len(data.test) if "val" in names and index == len(phases) - 1 else 0  # closed until the end
    evaluated = due * sum(sizes.values()) + last
    versions = data.train.versions
    if keep and phase.keeps_features and versions:
        once = read * (sum({**sizes, "train": versions * len(data.train)}.values()) + last)
        return count * (once + evaluation * evaluated) + step * len(data.train) * phase.epochs
    return (count * read + step) * len(data.train) * phase.epochs + count * (read + evaluation) * evaluated


def _read(split: Split, batch_size: int, timed: int) -> tuple[float, Split]:
    """Return the seconds to read an image and pass it through the frozen blocks, and a few batches behind them."""
    batches = split.batches(batch_size)
    for _ in range(_WARM):
        next(batches, None)
    began = time.monotonic()
    few = list(islice(batches, timed)) or list(islice(split.batches(batch_size), timed))
    x, labels = (torch.cat(tensors) for tensors in zip(*few, strict=True))
    machine.wait_for(x.device)
    return (time.monotonic() - began) / len(x), Split(x, labels, view=split.view)


def _epoch(
    config: RunConfig, trained: model.Network | Pack, count: int, split: Split, phase: Phase, index: int
) -> tuple[float, Scores]:
    """Return the seconds of an image in a phase whose inputs are in memory, and the scores of the first network.

    The seconds of a pack are those of all its members.
    """
    if isinstance(trained, Pack):
        optimiser = of_blocks(config, phase, trained.learnt)
    else:
        optimiser = optimiser_of(config, phase, trained)
    seeds = config.pack or (config.seed,)
    at = [Epoch(seed=seed, phase=phase, phase_index=index, epoch=0) for seed in seeds]

    def go() -> tuple[float, Scores]:
        began = time.monotonic()
        if isinstance(trained, Pack):
            scores = trained.run_epoch([split] * count, at, optimiser, lambda n: None)[0]
        else:
            scores = engine.run_epoch(trained, split, at[0], optimiser, lambda n: None)
        machine.wait_for(split.labels.device)
        return (time.monotonic() - began) / len(split), scores

    go()
    return go()


def _evaluation(
    network: model.Network, split: Split, phase: Phase, data: Images, scores: Scores
) -> tuple[float, list[str]]:
    """Return the seconds of an image in an evaluation behind the frozen blocks, and the splits it reads.

    A settling network is evaluated on its training images too, at about the cost of a training step.
    """
    few = Images(train=split, val=None if data.val is None else split, read_test=lambda: split, sha256="")
    began = time.monotonic()
    row = {} if phase.kind == PhaseKind.CALIBRATE else evaluation.of_phase(phase, network, few, scores, final=False)
    machine.wait_for(split.labels.device)
    spent = time.monotonic() - began
    names = [name for name in ("train", "val", "test") if row.get(f"{name}_acc") is not None]
    return spent / len(split) / max(1, len(names)), names


def _folder(config: RunConfig, network: model.Network, phases: tuple[Phase, ...]) -> tuple[int, int]:
    """Return the bytes of the files of a finished run, written here with made-up numbers, and of its checkpoint."""
    learnt = sum(p.numel() for i in range(len(network)) for p in network[i].parameters() if network[i].hebb is None)
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folders.write_json(folder / folders.CONFIG, train.stored_config(config, phases))
        folders.write_json(folder / folders.ENVIRONMENT, records.environment({}, {}, None))
        recorder = records.Recorder(folder)
        for index, phase in enumerate(phases):
            blocks = {
                f"b{i}": measures.measure(layer, 0.0).scalars for i, layer in network.hebbian() if i in phase.blocks
            }
            for epoch in range(phase.epochs):
                numbers = dict.fromkeys(records.COLUMNS[5:], 1 / 3)
                row = records.make_row(step=epoch, phase=index, kind=phase.kind, blocks="b0", epoch=epoch, **numbers)
                recorder.row(row, blocks)
            recorder.filters(network[0].weight, network[0].shapes.into, torch.arange(len(network[0].weight)), index)
        recorder.close()
        written = sum(path.stat().st_size for path in folder.iterdir())
    return written, len(buffer.getvalue()) + 8 * learnt  # with the two moments of Adam
