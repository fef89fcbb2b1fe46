"""Repeat the search or the run of an archive, and say whether the numbers agree.

Exit code 0: they agree, to the bit on the same kind of processor with the same versions, elsewhere within the spread of
the seeds. Exit code 1: they differ.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hebb import builtin
from hebb.cli import arguments, describe, train_flags
from hebb.cli.parsing import Parser, Section, count
from hebb.config.vocabulary import DeviceKind
from hebb.core import commands
from hebb.core.errors import ConfigError
from hebb.core.words import counted
from hebb.storage import folders

if TYPE_CHECKING:
    from hebb.analysis.agreement import ConfigurationAgreement, RerunVerdict
    from hebb.storage.archive import Archive
    from hebb.tuning.search import Search

_VERB = "rerun"
_OTHER_KIND = {"workers": "search", "checkpoint_every": "run", "verbose": "run"}
"""Flags that are for archives of one kind alone."""
_FIRST = {
    "--trust-plugins": "run the code that the archive holds",
    "--dry-run": "say what the archive holds; run nothing of it",
    "--data": "what a dataset of the archive is called here",
    "--folder-name": "name of the new search or run (default: NAME-rerun)",
    "--overwrite": "replace a search or a run of that name",
    "--workers": "trials that run at the same time",
    "--device": "cpu | cuda | cuda:N | mps | xpu (default: that of the runs)",
    "--data-dir": "parent folder (default: $HEBB_HOME, else ./hebb_data)",
}


def parser() -> Parser:
    """Return the parser of the command."""
    flags = Parser(__doc__ or "", prog=commands.name(_VERB))
    flags.add_argument("file", type=Path, metavar="FILE", help="an archive, which hebb archive wrote")
    flags.add_argument(
        "--trust-plugins", action="store_true", help="run the code that the archive holds; --dry-run lists it"
    )
    flags.add_argument("--dry-run", action="store_true", help="say what the archive holds; run nothing of it")
    flags.section(Section.NETWORK).add_argument(
        "--data",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=HERE",
        help="what a dataset of the archive is called here: npz:/data/x.npz=npz:x.npz",
    )
    storage = flags.section(Section.STORAGE)
    storage.add_argument("--folder-name", metavar="NAME", help="name of the new search or run (default: NAME-rerun)")
    storage.add_argument("--overwrite", action="store_true", help="replace a search or a run of that name")
    train_flags.add_storage_flags(flags)  # of a search: --save true keeps the models of all its runs
    arguments.add_home_flag(flags)
    arguments.add_device_flags(flags)
    arguments.add_cache_flags(flags)
    flags.section(Section.MACHINE).add_argument(
        "--workers", type=count, metavar="N", help="trials that run at the same time (default: as many as fit)"
    )
    arguments.add_verbose_flag(flags)
    flags.put_first(_FIRST)
    return flags


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parser().parse(argv)
    home = folders.Home.find(options.data_dir)
    from hebb.storage import archive

    packed = archive.read(options.file)
    _check_flags(packed.kind, options)
    if options.dry_run:
        _describe(packed)
        return 0
    data = _places(options.data, packed)
    if packed.plugins and not options.trust_plugins:
        _ask(packed)
    home.check_writable()
    builtin.load()
    repeat = _search if packed.kind == archive.SEARCH else _run
    verdict = repeat(packed, options, home, data, commands.line(_VERB, *argv))
    _print(verdict)
    return 0 if verdict.agrees else 1


def _check_flags(kind: str, options: argparse.Namespace) -> None:
    """Raise for flags that do nothing to what the archive holds."""
    for name in sorted(options.given):
        if _OTHER_KIND.get(name, kind) != kind:
            problem = f"has no effect on a {kind}, and {options.file} holds one"
            raise ConfigError(f"--{name.replace('_', '-')}", problem, hint="leave it out")


def _describe(packed: Archive) -> None:
    out = describe.console()
    contents = f"{packed.kind} {packed.name}: {counted(len(packed.runs()), 'finished run')}"
    lines = [contents, *(f"plugin: {plugin}" for plugin in packed.plugins)]
    lines += [f"data: {name}" for name in _datasets(packed)]
    for line in lines:
        out.print(line, soft_wrap=True)


def _ask(packed: Archive) -> None:
    """Raise unless the user agrees to the code of an archive; none of it has run."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        out = describe.console()
        out.print(f"{packed.path} holds code, which would run with your rights:", soft_wrap=True)
        for plugin in packed.plugins:
            out.print(f"  {plugin}", soft_wrap=True)
        if input("run it? [y/N] ").strip().lower() in ("y", "yes"):
            return
        raise ConfigError(_VERB, "the code of the archive was not agreed to; nothing was run")
    reader = "unzip -p" if packed.path.name.endswith(".zip") else "tar -xzOf"
    raise ConfigError(
        _VERB,
        f"the archive holds code that would run with your rights: {', '.join(map(str, packed.plugins))}",
        hint=f"read it with {reader} {commands.quoted(packed.path, packed.plugins[0].path)}; --trust-plugins runs it",
    )


