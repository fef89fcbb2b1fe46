"""What TensorBoard is pointed at: folders of links that name every run by what sets it apart. Imports no TensorBoard.

<parent>/hebb/tensorboard/<search>     -> ../search/<search>/tensorboard
<parent>/hebb/tensorboard/single runs  -> ../result/network
<search>/tensorboard/<label>           -> ../trials/<trial>          a label is ``radius=2.5 seed=1``

The trial folders keep the names by which a search goes on. The links are relative, so what is moved as a whole still
works; both of TensorBoard's loaders follow them. Where the file system has no links, the run folders are shown.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hebb.config.domains import Choice
from hebb.core.errors import ConfigError
from hebb.storage import folders, run_names
from hebb.storage.journal import Journal

BOARD = "tensorboard"
SINGLE = "single runs"  # with a space, so that no search has this name
_DIGITS = (4, 8, 17)  # of a number, as many as tell labels apart
_LONGEST = 160  # bytes of a label


def of_search(folder: Path) -> Path:
    """Return the folder that shows a search: with all others of its parent folder, or alone, or its trials."""
    everything = _all(folder)
    if everything is not None and (everything / folder.name).is_symlink():
        return everything
    return folder / BOARD if _links(folder / BOARD) else folder / folders.TRIALS


def of_run(folder: Path) -> Path:
    """Link the single runs beside a run folder, and return the folder that shows them with all searches."""
    home = folder.absolute().parent
    if (home.name, home.parent.name) != ("network", "result"):
        return folder.parent
    board = home.parents[1] / BOARD
    return board if _renew_all(board) else folder.parent


def renew(folder: Path) -> None:
    """Link what a search has begun, and all other searches beside it; remove links to what is gone."""
    _renew_search(folder)
    board = _all(folder)
    if board is not None:
        _renew_all(board)


def link(trial: Path, choice: Choice, seed: int) -> str:
    """Link the folder of a trial that has begun; return its label, or its name where it has no link."""
    search = trial.parent.parent
    description = search / folders.SEARCH
    if not description.exists():
        return trial.name
    axes = _space(description.absolute(), description.stat().st_mtime_ns)
    return _link_trial(search / BOARD, trial.name, choice, seed, short_names([*axes, *choice]))


@functools.lru_cache(maxsize=1)
def _space(description: Path, written: int) -> tuple[str, ...]:
    """Return the paths of a search's space, read once for all trials of a worker: the file lists every trial."""
    return tuple(folders.read_json(description)["spec"]["space"])


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Return the shortest name of each override path that no other one has: ``lr``, ``b0.lr`` or all of it."""
    forms = {path: _forms(path) for path in paths}
    counts = Counter(form for several in forms.values() for form in set(several))
    return {path: next((form for form in several if counts[form] == 1), path) for path, several in forms.items()}


def _forms(path: str) -> tuple[str, ...]:
    parts = path.split(".")
    return parts[-1], f"{parts[0]}.{parts[-1]}", path


def labels(choice: Choice, seed: int, short: Mapping[str, str], *, final: bool = False) -> Iterator[str]:
    """Yield names of a run, each more exact than the one before; the last one is not exact where a word is too long."""
    for digits in _DIGITS:
        words = [f"{short.get(path, path)}={_written(value, digits)}" for path, value in choice.items()]
        yield _file_name(" ".join([*([run_names.FINAL] if final else ()), *words, f"seed={seed}"]))


def _written(value: object, digits: int) -> str:
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def _file_name(text: str) -> str:
    """Return a text as one name of a file, cut where it is long."""
    name = re.sub(r"""[\x00-\x1f\x7f/\\:*?"<>|]""", "_", text)
    if len(name.encode()) <= _LONGEST:
        return name
    *words, seed = name.split(" ")
    start = " ".join(words).encode()[: _LONGEST - 40].decode(errors="ignore")
    return f"{start}... {hashlib.sha256(name.encode()).hexdigest()[:6]} {seed}"


def _all(folder: Path) -> Path | None:
    """Return the folder of the links to all searches; None for a search that lies elsewhere."""
    above = folder.absolute().parent
    return above.with_name(BOARD) if (above.name, above.parent.name) == ("search", "hebb") else None


def _renew_all(board: Path) -> bool:
    """Link all searches and the single runs; return whether the file system has links."""
    above = board.parent
    _make(board)
    _prune(board)
    for path in sorted((above / "search").glob(f"*/{folders.SEARCH}")):
        search = path.parent
        if not (search / BOARD).is_dir():
            _renew_search(search)
        if (search / BOARD).is_dir():
            _link(board / search.name, search / BOARD)
    single = above / "result" / "network"
    return not single.is_dir() or _link(board / SINGLE, single)


def _renew_search(folder: Path) -> None:
    """Link the trials of a search that have begun; the choices are those in its files."""
    try:
        choices, short = _choices(folder)
    except (ConfigError, KeyError, TypeError, AttributeError):
        return  # the search is damaged, which is for others to say
    _make(folder / BOARD)
    _prune(folder / BOARD)
    shown = {str(path.readlink()) for path in _links(folder / BOARD)}
    for config in sorted((folder / folders.TRIALS).glob(f"*/{folders.CONFIG}")):
        name = config.parent.name
        seed = run_names.seed(name)
        if seed is not None and _target(folder / BOARD, config.parent) not in shown:
            _link_trial(folder / BOARD, name, choices.get(run_names.configuration(name), {}), seed, short)


def _choices(folder: Path) -> tuple[dict[str, Choice], dict[str, str]]:
    """Return the values of every configuration of a search by its hash, and the short names of their paths."""
    data = folders.read_json(folder / folders.SEARCH)
    choices = {run_names.configuration(str(trial["name"])): trial["choice"] for trial in data["trials"]}
    choices |= Journal.load(folder).chosen
    paths = dict.fromkeys([*data["spec"]["space"], *(path for choice in choices.values() for path in choice)])
    return choices, short_names(paths)


def _link_trial(board: Path, name: str, choice: Choice, seed: int, short: Mapping[str, str]) -> str:
    _make(board)
    trial = board.parent / folders.TRIALS / name
    names = list(labels(choice, seed, short, final=run_names.is_final(name)))
    for label in (*names, f"{names[0]} {name}"):
        if _link(board / label, trial):
            return label
    return name


def _make(board: Path) -> None:
    with contextlib.suppress(OSError):
        board.mkdir(parents=True, exist_ok=True)


def _prune(board: Path) -> None:
    """Remove links to what is gone."""
    for path in _links(board):
        if not path.exists():
            with contextlib.suppress(OSError):
                path.unlink()


def _links(board: Path) -> list[Path]:
    return [path for path in board.iterdir() if path.is_symlink()] if board.is_dir() else []


def _target(board: Path, folder: Path) -> str:
    return os.path.relpath(folder, board)


def _link(path: Path, folder: Path) -> bool:
    """Link a folder; return whether the link is there, which may have been made before."""
    target = _target(path.parent, folder)
    try:
        path.symlink_to(target, target_is_directory=True)
    except (OSError, NotImplementedError):
        return path.is_symlink() and str(path.readlink()) == target
    return True
