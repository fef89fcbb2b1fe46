"""One epoch of each kind, and evaluation. Epochs of settling networks are in ``settling.py``.

Sums stay on the device and are read at the end of an epoch. Within an epoch only the checks for finite numbers, once
in ``CHECK_EVERY`` updates, wait for the device.

Shapes: B images in a batch, S seeds in a pack, K classes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hebb.config.phase import Phase, PhaseKind
from hebb.core.errors import DivergenceError
from hebb.data.images import Split
from hebb.kernels.precision import Total
from hebb.nn import losses
from hebb.nn.hebb_layer import HebbLayer
from hebb.nn.model import Network
from hebb.probing.readout import BATCH
from hebb.rules import rates
from hebb.training import readout_epoch, settling
from hebb.training.curves import Curves
from hebb.training.early_stop import Watch
from hebb.training.epoch import Epoch, Progress, Scores
from hebb.training.graphs import Counter, Graphs, Learn, Rates

CHECK_EVERY = 500
"""Updates between two checks that all numbers are finite; each check waits for the device."""


def run_epoch(
    network: Network,
    split: Split,
    at: Epoch,
    optimiser: torch.optim.Optimizer | None,
    progress: Progress,
    watch: Watch | None = None,
    curves: Curves | None = None,
    graphs: Graphs | None = None,
) -> Scores:
    """Run one epoch of the phase: train or calibrate the network, depending on the kind of phase."""
    kind = at.phase.kind
    if kind == PhaseKind.CALIBRATE:
        return calibrate(network, split, at, progress)
    if kind == PhaseKind.SETTLE:
        return settling.settle(network, split, at, optimiser, progress, graphs)
    if kind == PhaseKind.HEBBIAN:
        return hebbian(network, split, at, progress, optimiser, watch, curves, graphs)
    assert optimiser is not None
    return backprop(network, split, at, optimiser, progress, curves, graphs)


def hebbian(
    network: Network,
    split: Split,
    at: Epoch,
    progress: Progress,
    optimiser: torch.optim.Optimizer | None = None,
    watch: Watch | None = None,
    curves: Curves | None = None,
    graphs: Graphs | None = None,
) -> Scores:
    """Train the Hebbian blocks and the blocks with a local loss for one epoch.

    Each block learns from the output that the block below computed before its own update on this batch. ``split``
    holds the inputs of the lowest block of the phase. Blocks in between that are not part of the phase stay in
    evaluation mode. ``optimiser`` updates the blocks with a local loss; the loss of the epoch is the sum over these
    blocks of their mean loss. ``watch`` measures the weights after each update, and ``curves`` after a few.
    ``graphs`` replays the updates if there are any.
    """
    phase = at.phase
    update = at.epoch * phase.updates_per_epoch(len(split))

    def learn(x: Tensor, labels: Tensor, number: int | Rates) -> None:
        if optimiser is not None:
            optimiser.zero_grad(set_to_none=True)
        hebbian_step(network, x, labels, phase, number)
        if optimiser is not None:
            optimiser.step()
        if watch is not None:
            watch.update()

    with torch.no_grad():
        _follow(network, at, _updates(split, at, learn, update, curves, graphs), update, progress, curves)
    return Scores(loss=_local_loss(network, phase))


def _follow(
    network: Network,
    at: Epoch,
    updates: Iterator[tuple[int, int]],
    update: int,
    progress: Progress,
    curves: Curves | None,
    total: Sums | None = None,
) -> None:
    """Let an epoch make its updates, and measure, check and report what they do.

    Args:
        network: the network.
        at: the epoch.
        updates: makes them as it is read; yields how many were made and the images of each.
        update: number of the epoch's first update in the phase.
        progress: called after every update, or after several that are made together.
        curves: measures the network after a few.
        total: sums of the epoch, of a phase with a classifier.
    """

    def check() -> None:
        check_updates(network, at.phase, at.epoch)
        if total is not None:
            total.check(at.phase, at.epoch)

    with training(network, at):
        if curves is not None:
            curves.begin()
        for count, images in updates:
            if curves is not None:
                curves.update(total, count)
            update += count
            if update % CHECK_EVERY == 0:
                check()
            progress(count * images)
        check()


def _batches(split: Split, at: Epoch) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of an epoch: (views x B) images and their labels, one view after the other."""
    phase, varied = at.phase, at.augmentation(split.labels.device)
    return split.batches(phase.batch_size, at.order(), varied, views=phase.views)