def _datasets(packed: Archive) -> list[str]:
    """List the names of the datasets of all runs."""
    configs = [packed.data(f"{name}/{folders.CONFIG}" if name else folders.CONFIG) for name in packed.runs()]
    parts = [config.get(role) for config in configs for role in ("dataset_unsup", "dataset_sup")]
    return list(dict.fromkeys(str(part.get("dataset")) for part in parts if isinstance(part, dict)))


def _places(texts: list[str], packed: Archive) -> dict[str, str]:
    """Read ``--data NAME=HERE``; a name may hold an equals sign itself."""
    names, places = _datasets(packed), {}
    for text in texts:
        name = next((name for name in names if text.startswith(f"{name}=") and len(text) > len(name) + 1), None)
        if name is None:
            wrong = text.rpartition("=")[0]
            raise ConfigError("--data", f"must be NAME=HERE, got '{text}'", given=wrong, choices=names)
        places[name] = text[len(name) + 1 :]
    return places


@contextmanager
def _described_well(packed: Archive) -> Iterator[None]:
    """Say in a line that records of an archive, which others have written, are not what they must be."""
    try:
        yield
    except ConfigError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        problem = f"its records are not those of a {packed.kind}"
        raise ConfigError(str(packed.path), problem, hint=f"{type(error).__name__}: {error}") from None


# -- a search ---------------------------------------------------------------------------------------------------


def _search(
    packed: Archive, options: argparse.Namespace, home: folders.Home, data: Mapping[str, str], line: str
) -> RerunVerdict:
    """Run the search of an archive again, or what is left of its repetition."""
    from hebb.analysis import agreement
    from hebb.cli import search as command
    from hebb.config import catalog as catalogs
    from hebb.tuning import rerun, search_folder
    from hebb.tuning.search_settings import SearchSettings

    folder = home.search(options.folder_name or f"{packed.name}-rerun")
    device = arguments.device(options)
    with search_folder.held(folder), _described_well(packed):
        if not _goes_on(packed, options, folder, data):
            if not rerun.has_nothing(folder):
                search_folder.check_free(folder, options.overwrite)
            _begin(packed, options, home, folder, data)
        stored = search_folder.read(folder)
        settings = replace(
            SearchSettings.restored(stored["options"], home),
            gpu=device.index if device.kind == DeviceKind.CUDA else None,
            workers=options.workers,
            on_end=options.on_end or None,
            keep_features=not options.no_feature_cache,
            cache_limit=options.cache_limit,
            **_kept(options),
            commands=(*stored["options"]["commands"], line),
        )
        catalog = catalogs.load(settings.preset_file)
        search = search_folder.search_of(stored, folder, catalog)
        _check_weights(search.resume_from)
        command.run(search, settings, catalog, fresh=False)
        verdict = agreement.of(rerun.compared(packed, _done(folder)))
    rerun.note_verdict(folder, _as_data(verdict))
    return verdict


def _kept(options: argparse.Namespace) -> dict[str, Any]:
    """Return which models are kept, where the user says so; else it is as in the archived search."""
    if not options.given & {"save", "save_model"}:
        return {}
    return dict.fromkeys(("save_models", "keep_best"), options.save)


