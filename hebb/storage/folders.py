"""The folder layout below one parent folder, and the files of a run.

<parent>/dataset/                              datasets, unless $HEBB_DATASETS names their folder
<parent>/hebb/result/network/<model name>/     a single run
<parent>/hebb/result/layer/<model>/bN.pt       single blocks, to start other networks from
<parent>/hebb/cache/                           results that later runs reuse
<parent>/hebb/search/<folder>/trials/<trial>/  a run of a search
<parent>/hebb/analysis/                        figures and tables
<parent>/hebb/plugins/<digest>/                code that came with an archive, once the user has agreed to it
<parent>/hebb/tensorboard/                     links to all of these runs, for TensorBoard (``board``)
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

from hebb.core import commands, files, locks
from hebb.core.documents import read_json as read_json
from hebb.core.errors import ConfigError, DiskFullError, cause_of
from hebb.core.user_code import TRACEBACK

# the files of a run folder
CONFIG = "config.json"  # all that decides the bits
ENVIRONMENT = "environment.json"  # versions, machine, command, digests of the data
METRICS = "metrics.jsonl"  # one row for each epoch
LOOKS = "blocks.jsonl"  # what was measured inside the epochs: curves.py, and of settling networks diagnostics.py
WARNINGS = "warnings.jsonl"  # what the user was warned of, once for each block and phase
CHECKPOINT = Path("checkpoint") / "last.pt"
NEXT = CHECKPOINT.with_name("next.pt")  # checkpoint of one member of a pack, until all members have theirs
COSTS = CHECKPOINT.with_name("costs.json")  # the seconds and the largest memory up to the checkpoint
POST_HOC = "post_hoc.csv"  # examples seen, cross-entropy and accuracy of every batch of a post-hoc loss
# TRACEBACK: the error of a plugin, or an unexpected one, that ended the run
RESULT = "result.json"  # written last: it makes the run finished
LOCK = "lock"  # held by the process that trains the run, and removed by it

# the files of a search folder
SEARCH, JOURNAL, TRIALS = "search.json", "journal.jsonl", "trials"
LOCKS = "locks"  # held by the process that runs the search, and by those that run its trials

Row = dict[str, Any]
"""A line of ``metrics.jsonl``."""
ACCURACIES = ("test_acc", "val_acc", "train_acc")
"""Accuracies of a line, the one that says most first."""
CACHE_LIMIT = 20 * 10**9
"""Default limit in bytes for the features in the cache."""
_NAME, _PATH = 255, 4096
"""Bytes of a file name and of a path that file systems and kernels commonly allow."""
_TAIL = 4096  # bytes of a run's metrics that hold its last row
_BELOW = 200  # bytes of the path of a file inside the folder of a run or a search


@dataclass(frozen=True)
class Home:
    """The parent folder of everything a user stores."""

    parent: Path
    source: str = field(default="--data-dir", compare=False)
    """The flag or the variable that named it, for messages."""

    @staticmethod
    def find(data_dir: str | None) -> Home:
        """Take ``--data-dir``, else ``$HEBB_HOME``, else ``./hebb_data``."""
        named = os.environ.get("HEBB_HOME")
        name = data_dir if data_dir is not None else named or "hebb_data"
        source = "$HEBB_HOME" if data_dir is None and named else "--data-dir"
        parent = Path(name).absolute()
        check_length(parent, source)
        if not name or (os.path.lexists(parent) and not parent.is_dir()):
            raise ConfigError(source, f"must be a folder, got '{name}'")
        home = Home(parent, source)
        if os.path.lexists(home.datasets) and not home.datasets.is_dir():
            where = "$HEBB_DATASETS" if os.environ.get("HEBB_DATASETS") else source
            raise ConfigError(where, f"must be a folder, got '{home.datasets}'")
        return home

    def check_writable(self) -> None:
        """Raise unless files can be written below the parent folder."""
        check_writable(self.parent, self.source)

    @property
    def datasets(self) -> Path:
        """Folder of the datasets."""
        named = os.environ.get("HEBB_DATASETS")
        return Path(named).absolute() if named else self.parent / "dataset"

    @property
    def networks(self) -> Path:
        """Folder of the single runs."""
        return self.parent / "hebb" / "result" / "network"

    def network(self, model_name: str) -> Path:
        """Folder of a single run."""
        return _checked_folder(self.networks / checked_name(model_name, "--model-name"), self.source)

    @property
    def layers(self) -> Path:
        """Folder of the stored blocks."""
        return self.parent / "hebb" / "result" / "layer"

    @property
    def cache(self) -> Path:
        """Folder of results that later runs reuse."""
        return self.parent / "hebb" / "cache"

    @property
    def unpacked(self) -> Path:
        """Folder below which the code of archives lies, named as in them."""
        return self.parent / "hebb"

    @property
    def analysis(self) -> Path:
        """Folder of figures and tables."""
        return self.parent / "hebb" / "analysis"

    @property
    def tensorboard(self) -> Path:
        """Folder of links to all runs, for TensorBoard; ``board`` makes it."""
        return self.parent / "hebb" / "tensorboard"

    @property
    def searches(self) -> Path:
        """Folder of the searches."""
        return self.parent / "hebb" / "search"

    def search(self, folder_name: str) -> Path:
        """Folder of a search."""
        folder = self.searches / checked_name(folder_name, "--folder-name")
        return _checked_folder(folder, self.source)


def check_writable(folder: Path, where: str) -> None:
    """Raise unless files can be written to a folder, which may have to be made; nothing is left behind."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    try:
        import tempfile  # some 8 ms, which --help does without

        with tempfile.TemporaryDirectory(prefix=".hebb-", dir=existing):
            pass
    except OSError as error:
        if isinstance(cause_of(error), DiskFullError):
            raise DiskFullError(f"no space left for {folder}: {error.strerror}") from None
        problem = f"must be a folder you may write to, got '{folder}'"
        raise ConfigError(where, problem, hint=error.strerror) from None