def _updates(
    split: Split,
    at: Epoch,
    learn: Learn,
    first: int,
    curves: Curves | None,
    graphs: Graphs | None,
    counters: Sequence[Counter] = (),
) -> Iterator[tuple[int, int]]:
    """Make the updates of an epoch; yield how many were made and the images of each, as soon as they are made.

    Args:
        split: images.
        at: the epoch.
        learn: makes an update of a batch with a number.
        first: number of the epoch's first update in the phase.
        curves: says after which updates a point is due.
        graphs: replays what it has recorded; None makes them one by one.
        counters: whole numbers that ``learn`` moves on.
    """
    if graphs is None:
        for number, (x, labels) in enumerate(_batches(split, at), first):
            learn(x, labels, number)
            yield 1, len(labels) // at.phase.views
        return
    looks = _looks(split, at, first, curves)
    yield from graphs.epoch(at, learn, graphs.numbers(first), looks, counters=counters)


def _looks(split: Split, at: Epoch, first: int, curves: Curves | None) -> set[int]:
    """Return after which updates of an epoch, from 1, the network is checked or measured."""
    count = at.phase.updates_per_epoch(len(split))
    checks = range(CHECK_EVERY - first % CHECK_EVERY, count, CHECK_EVERY)
    return {*checks, *(() if curves is None else curves.due)}


def hebbian_step(network: Network, x: Tensor, labels: Tensor, phase: Phase, update: int | Rates) -> Tensor:
    """Make update number ``update`` of the phase; ignore the result."""
    for i in range(phase.first, phase.top + 1):
        x = _step_block(network, i, x, labels, phase, update, last=i == phase.top)
    return x


def backprop_step(network: Network, x: Tensor, labels: Tensor, phase: Phase, update: int | Rates) -> Tensor:
    """Return the logits (B, K) of a batch with their graph; in a joint phase, also make the Hebbian updates."""
    lowest = next(i for i in phase.blocks if not network[i].spec.hebbian)
    with torch.no_grad():
        for i in range(phase.first, lowest):
            x = _step_block(network, i, x, labels, phase, update)
    for i in range(lowest, len(network)):
        x = _step_block(network, i, x, labels, phase, update)
    return x.flatten(1)


def _step_block(
    network: Network, i: int, x: Tensor, labels: Tensor, phase: Phase, update: int | Rates, *, last: bool = False
) -> Tensor:
    """Run block i, which learns if it is a local block of the phase. The output of the ``last`` block is not used."""
    block = network[i]
    if i in phase.blocks and block.local is not None:
        return block.descend(x, labels)
    if i not in phase.blocks or block.hebb is None:
        out: Tensor = block(x)
        return out
    rate: Tensor | float | None = None
    if not block.hebb.spec.adaptive:
        if isinstance(update, int):
            rate = rates.scheduled(block.hebb.spec, update, phase.schedule, phase.epochs)
        else:
            rate = update.of(i)
    return block.learn(x, rate, labels, last=last)


def backprop(
    network: Network,
    split: Split,
    at: Epoch,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
    curves: Curves | None = None,
    graphs: Graphs | None = None,
) -> Scores:
    """Train the BP blocks of the phase by back-prop for one epoch; all other blocks are frozen.

    ``split`` holds the inputs of the lowest block of the phase. A joint phase also trains its Hebbian blocks, on the
    same batches. ``curves`` measures the network after a few updates. ``graphs`` replays the updates if there are any.
    """
    phase = at.phase
    total = _sums(split.labels.device, graphs)
    update = at.epoch * phase.updates_per_epoch(len(split))
    homes = _homes(network, phase) if graphs is not None else []

    def learn(x: Tensor, labels: Tensor, number: int | Rates) -> None:
        optimiser.zero_grad(set_to_none=True)
        logits = backprop_step(network, x, labels, phase, number)
        loss = losses.loss(network.loss, logits, labels)
        loss.backward()
        optimiser.step()
        total.add(loss.detach(), logits.detach(), labels)
        for layer, weight in homes:
            layer.weight = weight.copy_(layer.weight)

    if readout_epoch.applies(network, split, phase, optimiser):
        updates = _readout_updates(network, split, at, optimiser, _looks(split, at, update, curves), total)
    else:
        updates = _updates(split, at, learn, update, curves, graphs, total.counters)
    _follow(network, at, updates, update, progress, curves, total)
    return total.scores()


