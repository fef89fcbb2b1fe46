"""What can be named in a preset: fields, rules, activations and datasets.

An entry is a frozen record that a module registers when it is imported. ``hebb.builtin.load`` imports those of the
package, which import torch inside their functions only, so every entry is known without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from hebb.core.errors import ConfigError

Value = bool | int | float | str
ARCHS = ("MLP", "CNN")
_LARGEST = 1e30  # greater numbers only overflow


@dataclass(frozen=True, kw_only=True)
class Field:
    """One hyper-parameter of a layer.

    Attributes:
        name: full name, as in ``--set b0.layer.NAME=...``.
        token: its letters in a preset string (``lr`` in ``Soft-c96-lr0.08``); None when it is only set by name.
        kind: type of the value; ``bool`` is written 0 or 1 in a token.
        meaning: one line with the unit, shown by ``--list methods``.
        minimum: least legal value of a number.
        above: whether the minimum itself is excluded.
        choices: legal words of a ``str``.
        archs: the architectures that have it.
        default: used where ``preset.json`` gives no layer default.
    """

    name: str
    token: str | None
    kind: type
    meaning: str
    minimum: float | None = None
    above: bool = False
    choices: tuple[str, ...] = ()
    archs: tuple[str, ...] = ARCHS
    default: Value | None = None

    def read(self, text: object, where: str) -> Value:
        """Turn text (or a JSON value) into a checked value of this field."""
        value = self._convert(text)
        if value is None:
            raise ConfigError(where, f"'{self.name}' wants {self.wants()}, not '{text}'")
        if self.choices and value not in self.choices:
            raise ConfigError(where, f"'{self.name}' cannot be '{value}'", given=str(value), choices=self.choices)
        if self.minimum is not None and not isinstance(value, str):
            low = value <= self.minimum if self.above else value < self.minimum
            if low or value > _LARGEST:
                most = "" if low else f" and at most {_LARGEST:g}"
                raise ConfigError(where, f"'{self.name}' wants {self.wants()}{most}, not {text}")
        return value

    def wants(self) -> str:
        """Describe the legal values in words."""
        if self.kind is bool:
            return "0 or 1"
        if self.kind is str:
            return "one of " + " ".join(self.choices)
        noun = "a whole number" if self.kind is int else "a number"
        if self.minimum is None:
            return noun
        return f"{noun} {'above' if self.above else 'of at least'} {self.minimum:g}"

    def _convert(self, text: object) -> Value | None:
        if self.kind is bool:
            return {"0": False, "1": True, "false": False, "true": True}.get(str(text).lower())
        if self.kind is str:
            return str(text) if isinstance(text, str) else None
        return None if isinstance(text, bool) else read_number(str(text), self.kind)


def read_number(text: str, kind: type) -> int | float | None:
    """Read an int or a float as a person writes it; None for anything else, NaN included.

    Python's own ``float`` also takes ``1_0``, and reads a long whole number inexactly.
    """
    if "_" in text or not text.isascii():
        return None
    try:
        if kind is int:
            exact = re.fullmatch(r"[+-]?\d+", text.strip())
            return int(text) if exact else _whole(float(text))
        number = float(text)
    except (ValueError, OverflowError):
        return None
    return None if number != number else number


def _whole(number: float) -> int | None:
    return int(number) if number.is_integer() else None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One learning method, as the grammar, the layers and the trainer see it.

    Attributes:
        name: canonical name, the first word of a preset string.
        summary: one line for ``--list methods``.
        source: paper and equation.
        learning: ``hebbian`` (a layer-local rule, its step made by the layer), ``local`` (a layer-local loss, its step
            made by an optimiser), ``backprop``, or ``settle`` (the network settles and learns as a whole,
            ``hebb.energy``).
        fields: names of the shared fields (``hebb.config.fields``) it reads besides the layer's geometry.
        own_fields: fields that only this rule has.
        defaults: per architecture, the defaults in which it departs from ``preset.json``.
        archs: the architectures it is defined for.
        views: how many views of an image a batch must carry.
        mode: training mode of a network with such a block, where none is asked for; None has no preference.
        labels: whether the rule reads the labels.
        signal: ``signal(u, layer, labels) -> y``, the plastic gate (see ``hebb.rules``).
        decay: ``decay(y, u, weight, layer)``, what is taken from sum_b y x: y and u are (M, neurons) with M samples
            times output pixels, weight is (neurons, fan-in), as is the result; None: (sum_b y u) w.
        initialise: ``initialise(shape, layer, generator) -> weights``; None: the layer's own, of mean radius R.
        floor: what is added to the largest entry of a change before it divides the change.
        answers_updated: while it learns, the block passes on what it answers after the update and with running
            batch statistics; else what it answered before it, with those of the batch.
        bias_step: ``bias_step(y, bias, layer) -> db``, before normalisation; None: the rule has no bias.
        loss: ``loss(views, layer, aids) -> terms``, the loss of a ``local`` rule (see ``hebb.rules``).
        check: ``check(values, where)`` refuses combinations of values.
        settings: of a ``settle`` method, the settings of the whole network.
        check_settings: ``check_settings(values, where)`` refuses combinations of settings.
        tensors: of a ``settle`` method, ``tensors(fan_in, width, first, last) -> {name: (shape, bound)}``, what a
            layer stores; it starts uniform in +-bound, at 0 for a bound of 0 (``lateral``: see ``hebb.energy.layer``).
        network: of a ``settle`` method, returns its subclass of ``hebb.energy.network.EnergyNetwork``.
    """

    name: str
    summary: str
    source: str
    learning: str = "hebbian"
    fields: tuple[str, ...] = ()
    own_fields: tuple[Field, ...] = ()
    defaults: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    archs: tuple[str, ...] = ARCHS
    views: int = 1
    mode: str | None = None
    labels: bool = False
    signal: Callable[..., Any] | None = None
    decay: Callable[..., Any] | None = None
    initialise: Callable[..., Any] | None = None
    floor: float = 1e-30
    answers_updated: bool = False
    bias_step: Callable[..., Any] | None = None
    loss: Callable[..., Any] | None = None
    check: Callable[[Mapping[str, Value], str], None] | None = None
    settings: tuple[Field, ...] = ()
    check_settings: Callable[[Mapping[str, Value], str], None] | None = None
    tensors: Callable[[int, int, bool, bool], dict[str, tuple[tuple[int, ...], float]]] | None = None
    network: Callable[[], type] | None = None


