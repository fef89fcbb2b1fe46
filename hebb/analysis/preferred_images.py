"""What neurons prefer: the image, and the patches of the data, to which each answers most.

Figures 2 and B.8 to B.11 (activation maximisation), 5 C, D, B.6 and B.7 (patches) of Journe et al., ICLR 2023.

Shapes: B images of a batch, N neurons of a block, n chosen ones, C channels, H x W pixels, H' x W' places of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from hebb.analysis import gradients, neurons, pixels, receptive, style
from hebb.analysis.neurons import Isolated
from hebb.storage import tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 12
"""Images in a row of the published figure, which has six rows."""


def best_images(isolated: Isolated, chosen: Tensor, **settings: object) -> pd.DataFrame:
    """Maximise the pre-activation of the chosen neurons (n,) by ``neurons.maximise``, which takes the settings.

    Returns:
        One line a neuron: rank, neuron, answer, answer_before (after nine tenths of the steps; where the two differ
        much, more steps are needed), and the pixels of its image.
    """
    with gradients.whole(isolated.blocks):
        images, answers = neurons.maximise(isolated.respond, isolated.shape, chosen, **settings)  # type: ignore[arg-type]
    frame = pd.DataFrame(
        {
            "rank": range(len(chosen)),
            "neuron": chosen.cpu().numpy(),
            "answer": answers[:, 1].cpu().numpy(),
            "answer_before": answers[:, 0].cpu().numpy(),
        }
    )
    return pixels.beside(frame, images)


@dataclass(frozen=True)
class Tops:
    """Where neurons answer most, each image counted once.

    Attributes:
        answers: (n, images) pre-activations, falling.
        images: (n, images) places of the images in the dataset.
        rows, columns: (n, images) places in the map of the layer; 0 for a fully connected layer.
    """

    answers: Tensor
    images: Tensor
    rows: Tensor
    columns: Tensor


@torch.no_grad()
def strongest(respond: Callable[[Tensor], Tensor], batches: Iterable[Tensor], chosen: Tensor, count: int = 10) -> Tops:
    """Return the ``count`` images to which each chosen neuron answers most, and where in them.

    Args:
        respond: images (B, C, H, W) -> pre-activations (B, N) or (B, N, H', W').
        batches: the images, in order.
        chosen: (n,) neurons, on the device of the images.
        count: images for each neuron; all where there are fewer.
    """
    best: Tensor | None = None
    place: Tensor | None = None
    start, width = 0, 1
    for x in batches:
        u = respond(x)[:, chosen]
        width = u.shape[3] if u.dim() == 4 else 1
        answers, inside = u.flatten(2).max(dim=2) if u.dim() == 4 else (u, torch.zeros_like(u, dtype=torch.int64))
        image = torch.arange(start, start + len(x), device=u.device).unsqueeze(1).expand_as(inside)
        start += len(x)
        places = torch.stack([image, inside])  # (2, B, n)
        best = answers if best is None else torch.cat([best, answers])
        place = places if place is None else torch.cat([place, places], dim=1)
        order = best.sort(dim=0, descending=True, stable=True).indices[:count]
        best = best.gather(0, order)
        place = place.gather(1, order.expand(2, -1, -1))
    assert best is not None
    assert place is not None
    return Tops(
        answers=best.T.cpu(),
        images=place[0].T.cpu(),
        rows=(place[1] // width).T.cpu(),
        columns=(place[1] % width).T.cpu(),
    )


def patch_table(
    tops: Tops,
    chosen: Tensor,
    boxes: Callable[[int, int], receptive.Box],
    reaches: Callable[[int, int], receptive.Box],
) -> pd.DataFrame:
    """Return one line a patch: neuron, rank, image, answer, its box in the image, and its whole field (``reach_top``).

    Args:
        tops: where the neurons answer most.
        chosen: (n,) the neurons.
        boxes: place in the map -> pixels of the image.
        reaches: place in the map -> receptive field, which may reach over the borders of the image.
    """
    lines = [
        {
            "neuron": neuron,
            "rank": rank,
            "image": int(tops.images[i, rank]),
            "answer": float(tops.answers[i, rank]),
            **vars(boxes(*_place(tops, i, rank))),
            **{f"reach_{end}": at for end, at in vars(reaches(*_place(tops, i, rank))).items()},
        }
        for i, neuron in enumerate(chosen.tolist())
        for rank in range(tops.answers.shape[1])
    ]
    return pd.DataFrame(lines)


def _place(tops: Tops, neuron: int, rank: int) -> tuple[int, int]:
    return int(tops.rows[neuron, rank]), int(tops.columns[neuron, rank])


@style.drawn
def draw_images(frame: pd.DataFrame, title: str) -> Figure:
    """Draw the images of ``best_images`` row by row, each stretched to its own range."""
    return pixels.gallery(frame, title, COLUMNS, 0.55)


@style.drawn
def draw_patches(frame: pd.DataFrame, images: dict[int, Tensor], title: str) -> Figure:
    """Draw two rows for each neuron: the patches, and below them their images with the patches framed.

    All patches have the size of the receptive field; hatching is what lies outside the image.

    Args:
        frame: of ``patch_table``.
        images: its images (C, H, W), in [0, 1], by their place in the dataset.
        title: title of the figure.
    """
    from matplotlib.patches import Rectangle

    shown: Sequence[int] = list(dict.fromkeys(frame["neuron"]))
    count = int(frame["rank"].max()) + 1
    figure, axes = style.figure(2 * len(shown), count, width=max(0.72, style.TITLE / count), height=0.72, squeeze=False)
    for i, neuron in enumerate(shown):
        for line in frame[frame["neuron"] == neuron].to_dict("records"):
            patch_axes, image_axes = axes[2 * i][line["rank"]], axes[2 * i + 1][line["rank"]]
            image = tiles.visible(images[line["image"]].unsqueeze(0))[0]
            pixels.picture(patch_axes, image)
            _show_only(patch_axes, line)
            pixels.picture(image_axes, image)
            patch_axes.set_title(f"{line['answer']:.3g}", fontsize=7, pad=2)
            corner = line["left"] - 0.5, line["top"] - 0.5
            wide, tall = line["right"] - line["left"], line["bottom"] - line["top"]
            image_axes.add_patch(
                Rectangle(corner, wide, tall, fill=False, edgecolor=style.COLOURS[1], linewidth=1, clip_on=False)
            )
        axes[2 * i][0].set_ylabel(f"neuron {neuron}\npatch", fontsize=7)
        axes[2 * i + 1][0].set_ylabel("in its image", fontsize=7)
    figure.suptitle(title, fontsize=10)
    return figure


def _show_only(axes: Axes, line: dict[str, float]) -> None:
    """Show of an image the receptive field of a line of ``patch_table``, hatched where there is no image."""
    axes.set_xlim(line["reach_left"] - 0.5, line["reach_right"] - 0.5)
    axes.set_ylim(line["reach_bottom"] - 0.5, line["reach_top"] - 0.5)
    axes.patch.set(facecolor="0.93", hatch="/////", edgecolor="0.75", linewidth=0)
