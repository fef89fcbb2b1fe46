"""The filters of a block, sorted (Journe et al., ICLR 2023, figure B.5).

Of the first block they are the weights themselves. Deeper ones are shown in one of two ways: as the mean of the weights
over their input channels, or through their receptive field, the filter on the image that the network below makes of
them when its activations are left out and its maxima are averages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from hebb.analysis import neurons, pixels, style
from hebb.core.errors import ConfigError
from hebb.nn.blocks import Block

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VIEWS = {
    "weights": "the weights",
    "mean": "mean of the weights over the input channels",
    "image": "through the receptive field, activations left out",
}
"""Ways of showing a filter, and what a figure says of them."""
ORDERS = ("deviation", "radius", "index")
COLUMNS = 15
"""Filters in a row of the published figure, which has eight rows."""


def view_of(blocks: Sequence[Block], block: int, view: str | None = None) -> str:
    """Return how filters are shown: as asked for, else ``weights`` of the first block and ``image`` of others."""
    first = block == 0
    if view is None:
        return "weights" if first else "image"
    if view not in VIEWS:
        raise ConfigError("--view", f"unknown '{view}'", given=view, choices=VIEWS)
    if view == "weights" and not first:
        raise ConfigError("--view", f"the weights of b{block} are no images", given=view, choices=("mean", "image"))
    if view == "mean" and blocks[block].weight.dim() != 4:
        raise ConfigError("--view", f"b{block} is fully connected: it has no map to take a mean over", hint="image")
    return view


def images(blocks: Sequence[Block], block: int, view: str) -> Tensor:
    """Return the filters of all neurons of a block as images (neurons, C, h, w)."""
    weight = blocks[block].weight.detach()
    if view == "weights":
        return weight if weight.dim() == 4 else weight.view(len(weight), *blocks[0].shapes.into)
    if view == "mean":
        return weight.mean(dim=1, keepdim=True)
    isolated = neurons.isolate(blocks, block, linear=True)
    every = torch.arange(len(weight), device=weight.device)
    return torch.cat([neurons.projected(isolated, some) for some in every.split(64)])


def table(blocks: Sequence[Block], block: int, *, view: str, order: str = "deviation", most: int = 120) -> pd.DataFrame:
    """Return the first ``most`` filters in order: rank, neuron, deviation and radius of its weights, and its pixels.

    Args:
        blocks: the network.
        block: number of the block.
        view: a key of ``VIEWS``.
        order: falling ``deviation`` of the weights (the published order), falling ``radius`` |w|_2, or ``index``.
        most: how many are kept.
    """
    if order not in ORDERS:
        raise ConfigError("--order", f"unknown '{order}'", given=order, choices=ORDERS)
    weight = blocks[block].weight.detach()
    rows = weight.flatten(1)
    places = {
        "deviation": neurons.by_deviation(weight),
        "radius": rows.norm(dim=1).sort(descending=True, stable=True).indices.cpu(),
        "index": torch.arange(len(rows)),
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
