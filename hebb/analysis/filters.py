"""The filters of a block, sorted (Journe et al., ICLR 2023, figure B.5).

For the first block they are the weights. For deeper blocks they are shown in one of two ways: the mean of the weights
over the input channels, or the image filter that the neuron computes through its receptive field when the activations
of the network below are left out and its maxima are averages.

Shapes: N neurons, C channels, h x w pixels of a filter.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from hebb.analysis import neurons, pixels, style
from hebb.core.errors import ConfigError
from hebb.nn.blocks import Block
from hebb.probing import neuron_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hebb.analysis.subject import Subject


class View(StrEnum):
    """How a filter is shown."""

    WEIGHTS = "weights"
    MEAN = "mean"
    IMAGE = "image"


class Order(StrEnum):
    """How filters are sorted.

    ``learned``: neurons whose radius is within the threshold of R1 first, by their share of the wins, then the others,
    radius nearest 1 first; by deviation where the block is not Hebbian. ``deviation`` of the weights (as published) and
    ``radius`` |w|_2 fall; ``index`` is the order of the layer.
    """

    LEARNED = "learned"
    DEVIATION = "deviation"
    RADIUS = "radius"
    INDEX = "index"


SUBTITLES = {
    View.WEIGHTS: "the weights",
    View.MEAN: "mean of the weights over the input channels",
    View.IMAGE: "through the receptive field, without activations",
}
"""How a figure describes each view."""
COLUMNS = 15
"""Filters in a row of the published figure, which has eight rows."""
_FLAT = 1e-6
"""Weights deviate by no more than this share of the largest deviation where they are equal up to rounding."""


def view_of(blocks: Sequence[Block], block: int, view: View | None = None) -> View:
    """Return the view that is asked for, by default ``weights`` for the first block and ``image`` for others.

    Raises:
        ConfigError: when the filters of the block have no such view.
    """
    first = block == 0
    if view is None:
        return View.WEIGHTS if first else View.IMAGE
    if view == View.WEIGHTS and not first:
        raise ConfigError("--view", f"the weights of b{block} are not images", choices=(View.MEAN, View.IMAGE))
    if view == View.MEAN and blocks[block].weight.dim() != 4:
        raise ConfigError("--view", f"b{block} is fully connected and has no input channels", choices=(View.IMAGE,))
    return view


def images(blocks: Sequence[Block], block: int, view: View) -> Tensor:
    """Return the filters of all neurons of a block as images (N, C, h, w)."""
    weight = blocks[block].weight.detach()
    if view == View.WEIGHTS:
        return weight if weight.dim() == 4 else weight.view(len(weight), *blocks[0].shapes.into)
    if view == View.MEAN:
        return weight.mean(dim=1, keepdim=True)
    isolated = neurons.isolate(blocks, block, linear=True)
    every = torch.arange(len(weight), device=weight.device)
    return torch.cat([neurons.projected(isolated, some) for some in every.split(64)])


def table(
    blocks: Sequence[Block],
    block: int,
    *,
    view: View,
    order: Order = Order.LEARNED,
    most: int = 120,
    share: Tensor | None = None,
) -> pd.DataFrame:
    """Return the first ``most`` filters: rank, neuron, deviation and radius of its weights, share, and its pixels.

    Args:
        blocks: the network.
        block: number of the block.
        view: how a filter is shown.
        order: how they are sorted.
        most: how many.
        share: (N,) share of the wins of each neuron in percent, which settles the order of those of radius 1 and is a
            column; a neuron that wins nothing is silent.
    """
    weight = blocks[block].weight.detach()
    rows = weight.flatten(1)
    places = _order(blocks[block], order, share)[:most]
    columns = {
        "rank": range(len(places)),
        "neuron": places.numpy(),
        "deviation": rows.std(dim=1, correction=0).cpu()[places].numpy(),
        "radius": rows.norm(dim=1).cpu()[places].numpy(),
    }
    if share is not None:
        columns["share"] = share.cpu()[places].numpy()
    return pixels.beside(pd.DataFrame(columns), images(blocks, block, view).cpu()[places])


def _order(block: Block, order: Order, share: Tensor | None) -> Tensor:
    """Return the neurons of a block in an order."""
    weight = block.weight.detach()
    if order == Order.INDEX:
        return torch.arange(len(weight))
    if order == Order.RADIUS:
        falling: Tensor = weight.flatten(1).norm(dim=1).sort(descending=True, stable=True).indices.cpu()
        return falling
    return neuron_order.by_deviation(weight) if order == Order.DEVIATION else neuron_order.of_block(block, share)


def sorting(block: Block, order: Order) -> str:
    """Say how the filters of a block are sorted."""
    if order == Order.LEARNED and block.hebb is None:
        order = Order.DEVIATION
    return {
        Order.LEARNED: "radius 1 and most wins first" if _converged(block) else "radius nearest 1 first",
        Order.DEVIATION: "largest deviation first",
        Order.RADIUS: "largest radius first",
        Order.INDEX: "in the order of the layer",
    }[order]


def sorting_in_full(block: Block) -> str:
    """Say in a sentence how ``Order.LEARNED`` sorts the filters of a block."""
    if block.hebb is None:
        return "largest deviation of the weights first"
    if not _converged(block):
        return "no neuron has radius 1, and those whose radius is nearest 1 come first"
    return "neurons of radius 1 first, by their share of the wins, then the others, radius nearest 1 first"


def _converged(block: Block) -> bool:
    """Tell whether any neuron of a block has radius 1, within the threshold of R1."""
    hebb = block.hebb
    return hebb is not None and bool(((hebb.radius() - 1).abs() < hebb.r1_threshold).any())


def shares(subject: Subject, block: int) -> tuple[Tensor | None, str]:
    """Return the share of the wins of each neuron of a Hebbian block, or None, and why where it should be known.

    Whether the data are there depends on the machine, and the filters are there without them.
    """
    if subject.blocks[block].hebb is None or subject.run.config.dataset_sup.zca:
        return None, ""
    try:
        return subject.winner_share(block), ""
    except (ConfigError, OSError) as error:
        first = str(error).splitlines()[0]
        return None, f"the shares of the wins are not known, because the images cannot be read ({first})"


def silent(frame: pd.DataFrame) -> list[bool]:
    """Tell for each filter of a table whether its neuron is silent: it wins nothing, or all its weights are equal."""
    flat = frame["deviation"] <= _FLAT * max(float(frame["deviation"].max()), 1e-30)
    return list(flat | (frame["share"] == 0) if "share" in frame else flat)


@style.drawn
def draw(frame: pd.DataFrame, title: str) -> Figure:
    """Draw the filters of a table row by row, each stretched to its own range; a cross marks silent neurons."""
    return pixels.gallery(frame, title, COLUMNS, 0.42, silent=silent(frame))
