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

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class View(StrEnum):
    """How a filter is shown."""

    WEIGHTS = "weights"
    MEAN = "mean"
    IMAGE = "image"


class Order(StrEnum):
    """How filters are sorted: by deviation of the weights (as published) or radius |w|_2, falling, or by index."""

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
    blocks: Sequence[Block], block: int, *, view: View, order: Order = Order.DEVIATION, most: int = 120
) -> pd.DataFrame:
    """Return the first ``most`` filters: rank, neuron, deviation and radius of its weights, and its pixels."""
    weight = blocks[block].weight.detach()
    rows = weight.flatten(1)
    places = {
        Order.DEVIATION: neurons.by_deviation(weight),
        Order.RADIUS: rows.norm(dim=1).sort(descending=True, stable=True).indices.cpu(),
        Order.INDEX: torch.arange(len(rows)),
    }[order][:most]
    frame = pd.DataFrame(
        {
            "rank": range(len(places)),
            "neuron": places.numpy(),
            "deviation": rows.std(dim=1, correction=0).cpu()[places].numpy(),
            "radius": rows.norm(dim=1).cpu()[places].numpy(),
        }
    )
    return pixels.beside(frame, images(blocks, block, view).cpu()[places])


@style.drawn
def draw(frame: pd.DataFrame, title: str) -> Figure:
    """Draw the filters of a table row by row, each stretched to its own range."""
    return pixels.gallery(frame, title, COLUMNS, 0.42)