def _homes(network: Network, phase: Phase) -> list[tuple[HebbLayer, Tensor]]:
    """Return the Hebbian layers of a joint phase, whose updates make new weights, and where graphs expect these."""
    return [(layer, layer.weight) for i, layer in network.hebbian() if i in phase.blocks]


def _readout_updates(
    network: Network, split: Split, at: Epoch, optimiser: torch.optim.Optimizer, looks: Iterable[int], total: Sums
) -> Iterator[tuple[int, int]]:
    """Make the updates of a linear classifier whose epoch has loops of its own, as ``_updates`` makes others."""
    order = torch.randperm(len(split), generator=at.order())
    readout = readout_epoch.Readout(network, split, at.phase.batch_size, optimiser)
    places = split.drawn(order, at.phase.batch_size, at.augmentation(split.labels.device))
    for batches in readout.epoch(places, split.labels[order], looks):
        for batch in batches:
            total.add_sums(batch.loss, batch.hits, batch.images)
        yield len(batches), batches[-1].images


def post_hoc(
    network: Network, split: Split, at: Epoch, optimiser: torch.optim.Optimizer | None, progress: Progress
) -> tuple[Tensor, Tensor]:
    """Train the lower blocks for one epoch while a frozen classifier measures their loss.

    Args:
        network: lower blocks with their initial weights, below a classifier that has been trained.
        split: labelled images.
        at: the epoch; its phase names the blocks that learn.
        optimiser: updates BP blocks; None when the blocks are Hebbian.
        progress: called after every batch.

    Returns:
        Mean cross-entropy and accuracy (0 to 1) of every batch before its update, on the CPU.
    """
    phase = at.phase
    batch_losses, rights = [], []
    update = at.epoch * phase.updates_per_epoch(len(split))
    with training(network, at), torch.set_grad_enabled(optimiser is not None):
        for x, labels in _batches(split, at):
            for i in range(len(network)):
                x = _step_block(network, i, x, labels, phase, update)
            logits = x.flatten(1)
            loss = F.cross_entropy(logits * network.logit_scale, labels)
            if optimiser is not None:
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
            batch_losses.append(loss.detach())
            rights.append((logits.detach().argmax(dim=1) == labels).float().mean())
            update += 1
            progress(len(labels))
        check_updates(network, phase, at.epoch)
    return torch.stack(batch_losses).cpu(), torch.stack(rights).cpu()


@torch.no_grad()
def calibrate(network: Network, split: Split, at: Epoch, progress: Progress) -> Scores:
    """Set the batch-norm statistics of frozen blocks to their mean over the batches, in one pass."""
    norms = [
        module
        for i in at.phase.blocks
        for module in network[i].modules()
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    ]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    for count, (x, labels) in enumerate(split.batches(at.phase.batch_size, at.order()), 1):
        for norm in norms:
            norm.momentum = 1 / count  # a cumulative mean; that of torch, None, waits to read its own count
        network(x, start=at.phase.first, stop=at.phase.top + 1)
        progress(len(labels))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
    return Scores()


@torch.no_grad()
def evaluate(network: Network, split: Split, batch_size: int = BATCH, *, start: int = 0) -> Scores:
    """Return mean loss per sample and accuracy in percent; ``split`` holds the inputs of block ``start``."""
    network.eval()
    total = Sums(split.labels.device)
    for x, labels in split.batches(batch_size):
        logits = network(x, start=start).flatten(1) * network.logit_scale
        total.add(losses.loss(network.loss, logits, labels), logits, labels)
    return total.scores()


