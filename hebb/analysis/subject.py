"""A stored network and its data, as the analyses want them: images with pixels in [0, 1] go in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from hebb.analysis import gradients, interpolate
from hebb.analysis.runs import StoredRun
from hebb.core.errors import ConfigError
from hebb.data import images
from hebb.data.images import Images, Split
from hebb.energy.diagnostics import hidden_states
from hebb.nn import model
from hebb.nn.blocks import Block
from hebb.nn.model import Network
from hebb.probing import probes, readout
from hebb.storage import folders
from hebb.training import evaluate
from hebb.training.engine import BATCH


def load(run: StoredRun, home: folders.Home) -> Subject:
    """Load the network of a finished run; the data it was trained on are read when they are first asked for.

    Raises:
        ConfigError: when the run kept no model.
    """
    path = run.folder / folders.CHECKPOINT
    if not path.exists():
        raise ConfigError(str(run.folder), "kept no model", hint="train it with --save-model")
    return Subject(run, evaluate.restore(run.config, path), home)


@dataclass(frozen=True)
class Subject:
    """A network in evaluation mode and its data.

    Attributes:
        run: the run that trained it.
        network: the network.
        home: where datasets and caches lie.
    """

    run: StoredRun
    network: Network
    home: folders.Home

    @cached_property
    def data(self) -> Images:
        """The labelled dataset."""
        config = self.run.config
        device = model.device_of(config)
        return images.load(config.dataset_sup, self.home.datasets, config.split_seed, device, self.home.cache)

    @property
    def name(self) -> str:
        """Name of the network, or of the run where the network is written out, and the seed, for titles."""
        name = self.run.preset if len(self.run.preset) <= 40 else self.run.folder.name
        return f"{name}, seed {self.run.seed}"

    @property
    def blocks(self) -> list[Block]:
        """The blocks of the network."""
        return [self.network[i] for i in range(len(self.network))]

    def checked(self, block: int) -> int:
        """Return the number of a block that the network has."""
        if block >= len(self.network):
            legal = [f"b{i}" for i in range(len(self.network))]
            raise ConfigError("--block", f"the network has no b{block}", given=f"b{block}", choices=legal)
        return block

    def _of_pixels(self, split: Split) -> Split:
        """Return the split as images in [0, 1], before they are normalised."""
        if self.run.config.dataset_sup.zca:
            raise ConfigError(self.run.folder.name, "reads whitened pixels, of which no image in [0, 1] can be made")
        return replace(split, finish=None)

    def _finish(self, x: Tensor) -> Tensor:
        finish = self.data.test.finish
        return x if finish is None else finish(x)

    def count(self, most: int | None) -> int:
        """Return the number of test images that are looked at."""
        return len(self.data.test) if most is None else min(most, len(self.data.test))

    def labelled(self, most: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the first test images, in [0, 1], and their labels, in batches."""
        return _first(self._of_pixels(self.data.test), self.count(most))

    def pixels(self, most: int | None) -> Iterator[Tensor]:
        """Yield the first test images, in [0, 1], in batches."""
        return (x for x, _ in self.labelled(most))

    def images(self, places: Collection[int]) -> dict[int, Tensor]:
        """Return test images (C, H, W), in [0, 1], by their place."""
        found: dict[int, Tensor] = {}
        seen = 0
        for x in self.pixels(max(places) + 1):
            found |= {place: x[place - seen].cpu() for place in places if seen <= place < seen + len(x)}
            seen += len(x)
        return found

    def pre_activation(self, block: int) -> Callable[[Tensor], Tensor]:
        """Return the function from images in [0, 1] to the pre-activation of a block."""
        return lambda x: self.network[block].pre_activation(self.network(self._finish(x), stop=block))

    @contextmanager
    def attackable(self, wanted: bool) -> Iterator[Callable[[Tensor], Tensor]]:
        """Give the function from images in [0, 1] to logits (B, classes), with its true gradient where it is wanted."""
        if not self.run.config.network.blocks[-1].supervised:
            raise ConfigError(self.run.preset, "has no classifier")
        if wanted and self.network.energy is not None:
            raise ConfigError(
                self.run.preset, "settles, and gives no gradient of its answer", hint="--kinds noise measures it"
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
            mean: take a channel's mean over the map. Of a network that settles it is the free state.
        """
        pool = probes.averaged if mean else _flat
        found: dict[str, np.ndarray] = {}
        for block in dict.fromkeys(blocks):
            if block is None:
                found["input"] = torch.cat([_flat(x).cpu() for x, _ in _first(self.data.test, most)]).numpy()
            elif self.network.energy is not None:
                states, _ = hidden_states(self.network.energy, self.data.test.batches(BATCH), self.checked(block), most)
                found[f"b{block}"] = states.numpy()
            else:
                wanted = [(self.checked(block), pool)]
                read, _ = readout.features(self.network, self.data.test, wanted, most)
                found[f"b{block}"] = read[wanted[0]].numpy()
        labels = torch.cat([known.cpu() for _, known in _first(self.data.test, most)])
        return found, labels.numpy()

    def prototypes(self, kind: str, pair: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the prototypes (C, H, W) of two classes: ``mean`` of the training images, or ``neurons`` (weights)."""
        classes = self.run.config.classes
        for label in pair:
            if not 0 <= label < classes:
                raise ConfigError("--classes", f"there is no class {label}", hint=f"labels run from 0 to {classes - 1}")
        if pair[0] == pair[1]:
            raise ConfigError("--classes", f"two different ones are wanted, not {pair[0]} twice")
        found = self._prototypes(kind, classes).to(torch.float32).to(self.data.train.labels.device)
        for label in pair:
            if not bool(found[label].isfinite().all()):
                raise ConfigError("--classes", f"class {label} has no {'image' if kind == 'mean' else 'neuron'}")
        return found[pair[0]], found[pair[1]]

    def _prototypes(self, kind: str, classes: int) -> Tensor:
        if kind == "mean":
            return interpolate.means(self._of_pixels(self.data.train).batches(BATCH), classes)
        if kind != "neurons":
            raise ConfigError("--prototypes", f"unknown '{kind}'", given=kind, choices=("mean", "neurons"))
        block = self.network[0]
        if block.hebb is None or block.weight.dim() != 2:
            raise ConfigError("--prototypes", "neurons wants a fully connected Hebbian first block", hint="take mean")
        labels = readout.neuron_classes(self.network, 0, self.data.train)
        return interpolate.of_neurons(block.weight, labels, block.shapes.into, classes)


def _first(split: Split, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the first images of a split and their labels, in batches."""
    for x, labels in split.batches(BATCH):
        yield x[:most], labels[:most]
        most -= len(x)
        if most <= 0:
            return


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1)