def checked_name(name: str, where: str) -> str:
    """Return ``name``; raise unless it is one plain folder name."""
    if not re.fullmatch(r"[\w+.,=@-]+", name) or name.strip(".") == "":
        raise ConfigError(
            where, f"must be a folder name, got '{name}'", hint="letters, digits and _ + . , = @ - are fine"
        )
    check_length(Path(name), where)
    return name


def check_length(path: Path, where: str, room: int = 0) -> None:
    """Raise where a name in a path is longer than file systems allow, or the path with ``room`` bytes to follow.

    Also where the path is no text: the writer of TensorBoard's files needs it as UTF-8.
    """
    if not _is_text(path):
        hint = "export PYTHONUTF8=1 reads names as UTF-8; else choose another folder"
        raise ConfigError(where, f"must be a path in UTF-8, got {os.fsencode(path)!r}", hint=hint)
    longest = max(len(os.fsencode(part)) for part in path.parts or ("",))
    if longest > _NAME:
        raise ConfigError(where, f"must be a name of at most {_NAME} bytes, got {longest}", hint="choose a shorter one")
    length = len(os.fsencode(path))
    if length > _PATH - room:
        problem = f"must be a path of at most {_PATH - room} bytes, got {length}"
        raise ConfigError(where, problem, hint="choose a shorter one")


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _checked_folder(folder: Path, where: str) -> Path:
    check_length(folder, where, room=_BELOW)
    return folder


class FolderState(StrEnum):
    """What a run folder holds."""

    ABSENT = "absent"
    """Nothing but perhaps a traceback; it may be missing."""
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    FOREIGN = "foreign"
    """Files, but no run."""


def state(folder: Path) -> FolderState:
    """Return what a run folder holds."""
    if not folder.exists() or (folder.is_dir() and all(map(_is_remainder, folder.iterdir()))):
        return FolderState.ABSENT
    if (folder / RESULT).exists():
        return FolderState.FINISHED
    return FolderState.INTERRUPTED if (folder / CONFIG).exists() else FolderState.FOREIGN


def names(parent: Path, *states: FolderState) -> list[str]:
    """List the run folders below a folder that are in one of the states."""
    return sorted(path.parent.name for path in parent.glob(f"*/{CONFIG}") if state(path.parent) in states)


def held(folder: Path, *, wait: bool = False) -> AbstractContextManager[None]:
    """Hold a run folder: nobody else trains the run, or replaces it, at the same time.

    The lock lies in the folder, or for a trial in the folder of its search.

    Args:
        folder: the run folder.
        wait: whether to wait for a process that holds it.

    Raises:
        ConfigError: when another process holds the folder, unless ``wait``.
    """
    if folder.exists() and not folder.is_dir():
        return nullcontext()  # to be refused by who asks what it holds
    search = folder.absolute().parent.parent
    trial = folder.absolute().parent.name == TRIALS and (search / SEARCH).is_file()
    return locks.held(
        search / LOCKS / folder.name if trial else folder / LOCK,
        where=str(folder),
        busy=None if wait else "is being trained",
        hint="wait until it ends, or choose another --model-name",
    )


