"""How a run begins, or goes on from its checkpoint; and how a pack does, whose members begin together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hebb import builtin
from hebb.config import plan
from hebb.config.plan import Phase
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import DeviceKind
from hebb.core import machine
from hebb.core.errors import ConfigError, DivergenceError
from hebb.data import images
from hebb.nn import compiled, model
from hebb.storage import checkpoints, folders, records
from hebb.storage.folders import FolderState
from hebb.training.pack import Pack
from hebb.training.report import Report
from hebb.training.run import Place, Position, Run, State, stored_config


def runs(
    configs: Sequence[RunConfig], reports: Sequence[Report], places: Sequence[Place]
) -> tuple[list[Run], model.Network | Pack]:
    """Make the networks, or read them back, open the records, and return what is trained.

    Raises:
        ConfigError: before anything is written, when a config, the data or a checkpoint cannot be used.
    """
    builtin.load(configs[0].plugins)  # the process may be a worker that has only unpickled them
    device = model.device_of(configs[0], places[0].device_index)
    on_device = [replace(config, device=DeviceKind(device.type)) for config in configs]
    configs = [compiled.resolved(c, device, required=places[0].carry_on) for c in on_device]
    _settle_process(configs[0])
    phases = plan.phases(configs[0])
    networks = [model.build(config) for config in configs]
    for config, network, place in zip(configs, networks, places, strict=True):
        _load_initial(config, network, place)
    silent = [len(places) > 1 and place.carry_on and _finished(place.folder) for place in places]
    states = _stored(networks, places, silent, len(phases))
    data = _load_data(configs[0], phases, places[0], device)
    for network in networks:
        network.to(device)
    trained: model.Network | Pack = networks[0]
    if len(networks) > 1:
        trained = Pack(networks)
        trained.rehearse(phases)
    made = []
    for i, (config, network, place) in enumerate(zip(configs, networks, places, strict=True)):
        state = State() if states is None else states[i]
        if silent[i]:
            place = replace(place, folder=None, store_blocks=None)
        place = replace(place, trials=place.trials * len(networks))  # they share the memory
        recorder = _open_records(config, phases, place, data, None if states is None else state.position)
        report = Report() if silent[i] else reports[i]
        made.append(Run(config, phases, place, report, network, data, state, recorder, silent[i]))
        if state.failed is not None and isinstance(trained, Pack):
            trained.failed[i] = DivergenceError(state.failed)
    return made, trained


def _finished(folder: Path | None) -> bool:
    return folder is not None and folders.state(folder) == FolderState.FINISHED


def _settle_process(config: RunConfig) -> None:
    """Set what is global to the process, which a search's workers reuse from trial to trial."""
    machine.keep_freed_memory()
    torch.set_num_threads(config.threads)
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(config.seed)  # nothing draws from it; a plugin that does is at least repeatable


def _load_initial(config: RunConfig, network: model.Network, place: Place) -> None:
    """Load the stored weights and blocks that the config starts from."""
    if config.resume is not None:
        if place.resume_from is None:
            raise ConfigError("--resume", f"this config starts from stored weights ({config.resume}); name the model")
        found = checkpoints.sha256(place.resume_from)
        if config.resume_sha256 not in (None, found):
            raise ConfigError("--resume", f"{place.resume_from} is not the checkpoint the config was run with")
        model.load_weights(network, place.resume_from, classifier=config.resume == "all")
    model.load_blocks(network, place.layers)


def _stored(
    networks: Sequence[model.Network], places: Sequence[Place], silent: Sequence[bool], end: int
) -> list[State] | None:
    """Load the checkpoints of an interrupted run, or pack; None where there is nothing to go on from.

    Those of a pack are of the newest position that all its members hold. A finished member holds the end alone, so
    that the others go on from there or the whole pack from its beginning.
    """
    unfinished = [place for place, done in zip(places, silent, strict=True) if not done]
    going = [place.folder for place in unfinished if place.carry_on and place.folder is not None]
    if len(going) < len(unfinished) or not going:
        return None
    held = [_held(folder) for folder in going]
    common = set(held[0]).intersection(*held[1:])
    if any(silent):
        common = {position for position in common if position[0] == end}
    elif not common and any(path.name == checkpoints.NAME for found in held for path in found.values()):
        raise ConfigError(
            str(going[0]), "the checkpoints of this pack are not of one moment", hint="--overwrite starts it anew"
        )
    if not common:
        return None
    newest = max(common)
    left, states = iter(held), []
    for network, done in zip(networks, silent, strict=True):
        states.append(State(*newest) if done else _load(network, next(left)[newest]))
    for found in held:
        _settle_on(found[newest])
    return states


def _held(folder: Path) -> dict[Position, Path]:
    """Return the positions of which a run folder holds a checkpoint."""
    found = {}
    for path in (folder / folders.CHECKPOINT, folder / folders.NEXT):
        if path.exists():
            position = checkpoints.load(path).get("position")
            if not isinstance(position, dict) or set(position) != {"phase", "epoch", "step"}:
                raise ConfigError(str(path), "holds weights, and not the position of a run")
            found[position["phase"], position["epoch"], position["step"]] = path
    return found


def _load(network: model.Network, path: Path) -> State:
    data = checkpoints.load(path)
    model.load_weights(network, path)
    others: dict[str, Any] = {name: data.get(name) for name in ("optimiser", "watch", "failed")}
    return State(**data["position"], **others)


def _settle_on(path: Path) -> None:
    """Let this checkpoint be the only one of its folder."""
    if path.name == folders.NEXT.name:
        os.replace(path, path.with_name(checkpoints.NAME))
    path.with_name(folders.NEXT.name).unlink(missing_ok=True)


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
    position: Position | None,
) -> records.Recorder:
    if place.folder is None:
        return records.Recorder(None)
    environment = records.environment(
        {"datasets": str(place.datasets), "folder": str(place.folder)},
        {name: loaded.sha256 for name, loaded in data.items()},
        str(place.resume_from) if place.resume_from else None,
    )
    path = place.folder / folders.ENVIRONMENT
    if place.carry_on and folders.state(place.folder) != FolderState.ABSENT:
        environment = records.continued(path, environment) if path.exists() else environment
    else:
        folders.claim(place.folder, place.overwrite)
        folders.write_json(place.folder / folders.CONFIG, stored_config(config, phases))
    folders.write_json(path, environment)
    return records.Recorder(place.folder, position)
