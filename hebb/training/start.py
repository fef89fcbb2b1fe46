"""Start a run, or continue it from its checkpoint."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hebb import builtin
from hebb.config import plan, probed
from hebb.config.phase import Phase
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import DeviceKind, Part, Role
from hebb.core import machine
from hebb.core.errors import ConfigError
from hebb.core.peak import PeakMemory
from hebb.core.user_code import TRACEBACK
from hebb.data import images
from hebb.nn import compiled, model, numerics
from hebb.probing import readout
from hebb.storage import checkpoints, folders, kept_code, records
from hebb.storage.folders import FolderState
from hebb.training.place import Place
from hebb.training.report import Report
from hebb.training.run import Position, Run, RunState, stored_config


def run(config: RunConfig, report: Report, place: Place) -> Run:
    """Build the network of a run, or restore it, and open the records.

    Raises:
        ConfigError: before anything is written, when the config, the data or a checkpoint cannot be used.
    """
    started = time.monotonic()
    builtin.load(config.plugins)  # the process may be a worker that has only unpickled them
    config, device = resolved(config, place)
    settle_process(config, device)
    phases = plan.phases(config)
    memory = PeakMemory(device, _memory_before(place), give_back=place.give_back_memory)
    network = initial_network(config, place)
    state = _continued(network, phases, place)
    started -= seconds_before(place, state)
    data = load_data(config, phases, place, device, report)
    check_data(config, phases, data)
    network.to(device)
    recorder = open_records(config, phases, place, data, state)
    return Run(config, phases, place, report, network, data, state or RunState(), recorder, started, {}, memory=memory)


def _memory_before(place: Place) -> int | None:
    """Return the largest memory of the sessions whose checkpoint a run continues from; None where it is not known."""
    if not place.carry_on or place.folder is None or not stored_positions(place.folder):
        return 0
    peak = records.costs(place.folder).get("peak_memory")
    return peak if isinstance(peak, int) else None


def seconds_before(place: Place, state: RunState | None) -> float:
    """Return the time of the sessions up to the checkpoint that a run continues from; 0 where it is not known."""
    if state is None or place.folder is None:
        return 0.0
    position = [state.phase, state.epoch, state.step]
    lines = records.costs(place.folder).get("seconds", [])
    return next((float(seconds) for *at, seconds in lines if at == position), 0.0)


def resolved(config: RunConfig, place: Place) -> tuple[RunConfig, torch.device]:
    """Return the config as resolved for this machine, and the device."""
    device = model.device_of(config, place.device_index)
    config = replace(config, device=DeviceKind(device.type))
    return compiled.resolved(config, device, required=place.carry_on), device


def settle_process(config: RunConfig, device: torch.device) -> None:
    """Set the global state of the process, which a search's workers reuse from trial to trial."""
    machine.keep_freed_memory()
    numerics.settle(config, device)
    torch.manual_seed(config.seed)  # hebb never draws from this generator; a plugin that does is repeatable


def initial_network(config: RunConfig, place: Place) -> model.Network:
    """Build the network, and load the stored weights and blocks that the config starts from."""
    network = model.build(config)
    if config.resume is not None:
        if place.resume_from is None:
            raise ConfigError("--resume", f"this config starts from stored weights ({config.resume}); name the model")
        if config.resume_sha256 not in (None, checkpoints.sha256(place.resume_from)):
            raise ConfigError("--resume", f"{place.resume_from} is not the checkpoint the config was run with")
        model.load_weights(network, place.resume_from, classifier=config.resume == "all")
    model.load_blocks(network, place.layers)
    return network


def _continued(network: model.Network, phases: tuple[Phase, ...], place: Place) -> RunState | None:
    """Load the newest checkpoint of an interrupted run; None when there is nothing to continue."""
    if not place.carry_on or place.folder is None:
        return None
    checkpoints_by_position = stored_positions(place.folder)
    if not checkpoints_by_position:
        return None
    path = checkpoints_by_position[max(checkpoints_by_position)]
    state = load_state(network, path)
    last = phases[state.phase].epochs if state.phase < len(phases) else 0
    if state.phase > len(phases) or state.epoch > last:
        raise ConfigError(str(path), f"is at phase {state.phase}, epoch {state.epoch}, which the run does not have")
    settle_on(path)
    return state


