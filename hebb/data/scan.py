"""Lists the images in a folder with one subfolder per class, without decoding them. Never imports torch."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hebb.core.errors import ConfigError
from hebb.data import decode

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Extensions of image files, those of torchvision's ``ImageFolder``."""
TEST_PARTS = ("test", "val")
"""What the folder of the test images may be called; the first one that exists is used."""
HEADERS = 2000
"""Image headers that are read at most; 0.1 ms each."""
DECODED = 100
"""Images of 16 bits that are decoded at most to see whether they use them."""
_OF_THE_SYSTEM = frozenset(
    {"__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information", "thumbs.db", "desktop.ini"}
)
"""What systems leave in folders, in lower case, besides names that begin with a dot."""
_HIDDEN = "hidden"
_FEW = 5
_ACCENTS = "the accents of the two names are stored in different ways (macOS, Linux): give one folder the other's name"


@dataclass(frozen=True)
class Listing:
    """The images of a folder in the order of their labels.

    Attributes:
        root: the folder.
        classes: names of its subfolders; the label of an image is the place of its class.
        names: (N,) bytes, paths below ``root``; an array, because a million strings would be copied to each worker.
        labels: int64 (N,).
        skipped: what is not read, (kind, number): ``hidden`` entries, and files by their extension.
    """

    root: Path
    classes: tuple[str, ...]
    names: np.ndarray
    labels: np.ndarray
    skipped: tuple[tuple[str, int], ...] = ()

    def per_class(self) -> tuple[int, ...]:
        """Count the images of each class."""
        return tuple(np.bincount(self.labels, minlength=len(self.classes)).tolist())

    def path(self, i: int) -> Path:
        """Return the path of image i."""
        return self.root / os.fsdecode(bytes(self.names[i]))

    def paths(self) -> list[str]:
        """Return the paths of all images as text, which takes half the time of ``Path``."""
        return [f"{self.root}{os.sep}{os.fsdecode(name)}" for name in self.names.tolist()]

    def sizes_and_times(self) -> np.ndarray:
        """Return int64 (N, 2): the bytes of each file now, and when it was last changed, in nanoseconds.

        Raises:
            ConfigError: for a file that has gone since the folder was listed.
        """
        return np.array([_size_and_time(path) for path in self.paths()], dtype=np.int64).reshape(-1, 2)


def listing(root: Path, where: str, classes: Sequence[str] | None = None) -> Listing:
    """List the images below ``root``, in the order of torchvision's ``ImageFolder``.

    Class names that are all numbers (ImageNetV2) are ordered as numbers; ``ImageFolder`` would put 10 before 2.
    Hidden entries (``.ipynb_checkpoints``, ``__MACOSX``, ``._1.png``) and files of other kinds are skipped and counted.

    Args:
        root: folder of ``<class>/**/<image>``.
        where: the place an error names.
        classes: the legal classes in label order; None takes the subfolders.
    """
    skipped: Counter[str] = Counter()
    subfolders = sorted(_subfolders(root, where, skipped), key=_class_order)
    legal = tuple(subfolders if classes is None else classes)
    for name in subfolders:
        if name not in legal:
            alike = _composed(name) in map(_composed, legal)
            raise ConfigError(
                where,
                f"{root / name} is a class that the training images lack",
                given=name,
                choices=legal,
                hint=_ACCENTS if alike else None,
            )
    names: list[bytes] = []
    labels: list[int] = []
    empty = None
    for label, name in enumerate(legal):
        images = _images(root / name, where, skipped) if name in subfolders else []
        if name in subfolders and not images:
            empty = empty or root / name
        names += [os.fsencode(path.relative_to(root)) for path in images]
        labels += [label] * len(images)
    if not names:
        raise ConfigError(
            where,
            f"{root} holds no image{_also(skipped)}",
            hint=f"expected {root.name}/<class>/<image>, an image being {' '.join(EXTENSIONS)}",
        )
    if empty is not None:
        counts: Counter[str] = Counter()
        _images(empty, where, counts)
        raise ConfigError(
            where,
            f"{empty} is a class that holds no image{_also(counts)}",
            hint=f"remove the folder, or put images there: {' '.join(EXTENSIONS)}",
        )
    return Listing(root, legal, np.array(names), np.array(labels, dtype=np.int64), tuple(sorted(skipped.items())))


def said(skipped: Sequence[tuple[str, int]]) -> str:
    """Say what was skipped: ``3 hidden entries, 2 .txt files``; empty for nothing."""
    words = []
    for kind, count in skipped:
        noun = ("entry" if count == 1 else "entries") if kind == _HIDDEN else "file" + "s" * (count != 1)
        words.append(f"{count:,} {kind} {noun}")
    return ", ".join(words)


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        stat = os.stat(path)  # noqa: PTH116
    except OSError as error:
        raise ConfigError(path, f"cannot be read: {error.strerror}") from None
    return stat.st_size, stat.st_mtime_ns


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _among(folders: Sequence[str]) -> str:
    return f", only {' '.join(folders[:_FEW])}{' ...' * (len(folders) > _FEW)}" if folders else ""