def _goes_on(packed: Archive, options: argparse.Namespace, folder: Path, data: Mapping[str, str]) -> bool:
    """Tell whether the folder holds the beginning of this repetition, which must have been called alike."""
    from hebb.tuning import rerun

    if options.overwrite or not rerun.repeats(folder, packed):
        return False
    before = rerun.changed(folder, data, _kind(options))
    if before and not rerun.has_nothing(folder):
        flag, _, value = before.partition(" ")
        raise ConfigError(
            flag,
            f"must be {value}, with which the repetition in {folder} has begun",
            hint="leave it out to go on; --overwrite begins it again",
        )
    return not before


def _begin(
    packed: Archive, options: argparse.Namespace, home: folders.Home, folder: Path, data: Mapping[str, str]
) -> None:
    """Write the folder of the repetition, once everything that it needs is there."""
    from hebb.storage import checkpoints
    from hebb.tuning import rerun

    code = rerun.unpack_code(packed, home.unpacked)
    beginning = rerun.Beginning(packed=packed, code=code, data=data, device=_kind(options), folder=folder)
    search, catalog = beginning.search()
    _check_weights(search.resume_from)
    if search.resume_from is not None:
        checkpoints.check_stays(search.resume_from, folder, "--folder-name")
    beginning.write(search, catalog)


def _kind(options: argparse.Namespace) -> str | None:
    """Return the kind of device that the user asks for; None for that of the archived runs."""
    kind = arguments.device(options).kind
    return None if kind == DeviceKind.AUTO else str(kind)


def _done(folder: Path) -> Search:
    """Return the search that has run, with the trials that an algorithm had chosen."""
    from hebb.tuning import search_folder

    return search_folder.stored(folder).search


def _check_weights(checkpoint: Path | None) -> None:
    if checkpoint is not None and not checkpoint.exists():
        raise ConfigError(_VERB, f"starts from weights that an archive does not hold: no such file '{checkpoint}'")


# -- a run ------------------------------------------------------------------------------------------------------


def _run(
    packed: Archive, options: argparse.Namespace, home: folders.Home, data: Mapping[str, str], line: str
) -> RerunVerdict:
    """Train the run of an archive again."""
    from hebb.analysis import agreement
    from hebb.cli.run import check_start, members, train_all
    from hebb.config import serialise
    from hebb.tuning import rerun

    folder = home.network(options.folder_name or f"{packed.name}-rerun")
    device = arguments.device(options)
    with _described_well(packed):
        code = rerun.unpack_code(packed, home.unpacked)
        config = rerun.relocated(packed.data(folders.CONFIG), code, data, _kind(options))
        config.pop("phases", None)
        run = serialise.run_from_json(config, f"{packed.path}, {folders.CONFIG}")
        source = packed.data(folders.ENVIRONMENT).get("resumed_from") if run.resume is not None else None
        weights = None if source is None else Path(source)
        _check_weights(weights)
        check_start(run, home, weights)
        runs = members(run, folder)
    train_all(runs, home, options, overwrite=options.overwrite, device_index=device.index, resume_from=weights)
    place = next(path for path, member in runs.items() if member.seed == run.seed)
    metric = folders.accuracy_of(packed.rows(folders.METRICS)) or folders.ACCURACIES[0]
    return agreement.of([rerun.repeated(packed, "", place, run.network.name, run.seed, metric)])


# -- the verdict ------------------------------------------------------------------------------------------------


def _as_data(verdict: RerunVerdict) -> dict[str, object]:
    return {"agrees": verdict.agrees, "verdict": verdict.sentence, "configurations": [asdict(x) for x in verdict.lines]}


def _print(verdict: RerunVerdict) -> None:
    """Print a line for each configuration, and whether all agree."""
    columns = ("configuration", "n", "recorded", "here", "difference", "sd of the seeds", "agrees")
    table = describe.table("numbers", columns, columns[1:-1])
    for line in verdict.lines:
        table.add_row(line.label, str(line.n), *_cells(line), line.agreement.value)
    describe.console().print(table)
    describe.console().print(verdict.sentence, soft_wrap=True)


def _cells(line: ConfigurationAgreement) -> list[str]:
    both = line.recorded is not None and line.repeated is not None
    change = line.repeated - line.recorded if both else None  # type: ignore[operator]
    numbers = (line.recorded, line.repeated, change, line.sd)
    return ["-" if number is None else f"{number:.6g}" for number in numbers]
