"""What every command that trains has in common: the folders of a run, and the training itself."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hebb.cli import arguments, describe, on_end
from hebb.config import plan, plugins, serialise, shapes
from hebb.config.catalog import Catalog
from hebb.config.registry import DATASETS
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import Resume
from hebb.core import commands
from hebb.core.errors import ConfigError, DiskFullError, InterruptedRunError, cause_of, within
from hebb.storage import folders, run_names
from hebb.storage.folders import FolderState


def members(run: RunConfig, folder: Path) -> dict[Path, RunConfig]:
    """Return the run by its folder, or all members of its pack by theirs."""
    if not run.pack:
        return {folder: run}
    return {folder.with_name(run_names.of(folder.name, seed)): replace(run, seed=seed) for seed in run.pack}


def read_config(path: Path) -> RunConfig:
    """Read a stored ``config.json``; the phases it lists must be those that its other values give."""
    data = folders.read_json(path)
    if not isinstance(data, dict) or "network" not in data:
        raise ConfigError(str(path), "is not the config.json of a run: it has no network")
    listed = data.pop("phases", None)
    run = serialise.run_from_json(data, str(path))
    with within(str(path)):
        phases = plan.described(plan.phases(run))
    if listed is not None and listed != phases:
        _check_counts(path, run, listed, phases)
        raise ConfigError(
            str(path), "'phases' does not match mode and blocks", hint="delete 'phases': it is there for readers only"
        )
    return run


def check_start(run: RunConfig, home: folders.Home, resume_from: Path | None) -> None:
    """Raise where the stored weights that a run starts from are absent, or of other shapes; loads no tensor."""
    for i, block in enumerate(run.network.blocks):
        if block.resume is not None:
            folders.stored_block(home.layers, block.resume, f"b{i}")
            _check_block(run, i, block.resume, home)
    if resume_from is None:
        return
    try:
        stored = shapes.of_run(read_config(resume_from.parent.parent / folders.CONFIG))
    except ConfigError:
        return  # only the tensors tell
    own = shapes.of_run(run)
    if len(own) != len(stored):
        raise ConfigError("--resume", f"{resume_from} has {len(stored)} blocks, and this network {len(own)}")
    loaded = len(own) if run.resume == Resume.ALL else len(own) - 1
    for i, (mine, other) in enumerate(zip(own[:loaded], stored[:loaded], strict=True)):
        if mine.weights != other.weights:
            problem = f"{resume_from}, b{i}: weights must be {mine.weights}, got {other.weights}"
            last = i == len(own) - 1
            hint = "without_classifier leaves out the last block" if last else "it stores a network of other shapes"
            raise ConfigError("--resume", problem, hint=hint)


def _check_block(run: RunConfig, i: int, name: str, home: folders.Home) -> None:
    """Raise where the run that stored a block gave it weights of another shape."""
    model, _, number = name.rpartition("/b")
    try:
        stored = shapes.of_run(read_config(home.networks / model / folders.CONFIG))[int(number)].weights
    except (ConfigError, ValueError, IndexError):
        return  # the run has gone: only the tensors tell
    own = shapes.of_run(run)[i].weights
    if own != stored:
        raise ConfigError(f"b{i}", f"resume={name}: weights must be {own}, got {stored}")


def _check_counts(path: Path, run: RunConfig, listed: object, phases: list[dict[str, Any]]) -> None:
    """Raise for phases that differ in their updates alone, where the user's own data say how many there are."""

    def stripped(plan_of: object) -> object:
        return [{**phase, "updates": 0} for phase in plan_of] if isinstance(plan_of, list) else plan_of

    own = [
        name for name in dict.fromkeys(p["data"] for p in phases) if DATASETS.spelled_out(run.datasets[name].dataset)
    ]
    if not own or not isinstance(listed, list) or not all(isinstance(phase, dict) for phase in listed):
        return
    if stripped(listed) != stripped(phases):
        return
    before, now = next((a, b) for a, b in zip(listed, phases, strict=True) if a != b)
    data = run.datasets[now["data"]]
    raise ConfigError(
        str(path),
        f"the data have changed since the run started: {data.dataset} now has {data.train_samples():,} images to train "
        f"on, which make {now['updates']:,} updates instead of {before.get('updates')}",
        hint="restore the data, or start a new run",
    )


