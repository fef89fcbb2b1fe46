"""The filters of the best configuration: those of a stored model, or else the picture that TensorBoard shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hebb.storage import folders, tags

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from hebb.tuning.search import Trial

MOST = 96
"""Filters that are shown."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One filter: its picture as a data URL, what is written below it, whether its neuron is silent, and its title."""

    picture: str
    caption: str
    title: str
    silent: bool


@dataclass(frozen=True, kw_only=True)
class Filters:
    """The filters of a run.

    Attributes:
        run: name of the configuration and the seed.
        tiles: one a neuron, in the order in which they were learned; empty where only a picture is stored.
        total: number of neurons.
        scale: the weights at the ends of the colours; empty for a picture.
        note: how they are sorted, and what is not known.
        picture: a data URL of all filters, or empty.
        colour: whether the filters have three channels, which are shown as red, green and blue.
    """

    run: str
    tiles: Sequence[Tile] = ()
    total: int = 0
    scale: tuple[str, str] = ("", "")
    note: str = ""
    picture: str = ""
    colour: bool = False


def of_configuration(trials: Sequence[Trial], home: folders.Home) -> Filters | None:
    """Return the filters of one of the finished runs of a configuration, of the first that stored a model.

    None where no run stored a model or a picture, and where the first layer has no filters to show.
    """
    finished = [trial for trial in trials if trial.finished]
    stored = [trial for trial in finished if (trial.folder / folders.CHECKPOINT).exists()]
    for trial in stored:
        filters = _of_model(trial, home)
        if filters is not None:
            return filters
    for trial in finished:
        picture = _tensorboard(trial.folder)
        if picture is not None:
            note = "the model was not kept, so this is the picture for TensorBoard"
            return Filters(run=_name(trial), picture=picture, note=note)
    return None


def _name(trial: Trial) -> str:
    return f"{trial.label}, seed {trial.config.seed}"


def _tensorboard(folder: Path) -> str | None:
    """Return the last picture of the first layer's filters that a run left for TensorBoard, or None."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    names = (tags.of_weights("b0", "filters"), "b0/filters")  # the second by runs of earlier versions
    stored = next((name for name in names if name in events.Tags()["images"]), None)
    return None if stored is None else data_url("image/png", events.Images(stored)[-1].encoded_image_string)


def data_url(kind: str, data: bytes) -> str:
    """Return data as the address of an image."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _of_model(trial: Trial, home: folders.Home) -> Filters | None:
    """Return the filters of a stored model, sorted by ``filters.Order.LEARNED``; ``home`` may have its images."""
    from hebb.analysis import filters, runs, subject

    stored = subject.load(runs.read_run(trial.folder), home)
    block = stored.blocks[0]
    if len(block.weight.shape) == 4 and block.weight.shape[-1] == 1:
        return None  # single weights are no picture
    share, unknown = filters.shares(stored, 0)
    table = filters.table(stored.blocks, 0, view=filters.View.WEIGHTS, most=MOST, share=share)
    order = filters.sorting_in_full(block)
    shown, scale, colour = _tiles(table, filters.silent(table))
    return Filters(
        run=_name(trial),
        tiles=shown,
        total=len(block.weight),
        scale=scale,
        note=f"{order}; {unknown}" if unknown else order,
        colour=colour,
    )


def _tiles(table: pd.DataFrame, silent: Sequence[bool]) -> tuple[list[Tile], tuple[str, str], bool]:
    """Return the tiles of a table of filters, the weights at the ends of the colours, and whether it is in colour."""
    import torch

    from hebb.analysis import pixels
    from hebb.storage import tiles

    images = tiles.visible(torch.from_numpy(pixels.of(table)))
    end = tiles.reach(images) or 1.0
    pictures = [data_url("image/png", _png(image)) for image in tiles.coloured(images, end)]
    shown = [
        Tile(picture=picture, silent=bool(mute), **_words(line, bool(mute)))
        for picture, line, mute in zip(pictures, table.to_dict("records"), silent, strict=True)
    ]
    return shown, (f"−{end:.2g}", f"{end:.2g}"), images.shape[1] == 3


def _words(line: dict[str, float], silent: bool) -> dict[str, str]:
    share = line.get("share")
    digits = 2 if line["radius"] < 10 else 1 if line["radius"] < 100 else 0
    caption = f"r {line['radius']:.{digits}f}" + ("" if share is None else f"\n{share:.1f} %")
    wins = "" if share is None else f", wins {share:.2f} %"
    title = f"neuron {int(line['neuron'])}: radius {line['radius']:.3f}{wins}"
    return {"caption": "silent" if silent else caption, "title": title + (", silent" if silent else "")}


def _png(image: Tensor) -> bytes:
    """Return an image (3, h, w) as a file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray((255 * image.permute(1, 2, 0)).round().byte().numpy()).save(file, "png", optimize=True)
    return file.getvalue()