def stored_positions(folder: Path) -> dict[Position, Path]:
    """Return the checkpoints of a run folder by their position."""
    paths: dict[Position, Path] = {}
    for path in (folder / folders.CHECKPOINT, folder / folders.NEXT):
        if path.exists():
            position = checkpoints.load(path).get("position")
            if not isinstance(position, dict) or set(position) != {"phase", "epoch", "step"} or not _counts(position):
                raise ConfigError(str(path), "holds weights, and not the position of a run")
            paths[position["phase"], position["epoch"], position["step"]] = path
    return paths


def _counts(position: dict[str, Any]) -> bool:
    return all(isinstance(value, int) and value >= 0 for value in position.values())


def load_state(network: model.Network, path: Path) -> RunState:
    """Load a checkpoint into the network, and return the state of the run."""
    data = checkpoints.load(path)
    model.load_weights(network, path)
    others: dict[str, Any] = {name: data.get(name) for name in ("optimiser", "watch", "failed")}
    return RunState(**data["position"], **others)


def settle_on(path: Path) -> None:
    """Make this checkpoint the only one of its folder."""
    if path.name == folders.NEXT.name:
        os.replace(path, path.with_name(checkpoints.NAME))
    path.with_name(folders.NEXT.name).unlink(missing_ok=True)


def load_data(
    config: RunConfig, phases: tuple[Phase, ...], place: Place, device: torch.device, report: Report
) -> dict[Role, images.Images]:
    """Load the datasets that the phases use; load them once if both are the same."""
    loaded: dict[tuple[Any, ...], images.Images] = {}
    data = {}
    for name in dict.fromkeys(phase.data for phase in phases):
        spec = config.datasets[name]
        content = replace(spec, epochs=1, batch_size=1, print_freq=1)
        if (content,) not in loaded:
            report.loading(spec.dataset)
            load = images.load if place.load is None else place.load
            loaded[(content,)] = load(spec, place.datasets, config.split_seed, device, place.cache)
        data[name] = loaded[(content,)]
    return data


def check_data(config: RunConfig, phases: tuple[Phase, ...], data: dict[Role, images.Images]) -> None:
    """Raise for images with which a phase or a probe would fail: entries state numbers, and files may hold others."""
    for phase in phases:
        plan.check_batches(config, phase, len(data[phase.data].train))
    for role, loaded in data.items():
        spec = config.datasets[role]
        if spec.split != Part.SEQUENCES:
            held_out = loaded.train if spec.held else loaded.val  # ``held`` trains on what is held out
            plan.check_held(role, spec, 0 if held_out is None else len(held_out))
    role = probed.role(phases)
    spec = config.datasets[role]
    readout.check(config, spec.dataset, data[role])
    if role == Role.SUP or config.probes:
        data[role].test  # noqa: B018  (read now: a broken file must not stop the run after its first phase)


def open_records(
    config: RunConfig,
    phases: tuple[Phase, ...],
    place: Place,
    data: dict[Role, images.Images],
    state: RunState | None,
) -> records.Recorder:
    """Claim the run folder, write its config and environment, and open its records at ``state``."""
    if place.folder is None:
        return records.Recorder(None)
    environment = records.environment(
        {"datasets": str(place.datasets), "folder": str(place.folder)},
        {name: loaded.sha256 for name, loaded in data.items()},
        str(place.resume_from) if place.resume_from else None,
        place.device_index,
    )
    files = {name: loaded.contents for name, loaded in data.items() if loaded.contents is not None}
    if files:
        environment["data_files"] = {name: contents.to_json() for name, contents in files.items()}
    path = place.folder / folders.ENVIRONMENT
    if place.carry_on and folders.state(place.folder) != FolderState.ABSENT:
        begun = path.exists() or state is not None  # a run killed before it wrote this file has trained nothing
        environment = records.continued(path, environment, files) if begun else environment
    else:
        folders.claim(place.folder, place.overwrite)
        folders.write_json(place.folder / folders.CONFIG, stored_config(config, phases))
    environment = records.with_config(environment, place.folder / folders.CONFIG)
    kept_code.keep(place.folder, config.plugins)
    environment.pop("on_end", None)
    folders.write_json(path, environment if place.on_end is None else {**environment, "on_end": place.on_end})
    (place.folder / TRACEBACK).unlink(missing_ok=True)  # of an attempt that failed
    return records.Recorder(place.folder, None if state is None else state.position)