@contextmanager
def all_held(run_folders: Iterable[Path | None], *, carry_on: bool = False) -> Iterator[None]:
    """Hold the folders of runs that are trained together; None stands for a run without one.

    With ``carry_on`` a finished run is only read, and is not held.
    """
    with ExitStack() as stack:
        for folder in run_folders:
            if folder is not None and not (carry_on and state(folder) == FolderState.FINISHED):
                stack.enter_context(held(folder))
        yield


def refuse_existing(folder: Path, overwrite: bool) -> None:
    """Raise if a run folder holds something that must not be replaced."""
    status = state(folder)
    if status == FolderState.FOREIGN:
        raise ConfigError(str(folder), "is not a run folder and is not empty", hint="choose another name")
    hints = {
        FolderState.FINISHED: "--overwrite replaces it; another --model-name keeps both",
        FolderState.INTERRUPTED: f"{commands.line('resume', folder)} continues it; --overwrite starts again",
    }
    if status in hints and not overwrite and not _failed_at_once(folder):
        article = "a" if status == FolderState.FINISHED else "an"
        raise ConfigError(str(folder), f"holds {article} {status} run", hint=hints[status])


def _failed_at_once(folder: Path) -> bool:
    """Tell whether an error ended a run before its first epoch was over, so that there is nothing to lose.

    Once the plugin at fault is mended, its source is another one, and the run cannot continue either.
    """
    metrics = folder / METRICS
    begun = any((folder / path).exists() for path in (CHECKPOINT, NEXT, RESULT))
    return (folder / TRACEBACK).exists() and not begun and not (metrics.exists() and metrics.stat().st_size)