@dataclass(frozen=True, kw_only=True)
class Activation:
    """A function of the pre-activation: ``name_parameter`` in a block (``triangle_0.7``).

    Attributes:
        name: as in a block.
        formula: one line for ``--list``.
        function: u, and the parameter where there is one, -> the answer; of ``centre(u)`` where that is given.
        parameter: its name.
        centre: what comes first and looks at several channels of a pixel.
        rising: for a positive parameter ``function`` is one of each element alone, and never falls. A max pool may
            then come between ``centre`` and ``function``, which has fewer elements to work on.
    """

    name: str
    formula: str
    function: Callable[..., Any]
    parameter: str | None = None
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
    augmentation: str = "crop"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    standard: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    frames: int = 0
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    load: Callable[..., Any] | None = None
    order: Callable[..., Any] | None = None
    open: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        if (self.load is None) == (self.open is None):
            raise ConfigError(f"dataset '{self.name}'", "wants one of load and open")

    @property
    def splits(self) -> tuple[str, ...]:
        """The parts that can be trained on; ``val`` is another word for ``test``."""
        more = (*(("unlabeled", "train+unlabeled") if self.unlabeled else ()), *(("sequences",) if self.frames else ()))
        return ("train", "test", "val", *more)

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
        if split == "sequences":
            return self.frames - 1
        if "unlabeled" in split:
            return self.unlabeled + (self.train if split.startswith("train") else 0)
        total, per_class = (self.train, self.per_class) if split == "train" else (self.test, self.test_per_class)
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

    def register_reader(self, prefix: str, reader: Callable[[str, str], Dataset]) -> None:
        """Let ``reader(path, where)`` make the entry of every name that starts with ``prefix:``."""
        self._readers[prefix] = reader

    def spelled_out(self, name: str) -> bool:
        """Tell whether the name says itself where the data are."""
        return name.partition(":")[0].lower() in self._readers and ":" in name

    def get(self, name: str, where: str) -> Dataset:
        """Return the entry called ``name``, or the one it spells out."""
        if not self.spelled_out(name):
            return super().get(name, where)
        prefix, _, path = name.partition(":")
        return self._readers[prefix.lower()](path, where)


DATASETS = DatasetRegistry()
