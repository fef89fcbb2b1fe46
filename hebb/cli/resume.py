"""Continue an interrupted run, to the bits of an uninterrupted one."""

from __future__ import annotations

import argparse
from pathlib import Path

from hebb.cli import arguments, train_flags
from hebb.cli.parsing import Exclusive, Parser
from hebb.cli.run import members, read_config, train_all
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import DeviceKind
from hebb.core import commands
from hebb.core.errors import ConfigError
from hebb.storage import folders, run_names
from hebb.storage.folders import FolderState

_VERB = "resume"


def parser(flag: str = _VERB) -> Parser:
    """Return the parser of the command, in which the folder follows the verb or the flag ``--resume-run``."""
    flags = Parser(
        "Continue an interrupted run, to the bits of an uninterrupted one.\nA pack continues with all its members.",
        prog=commands.name(_VERB),
        exclusive=Exclusive(flag, "continues the run as it was started", train_flags.parser),
    )
    flags.add_subject(
        flag, _VERB, dest="folder", type=Path, metavar="MODEL_OR_DIR", help="name of the run, or its folder"
    )
    arguments.add_plugin_flag(flags)
    arguments.add_device_flags(flags)
    arguments.add_cache_flags(flags)
    arguments.add_home_flag(flags)
    train_flags.add_storage_flags(flags)
    arguments.add_verbose_flag(flags)
    return flags


def main(argv: list[str], flag: str = _VERB) -> int:
    """Run the command and return its exit code."""
    options = parser(flag).parse(argv)
    arguments.load_plugins(options)
    home = folders.Home.find(options.data_dir)
    folder = folders.run_folder(str(options.folder), home, flag)
    _interrupted_run(folder, flag)
    with folders.held(folder):
        return _continue(folder, home, options, flag)


def _continue(folder: Path, home: folders.Home, options: argparse.Namespace, flag: str) -> int:
    """Continue the run in a folder that this process holds."""
    run = _interrupted_run(folder, flag)  # again: another process may just have finished it
    if options.on_end is None:
        options.on_end = _stored_command(folder)
    return train_all(
        _together(run, folder, flag),
        home,
        options,
        device_index=device_index(options, run),
        resume_from=initial_weights(run, folder),
        carry_on=True,
    )


def device_index(options: argparse.Namespace, run: RunConfig) -> int:
    """Return the number of the GPU; raise where the flags name another device than that of the run."""
    device = arguments.device(options)
    if device.kind not in (DeviceKind.AUTO, run.device):
        names = {DeviceKind.CPU: "the CPU", DeviceKind.CUDA: f"GPU {device.index}"}
        where = names.get(device.kind, str(device.kind))
        raise ConfigError(
            "--gpu-id or --device",
            f"must be {run.device}, which the run started on, got {where}",
            hint="another device would not give the same bits",
        )
    return device.index


def _interrupted_run(folder: Path, flag: str) -> RunConfig:
    """Read the run in a folder, which must be interrupted."""
    state = folders.state(folder)
    if state == FolderState.FINISHED:
        raise ConfigError(flag, f"{folder} is finished; there is nothing to continue")
    if state != FolderState.INTERRUPTED:
        runs = folders.names(folder.parent, FolderState.INTERRUPTED)
        raise ConfigError(flag, f"nothing to resume: {folder} holds no run", given=folder.name, choices=runs)
    return read_config(folder / folders.CONFIG)


def _stored_command(folder: Path) -> str | None:
    """Return the command for the end that the run was started with."""
    path = folder / folders.ENVIRONMENT
    environment = folders.read_json(path) if path.exists() else None
    command = environment.get("on_end") if isinstance(environment, dict) else None
    return command if isinstance(command, str) else None


def initial_weights(run: RunConfig, folder: Path) -> Path | None:
    """Return the checkpoint that the run started from, if it did."""
    if run.resume is None:
        return None
    path = folder / folders.ENVIRONMENT
    environment = folders.read_json(path)
    source = environment.get("resumed_from") if isinstance(environment, dict) else None
    if not isinstance(source, str):
        raise ConfigError(str(path), "does not name the checkpoint of the initial weights")
    return Path(source)


def _together(run: RunConfig, folder: Path, flag: str) -> dict[Path, RunConfig]:
    """Return the interrupted run with the other members of its pack, which lie beside it under their seeds."""
    tail = run_names.tail(run.seed)
    if run.pack and not folder.name.endswith(tail):
        raise ConfigError(
            flag, f"{folder} holds a member of a pack, and its name must end with {tail}", hint="rename it"
        )
    runs = members(run, folder.with_name(folder.name.removesuffix(tail)) if run.pack else folder)
    for other, expected in runs.items():
        state = folders.state(other)
        absent, foreign = state == FolderState.ABSENT, state == FolderState.FOREIGN
        if foreign or (not absent and read_config(other / folders.CONFIG) != expected):
            raise ConfigError(
                flag,
                f"{other} does not hold seed {expected.seed} of the pack {' '.join(map(str, run.pack))}",
                hint="the members of a pack continue together: put their folders side by side",
            )
    return runs
