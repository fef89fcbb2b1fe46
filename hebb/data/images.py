"""A dataset ready to train on, split by ``DataSpec``: uint8 images on the device, or streamed from disk.

Shapes: N images, n images of a batch or piece, B batch, C channels, H height, W width, F frames.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hebb.config.data_spec import DataSpec
from hebb.config.registry import DATASETS, Dataset
from hebb.config.vocabulary import Part
from hebb.core import machine, seeds
from hebb.core.errors import ConfigError
from hebb.data import augmentation, contents, decode, own, sources, stream, verify, whitening
from hebb.data.augmentation import Augment
from hebb.data.contents import Contents
from hebb.data.stores import Files, Store, resize
from hebb.data.stream import Stream
from hebb.data.views import RandomView, zoomed

RESIDENT = 4 << 30
"""Bytes up to which the image files of a split are decoded once and kept; beyond, they are streamed."""
_PIECE = 1000
_SHARE = 0.5
"""Fraction of a GPU's free memory that one split may take; a larger one stays on the host."""

Finish = Callable[[Tensor], Tensor]
"""The last step of a batch: images (B, C, H, W) in [0, 1] -> what the network receives."""


@dataclass(frozen=True)
class Split:
    """Images and labels of one split.

    Attributes:
        images: uint8 (N, C, H, W), or float images (whitened) or features (N, ...), or a stream. They lie on the
            device, or in host memory where the device has too little.
        labels: int64 (N,) on the device; -1 where there is none.
        augment: varies the images of a training epoch.
        mirrored: whether ``images`` holds features (2 N, ...): of the images, and then of their mirror images. A
            training epoch reads one of both for each image, an evaluation those of the images.
        finish: normalises or whitens a batch.
        view: makes one view of each image, for batches of several views.
        zoom: factor by which images that are not varied are enlarged, before they are cut to their centre.
        frames: int64 (F,) places of images in time order, on the device: the split is their F - 1 pairs of
            neighbours, the two views of a sample; None where each image is a sample.
        stacked: features of all members of a pack (S N, ...), one after the other, of which ``images`` are a part; None
            where each has a memory of its own.
    """

    images: Tensor | Stream
    labels: Tensor
    augment: Augment | None = None
    finish: Finish | None = None
    view: Augment | None = None
    zoom: float = 1.0
    frames: Tensor | None = None
    stacked: Tensor | None = None
    mirrored: bool = False

    def __len__(self) -> int:
        return len(self.labels) if self.frames is None else len(self.frames) - 1

    @property
    def streamed(self) -> bool:
        """Whether the images are decoded whenever they are read."""
        return isinstance(self.images, Stream)

    @property
    def gathers(self) -> bool:
        """Whether ``take`` returns a training batch: the images are in memory and are not varied."""
        plain = self.augment is None and self.zoom == 1 and self.frames is None and not self.mirrored
        return isinstance(self.images, Tensor) and plain

    @property
    def versions(self) -> int:
        """How many versions of an image its training epochs may read; 0 where they are new in each epoch."""
        if self.augment is None:
            return 1
        # ``prepared`` enlarges only images that are not varied: what is kept would be enlarged, and a batch is not
        return 2 if self.augment is augmentation.mirrored and self.zoom == 1 else 0

    def take(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return x and labels of the images at ``places`` (n,), a tensor on their device."""
        assert isinstance(self.images, Tensor)
        device = self.labels.device
        x = as_float(machine.upload(gather(self.images, places), device))
        return x if self.finish is None else self.finish(x), self.labels[machine.upload(places, device)]

    def batches(
        self,
        batch_size: int,
        generator: torch.Generator | None = None,
        varied: torch.Generator | None = None,
        views: int = 1,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, labels) in the order of ``generator``, or as stored; the last batch may be smaller.

        x is float in [0, 1], then normalised or whitened where the split says so; features pass unchanged.
        ``varied``, a generator on the device, augments the images and draws the views. With several views x is
        (views x B, C, H, W), one view after the other, and so are the labels. The views of a sequence are its frames:
        a batch holds neighbouring pairs, and the batches come in random order.
        """
        if self.frames is not None:
            stored_batches = self._pairs(batch_size, self.frames, generator)
        else:
            order = None if generator is None else torch.randperm(len(self), generator=generator)
            stored_batches = self._stored(batch_size, order, varied)
        for stored, labels in stored_batches:
            yield self.prepared(stored, labels, varied, views)

    def prepared(
        self, stored: Tensor, labels: Tensor, varied: torch.Generator | None = None, views: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Return a batch of stored images and labels as ``batches`` yields it."""
        x = as_float(stored)
        if views > 1 and self.frames is None:
            assert self.view is not None
            assert varied is not None
            x, labels = torch.cat([self.view(x, varied) for _ in range(views)]), labels.repeat(views)
        elif varied is not None and self.augment is not None:
            x = self.augment(x, varied)
        elif self.zoom > 1:
            x = zoomed(x, self.zoom)
        return x if self.finish is None else self.finish(x), labels

    def _pairs(
        self, batch_size: int, frames: Tensor, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the frames of neighbouring pairs, the earlier ones first, and their labels."""
        assert isinstance(self.images, Tensor)
        starts = range(0, len(self), batch_size)
        order = range(len(starts)) if generator is None else torch.randperm(len(starts), generator=generator).tolist()
        for i in order:
            places = frames[starts[i] : starts[i] + batch_size + 1]
            both = torch.cat([places[:-1], places[1:]])
            images = gather(self.images, both.to(self.images.device))
            yield machine.upload(images, self.labels.device), self.labels[both]

    def drawn(self, order: Tensor, batch_size: int, varied: torch.Generator | None) -> Tensor:
        """Return where the images in this ``order`` (n,) lie: as they are, or mirrored.

        ``varied`` draws as ``augmentation.mirrored`` does for each batch. All are drawn at once, so that the host waits
        for the device no more than once.
        """
        if varied is None or not self.mirrored:
            return order
        chosen = [augmentation.mirrors(len(part), varied, self.labels.device) for part in order.split(batch_size)]
        return order + len(self) * torch.cat(chosen).to(order.device)

    def _stored(
        self, batch_size: int, order: Tensor | None, varied: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of stored images and their labels, on the device."""
        device = self.labels.device
        labels = self.labels if order is None else self.labels[machine.upload(order, device)]
        if isinstance(self.images, Stream):
            batches = self.images.read(batch_size, order)
            for batch, batch_labels in zip(batches, labels.split(batch_size), strict=True):
                yield machine.upload(batch, device), batch_labels
            return
        place = None
        if order is not None:
            place = self.drawn(machine.upload(order, self.images.device), batch_size, varied)
        for start in range(0, len(self), batch_size):
            stop = min(start + batch_size, len(self))
            images = self.images[start:stop] if place is None else gather(self.images, place[start:stop])
            # images that lie on the host: while the device computes, the host gathers the next batch
            yield machine.upload(images, device), labels[start:stop]


def gather(images: Tensor, places: Tensor) -> Tensor:
    """Return the images at ``places``; maps keep channels-last memory."""
    if images.dim() != 4 or images.is_contiguous():
        return images.index_select(0, places)
    return images.permute(0, 2, 3, 1).index_select(0, places).permute(0, 3, 1, 2)


def as_float(images: Tensor) -> Tensor:
    """Return pixels in [0, 1]; float images and features keep their values."""
    return images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images.to(torch.float32)


@dataclass(frozen=True)
class Images:
    """The splits of one dataset.

    Attributes:
        train: split that trains.
        val: images held out of ``train``; None without validation.
        read_test: reads the test split.
        sha256: digest of all data before subset and validation split; for image files, of names and sizes.
        contents: of image files, what else tells whether they are the same.
    """

    train: Split
    val: Split | None
    read_test: Callable[[], Split]
    sha256: str
    contents: Contents | None = None

    @property
    def key(self) -> str:
        """Return the digest under which what is computed from the data is kept."""
        return self.sha256 if self.contents is None else f"{self.sha256}/{self.contents.key}"

    @functools.cached_property
    def test(self) -> Split:
        """The test split, read at first use; the test split of unlabelled data is never read."""
        return self.read_test()

    @property
    def scored(self) -> Split | None:
        """The test split where it has images; arrays in memory may come without."""
        return self.test if len(self.test) else None


def load(
    spec: DataSpec,
    folder: Path,
    split_seed: int,
    device: torch.device,
    cache: Path | None = None,
    *,
    resident: int = RESIDENT,
) -> Images:
    """Read a dataset and split it.

    The training images are shuffled by ``split_seed``; subset, class filter and validation take images by their
    place in that order, so that no image is validation for one configuration and training for another.

    Args:
        spec: what to load.
        folder: folder of the datasets.
        split_seed: varies the split and nothing else.
        device: where the images are used.
        cache: folder in which fitted whitenings are kept; None keeps none.
        resident: bytes of a split of image files above which it is streamed.
    """
    where = f"dataset '{spec.dataset}'"
    own.look_again()
    entry = DATASETS.get(spec.dataset, where)
    shape = entry.shape(spec.size, where)
    augment = _augment(spec, entry, where)
    pool, test = (_store(spec, entry, folder, part, shape) for part in (spec.split, Part.TEST))
    digests = [_digest(pool), _digest(test)]
    content = _contents(pool, test)
    trained, held = _choose(spec, pool.labels, split_seed)
    tested = _of_classes(torch.arange(len(test.labels)), test.labels, spec)
    if not len(trained):
        raise ConfigError(where, "classes, samples and validation leave no training image")
    if entry.test and not len(tested):
        raise ConfigError(where, "classes leave no test image")
    if spec.mirror_test and isinstance(test, Files) and len(tested) * prod(shape) > resident:
        raise ConfigError(where, "mirror_test needs test images that fit in memory", hint="leave it out")

    def take(store: Store, index: Tensor) -> Split:
        images = _kept(store, index, device, resident)
        if isinstance(images, Stream):
            verify.files(images.files, cache)
        return Split(images, store.labels[index].to(device))

    def key() -> str:
        parts = [(digests[0], trained), *([(digests[1], tested)] if spec.zca_test else [])]
        return "/".join(_key(digest, content, places, shape) for digest, places in parts)

    train = take(pool, trained)
    whitened = [lambda: train, *([lambda: take(test, tested)] if spec.zca_test else [])]
    finish = _finish(spec, entry, pool, whitened, key, device, cache)

    def finished(split: Split, augment: Augment | None = None) -> Split:
        return replace(_finished(split, finish, augment), zoom=spec.zoom)

    return Images(
        train=replace(finished(train, augment), view=RandomView.of(spec), frames=_frames(spec, pool, device)),
        val=finished(take(pool, held)) if len(held) else None,
        read_test=lambda: finished(_mirrored(spec, take(test, tested), tested, len(test.labels), split_seed)),
        sha256=hashlib.sha256("".join(digests).encode()).hexdigest(),
        contents=content,
    )


def unseen(
    images: Tensor, spec: DataSpec, folder: Path, split_seed: int, device: torch.device, cache: Path | None = None
) -> Split:
    """Return images that are in no dataset as ``load`` returns test images: resized, then normalised or whitened.

    Args:
        images: uint8 or float32 (N, C, H, W) on the CPU.
        spec: as in ``load``; the training images are read only where it normalises by their statistics or whitens.
        folder: as in ``load``.
        split_seed: as in ``load``.
        device: as in ``load``.
        cache: as in ``load``.
    """
    where = f"dataset '{spec.dataset}'"
    entry = DATASETS.get(spec.dataset, where)
    shape = entry.shape(spec.size, where)
    split = Split(resize(images, shape).to(device), torch.full((len(images),), -1, device=device))
    finish = None
    if spec.zca or spec.standardise or spec.deviations or entry.mean:
        pool = _store(spec, entry, folder, spec.split, shape)
        trained, _ = _choose(spec, pool.labels, split_seed)
        stores = [(pool, trained)]
        if spec.zca_test:
            test = _store(spec, entry, folder, Part.TEST, shape)
            stores.append((test, _of_classes(torch.arange(len(test.labels)), test.labels, spec)))

        def key() -> str:
            more = [_store(spec, entry, folder, Part.TEST, shape)] if isinstance(pool, Files) else []
            content = _contents(pool, *more)
            return "/".join(_key(_digest(store), content, places, shape) for store, places in stores)

        whitened = [
            lambda store=store, places=places: Split(_kept(store, places, device, RESIDENT), store.labels[places])
            for store, places in stores
        ]
        finish = _finish(spec, entry, pool, whitened, key, device, cache)
    return replace(_finished(split, finish), zoom=spec.zoom)


def _contents(*stores: Store) -> Contents | None:
    """Return the digests of the image files among some stores; None where there are none."""
    files = [store.listing for store in stores if isinstance(store, Files)]
    return contents.of(files) if files else None


def _key(digest: str, content: Contents | None, trained: Tensor, shape: tuple[int, int, int]) -> str:
    """Name the training images by their origin and their places there, which saves a second pass over the pixels."""
    origin = digest if content is None else f"{digest}/{content.key}"
    return f"{origin}/{hashlib.sha256(trained.numpy().data).hexdigest()}/{shape}"


def _finish(
    spec: DataSpec,
    entry: Dataset,
    pool: Store,
    whitened: Sequence[Callable[[], Split]],
    key: Callable[[], str],
    device: torch.device,
    cache: Path | None,
) -> Finish | None:
    """Return the last step of every batch.

    ``whitened`` are the images that a whitening is fitted on, and ``key`` names them where it is cached.
    """
    where = f"dataset '{spec.dataset}'"
    if not spec.zca:
        return _normalise(spec, entry, pool, device, where)
    train = whitened[0]()
    if isinstance(train.images, Tensor) and train.images.dtype != torch.uint8:
        raise ConfigError(where, "zca needs uint8 images, got floats", hint="whiten them yourself, or leave zca out")
    name = key() + (f"/{decode.VERSION}" if isinstance(pool, Files) else "")
    kind = whitening.Kind(spec.zca_smoothing, spec.zca_pixels)
    return whitening.fitted(
        lambda: (piece for part in whitened for piece in _raw(part())), pool.shape, kind, name, cache, where
    ).to(device)


def _store(spec: DataSpec, entry: Dataset, folder: Path, split: str, shape: tuple[int, int, int]) -> Store:
    """Return the images of a part; a size that is asked for resizes all of them."""
    store = sources.store(entry, folder, split, shape)
    return replace(store, native=None) if spec.size is not None and isinstance(store, Files) else store


def _choose(spec: DataSpec, labels: Tensor, split_seed: int) -> tuple[Tensor, Tensor]:
    """Return the places of training and validation images, each sorted; sequences train on all images."""
    if spec.split == Part.SEQUENCES:
        return torch.arange(len(labels)), torch.arange(0)
    order = torch.randperm(len(labels), generator=seeds.generator(split_seed, "split"))
    held = _held_out(len(order), spec.validation)
    kept = _of_classes(torch.arange(len(order)), labels[order], spec)[: spec.samples]
    order, held = order[kept], held[kept]
    if spec.held:
        return order[held].sort().values, order[:0]
    # as stored: the training order is drawn anew each epoch
    return order[~held].sort().values, order[held].sort().values


def _of_classes(index: Tensor, labels: Tensor, spec: DataSpec) -> Tensor:
    """Keep the places whose label is one of the classes of ``spec``."""
    return index if spec.classes is None else index[torch.isin(labels, torch.tensor(spec.classes))]


def _held_out(count: int, share: float) -> Tensor:
    """Mark place i when floor((i+1) share) > floor(i share): every prefix of the order holds out the same share."""
    steps = np.floor(np.arange(count + 1) * share + 1e-9)
    return torch.from_numpy(np.diff(steps) > 0)


def _mirrored(spec: DataSpec, split: Split, places: Tensor, count: int, split_seed: int) -> Split:
    """Mirror some of the test images at ``places`` among ``count``, each or not whatever the other places are."""
    if not spec.mirror_test:
        return split
    assert isinstance(split.images, Tensor)
    chosen = torch.rand(count, generator=seeds.generator(split_seed, "mirrored test images"))[places] < 0.5
    mask = chosen.to(split.images.device).view(-1, 1, 1, 1)
    return replace(split, images=torch.where(mask, split.images.flip(-1), split.images))


def _augment(spec: DataSpec, entry: Dataset, where: str) -> Augment | None:
    if spec.augmentation:
        return augmentation.make(entry.augmentation, spec.noise_std, entry.shape(spec.size, where), where)
    if spec.noise_std:
        raise ConfigError(where, "noise_std needs augmentation", hint="set augmentation, or leave noise_std out")
    return augmentation.mirrored if spec.mirror else None


def _normalise(spec: DataSpec, entry: Dataset, pool: Store, device: torch.device, where: str) -> Finish | None:
    """Return (x - mean)/std for each channel, with the statistics that entry or spec ask for; None for none."""
    if spec.deviations:
        assert entry.statistics is not None
        stated = entry.statistics[0], tuple(spec.deviations * s for s in entry.statistics[1])
    elif entry.mean or spec.standardise:
        stated = (entry.mean, entry.std) if entry.mean else entry.standard or _moments(pool, where)
    else:
        return None
    mean, std = (torch.tensor(v, device=device).view(-1, 1, 1) for v in stated)
    return lambda x: (x - mean) / std


def _moments(pool: Store, where: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of each channel over all images of a split, in units of the pixel range."""
    if isinstance(pool, Files):
        raise ConfigError(where, "standardise needs a published mean or images in one file", hint="leave it out")
    total = square = torch.zeros(pool.shape[0], dtype=torch.float64)
    for piece in torch.arange(len(pool.labels)).split(_PIECE):
        pixels = pool.read(piece)
        levels = pixels.double() if pixels.dtype == torch.uint8 else pixels.double() * 255
        values = levels.movedim(1, 0).flatten(1)  # (C, n H W)
        total, square = total + values.sum(dim=1), square + values.square().sum(dim=1)
    count = len(pool.labels) * prod(pool.shape[1:])
    std = (square / count - (total / count) ** 2).sqrt()
    return tuple((total / count / 255).tolist()), tuple((torch.where(std > 0, std, 255.0) / 255).tolist())


def _frames(spec: DataSpec, pool: Store, device: torch.device) -> Tensor | None:
    """Return the places of the training frames; the held-out share is the end of the sequence."""
    frames = getattr(pool, "frames", None)
    return None if frames is None else frames[: spec.train_samples() + 1].to(device)


def _kept(store: Store, index: Tensor, device: torch.device, limit: int) -> Tensor | Stream:
    """Read the images at ``index`` onto the device; stream them if they are files of more than ``limit`` bytes."""
    if isinstance(store, Files) and len(index) * prod(store.shape) > limit:
        return Stream(store.subset(index), stream.workers(), pin=device.type == "cuda")
    images = store.read(index)
    return images.to(_place(images.nbytes, device))


def _place(size: int, device: torch.device) -> torch.device:
    """Return where a split of ``size`` bytes lies: on the device, or on the host where the device has no room."""
    full = device.type in ("cuda", "xpu") and size > _SHARE * machine.free_memory(device)
    return torch.device("cpu") if full else device


def _raw(split: Split) -> Iterator[Tensor]:
    """Yield the stored images (n, C, H, W) in pieces."""
    images = split.images
    return images.read(_PIECE) if isinstance(images, Stream) else iter(images.split(_PIECE))


def _finished(split: Split, finish: Finish | None, augment: Augment | None = None) -> Split:
    """Add the last steps; resident images that are not augmented are whitened here, once for all epochs."""
    if not isinstance(finish, whitening.Whitening) or augment is not None or isinstance(split.images, Stream):
        return Split(split.images, split.labels, augment, finish)
    device = split.labels.device
    size = split.images.numel() * torch.float32.itemsize
    whitened = torch.empty(split.images.shape, device=_place(size, device))
    for start, piece in enumerate(split.images.split(_PIECE)):
        whitened[start * _PIECE : (start + 1) * _PIECE] = finish(as_float(machine.upload(piece, device)))
    return Split(whitened, split.labels)


def _digest(store: Store) -> str:
    digest = hashlib.sha256()
    store.update(digest)
    return digest.hexdigest()
