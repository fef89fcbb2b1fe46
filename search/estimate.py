"""``--estimate``: time the real steps on this machine, and say what a search costs in hours and disk."""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

import engine
import model
import train
from cli import arguments, describe
from cli.arguments import Device
from hebb import folders, measures, plan, records
from hebb.config import RunConfig
from hebb.data import images
from hebb.data.images import Split
from search.display import duration
from search.trials import Search, configuration_name

_WARM, _TIMED = 3, 12  # batches
_SCORED = 4  # batches of a timed evaluation
_CONFIGS = 3  # of a space, the first, the middle and the last one
_START = 6.0  # seconds until Ray and the first worker are there; trials after the first begin at once


@dataclass(frozen=True)
class Cost:
    """Seconds of a run; bytes of its folder when it is finished, and of its checkpoint while it runs."""

    seconds: float
    kept: int
    checkpoint: int


def run(search: Search, asked: Device, home: folders.Home, options: argparse.Namespace) -> int:
    """Print the estimate and return the exit code."""
    out = describe.console()
    firsts = {configuration_name(trial): trial for trial in reversed(search.trials)}
    trials = list(reversed(firsts.values()))
    configs = [trial.config for trial in trials] or [replace(search.base, seed=search.seeds[0])]
    device = model.device_of(replace(configs[0], device=asked.kind), asked.index)
    chosen = sorted({0, len(configs) // 2, len(configs) - 1})[:_CONFIGS]
    costs = [_of_run(replace(configs[i], device=device.type), device, home) for i in chosen]
    made = describe.table("", ("configuration", "minutes a run"), ("minutes a run",))
    made.title = None
    for i, cost in zip(chosen, costs, strict=True):
        label = trials[i].label if trials else search.spec.name
        made.add_row(label, f"{cost.seconds / 60:.2f}")
    out.print(made)
    mean = sum(cost.seconds for cost in costs) / len(costs)
    kept = max(cost.kept + (cost.checkpoint if options.save_model else 0) for cost in costs)
    room = arguments.cores() // search.base.threads if device.type == "cpu" else options.gpu_exp
    at_once = max(1, min(search.runs, room if options.workers is None else min(room, options.workers)))
    runs = search.runs + len(search.final_seeds)
    hours = (_START + mean * (-(-search.runs // at_once) + -(-len(search.final_seeds) // at_once))) / 3600
    disk = (kept * runs + max(cost.checkpoint for cost in costs) * at_once) / 2**20
    early = f" at most: {search.spec.scheduler.name} stops some early" if search.spec.scheduler.name != "none" else ""
    out.print(
        f"{runs} runs of about {duration(mean)}, {at_once} at a time on {device.type} with {search.base.threads} "
        f"thread(s): {hours:.2f} hours, {disk:.0f} MB in {search.folder}{early}",
        soft_wrap=True,
    )
    return 0


def _of_run(config: RunConfig, device: torch.device, home: folders.Home) -> Cost:
    """Time a few real batches of every phase, and an evaluation, and add up what a run has of each."""
    torch.set_num_threads(config.threads)
    network = model.build(config).to(device)
    specs = {"sup": config.dataset_sup, "unsup": config.dataset_unsup}
    phases = plan.phases(config)
    load = time.monotonic()
    data = {
        name: images.load(specs[name], home.datasets, config.split_seed, device, home.cache)
        for name in sorted({phase.data for phase in phases})
    }
    seconds = time.monotonic() - load
    for index, phase in enumerate(phases):
        found = data[phase.data]
        seconds += _epoch(config, network, found.train, phases, index) * len(found.train) * phase.epochs
        due = sum(train.due(phase, epoch) for epoch in range(phase.epochs))
        if phase.lr is not None:
            scored = [split for split in (found.val, found.test if found.val is None else None) if split is not None]
            seconds += due * sum(len(split) * _evaluation(network, split) for split in scored)
    kept, checkpoint = _folder(config, network, phases)
    return Cost(seconds, kept, checkpoint)


@dataclass(frozen=True)
class _Few(Split):
    """A split of which only the first batches are read."""

    most: int = 0

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None, varied: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See ``Split``."""
        return islice(super().batches(batch_size, generator, varied), self.most)


def _few(split: Split, most: int) -> _Few:
    return _Few(**{field.name: getattr(split, field.name) for field in fields(split)}, most=most)


def _epoch(
    config: RunConfig, network: model.Network, split: Split, phases: tuple[plan.Phase, ...], index: int
) -> float:
    """Return the seconds of an image in a phase."""
    phase = phases[index]
    optimiser = train.optimiser_of(config, phase, network)
    at = engine.Epoch(seed=config.seed, phase=phase, phase_index=index, epoch=0)

    def go(batches: int) -> float:
        part, seen = _few(split, batches), [0]
        began = time.monotonic()
        if phase.kind == "calibrate":
            engine.calibrate(network, part, at, seen.append)
        elif optimiser is None:
            engine.hebbian(network, part, at, seen.append)
        else:
            engine.backprop(network, part, at, optimiser, seen.append)
        if part.labels.device.type == "cuda":
            torch.cuda.synchronize(part.labels.device)
        return (time.monotonic() - began) / max(sum(seen), 1)

    go(_WARM)
    return go(_TIMED)


def _evaluation(network: model.Network, split: Split) -> float:
    """Return the seconds of an image in an evaluation."""
    images_read = min(len(split), _SCORED * engine.BATCH)
    began = time.monotonic()
    engine.evaluate(network, _few(split, _SCORED))
    return (time.monotonic() - began) / images_read


def _folder(config: RunConfig, network: model.Network, phases: tuple[plan.Phase, ...]) -> tuple[int, int]:
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
            recorder.filters(network[0].weight, network[0].shapes.into, index)
        recorder.close()
        written = sum(path.stat().st_size for path in folder.iterdir())
    return written, len(buffer.getvalue()) + 8 * learnt  # with the two moments of Adam
