"""Between the prototypes of two classes (Moraitis et al. 2022: objects made as interpolations of real classes).

With prototypes a and b and t from 0 to 1,

    line        x(t) = (1 - t) a + t b
    generated   x(t), moved by projected gradient inside |x - x(t)|_2 <= 4 t (1 - t) r |b - a|_2 and [0, 1] until the
                network answers as nearly as it can with p_A = 1 - t, p_B = t: the least of the cross-entropy
                -(1 - t) log p_A - t log p_B

The ball has no radius at the ends: both rows begin at one prototype and end at the other. The paper shows such objects
for one network; the ball and its size ``r`` are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from hebb.analysis import pixels, robust, style
from hebb.core.errors import ConfigError
from hebb.storage import tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = {"line": "straight line", "generated": "made by the network"}


def means(batches: Iterable[tuple[Tensor, Tensor]], classes: int) -> Tensor:
    """Return the mean image of every class, (classes, C, H, W), in double precision; NaN for one without images."""
    total: Tensor | None = None
    count = torch.zeros(classes, dtype=torch.float64)
    for x, labels in batches:
        known = labels >= 0
        x, labels = x[known].double().cpu(), labels[known].cpu()
        if total is None:
            total = torch.zeros(classes, *x.shape[1:], dtype=torch.float64)
        total.index_add_(0, labels, x)
        count += torch.bincount(labels, minlength=classes)
    assert total is not None
    return total / count.view(-1, *[1] * (total.dim() - 1))


def of_neurons(weight: Tensor, neuron_labels: Tensor, shape: Sequence[int], classes: int) -> Tensor:
    """Return the mean weights of the neurons of every class as images (classes, C, H, W) with values from 0 to 1.

    Of a fully connected first layer a neuron's weights are its cause in the generative model; each mean is stretched to
    the pixel range. NaN for a class that no neuron stands for.

    Args:
        weight: (neurons, C H W).
        neuron_labels: (neurons,) int64, the class each neuron wins most often.
        shape: (C, H, W) of an image.
        classes: how many there are.
    """
    rows = weight.detach().double().cpu()
    total = torch.zeros(classes, rows.shape[1], dtype=torch.float64).index_add_(0, neuron_labels.cpu(), rows)
    count = torch.bincount(neuron_labels.cpu(), minlength=classes)
    return tiles.stretched((total / count.unsqueeze(1)).view(classes, *shape))


def line(a: Tensor, b: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Return t (points,) from 0 to 1 and the images (points, C, H, W) between; the ends are a and b to the bit."""
    if points < 2:
        raise ConfigError("--points", f"two or more are wanted, not {points}")
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    weight = t.view(-1, 1, 1, 1).to(a.dtype)
    return t, torch.lerp(a.unsqueeze(0), b.unsqueeze(0), weight)


def generated(
    logits: Callable[[Tensor], Tensor],
    images: Tensor,
    t: Tensor,
    pair: tuple[int, int],
    *,
    radius: float = 0.3,
    steps: int = 100,
) -> Tensor:
    """Move the images of a line as the network wants them, each inside its ball.

    Args:
        logits: images (n, C, H, W) in [0, 1] -> logits (n, classes).
        images: (n, C, H, W) of ``line``.
        t: (n,) of ``line``.
        pair: the two classes.
        radius: of the ball in the middle, r, in units of |b - a|_2.
        steps: each of a tenth of the radius; an image keeps the best it has seen.
    """
    wanted = torch.stack([1 - t, t], dim=1).to(images)  # (n, 2)
    balls = (4 * t * (1 - t) * radius).to(images) * (images[-1] - images[0]).norm()
    columns = torch.tensor(pair, device=images.device)

    def distance(x: Tensor) -> Tensor:
        return -(wanted * logits(x).log_softmax(dim=1)[:, columns]).sum(dim=1)

    best, x = images.clone(), images.clone()
    with torch.no_grad():
        lowest = distance(x)
    for _ in range(steps):
        x.requires_grad_()
        (slope,) = torch.autograd.grad(distance(x).sum(), x)
        x = x.detach() - 0.1 * balls.view(-1, 1, 1, 1) * robust.ascent(slope, "l2")
        x = torch.stack([robust.project(x[i], images[i], float(balls[i]), "l2") for i in range(len(x))])
        with torch.no_grad():
            now = distance(x)
        better = now < lowest
        best[better], lowest[better] = x[better], now[better]
    return best


@torch.no_grad()
def table(
    logits: Callable[[Tensor], Tensor], rows: dict[str, Tensor], t: Tensor, pair: tuple[int, int]
) -> pd.DataFrame:
    """Return one row an image: row, t, from, to, the class the network answers, p0 p1 ... of all, and its pixels."""
    frames = []
    for name, images in rows.items():
        p = logits(images).softmax(dim=1).cpu()
        columns = {"row": name, "t": t.numpy(), "from": pair[0], "to": pair[1], "answer": p.argmax(dim=1).numpy()}
        columns |= {f"p{c}": p[:, c].numpy() for c in range(p.shape[1])}
        frames.append(pixels.beside(pd.DataFrame(columns), images))
    return pd.concat(frames, ignore_index=True)


@style.drawn
def draw(frame: pd.DataFrame, title: str) -> Figure:
    """Draw the images of every row, and below them the probability of the two classes and of all others."""
    names = list(dict.fromkeys(frame["row"]))
    first, last = int(frame["from"].iloc[0]), int(frame["to"].iloc[0])
    others = [c for c in frame.columns if c[0] == "p" and c[1:].isdigit() and c not in (f"p{first}", f"p{last}")]
    count = len(frame) // len(names)
    made, axes = style.figure(
        2 * len(names), 1, width=max(0.62 * count, style.TITLE), height=1.15, height_ratios=[1.3, 1.6] * len(names)
    )
    for i, name in enumerate(names):
        mine = frame[frame["row"] == name]
        images = torch.from_numpy(pixels.of(mine))
        pixels.show(axes[2 * i], images.clamp(0, 1), count)
        axes[2 * i].set_title(ROWS.get(name, name))
        panel = axes[2 * i + 1]
        panel.plot(mine["t"], mine[f"p{first}"], label=f"class {first}", **style.line(0))
        panel.plot(mine["t"], mine[f"p{last}"], label=f"class {last}", **style.line(1))
        panel.plot(mine["t"], mine[others].sum(axis=1), label="all others", color=style.GREY, linestyle=":")
        style.label(panel, "t" if i == len(names) - 1 else "", "probability")
        panel.set_ylim(-0.05, 1.05)
        panel.set_xlim(-0.5 / (count - 1), 1 + 0.5 / (count - 1))  # a point below its image
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    made.suptitle(title, fontsize=10)
    return made
