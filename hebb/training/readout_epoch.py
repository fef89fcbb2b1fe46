"""An epoch of a linear classifier over features in memory, by the loops of ``hebb.kernels.linear_readout``.

It learns what ``engine.backprop`` would teach it, up to the order of sums, with the same order of images and the same
dropout. On the processors measured here a batch takes about a third of the time.

Shapes: B images in a batch, N images of the split, C classes, M features.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
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

_NOTHING = np.empty(0, np.float32)


def applies(network: Network, split: Split, phase: Phase, optimiser: torch.optim.Optimizer) -> bool:
    """Whether the phase trains nothing but a linear classifier by Adam, on float features on the CPU."""
    images = split.images
    if len(phase.blocks) != 1 or not isinstance(images, Tensor) or not split.gathers or split.finish is not None:
        return False
    block, count = network[phase.top], prod(images.shape[1:])
    plain = images.dtype == torch.float32 and images.device.type == "cpu" and images.is_contiguous()
    worth = phase.batch_size * count >= WORTH and count % 8 == 0 and phase.views == 1
    drops = [module.p for module in block.before if isinstance(module, Dropout)]
    others = [module for module in block.before if not isinstance(module, Dropout | nn.Flatten)]
    bare = not others and not len(block.after) and not block.spec.residual and type(block.layer) is Linear
    decoupled = any(group.get("decoupled_weight_decay") for group in optimiser.param_groups)
    return (
        plain
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
        # torch's memory begins with a line of the cache
        self._rows = torch.zeros(blocks, height, linear_readout.STRIDE, dtype=torch.float32, device="cpu").numpy()
        self._answers = np.empty((blocks, height, classes), np.float32)
        self._slopes = np.zeros((height, classes), np.float32)

    def epoch(self, places: Tensor, labels: Tensor, batch_size: int) -> Iterator[Batch]:
        """Learn from the images at ``places`` (N,), in that order, with their labels (N,); yield after each update."""
        none = places[:0]
        batches = [part.numpy() for part in (*places.split(batch_size), none, none)]
        self._draw(batches[0])
        self._pass(_NOTHING, batches[0], batches[1])
        for i, truth in enumerate(labels.split(batch_size), 1):
            adam = self._constants()
            batch = self._judge(truth.numpy(), adam)
            self._pass(adam, batches[i], batches[i + 1])
            yield batch

    def _draw(self, places: np.ndarray) -> None:
        """Draw the random bits of the dropout of the batch at ``places``."""
        self._drawn = np.empty(0, np.uint8)
        if self._dropout is not None and places.size:
            assert self._dropout.noise is not None
            self._drawn = self._dropout.noise.bits(places.size * self._features.shape[1])

    def _pass(self, adam: np.ndarray, places: np.ndarray, then: np.ndarray) -> None:
        """Learn from the last batch, then answer the one at ``places``; meanwhile draw the bits of the one at ``then``.

        Without constants of Adam nothing is learnt, and without places nothing is answered.
        """
        drawn = self._drawn
        weight = self._weight
        self._loops.on_threads(
            *(weight.values, weight.mean, weight.square, adam, self._slopes),
            *(self._rows, self._features, places, drawn, EIGHTS, self._answers),
            threads=torch.get_num_threads(),
            aside=functools.partial(self._draw, then),
        )

    def _judge(self, labels: np.ndarray, adam: np.ndarray) -> Batch:
        """Compare the answers with the labels, update the bias, and keep the slopes for the weights."""
        sums = np.zeros(2)
        bias = (_NOTHING,) * 3 if self._bias is None else (self._bias.values, self._bias.mean, self._bias.square)
        self._loops.judge(self._answers, *bias, adam, labels, self._slopes, sums)
        return Batch(float(sums[0]), int(sums[1]), labels.size)

    def _constants(self) -> np.ndarray:
        """Count an update, and return what is the same for all weights in it, as torch's Adam has it."""
        for parameter in filter(None, (self._weight, self._bias)):
            parameter.steps[()] += 1
        steps, group = float(self._weight.steps), self._group
        keep_mean, keep_square = group["betas"]
        loops, adam = self._loops, np.empty(8, np.float32)
        adam[loops.STEP] = group["lr"] / (1 - keep_mean**steps)
        adam[loops.ROOT] = (1 - keep_square**steps) ** -0.5
        adam[loops.EPSILON] = group["eps"]
        adam[loops.KEEP_MEAN], adam[loops.NEW_MEAN] = keep_mean, 1 - keep_mean
        adam[loops.KEEP_SQUARE], adam[loops.NEW_SQUARE] = keep_square, 1 - keep_square
        adam[loops.DECAY] = group["weight_decay"]
        return adam


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