def claim(folder: Path, overwrite: bool) -> None:
    """Make an empty run folder, apart from its lock; raise if it holds something, unless ``overwrite``."""
    refuse_existing(folder, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    empty(folder, last=CONFIG)


def empty(folder: Path, last: str) -> None:
    """Remove what is in the folder of a run or a search, except locks.

    The file ``last`` shows what the folder is, so it goes last: if this is interrupted, it can be done again.
    """
    for path in sorted(folder.iterdir(), key=lambda path: path.name == last):
        if path.is_dir() and not path.is_symlink():
            if path.name != LOCKS:
                shutil.rmtree(path)
        elif not _is_lock(path):
            path.unlink()


def _is_remainder(path: Path) -> bool:
    return _is_lock(path) or path.name == TRACEBACK or files.is_torn(path)


def _is_lock(path: Path) -> bool:
    return path.name == LOCK or path.name.startswith(f"{LOCK}.")


def run_folder(name_or_folder: str, home: Home, where: str) -> Path:
    """Return the folder that a model name or a run folder means; a run need not be in it."""
    folder = Path(name_or_folder)
    if folder.is_file():
        raise ConfigError(where, f"must name a model or a run folder, got the file {folder}")
    plain = re.fullmatch(r"[\w+.,=@-]+", name_or_folder) is not None and name_or_folder.strip(".") != ""
    if plain and not folder.is_dir():
        folder = home.network(name_or_folder)
    searches = [folder, home.search(name_or_folder)] if plain and not folder.is_dir() else [folder]
    if any((search / SEARCH).is_file() for search in searches):
        again = commands.line("search", "--restore", name_or_folder)
        raise ConfigError(where, f"{name_or_folder} is a search; {again} continues it")
    return folder.absolute()


def checkpoint_of(name_or_folder: str, home: Home, where: str = "--resume") -> Path:
    """Return the checkpoint of a model name or a run folder."""
    folder = run_folder(name_or_folder, home, where)
    path = folder / CHECKPOINT
    if not path.exists():
        finished = names(home.networks, FolderState.FINISHED)
        stored = [name for name in finished if (home.networks / name / CHECKPOINT).exists()]
        raise ConfigError(
            where,
            f"no stored model in {path.parent.parent}",
            given=name_or_folder,
            choices=stored,
            hint=None if stored else "no model is stored there yet",
        )
    return path


def stored_folder(name: str, home: Home, where: str = "runs") -> Path:
    """Return the folder of a run or a search, given as a folder or by its name."""
    folder = Path(name)
    if folder.is_dir():
        return folder
    parents = (home.searches, home.networks)
    for candidate in parents:
        if name and Path(name).name == name and (candidate / name).is_dir():
            return candidate / name
    searches = (path.parent.name for path in parents[0].glob(f"*/{SEARCH}"))
    choices = sorted({*searches, *names(home.networks, FolderState.FINISHED)})
    problem = f"'{name}' is not a folder, and {home.parent} has no search or run of that name"
    raise ConfigError(where, problem, given=name, choices=choices)


def check_search(folder: Path, where: str) -> None:
    """Raise unless a folder holds a search."""
    if not (folder / SEARCH).is_file():
        raise ConfigError(where, f"must name a search, and {folder} holds none")


def datasets_of(folder: Path, home: Home) -> list[Path]:
    """Return the folders of datasets in which the images of a run may be, which may have been moved since.

    First the one where it read them, then the one beside it (as of a search whose parent folder was moved as a whole),
    then that of ``home``; those that exist, and that of ``home`` where none does.
    """
    recorded = _recorded(folder)
    above = folder.absolute().parents
    layout = (("hebb", "search"), ("hebb", "result"))
    beside = [path.parents[1] / "dataset" for path in above if (path.parent.name, path.name) in layout]
    places = dict.fromkeys([*recorded, *beside, home.datasets])
    return [path for path in places if path.is_dir()] or [home.datasets]


def _recorded(folder: Path) -> list[Path]:
    """Return the folder of datasets that a run has noted, or nothing."""
    try:
        environment = read_json(folder / ENVIRONMENT)
    except ConfigError:
        return []
    paths = environment.get("paths") if isinstance(environment, dict) else None
    noted = paths.get("datasets") if isinstance(paths, dict) else None
    return [Path(noted)] if isinstance(noted, str) and noted else []


def stored_block(layers: Path, name: str, where: str) -> Path:
    """Return the file of a stored block, ``MODEL/bN``; raise if there is none."""
    path = layers / f"{name}.pt"
    if not path.exists():
        stored_blocks = sorted(f"{p.parent.name}/{p.stem}" for p in layers.glob("*/b*.pt"))
        raise ConfigError(
            where,
            f"no stored block {name} in {layers}",
            given=name,
            choices=stored_blocks,
            hint=None if stored_blocks else "a finished run stores its blocks there",
        )
    return path


def write_json(path: Path, data: object) -> None:
    """Write JSON, whole or not at all."""
    files.write_text(path, json_text(data))


def json_text(data: object) -> str:
    """Return the content of a JSON file; raise for data that it cannot hold."""
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def read_rows(path: Path, keys: Iterable[str] = ()) -> list[Row]:
    """Read a file with a JSON object a line; an unfinished last line (a killed run) is skipped.

    Raises:
        ConfigError: for a line that is something else, or lacks one of the keys; it names the line.
    """
    rows = []
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:  # no JSON, or no UTF-8
            if number == len(lines):
                break
            raise _damaged(path, number) from None
        if not isinstance(row, dict) or not set(keys) <= set(row):
            raise _damaged(path, number)
        rows.append(row)
    return rows


def last_row(path: Path) -> Row | None:
    """Return the last whole line of such a file without reading the others; None where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL))
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        return row if isinstance(row, dict) else None
    return None


def append_row(path: Path, row: Row) -> None:
    """Append a line to such a file, in place of a last line that is not whole: a full disk or a kill leaves one.

    It is on disk when this returns. One process at a time may write to the file.
    """
    with open(path, "a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                _end_line(file)
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _end_line(file: BinaryIO) -> None:
    """Cut off a last line that is not whole; one that lacks its newline alone is read, and stays."""
    file.seek(0)
    whole = file.read()
    end = whole.rfind(b"\n") + 1
    try:
        json.loads(whole[end:])
    except (RecursionError, ValueError):
        file.truncate(end)
    else:
        file.write(b"\n")


def _damaged(path: Path, number: int) -> ConfigError:
    return ConfigError(f"{path}, line {number}", "does not hold a row of a run", hint="put the file of the run back")


def value_of(rows: Sequence[Row], metric: str) -> float | None:
    """Return the last finite value of a metric; radii end with the Hebbian phases, which come first."""
    values = [row[metric] for row in rows if row.get(metric) is not None and math.isfinite(row[metric])]
    return float(values[-1]) if values else None


def accuracy_of(rows: Sequence[Row]) -> str | None:
    """Return the accuracy that a run has measured: on test images, else on validation or training images."""
    return next((name for name in ACCURACIES if value_of(rows, name) is not None), None)
