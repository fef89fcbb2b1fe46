"""Accuracy under noise and under attack.

Moraitis et al. (Neuromorph. Comput. Eng. 2022) report that a shallow SoftHebb network loses less accuracy than a
back-prop network under Gaussian noise and under projected gradient descent (PGD, Madry et al. 2018). Pixels are in
[0, 1]. The strength is the standard deviation of the noise, or the radius eps of the ball |x' - x|_2 <= eps or
|x' - x|_inf <= eps.

A network can seem robust because its gradient vanishes, not because its classes lie far apart. Three things guard
against that. The attack raises the margin, which does not saturate as the cross-entropy does. It is repeated from
random starts. And the table gives the share of images without any gradient: where it is large, the accuracy is no
evidence.

Shapes: B images of a batch, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from hebb.analysis import replicates, style
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Logits = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] -> logits (B, classes)."""


class Attack(StrEnum):
    """What is done to an image: Gaussian noise, or PGD in a ball of one of two norms."""

    NOISE = "noise"
    L2 = "l2"
    LINF = "linf"


class Loss(StrEnum):
    """What PGD increases."""

    MARGIN = "margin"
    CROSS_ENTROPY = "cross_entropy"


STRENGTH_LABELS = {
    Attack.NOISE: "Gaussian noise: standard deviation",
    Attack.L2: r"PGD: radius $\epsilon$ of the $L_2$ ball",
    Attack.LINF: r"PGD: radius $\epsilon$ of the $L_\infty$ ball",
}
"""Axis labels of the strengths."""
STRENGTHS = {
    Attack.NOISE: (0.0, 0.05, 0.1, 0.2, 0.3, 0.5),
    Attack.L2: (0.0, 0.1, 0.25, 0.5, 1.0, 2.0),
    Attack.LINF: (0.0, 1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255),
}
"""Default strengths, in units of the pixel range."""


