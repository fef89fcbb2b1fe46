"""What can be named in a preset: rules, activations and datasets.

An entry is a frozen record that a module registers when it is imported. ``hebb.builtin.load`` imports those of the
package, which import torch inside their functions only, so every entry is known without it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from hebb.config.fields import Field
from hebb.config.rule import BackpropRule, HebbianRule, LocalRule, Rule, SettlingRule
from hebb.config.vocabulary import Augmentation, Part
from hebb.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Activation:
    """A function of the pre-activation: ``name_parameter`` in a block (``triangle_0.7``).

    Attributes:
        name: as in a block.
        formula: one line for ``--list``.
        function: ``function(u)`` or ``function(u, parameter)``; it is applied to ``centre(u)`` where there is a centre.
        parameter: its name.
        default: its value where none is written.
        centre: what comes first and reads several channels of a pixel.
        rising: for a positive parameter, ``function`` acts on each element alone and never falls. A max pool may then
            come between ``centre`` and ``function``, which has fewer elements to work on.
    """

    name: str
    formula: str
    function: Callable[..., Any]
    parameter: str | None = None
    default: float = 1.0
    centre: Callable[[Any], Any] | None = None
    rising: bool = False


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """An image dataset. Exactly one of ``load`` and ``open`` says where its images come from.

    Attributes:
        name: as in ``--dataset-sup NAME``; a variant of ``preset.json`` is called ``NAME_variant``.
        channels, height, width: native size of an image; height and width are 0 where the images differ in size.
        classes: number of labels.
        train: number of training images.
        test: number of test images.
        unlabeled: number of images without a label, in a split of their own.
        per_class, test_per_class: images of each class; None where all classes have the same number.
        summary: one line for ``--list datasets``.
        augmentation: how its training images are varied: ``crop``, ``resized crop`` or ``noise``
            (``hebb.data.augmentation``).
        mean, std: per channel, in units of the pixel range; subtracted and divided by, always. Empty: neither.
        standard: published mean and deviation for ``DataSpec.standardise``; None: those of the training images.
        frames: frames of the split ``sequences``, images in the order of time; 0 where there is none.
        statistics: mean and deviation per channel for ``DataSpec.deviations``; None: it has none.
        class_names: what the labels 0, 1, ... stand for: names, or the numbers in the file; empty for themselves.
        note: what was skipped or renamed when the data were listed, for the output of a run; empty for nothing.
        load: ``load(folder, train) -> (images, labels)``: uint8 arrays (N, H, W) or with channels, and (N,).
        order: ``order(folder) -> places``, int64 (frames,), of an entry with ``load`` and sequences.
        open: ``open(folder, split, shape) -> Store`` (``hebb.data.stores``), for images that are read one by one
            or in pieces; ``split`` is one of ``splits`` and ``shape`` is (C, H, W) of the images wanted.
    """

    name: str
    channels: int
    height: int
    width: int
    classes: int
    train: int
    test: int
    summary: str
    unlabeled: int = 0
    per_class: tuple[int, ...] | None = None
    test_per_class: tuple[int, ...] | None = None
    augmentation: Augmentation = Augmentation.CROP
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    standard: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    frames: int = 0
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    class_names: tuple[str, ...] | tuple[int, ...] = ()
    note: str = ""
    load: Callable[..., Any] | None = None
    order: Callable[..., Any] | None = None
    open: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        if (self.load is None) == (self.open is None):
            raise ConfigError(f"dataset '{self.name}'", "must have either load or open")

    @property
    def splits(self) -> tuple[str, ...]:
        """The parts that can be trained on; ``val`` is another word for ``test``."""
        unlabeled = (Part.UNLABELED, Part.TRAIN_UNLABELED) if self.unlabeled else ()
        return (Part.TRAIN, Part.TEST, Part.VAL, *unlabeled, *((Part.SEQUENCES,) if self.frames else ()))

    def shape(self, size: int | None, where: str) -> tuple[int, int, int]:
        """Return (C, H, W) of the images at ``size`` pixels a side, or at their native size."""
        if size is None and not self.height:
            raise ConfigError(
                where,
                f"the images of {self.name} differ in size",
                hint="--set dataset_sup.size=64 dataset_unsup.size=64",
            )
        return (self.channels, size or self.height, size or self.width)

    def train_samples(self, classes: tuple[int, ...] | None = None, split: str = "train") -> int:
        """Count the images of a split that trains, all or those of the given classes; of ``sequences`` the pairs."""
        if split == Part.SEQUENCES:
            return self.frames - 1
        if Part.UNLABELED in split:
            return self.unlabeled + (self.train if split == Part.TRAIN_UNLABELED else 0)
        total, per_class = (self.train, self.per_class) if split == Part.TRAIN else (self.test, self.test_per_class)
        if classes is None:
            return total
        if per_class is None:
            return total * len(classes) // self.classes
        return sum(per_class[label] for label in classes)


Entry = TypeVar("Entry", Rule, Activation, Dataset)


class Registry(Generic[Entry]):
    """Entries by name; names are matched without regard to case."""

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._entries: dict[str, Entry] = {}

    def register(self, entry: Entry) -> Entry:
        """Add an entry; a second one of the same name is refused."""
        if isinstance(entry, type) or not isinstance(getattr(entry, "name", None), str):
            got = f"the class {entry.__name__}" if isinstance(entry, type) else f"an object of {type(entry).__name__}"
            raise ConfigError(f"{self.noun}", f"must be an entry with a name, got {got}")
        if entry.name.lower() in self._entries:
            raise ConfigError(f"{self.noun} '{entry.name}'", "is registered twice")
        self._entries[entry.name.lower()] = entry
        return entry

    def get(self, name: str, where: str) -> Entry:
        """Return the entry called ``name``; ``where`` is the place an error names."""
        entry = self._filled().get(name.lower())
        if entry is None:
            raise ConfigError(where, f"unknown {self.noun} '{name}'", given=name, choices=self.names())
        return entry

    def names(self) -> list[str]:
        """List the canonical names in the order of registration."""
        return [entry.name for entry in self._filled().values()]

    def entries(self) -> list[Entry]:
        """List the entries in the order of registration."""
        return list(self._filled().values())

    def _filled(self) -> dict[str, Entry]:
        """Return the entries; none at all is a defect of the program that started, not of a name."""
        if not self._entries:
            raise RuntimeError(f"no {self.noun} is registered: call hebb.builtin.load() before the first look-up")
        return self._entries


RULES: Registry[Rule] = Registry("method")
ACTIVATIONS: Registry[Activation] = Registry("activation")


class DatasetRegistry(Registry[Dataset]):
    """Datasets by name, and those that a name spells out: ``folder:PATH``, ``npz:PATH``."""

    def __init__(self) -> None:
        super().__init__("dataset")
        self._readers: dict[str, Callable[[str, str], Dataset]] = {}
        self.forms: dict[str, str] = {}
        """What a user may write in place of a name, ``folder:PATH``, and what it stands for."""

    def register_reader(
        self, prefix: str, reader: Callable[[str, str], Dataset], form: str = "", summary: str = ""
    ) -> None:
        """Let ``reader(path, where)`` make the entry of every name that starts with ``prefix:``.

        Args:
            prefix: the word before the colon.
            reader: makes the entry.
            form: what a user writes, ``folder:PATH``; empty where users write no such name.
            summary: one line for ``--list datasets``.
        """
        self._readers[prefix] = reader
        if form:
            self.forms[form] = summary

    def spelled_out(self, name: str) -> bool:
        """Tell whether the name says itself where the data are."""
        return name.partition(":")[0].lower() in self._readers and ":" in name

    def unknown(self, name: str, where: str, choices: Iterable[str]) -> ConfigError:
        """Return the error of a name that is no dataset; where a folder or file has it, the form that names that."""
        own, prefix = Path(name), ""
        with contextlib.suppress(OSError, ValueError):  # a name too long, or with a zero byte
            prefix = "folder" if own.is_dir() else "npz" if own.suffix == ".npz" or own.is_file() else ""
        if name and prefix:
            problem = f"unknown dataset '{name}' (did you mean '{prefix}:{name}'?)"
            return ConfigError(where, problem, hint="--list datasets describes the names, and files of your own")
        hint = f"--list datasets describes them; {' and '.join(self.forms)} are files of your own"
        return ConfigError(where, f"unknown dataset '{name}'", given=name, choices=choices, hint=hint)

    def get(self, name: str, where: str) -> Dataset:
        """Return the entry called ``name``, or the one it spells out."""
        if not self.spelled_out(name):
            if name.lower() not in self._filled():
                raise self.unknown(name, where, self.names())
            return super().get(name, where)
        prefix, _, path = name.partition(":")
        return self._readers[prefix.lower()](path, where)


DATASETS = DatasetRegistry()

__all__ = [
    "ACTIVATIONS",
    "DATASETS",
    "RULES",
    "Activation",
    "BackpropRule",
    "Dataset",
    "DatasetRegistry",
    "Field",
    "HebbianRule",
    "LocalRule",
    "Registry",
    "Rule",
    "SettlingRule",
]
