"""Linear and k-nearest-neighbour probes on the frozen features of a block.

Feature maps are average-pooled to at most ``GRID`` x ``GRID``, as is usual for probes of convolutional layers, and
standardised with the training images. The ``short`` probe follows Halvagal & Zenke (2023): it averages features over
the whole map, does not standardise them, and takes so few steps that it does not converge.

Shapes: N images, C channels or neurons, H and W height and width of a map, D pooled features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hebb.config.probed import NEIGHBOURS, SHORT_BATCH, SHORT_EPOCHS
from hebb.kernels import private_torch
from hebb.kernels.precision import doubles

GRID = 2
"""Side of the pooled map."""
SHORT_LR = 1e-3
"""Constant rate of Adam for the ``short`` probe, which reads the images in the same order in every epoch."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Accuracy of a probe of one block, in percent; None when the split is absent or closed."""

    block: int
    kind: str
    train_acc: float
    val_acc: float | None
    test_acc: float | None


def pooled(features: Tensor) -> Tensor:
    """Return (N, D) features: maps (N, C, H, W) as their means over a GRID x GRID partition."""
    if features.dim() == 4:
        sides = (min(GRID, features.shape[2]), min(GRID, features.shape[3]))
        features = F.adaptive_avg_pool2d(features, sides)
    return features.flatten(1)


def averaged(features: Tensor) -> Tensor:
    """Return (N, C) features: maps (N, C, H, W) as their means."""
    return features.mean(dim=(2, 3)) if features.dim() == 4 else features


def fit_short(
    block: int,
    train: tuple[Tensor, Tensor],
    others: dict[str, tuple[Tensor, Tensor] | None],
    classes: int,
    generator: torch.Generator,
) -> Probe:
    """Fit the ``short`` probe, a linear layer with bias on the cross-entropy, and score it on the other splits.

    Args:
        block: number of the block, for the result.
        train: averaged features (N, C) and labels (N,).
        others: the same for the splits that are open.
        classes: number of labels.
        generator: draws the initial weights, uniform in +-1/sqrt(C).
    """
    x, labels = train
    bound = x.shape[1] ** -0.5
    weight = torch.empty(classes, x.shape[1]).uniform_(-bound, bound, generator=generator).requires_grad_()
    bias = torch.empty(classes).uniform_(-bound, bound, generator=generator).requires_grad_()
    optimiser = private_torch.Adam([weight, bias], lr=SHORT_LR)
    for _ in range(SHORT_EPOCHS):
        for piece, targets in zip(x.split(SHORT_BATCH), labels.split(SHORT_BATCH), strict=True):
            optimiser.zero_grad()
            F.cross_entropy(F.linear(piece, weight, bias), targets).backward()
            optimiser.step()

    def score(split: tuple[Tensor, Tensor] | None) -> float | None:
        if split is None:
            return None
        hits = F.linear(split[0], weight, bias).argmax(dim=1) == split[1]
        return 100 * doubles(hits).mean().item()

    fitted = score(train)
    assert fitted is not None
    return Probe(
        block=block, kind="short", train_acc=fitted, val_acc=score(others["val"]), test_acc=score(others["test"])
    )


def fit(kind: str, block: int, train: tuple[Tensor, Tensor], others: dict[str, tuple[Tensor, Tensor] | None]) -> Probe:
    """Fit a probe on (features, labels) and score it on the other splits (``val``, ``test``).

    Args:
        kind: ``linear`` (multinomial logistic regression) or ``knn`` (cosine distances).
        block: number of the block, for the result.
        train: pooled features (N, D) and labels (N,).
        others: the same for the splits that are open.
    """
    mean, std = train[0].mean(dim=0), train[0].std(dim=0)
    std = torch.where(std > 0, std, 1.0)
    estimator = _estimator(kind)
    estimator.fit(((train[0] - mean) / std).numpy(), train[1].numpy())

    def score(split: tuple[Tensor, Tensor] | None) -> float | None:
        if split is None:
            return None
        return 100 * float(estimator.score(((split[0] - mean) / std).numpy(), split[1].numpy()))

    fitted = score(train)
    assert fitted is not None
    return Probe(block=block, kind=kind, train_acc=fitted, val_acc=score(others["val"]), test_acc=score(others["test"]))


def _estimator(kind: str):  # type: ignore[no-untyped-def]  # scikit-learn has no types
    if kind == "linear":
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=300, tol=1e-3)
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(NEIGHBOURS, metric="cosine")
