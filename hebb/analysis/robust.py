"""Accuracy under noise and under attack.

Moraitis et al. (Neuromorph. Comput. Eng. 2022) report that a shallow SoftHebb network loses less accuracy than one of
back-prop under Gaussian noise and under projected gradient descent (PGD, Madry et al. 2018). Pixels are in [0, 1]; the
strength is the standard deviation of the noise, or the radius eps of the ball |x' - x|_2 <= eps or |x' - x|_inf <= eps.

A network can seem robust because its gradient vanishes, not because its classes lie far apart. Hence the margin as the
loss of the attack, which does not saturate as the cross-entropy does; further attacks from random starts; and the
share of images without any gradient in the table: where it is large, the accuracy is no evidence.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from hebb.analysis import style
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Logits = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] -> logits (B, classes)."""
KINDS = {
    "noise": "Gaussian noise: standard deviation",
    "l2": r"PGD: radius $\epsilon$ of the $L_2$ ball",
    "linf": r"PGD: radius $\epsilon$ of the $L_\infty$ ball",
}
"""What is done to an image, and the axis of its strength."""
LOSSES = ("margin", "cross_entropy")
STRENGTHS = {
    "noise": (0.0, 0.05, 0.1, 0.2, 0.3, 0.5),
    "l2": (0.0, 0.1, 0.25, 0.5, 1.0, 2.0),
    "linf": (0.0, 1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255),
}
"""Strengths unless others are asked for, in units of the pixel range."""


