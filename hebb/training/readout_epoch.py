"""An epoch of a linear classifier over features in memory, by the loops of ``hebb.kernels.linear_readout``.

It learns what ``engine.backprop`` would teach it, up to the order of sums, with the same order of images and the same
dropout. On the processors measured here a batch takes about a third of the time.

Shapes: B images in a batch, N images of the split, C classes, M features.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from hebb.config.phase import Phase
from hebb.config.vocabulary import ClassifierLoss
from hebb.data.images import Split
from hebb.kernels.matmul import Linear
from hebb.nn.blocks import Dropout
from hebb.nn.model import Network
from hebb.nn.noise import EIGHTS

WORTH = 1 << 19
"""Features of a batch from which the loops are worth importing and compiling."""

RUN = 16
"""Most updates between two returns from the loops."""

_WORD = 64  # random bits that are drawn at once

_NOTHING = np.empty(0, np.float32)


def applies(network: Network, split: Split, phase: Phase, optimiser: torch.optim.Optimizer) -> bool:
    """Whether the phase trains nothing but a linear classifier by Adam, on float features on the CPU."""
    images = split.images
    if (
        len(phase.blocks) != 1
        or not isinstance(images, Tensor)
        or not (split.gathers or split.mirrored)
        or split.finish is not None
    ):
        return False
    block, count = network[phase.top], prod(images.shape[1:])
    classifies = phase.top == len(network) - 1
    plain = images.dtype == torch.float32 and images.device.type == "cpu" and images.is_contiguous()
    worth = phase.batch_size * count >= WORTH and count % 8 == 0 and phase.views == 1
    drops = [module.p for module in block.before if isinstance(module, Dropout)]
    others = [module for module in block.before if not isinstance(module, Dropout | nn.Flatten)]
    bare = not others and not len(block.after) and not block.spec.residual and type(block.layer) is Linear
    decoupled = any(group.get("decoupled_weight_decay") for group in optimiser.param_groups)
    return (
        classifies
        and plain
        and worth
        and bare
        and len(drops) < 2
        and all(p == 0.5 for p in drops)
        and not decoupled
        and network.loss == ClassifierLoss.CROSS_ENTROPY
        and isinstance(optimiser, torch.optim.Adam)
    )


@dataclass(frozen=True)
class Batch:
    """Scores of a batch before its update: the sum of its losses, its right answers, its images."""

    loss: float
    hits: int
    images: int


class Readout:
    """A linear classifier whose weights and moments the loops change in place.

    Args:
        network: the network; its last block is the classifier.
        split: features (N, M) or (N, C, H, W) and labels.
        batch_size: B.
        optimiser: its Adam, whose moments are made if they are not there yet.
    """

    def __init__(self, network: Network, split: Split, batch_size: int, optimiser: torch.optim.Optimizer) -> None:
        from hebb.kernels import linear_readout

        self._loops = linear_readout
        assert isinstance(split.images, Tensor)
        block = network[len(network) - 1]
        assert isinstance(block.layer, Linear)
        self._dropout = next((module for module in block.before if isinstance(module, Dropout)), None)
        self._features = split.images.flatten(1).numpy()
        self._group = optimiser.param_groups[0]
        self._weight = _Parameter.of(block.layer.weight, optimiser)
        self._bias = None if block.layer.bias is None else _Parameter.of(block.layer.bias, optimiser)
        classes, count = self._weight.values.shape
        height = -(-batch_size // linear_readout.ROWS) * linear_readout.ROWS
        blocks = -(-count // linear_readout.WIDTH)
        self._batch_size = batch_size
        # torch's memory begins with a line of the cache
        self._rows = torch.zeros(blocks, height, linear_readout.STRIDE, dtype=torch.float32, device="cpu").numpy()
        self._answers = np.empty((blocks, height, classes), np.float32)
        self._slopes = np.zeros((height, classes), np.float32)

    def epoch(self, places: Tensor, labels: Tensor, looks: Iterable[int]) -> Iterator[list[Batch]]:
        """Learn from the features at ``places`` (N,), in that order, with their labels (N,), a batch at a time.

        Yields the batches of several updates whenever these are made, and whenever the caller looks at the weights:
        after the updates ``looks``, counted from 1.
        """
        self._places, self._labels = places.numpy(), labels.numpy()
        whole, rest = divmod(len(places), self._batch_size)
        last = whole + (rest > 0)  # a short batch is yielded alone
        stops = sorted({look for look in looks if look < last} | {0, whole, last})
        updates = [range(i, min(stop, i + RUN)) for first, stop in pairwise(stops) for i in range(first, stop, RUN)]
        # step i makes update i; the first makes none
        runs = [range(run.start + (run.start > 0), run.stop + 1) for run in updates]
        self._draw(runs[0])
        for run, then in pairwise([*runs, range(0)]):
            yield self._make(run, then)

    def _draw(self, steps: range) -> None:
        """Draw the random bits of the dropout of the batches that these steps answer, a row for each step."""
        self._drawn = np.empty((len(steps), 0), np.uint8)
        if self._dropout is None:
            return
        assert self._dropout.noise is not None
        features, batch = self._features.shape[1], self._batch_size
        first, stop = (min(self._places.size, step * batch) for step in (steps.start, steps.stop))
        whole, rest = divmod(stop - first, batch)
        row = -(-batch * features // _WORD) * _WORD  # each batch begins with a new word
        bits = self._dropout.noise.bits(whole * row + rest * features)
        if missing := len(steps) * row // 8 - bits.size:  # at the end of an epoch
            bits = np.concatenate([bits, np.zeros(missing, np.uint8)])
        self._drawn = bits.reshape(len(steps), row // 8)

    def _make(self, steps: range, then: range) -> list[Batch]:
        """Make these steps, and meanwhile draw the bits of those ``then``."""
        updates = [i for i in steps if i > 0]
        adam, sums = np.zeros((len(steps), self._loops.CONSTANTS), np.float32), np.zeros((len(steps), 2))
        for i in updates:
            self._count(adam[i - steps.start])
        weight, bias = self._weight, self._bias
        self._loops.on_threads(
            *(weight.values, weight.mean, weight.square),
            *((_NOTHING,) * 3 if bias is None else (bias.values, bias.mean, bias.square)),
            *(adam, self._features, self._places, self._labels, self._batch_size, self._drawn, EIGHTS),
            *(self._rows, self._slopes, self._answers, sums),
            steps=steps,
            threads=torch.get_num_threads(),
            aside=functools.partial(self._draw, then),
        )
        return [self._scores(i - 1, *sums[i - steps.start].tolist()) for i in updates]

    def _scores(self, batch: int, loss: float, hits: float) -> Batch:
        """Return the scores of a batch of the epoch."""
        images = self._labels[batch * self._batch_size : (batch + 1) * self._batch_size].size
        return Batch(loss, int(hits), images)

    def _count(self, adam: np.ndarray) -> None:
        """Count an update, and set what is the same for all weights in it, as torch's Adam has it."""
        for parameter in filter(None, (self._weight, self._bias)):
            parameter.steps[()] += 1
        steps, group, loops = float(self._weight.steps), self._group, self._loops
        keep_mean, keep_square = group["betas"]
        adam[loops.STEP] = group["lr"] / (1 - keep_mean**steps)
        adam[loops.ROOT] = (1 - keep_square**steps) ** -0.5
        adam[loops.EPSILON] = group["eps"]
        adam[loops.KEEP_MEAN], adam[loops.NEW_MEAN] = keep_mean, 1 - keep_mean
        adam[loops.KEEP_SQUARE], adam[loops.NEW_SQUARE] = keep_square, 1 - keep_square
        adam[loops.DECAY] = group["weight_decay"]


@dataclass(frozen=True)
class _Parameter:
    """A parameter and its moments as memory of torch and numpy at once."""

    values: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    steps: np.ndarray

    @classmethod
    def of(cls, parameter: Tensor, optimiser: torch.optim.Optimizer) -> _Parameter:
        state = optimiser.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        moments = state["exp_avg"].numpy(), state["exp_avg_sq"].numpy()
        return cls(parameter.detach().numpy(), *moments, state["step"].numpy())
