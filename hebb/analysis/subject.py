"""A stored network and its data, with images in [0, 1] as inputs.

Shapes: B images of a batch, n images in all, C channels, H x W pixels, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from hebb.analysis import gradients, interpolate
from hebb.analysis.interpolate import Prototype
from hebb.analysis.runs import StoredRun
from hebb.config.vocabulary import DeviceKind
from hebb.core import commands
from hebb.core.errors import ConfigError
from hebb.data import images
from hebb.data.images import Images, Split
from hebb.nn import model
from hebb.nn.blocks import Block
from hebb.nn.model import Network
from hebb.probing import probes, readout, stored
from hebb.probing.readout import BATCH
from hebb.storage import folders


def load(run: StoredRun, home: folders.Home, kind: DeviceKind = DeviceKind.AUTO, index: int = 0) -> Subject:
    """Load the network of a finished run; its data are read when they are first needed.

    Args:
        run: the run.
        home: parent folder of datasets and caches.
        kind: the device; ``auto`` is that of the run, or the CPU where this machine has no GPU.
        index: number of the GPU, where one is used.

    Raises:
        ConfigError: when the run stored no model.
    """
    path = run.folder / folders.CHECKPOINT
    if not path.exists():
        again = commands.line("train", "--run-config", run.folder / folders.CONFIG, "--model-name", "again")
        kept = "a search keeps the models of its best configuration, and with --save-model all; " if run.search else ""
        raise ConfigError(
            str(run.folder), "has no stored model", hint=f"{kept}{again} trains it again, to the same bits"
        )
    config = model.readable(run.config) if kind == DeviceKind.AUTO else replace(run.config, device=kind)
    return Subject(run, stored.restore(config, path, index), home)


@dataclass(frozen=True)
class Subject:
    """A network in evaluation mode and its data.

    Attributes:
        run: the run that trained it.
        network: the network.
        home: parent folder of caches, and of datasets that are neither where the run read them nor beside it.
    """

    run: StoredRun
    network: Network
    home: folders.Home

    @cached_property
    def data(self) -> Images:
        """The labelled dataset."""
        config = self.run.config
        spec, seed, device = config.dataset_sup, config.split_seed, self.network.device
        return stored.read_first(
            folders.datasets_of(self.run.folder, self.home),
            lambda folder: images.load(spec, folder, seed, device, self.home.cache),
        )

    @property
    def name(self) -> str:
        """Name of the network and seed, for titles; for a long preset string, name of the run and seed."""
        name = self.run.preset if len(self.run.preset) <= 40 else self.run.folder.name
        return f"{name}, seed {self.run.seed}"

    @property
    def blocks(self) -> list[Block]:
        """The blocks of the network."""
        return [self.network[i] for i in range(len(self.network))]

    def checked(self, block: int, flag: str = "--block") -> int:
        """Return ``block``, or raise when the network has no such block; ``flag`` names it."""
        if block >= len(self.network):
            blocks = [f"b{i}" for i in range(len(self.network))]
            raise ConfigError(flag, f"the network has no b{block}", given=f"b{block}", choices=blocks)
        return block

    def _of_pixels(self, split: Split) -> Split:
        """Return the split as images in [0, 1], before they are normalised."""
        if self.run.config.dataset_sup.zca:
            raise ConfigError(self.run.folder.name, "reads whitened pixels, which cannot be shown as images in [0, 1]")
        return replace(split, finish=None)

    def _finish(self, x: Tensor) -> Tensor:
        finish = self.data.test.finish
        return x if finish is None else finish(x)

    def count(self, most: int | None) -> int:
        """Return the number of test images, at most ``most``."""
        return len(self.data.test) if most is None else min(most, len(self.data.test))

    def labelled(self, most: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of the first test images, in [0, 1], with their labels."""
        return _first(self._of_pixels(self.data.test), self.count(most))

    def pixels(self, most: int | None) -> Iterator[Tensor]:
        """Yield batches of the first test images, in [0, 1]."""
        return (x for x, _ in self.labelled(most))

    def images(self, places: Collection[int]) -> dict[int, Tensor]:
        """Return test images (C, H, W), in [0, 1], by their place in the test set."""
        chosen: dict[int, Tensor] = {}
        start = 0
        for x in self.pixels(max(places) + 1):
            chosen |= {place: x[place - start].cpu() for place in places if start <= place < start + len(x)}
            start += len(x)
        return chosen

    def pre_activation(self, block: int) -> Callable[[Tensor], Tensor]:
        """Return the function from images (B, C, H, W) in [0, 1] to the pre-activation of a block."""
        return lambda x: self.network[block].pre_activation(self.network(self._finish(x), stop=block))

    @torch.no_grad()
    def winner_share(self, block: int, most: int | None = 1000) -> Tensor:
        """Return the share (N,) of the places in the first test images that each neuron of a block wins, in percent."""
        respond, neurons = self.pre_activation(block), len(self.network[block].weight)
        wins = torch.zeros(neurons, dtype=torch.int64)
        for x in self.pixels(most):
            wins += torch.bincount(respond(x).argmax(dim=1).flatten().cpu(), minlength=neurons)
        return 100 * wins / wins.sum()

    @contextmanager
    def logits(self, *, differentiable: bool = True) -> Iterator[Callable[[Tensor], Tensor]]:
        """Give the function from images (B, C, H, W) in [0, 1] to logits (B, classes), with its true gradient.

        A settling network has no such gradient; its logits are there when ``differentiable`` is False.
        """
        if not self.run.config.network.blocks[-1].supervised:
            raise ConfigError(self.run.preset, "has no classifier")
        if differentiable and self.network.energy is not None:
            raise ConfigError(
                self.run.preset, "settles, so its logits have no gradient", hint="--kinds noise needs none"
            )
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)  # only the images need a gradient
        with gradients.whole([self.network]):
            yield lambda x: self.network(self._finish(x)).flatten(1) * self.network.logit_scale

    def features(
        self, blocks: Sequence[int | None], most: int, *, mean: bool = False
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return the outputs (n, D) of blocks by name, and the labels (n,), of the first test images.

        Args:
            blocks: their numbers; None is the input.
            most: number of images.
            mean: take each channel's mean over the map. For settling networks the output is the free-phase state.
        """
        numbers = [None if block is None else self.checked(block, "--blocks") for block in dict.fromkeys(blocks)]
        requests = {i: (i, probes.averaged if mean and i is not None else _flat) for i in numbers}
        values, labels = readout.features(self.network, self.data.test, requests.values(), most)
        layers = {"input" if i is None else f"b{i}": values[request].numpy() for i, request in requests.items()}
        return layers, labels.numpy()

    def prototypes(self, kind: Prototype, pair: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the prototypes (C, H, W) of two classes."""
        classes = self.run.config.classes
        for label in pair:
            if not 0 <= label < classes:
                raise ConfigError("--classes", f"must be labels from 0 to {classes - 1}, got {label}")
        if pair[0] == pair[1]:
            raise ConfigError("--classes", f"must be two different labels, got {pair[0]} twice")
        prototypes = self._prototypes(kind, classes).to(torch.float32).to(self.data.train.labels.device)
        for label in pair:
            if not bool(prototypes[label].isfinite().all()):
                absent = "training image" if kind == Prototype.MEAN else "neuron"
                raise ConfigError("--classes", f"class {label} has no {absent}")
        return prototypes[pair[0]], prototypes[pair[1]]

    def _prototypes(self, kind: Prototype, classes: int) -> Tensor:
        """Return the prototypes (classes, C, H, W) of all classes."""
        if kind == Prototype.MEAN:
            return interpolate.means(self._of_pixels(self.data.train).batches(BATCH), classes)
        block = self.network[0]
        if block.hebb is None or block.weight.dim() != 2:
            problem = "neurons needs a first block that is fully connected and Hebbian"
            raise ConfigError("--prototypes", problem, hint="mean works for every network")
        labels = readout.neuron_classes(self.network, 0, self.data.train)
        return interpolate.of_neurons(block.weight, labels, block.shapes.into, classes)


def _first(split: Split, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of the first images of a split, with their labels."""
    for x, labels in split.batches(BATCH):
        yield x[:most], labels[:most]
        most -= len(x)
        if most <= 0:
            return


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1)