def noisy(x: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise and clamp to [0, 1]; the generator is on the CPU."""
    return (x + deviation * torch.randn(x.shape, generator=generator).to(x.device)).clamp(0, 1)


def loss_of(kind: Loss, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return the loss (B,) that an attack increases.

    The margin is z_t - z_y, with y the label and t the target (B,), by default the class with the largest other logit.
    """
    if kind == Loss.CROSS_ENTROPY:
        return F.cross_entropy(logits, labels, reduction="none")
    own = logits.gather(1, labels.unsqueeze(1))
    others = _without_own(logits, labels)
    target = others.amax(dim=1, keepdim=True) if targets is None else others.gather(1, targets.unsqueeze(1))
    return target[:, 0] - own[:, 0]


def _without_own(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.scatter(1, labels.unsqueeze(1), -torch.inf)


def gradient(
    logits: Logits, x: Tensor, labels: Tensor, loss: Loss = Loss.MARGIN, targets: Tensor | None = None
) -> Tensor:
    """Return the gradient of the attack's loss at the images, in their shape."""
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(loss_of(loss, logits(x), labels, targets).sum(), x)
    return slope


def ascent(gradients: Tensor, norm: Attack) -> Tensor:
    """Return the step of norm 1 that increases the loss most: sign(g) (linf) or g/|g|_2 (l2); 0 where g is 0."""
    if norm == Attack.LINF:
        return gradients.sign()
    return gradients / _norms(gradients).clamp(min=1e-30)


def project(x: Tensor, centre: Tensor, eps: float | Tensor, norm: Attack) -> Tensor:
    """Project images onto the ball around ``centre``, then onto [0, 1], which leaves them in the ball.

    ``eps`` is the radius, or that of each image, (B, 1, 1, 1).
    """
    change = x - centre
    if norm == Attack.LINF:
        change = change.clamp(-eps, eps)  # type: ignore[arg-type]  # two numbers or two tensors
    else:
        change = change * (eps / _norms(change).clamp(min=1e-30)).clamp(max=1)
    return (centre + change).clamp(0, 1)


def pgd(
    logits: Logits,
    x: Tensor,
    labels: Tensor,
    eps: float,
    norm: Attack,
    *,
    steps: int = 20,
    step: float = 2.5,
    restarts: int = 2,
    loss: Loss = Loss.MARGIN,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Attack images by projected gradient descent; an image is fooled at the first wrong answer on the way.

        x' <- project(x' + (step eps / steps) ascent(grad loss(x')))

    Args:
        logits: the network.
        x: (B, C, H, W) in [0, 1].
        labels: (B,) int64.
        eps: radius of the ball.
        norm: ``l2`` or ``linf``.
        steps: steps from each start. One step of length 1 is the fast gradient method.
        step: length of all steps together, in radii.
        restarts: number of starts. The first is the image. The others are random in the ball, and each targets another
            class, the likeliest first. With as many starts as classes all are tried, and for a linear model that finds
            every image that can be fooled.
        loss: what the attack increases.
        generator: draws the starts, on the CPU.

    Returns:
        Images (B, C, H, W): the first that is classified wrongly, else that of the last step; and whether each is still
        classified rightly, (B,) bool.
    """
    attacked, right = x.clone(), torch.ones(len(x), dtype=torch.bool, device=x.device)

    def classify(places: Tensor, moved: Tensor) -> None:
        with torch.no_grad():
            wrong = logits(moved).argmax(dim=1) != labels[places]
        attacked[places] = moved
        right[places] = ~wrong

    classify(torch.arange(len(x), device=x.device), x)
    for start in range(restarts if eps > 0 else 0):
        places = right.nonzero().squeeze(1)
        if not len(places):
            break
        centre, targets = x[places], None
        if start and loss == Loss.MARGIN:
            with torch.no_grad():
                order = _without_own(logits(centre), labels[places]).argsort(dim=1, descending=True)
            targets = order[:, (start - 1) % (order.shape[1] - 1)]
        moved = project(centre + _inside(centre, eps, norm, generator), centre, eps, norm) if start else centre
        for _ in range(steps):
            slope = gradient(logits, moved, labels[places], loss, targets)
            moved = project(moved + step * eps / steps * ascent(slope, norm), centre, eps, norm)
            classify(places, moved)
            kept = right[places].nonzero().squeeze(1)  # the one wait of a step
            places, moved, centre = places[kept], moved[kept], centre[kept]
            targets = None if targets is None else targets[kept]
            if not len(places):
                break
    return attacked, right


def measure(
    logits: Logits,
    batches: Iterable[tuple[Tensor, Tensor]],
    attack: Attack,
    strengths: Sequence[float],
    *,
    losses: Sequence[Loss] = (Loss.MARGIN,),
    steps: int = 20,
    restarts: int = 2,
    generator: torch.Generator,
) -> pd.DataFrame:
    """Return one line a strength: strength, accuracy in percent, images, and no_gradient in percent.

    A larger ball contains the smaller ones, so an image that was fooled in one is not attacked again in the next.
    ``no_gradient`` is the share of images at which the gradient of the first loss is 0 (NaN for noise).

    Args:
        logits: the network.
        batches: (images in [0, 1], labels).
        attack: what is done to the images.
        strengths: in any order.
        losses: loss functions that PGD increases, tried in turn; an image must resist all of them.
        steps: steps of PGD from each start.
        restarts: starts of PGD.
        generator: draws noise and starts, on the CPU.
    """
    check(attack, strengths)
    levels = sorted(strengths)
    hits, flat, count = [0] * len(levels), 0, 0
    for x, labels in batches:
        count += len(x)
        if attack == Attack.NOISE:
            for i, level in enumerate(levels):
                with torch.no_grad():
                    hits[i] += int((logits(noisy(x, level, generator)).argmax(dim=1) == labels).sum())
            continue
        flat += int((_norms(gradient(logits, x, labels, losses[0])) == 0).sum())
        for i, level in enumerate(levels):
            for loss in losses:
                _, right = pgd(
                    logits, x, labels, level, attack, steps=steps, restarts=restarts, loss=loss, generator=generator
                )
                x, labels = x[right], labels[right]
            hits[i] += len(x)
    frame = pd.DataFrame({"strength": levels, "accuracy": [100 * h / count for h in hits], "images": count})
    frame["no_gradient"] = float("nan") if attack == Attack.NOISE else 100 * flat / count
    return frame


def check(attack: Attack, strengths: Sequence[float]) -> None:
    """Raise for no strength, or a negative one."""
    if not strengths or min(strengths) < 0:
        raise ConfigError(f"--{attack}", f"must be numbers >= 0, at least one, got {list(strengths)}")


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Return n, mean and sample deviation of the accuracy over the runs of an arm, for every kind and strength.

    Args:
        frame: one line a run and strength: arm, seed, kind, strength, accuracy, images, no_gradient.
    """
    keys = ["kind", "arm", "strength"]
    accuracy = replicates.over_seeds(frame, keys, "accuracy")
    others = frame.groupby(keys, sort=False).agg(images=("images", "first"), no_gradient=("no_gradient", "mean"))
    return accuracy.join(others, on=keys)


@style.drawn
def draw(frame: pd.DataFrame) -> Figure:
    """Draw accuracy against strength: a panel for each kind, a line for each arm, bars of one deviation over runs."""
    kinds = list(dict.fromkeys(frame["kind"]))
    arms = list(dict.fromkeys(frame["arm"]))
    figure, axes = style.figure(
        1, len(kinds), width=min(style.WIDTH, style.PAGE / len(kinds)), height=2.6, squeeze=False, sharey=True
    )
    for panel, kind in zip(axes[0], kinds, strict=True):
        for number, arm in enumerate(arms):
            line = frame[(frame["kind"] == kind) & (frame["arm"] == arm)]
            style.bars(panel, number, arm, line["strength"], line, "accuracy")
        style.label(
            panel, STRENGTH_LABELS[kind].replace(": ", "\n"), "test accuracy (%)" if panel is axes[0][0] else ""
        )
        panel.set_ylim(bottom=0)
        panel.locator_params(axis="x", nbins=5)  # 0.025 0.050 0.075 would touch
    images = int(frame["images"].iloc[0])
    figure.suptitle(f"{images:,} test images, pixels in [0, 1]", fontsize=10)
    style.legend(figure, axes[0], style.spread(frame, "bars"))
    return figure


def _norms(x: Tensor) -> Tensor:
    """Return |x_i|_2 of each image, (B, 1, 1, 1)."""
    norms: Tensor = x.flatten(1).norm(dim=1)
    return norms.view(-1, *[1] * (x.dim() - 1))


def _inside(x: Tensor, eps: float, norm: Attack, generator: torch.Generator) -> Tensor:
    """Draw a uniform point of the ball around 0 for each image."""
    if norm == Attack.LINF:
        return (eps * (2 * torch.rand(x.shape, generator=generator) - 1)).to(x.device)
    direction = torch.randn(x.shape, generator=generator)
    lengths = torch.rand(len(x), generator=generator) ** (1 / x[0].numel())
    return (eps * lengths.view(-1, *[1] * (x.dim() - 1)) * direction / _norms(direction)).to(x.device)