class Sums:
    """Sums of loss and correct answers of one network or each member of a pack; they wait for nothing."""

    def __init__(self, device: torch.device, *members: int) -> None:
        self._loss = Total(*members, device=device)
        self.hits = torch.zeros(members, dtype=torch.int64, device=device)
        self.finite = torch.zeros(members, dtype=torch.int64, device=device)
        self.samples = self.updates = 0

    @property
    def loss(self) -> Tensor:
        """Sum of the losses of all images, float64."""
        return self._loss.value()

    @property
    def counters(self) -> list[Counter]:
        """What ``add`` counts on the host."""
        return [(self, "samples"), (self, "updates")]

    def reset(self) -> Sums:
        """Start anew, in the same memory."""
        self._loss.zero()
        self.hits.zero_()
        self.finite.zero_()
        self.samples = self.updates = 0
        return self

    def add(self, mean_loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: mean loss (...), logits (..., B, K), labels (..., B), where ... is nothing or S."""
        images = labels.shape[-1]
        self._loss.add(mean_loss, images)
        self.hits += (logits.argmax(dim=-1) == labels).sum(dim=-1)
        self.finite += mean_loss.isfinite()
        self._count(images)

    def add_sums(self, loss: float, hits: int, images: int) -> None:
        """Add a batch of one network on the CPU: the sum of its losses, its right answers, its images."""
        losses, right, finite = self._memory
        losses[()] += loss
        right[()] += hits
        finite[()] += math.isfinite(loss)
        self._count(images)

    def _count(self, images: int) -> None:
        self.samples += images
        self.updates += 1

    @functools.cached_property
    def _memory(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._loss.memory(), self.hits.numpy(), self.finite.numpy()

    def check(self, phase: Phase, epoch: int, member: int | None = None) -> None:
        """Raise when the network, or this member of a pack, had a batch whose loss was not finite."""
        finite = int(self.finite if member is None else self.finite[member])
        if finite < self.updates:
            raise DivergenceError(
                f"the loss of {phase.describe()} is not finite from update {finite + 1} of epoch {epoch + 1}; "
                "a smaller rate (classifier.lr) may help"
            )

    def scores(self) -> Scores:
        """Return the mean loss and the accuracy of one network."""
        return self.each()[0]

    def each(self) -> list[Scores]:
        """Return the mean loss and the accuracy of every member."""
        pairs = zip(self.loss.view(-1).tolist(), self.hits.view(-1).tolist(), strict=True)
        return [Scores(loss / self.samples, 100 * hits / self.samples) for loss, hits in pairs]


def _sums(device: torch.device, graphs: Graphs | None) -> Sums:
    """Return empty sums; graphs write to those of the phase's first epoch."""
    return Sums(device) if graphs is None else graphs.kept(lambda: Sums(device)).reset()


def _local_loss(network: Network, phase: Phase) -> float | None:
    """Return the sum over blocks of their mean local loss; None when no block has one."""
    losses = [local.means()["loss"] for i, local in network.local() if i in phase.blocks and local.updates]
    return sum(losses) if losses else None


def check_updates(network: Network, phase: Phase, epoch: int) -> None:
    """Raise when a Hebbian update or a local loss of this epoch was not finite."""
    for i, local in network.local():
        finite = local.finite_updates()
        if i in phase.blocks and finite < local.updates:
            raise DivergenceError(
                f"the loss of block b{i} is not finite from update {finite + 1} of epoch {epoch + 1} "
                f"({phase.describe()}); a smaller rate (b{i}.layer.lr_sup) may help"
            )
    for i, layer in network.hebbian():
        if i not in phase.blocks:
            continue
        finite, updates = int(layer.finite_updates), layer.update_count
        if finite < updates or not bool(layer.weight.isfinite().all()):
            raise DivergenceError(
                f"the weights of block b{i} are not finite from update {min(finite + 1, updates)} of "
                f"epoch {epoch + 1} ({phase.describe()}); a smaller rate (b{i}.layer.lr) may help"
            )


@contextmanager
def training(network: Network, at: Epoch) -> Iterator[None]:
    """Put the blocks of the phase in training mode and freeze the rest."""
    phase = at.phase
    network.eval()
    at.set_noise(network)
    for i in range(len(network)):
        for parameter in network[i].parameters():
            parameter.requires_grad_(i in phase.blocks)
    for i in phase.blocks:
        block = network[i].train()
        if block.hebb is not None:
            block.hebb.reset_statistics()
        if block.local is not None:
            block.local.reset_statistics()
    try:
        yield
    finally:
        network.eval()
        for i in range(len(network)):
            network[i].set_noise(None)