def noisy(x: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise and cut to [0, 1]; the generator is on the CPU."""
    return (x + deviation * torch.randn(x.shape, generator=generator).to(x.device)).clamp(0, 1)


def loss(kind: str, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return what an attack increases, (B,).

    It is ``margin``, z_t - z_y with the target t, where none is given the largest of the others, or ``cross_entropy``.
    """
    if kind == "cross_entropy":
        return F.cross_entropy(logits, labels, reduction="none")
    own = logits.gather(1, labels.unsqueeze(1))
    others = _without_own(logits, labels)
    return (others.amax(dim=1, keepdim=True) if targets is None else others.gather(1, targets.unsqueeze(1)))[
        :, 0
    ] - own[:, 0]


def _without_own(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.scatter(1, labels.unsqueeze(1), -torch.inf)


def gradient(logits: Logits, x: Tensor, labels: Tensor, kind: str = "margin", targets: Tensor | None = None) -> Tensor:
    """Return the gradient of the attack's loss at the images, in their shape."""
    x = x.detach().requires_grad_()
    (found,) = torch.autograd.grad(loss(kind, logits(x), labels, targets).sum(), x)
    return found


def ascent(gradients: Tensor, norm: str) -> Tensor:
    """Return the step of norm 1 that increases the loss most, sign(g) (linf) or g/|g|_2 (l2); 0 where g is 0."""
    if norm == "linf":
        return gradients.sign()
    return gradients / _norms(gradients).clamp(min=1e-30)


def project(x: Tensor, centre: Tensor, eps: float, norm: str) -> Tensor:
    """Bring images back into the ball around ``centre``, then into [0, 1], which leaves them in the ball."""
    change = x - centre
    change = (
        change.clamp(-eps, eps) if norm == "linf" else change * (eps / _norms(change).clamp(min=1e-30)).clamp(max=1)
    )
    return (centre + change).clamp(0, 1)


def pgd(
    logits: Logits,
    x: Tensor,
    labels: Tensor,
    eps: float,
    norm: str,
    *,
    steps: int = 20,
    step: float = 2.5,
    restarts: int = 2,
    kind: str = "margin",
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Attack images by projected gradient descent; an image counts as fooled at the first wrong answer on the way.

        x' <- project(x' + (step eps / steps) ascent(grad loss(x')))

    Args:
        logits: the network.
        x: (B, C, H, W) in [0, 1].
        labels: (B,) int64.
        eps: radius of the ball.
        norm: ``l2`` or ``linf``.
        steps: of each start. One step is the fast gradient method when ``step`` is 1.
        step: length of all steps together, in radii.
        restarts: starts: the first is the image; the others are random in the ball, and their margin is that to the
            class next in line, the likeliest first: as many starts as classes try them all, and leave a linear model
            no image that could be fooled.
        kind: of ``LOSSES``.
        generator: draws them, on the CPU.

    Returns:
        Images (B, C, H, W), wrong ones where there are any and those of the last step where not; and whether each is
        still answered rightly, (B,) bool.
    """
    found, right = x.clone(), torch.ones(len(x), dtype=torch.bool, device=x.device)

    def look(places: Tensor, tried: Tensor) -> None:
        with torch.no_grad():
            wrong = logits(tried).argmax(dim=1) != labels[places]
        found[places] = tried
        right[places[wrong]] = False

    look(torch.arange(len(x), device=x.device), x)
    for start in range(restarts if eps > 0 else 0):
        places = right.nonzero().squeeze(1)
        if not len(places):
            break
        centre, targets = x[places], None
        if start and kind == "margin":
            with torch.no_grad():
                order = _without_own(logits(centre), labels[places]).argsort(dim=1, descending=True)
            targets = order[:, (start - 1) % (order.shape[1] - 1)]
        moved = project(centre + _inside(centre, eps, norm, generator), centre, eps, norm) if start else centre
        for _ in range(steps):
            slope = gradient(logits, moved, labels[places], kind, targets)
            moved = project(moved + step * eps / steps * ascent(slope, norm), centre, eps, norm)
            look(places, moved)
            kept = right[places]
            places, moved, centre = places[kept], moved[kept], centre[kept]
            targets = None if targets is None else targets[kept]
            if not len(places):
                break
    return found, right


def measure(
    logits: Logits,
    batches: Iterable[tuple[Tensor, Tensor]],
    kind: str,
    strengths: Sequence[float],
    *,
    losses: Sequence[str] = ("margin",),
    steps: int = 20,
    restarts: int = 2,
    generator: torch.Generator,
) -> pd.DataFrame:
    """Return one row a strength: strength, accuracy in percent, images, and no_gradient in percent.

    The balls lie in one another: an image that was fooled in a smaller one is so in the larger, and is not attacked
    again. Of several losses an image resists all or counts as fooled. ``no_gradient`` is the share of images at which
    the gradient of the first loss is 0 (NaN for noise).

    Args:
        logits: the network.
        batches: (images in [0, 1], labels).
        kind: ``noise``, ``l2`` or ``linf``.
        strengths: sorted here.
        losses: of the attack.
        steps: of the attack.
        restarts: of the attack.
        generator: on the CPU.
    """
    check(kind, strengths, losses)
    levels = sorted(strengths)
    hits, flat, count = [0] * len(levels), 0, 0
    for x, labels in batches:
        count += len(x)
        if kind == "noise":
            for i, level in enumerate(levels):
                with torch.no_grad():
                    hits[i] += int((logits(noisy(x, level, generator)).argmax(dim=1) == labels).sum())
            continue
        flat += int((_norms(gradient(logits, x, labels, losses[0])) == 0).sum())
        for i, level in enumerate(levels):
            for which in losses:
                _, right = pgd(
                    logits, x, labels, level, kind, steps=steps, restarts=restarts, kind=which, generator=generator
                )
                x, labels = x[right], labels[right]
            hits[i] += len(x)
    frame = pd.DataFrame({"strength": levels, "accuracy": [100 * h / count for h in hits], "images": count})
    frame["no_gradient"] = float("nan") if kind == "noise" else 100 * flat / count
    return frame


def check(kind: str, strengths: Sequence[float], losses: Sequence[str]) -> None:
    """Refuse kinds, strengths and losses that there are not."""
    if kind not in KINDS:
        raise ConfigError("--kind", f"unknown '{kind}'", given=kind, choices=KINDS)
    for word in losses:
        if word not in LOSSES:
            raise ConfigError("--loss", f"unknown '{word}'", given=word, choices=LOSSES)
    if not strengths or min(strengths) < 0:
        raise ConfigError(f"--{kind}", "strengths of 0 or more are wanted, in units of the pixel range")


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Return mean, sample deviation and n of the accuracy over the runs of an arm, for every kind and strength.

    Args:
        frame: one row a run and strength: arm, run, kind, strength, accuracy, images, no_gradient.
    """
    groups = frame.groupby(["kind", "arm", "strength"], sort=False)
    found = groups.agg(
        n=("accuracy", "size"),
        mean=("accuracy", "mean"),
        sd=("accuracy", "std"),
        images=("images", "first"),
        no_gradient=("no_gradient", "mean"),
    )
    return found.reset_index()


@style.drawn
def draw(found: pd.DataFrame) -> Figure:
    """Draw accuracy against strength, a panel a kind and a line an arm; bars are the deviation over runs."""
    kinds = list(dict.fromkeys(found["kind"]))
    arms = list(dict.fromkeys(found["arm"]))
    images, runs = int(found["images"].iloc[0]), sorted({int(n) for n in found["n"]})
    made, axes = style.figure(1, len(kinds), squeeze=False, sharey=True)
    for panel, kind in zip(axes[0], kinds, strict=True):
        for number, arm in enumerate(arms):
            mine = found[(found["kind"] == kind) & (found["arm"] == arm)]
            spread = mine["sd"] if mine["sd"].notna().any() else None
            panel.errorbar(
                mine["strength"], mine["mean"], spread, capsize=2, label=textwrap.fill(arm, 32), **style.line(number)
            )
        style.label(panel, KINDS[kind], "test accuracy (%)" if panel is axes[0][0] else "")
        panel.set_ylim(bottom=0)
        panel.locator_params(axis="x", nbins=5)  # 0.025 0.050 0.075 would touch
    axes[0][-1].legend()
    many = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    noun = "run" if many == "1" else "runs"
    bars = "" if many == "1" else "; bars: standard deviation"
    made.suptitle(f"{images:,} test images, {many} {noun} an arm{bars}; pixels in [0, 1]", fontsize=10)
    return made


def _norms(x: Tensor) -> Tensor:
    """Return |x_i|_2 of each image, (B, 1, 1, 1)."""
    return x.flatten(1).norm(dim=1).view(-1, *[1] * (x.dim() - 1))


def _inside(x: Tensor, eps: float, norm: str, generator: torch.Generator) -> Tensor:
    """Draw a change uniform in the ball, for each image."""
    if norm == "linf":
        return (eps * (2 * torch.rand(x.shape, generator=generator) - 1)).to(x.device)
    direction = torch.randn(x.shape, generator=generator)
    lengths = torch.rand(len(x), generator=generator) ** (1 / x[0].numel())
    return (eps * lengths.view(-1, *[1] * (x.dim() - 1)) * direction / _norms(direction)).to(x.device)
