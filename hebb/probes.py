"""What can be read out of a block: linear and k-nearest-neighbour probes on frozen features.

Features are pooled to maps of at most ``GRID`` x ``GRID`` (their mean over the cells), as is usual for probes of
convolutional layers, and standardised by the training images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

GRID = 2
"""Side of the pooled map."""
NEIGHBOURS = 10
"""k of the k-nearest-neighbour probe; distances are cosine distances."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Accuracy of a probe of one block, in percent; None where the split is absent or closed."""

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


def fit(kind: str, block: int, train: tuple[Tensor, Tensor], others: dict[str, tuple[Tensor, Tensor] | None]) -> Probe:
    """Fit a probe on (features, labels) and score it on the other splits (``val``, ``test``).

    Args:
        kind: ``linear`` (multinomial logistic regression) or ``knn``.
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