def _also(skipped: Counter[str]) -> str:
    return f", but {said(sorted(skipped.items()))}" if skipped else ""


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _OF_THE_SYSTEM


def _kind(name: str) -> str:
    """Return what a file is counted as when it is not read."""
    return Path(name).suffix.lower() or "other"


def _subfolders(root: Path, where: str, skipped: Counter[str]) -> Iterator[str]:
    """Yield the names of the class folders, and count what else lies there."""
    try:
        entries = list(os.scandir(root))
    except OSError as error:
        raise ConfigError(where, f"{root} cannot be read: {error.strerror}") from None
    for entry in entries:
        if _hidden(entry.name):
            skipped[_HIDDEN] += 1
        elif entry.is_dir():
            yield entry.name
        else:
            skipped[_kind(entry.name)] += 1


def _images(top: Path, where: str, skipped: Counter[str]) -> list[Path]:
    """List the images of a class, below all its folders, and count what is skipped."""

    def refuse(error: OSError) -> None:
        raise ConfigError(where, f"{error.filename} cannot be read: {error.strerror}")

    visited = []
    for folder, subfolders, files in os.walk(top, followlinks=True, onerror=refuse):
        for name in [name for name in subfolders if _hidden(name)]:
            subfolders.remove(name)
            skipped[_HIDDEN] += 1
        for name in subfolders:
            _check_loop(Path(folder, name), where)
        visited.append((folder, files))
    images = []
    for folder, files in sorted(visited):
        for file in sorted(files):
            if _hidden(file):
                skipped[_HIDDEN] += 1
            elif file.lower().endswith(EXTENSIONS):
                images.append(Path(folder, file))
            else:
                skipped[_kind(file)] += 1
    return images


def _check_loop(folder: Path, where: str) -> None:
    """Raise for a link to a folder that holds it: its images would be listed many times."""
    if folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(where, f"{folder} is a link to a folder that holds it", hint="remove the link")


def _class_order(name: str) -> tuple[int, str]:
    return (int(name) if name.isascii() and name.isdigit() else -1, name)


def image_shape(images: Listing) -> tuple[int, int, int]:
    """Return (C, H, W) from the headers: C is 1 when all images are grey, H and W are 0 where sizes differ.

    Up to ``HEADERS`` headers are read, at equal distances.
    """
    sizes, grey = set(), True
    for i in range(0, len(images.names), -(-len(images.names) // HEADERS)):
        with decode.opened(images.path(i)) as image:
            grey = grey and decode.is_grey(image)
            sizes.add(decode.size(image))
    height, width = sizes.pop() if len(sizes) == 1 else (0, 0)
    return (1 if grey else 3, height, width)


def dark_16_bits(images: Listing) -> tuple[int, int] | None:
    """Return the largest value of dark images of 16 bits and the number of images read; None for all others.

    Dark is below an eighth of white, as measurements of 12 bits are. Up to ``DECODED`` images are read, at equal
    distances, and none after the first that is not dark.
    """
    values: list[int] = []
    for i in range(0, len(images.names), -(-len(images.names) // DECODED)):
        largest = decode.largest_of_16_bits(images.path(i))
        if largest is None or largest >= 1 << 13:
            return None
        values.append(largest)
    return max(values), len(values)


def annotated(table: Path, root: Path, classes: Sequence[str]) -> Listing:
    """List the images of one folder whose classes stand in a table: name and class, then anything, apart by tabs.

    Raises:
        ConfigError: for a line without a class, an unknown class, and an image that is not there.
    """
    labels = {name: label for label, name in enumerate(classes)}
    entries: list[tuple[int, bytes]] = []
    for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), 1):
        name, _, rest = line.partition("\t")
        of = rest.partition("\t")[0]
        if of not in labels:
            raise ConfigError(f"{table}, line {number}", f"must name an image and its class, got '{line[:80]}'")
        if not (root / name).is_file():
            raise ConfigError(f"{table}, line {number}", f"names an image that is not there: {root / name}")
        entries.append((labels[of], name.encode()))
    entries.sort(key=lambda entry: entry[0])
    names = np.array([name for _, name in entries])
    return Listing(root, tuple(classes), names, np.array([label for label, _ in entries], dtype=np.int64))


def part(root: Path, train: bool, where: str) -> Listing:
    """List one part of an image folder; the test images have the classes of the training images.

    The test part is called ``test`` or ``val``; some evaluation sets have no training part.
    """
    part_names = ("train",) if train else TEST_PARTS
    folder = next((root / name for name in part_names if (root / name).is_dir()), None)
    if folder is None:
        if not root.is_dir():
            hint = "npz:FILE reads arrays" if root.suffix == ".npz" and root.exists() else None
            raise ConfigError(where, "is not a folder" if root.exists() else "no such folder", hint=hint)
        others = sorted(path.name for path in root.iterdir() if path.is_dir() and not _hidden(path.name))
        raise ConfigError(
            where,
            f"{root} has no folder '{' or '.join(part_names)}'{_among(others)}",
            hint="expected train/<class>/<image> and test/<class>/<image> (or val/)",
        )
    classes = None if train else part(root, True, where).classes
    return listing(folder, where, classes)