def start(run: RunConfig, options: argparse.Namespace, catalog: Catalog, *, device_index: int = 0) -> int:
    """Train a run, or the pack it stands for, under its name; with ``--dry-run`` describe it."""
    home = folders.Home.find(options.data_dir)
    name = arguments.plain_name(run, home.network) if options.model_name is None else options.model_name
    folder = home.network(name)
    run, resume_from = arguments.resumed(run, options.resume, home, name)
    check_start(run, home, resume_from)
    if options.dry_run:
        describe.dry_run(run, catalog, trials=max(1, len(run.pack)), cache_limit=arguments.cache_limit(options))
        return 0
    return train_all(
        members(run, folder),
        home,
        options,
        overwrite=options.overwrite,
        device_index=device_index,
        resume_from=resume_from,
    )


def train_all(
    runs: dict[Path, RunConfig],
    home: folders.Home,
    options: argparse.Namespace,
    *,
    overwrite: bool = False,
    device_index: int = 0,
    resume_from: Path | None = None,
    carry_on: bool = False,
) -> int:
    """Train one run, or the members of a pack, and print progress. Torch is imported here and not before.

    Args:
        runs: by their folders.
        home: where everything is stored.
        options: the flags of ``train_flags.add_storage_flags``, ``--verbose`` and the feature cache.
        overwrite: whether to replace what is in the folders.
        device_index: the GPU, if the runs use one.
        resume_from: checkpoint with the initial weights.
        carry_on: whether to continue what is in the folders.
    """
    home.check_writable()
    for folder in runs:
        folders.check_length(Path(folder.name), "--model-name")
        folders.check_length(folder, str(folder))
        folders.check_writable(folder, str(folder))
    with folders.all_held(runs, carry_on=carry_on), with_next_step(lambda: _next_step(runs)):
        if not carry_on:
            for folder in runs:
                folders.refuse_existing(folder, overwrite)
        with on_end.at_end(options.on_end, tuple(runs), "run"):
            _train(
                runs,
                home,
                options,
                overwrite=overwrite,
                device_index=device_index,
                resume_from=resume_from,
                carry_on=carry_on,
            )
    return 0


def _train(
    runs: dict[Path, RunConfig],
    home: folders.Home,
    options: argparse.Namespace,
    *,
    overwrite: bool,
    device_index: int,
    resume_from: Path | None,
    carry_on: bool,
) -> None:
    """Train the runs, in folders that this process holds; the arguments are those of ``train_all``."""
    from hebb.cli.run_display import reports_of
    from hebb.storage import checkpoints
    from hebb.training import train

    if resume_from is not None:
        digest = checkpoints.sha256(resume_from)
        runs = {folder: replace(run, resume_sha256=digest) for folder, run in runs.items()}
        for folder in runs if overwrite else ():
            checkpoints.check_stays(resume_from, folder, "--model-name")
    keep = options.save or options.save_model
    places = [
        train.Place(
            datasets=home.datasets,
            folder=folder,
            device_index=device_index,
            keep_model=keep,
            overwrite=overwrite,
            carry_on=carry_on,
            resume_from=resume_from,
            layers=home.layers,
            cache=home.cache,
            store_blocks=folder.name if keep else None,
            checkpoint_every=options.checkpoint_every,
            on_end=options.on_end or None,
            **arguments.feature_cache(options),
        )
        for folder in runs
    ]
    reports = reports_of(runs.values(), options.verbose)
    try:
        train.run_pack(list(runs.values()), reports, places=places)
    except (Exception, SystemExit) as error:
        fault = plugins.explanation(error, _unfinished(runs)) if cause_of(error) is error else None
        if fault is None:
            raise
        raise fault from error
    finally:
        for report in reports:
            report.close()


@contextmanager
def with_next_step(next_step: Callable[[], str | None]) -> Iterator[None]:
    """Say how interrupted work continues, also where a full disk or a closed output has interrupted it.

    Args:
        next_step: returns the command; None where nothing has begun.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        cause, again = cause_of(error), next_step()
        if again is None or not isinstance(cause, KeyboardInterrupt | BrokenPipeError | DiskFullError):
            raise
        if isinstance(cause, DiskFullError):
            raise DiskFullError(f"{cause}\n{again} continues, once there is space") from None
        reason = "interrupted" if isinstance(cause, KeyboardInterrupt) else "interrupted: nobody reads the output"
        raise InterruptedRunError(f"{reason}; {again} continues") from None


def _next_step(runs: Iterable[Path]) -> str | None:
    """Return the command that continues the first unfinished run."""
    unfinished = next(iter(_unfinished(runs)), None)
    return None if unfinished is None else commands.line("resume", unfinished)


def _unfinished(runs: Iterable[Path]) -> list[Path]:
    """Return the run folders that hold the beginning of a run."""
    return [folder for folder in runs if folders.state(folder) == FolderState.INTERRUPTED]
