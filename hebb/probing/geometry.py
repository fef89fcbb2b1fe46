"""How a block represents a set of images: dimensionality, decorrelation, variance, disentanglement of the classes.

z (N, M) are the outputs of M neurons for N images, averaged over the map. C (M, M) is their unbiased covariance, with
eigenvalues l. K is the number of classes.

    dimensionality          participation ratio (sum l)^2 / sum l^2 = tr(C)^2 / tr(C^2), from 1 to M
    dimensionality_batch    the same for 256 images at a time, mean over the batches
    dimensionality_class    the same for the images of one class, mean over the classes; undefined if one does not vary
    variance                mean of C_ii
    silent                  share of the neurons with C_ii = 0
    covariance              mean of C_ik^2 over i != k, which LPL's decorrelation lowers
    correlation             mean of |C_ik| / sqrt(C_ii C_kk) over i != k, without silent neurons
    within_cosine           mean cosine of two images of one class, z without its mean over all images
    across_cosine           the same for two images of different classes
    class_radius            rms distance from the class centre, mean over the classes, relative to that from the mean
    centre_correlation      mean correlation of two class centres, without their mean
    activity                mean of z

The participation ratio, the cosines and the radii follow Halvagal & Zenke (2023), who publish participation ratios of
batches (their evaluation) and of classes (their monitor). A number that is undefined (all images alike, none with a
label) is None.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hebb.kernels.precision import doubles

BATCH = 256
"""Images in a batch of ``dimensionality_batch``."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The numbers of one block."""

    block: int
    numbers: dict[str, float | None]

    @property
    def row(self) -> dict[str, float | None]:
        """Return them as ``result.json`` holds them."""
        return {"block": self.block, **self.numbers}


def measure(block: int, z: Tensor, labels: Tensor) -> Geometry:
    """Measure outputs z (N, M) of images with labels (N,); unlabelled images (-1) count only where labels do not."""
    z = doubles(z)
    labels = labels.to(z.device)
    covariance = _covariance(z)
    variance = covariance.diagonal()
    numbers = {
        "dimensionality": _participation(covariance),
        "dimensionality_batch": _mean([_participation(_covariance(part)) for part in z.split(BATCH) if len(part) > 1]),
        **_by_class(z, labels),
        "variance": float(variance.mean()),
        "silent": float(doubles(variance == 0).mean()) if len(z) > 1 else math.nan,
        **_decorrelation(covariance),
        "activity": float(z.mean()),
    }
    return Geometry(block=block, numbers={k: v if math.isfinite(v) else None for k, v in numbers.items()})


def _covariance(z: Tensor) -> Tensor:
    """Return the unbiased covariance (M, M)."""
    z = z - z.mean(dim=0)
    return z.T @ z / (len(z) - 1)


def _participation(covariance: Tensor) -> float:
    """Return tr(C)^2 / tr(C^2); NaN when nothing varies."""
    return float(covariance.trace() ** 2 / covariance.square().sum())


def _decorrelation(covariance: Tensor) -> dict[str, float]:
    other = ~torch.eye(len(covariance), dtype=torch.bool)
    std = covariance.diagonal().sqrt()
    correlation = covariance / torch.outer(std, std)
    live = other & torch.outer(std > 0, std > 0)
    return {
        "covariance": float(covariance[other].square().mean()),
        "correlation": float(correlation[live].abs().mean()),
    }


def _by_class(z: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the numbers that compare classes; sums over pairs of images are computed from sums over images."""
    z, labels = z[labels >= 0], labels[labels >= 0]
    z = z - z.mean(dim=0)
    # where no image has a label, one class without images: all its numbers are undefined
    present = [z[labels == label] for label in labels.unique()] or [z]
    groups = [group for group in present if len(group) > 1]
    unit = [F.normalize(group, dim=1) for group in present]
    lengths = torch.stack([part.sum(dim=0).square().sum() for part in unit])
    itself = torch.stack([part.square().sum() for part in unit])  # the cosines of images with themselves
    counts = torch.tensor([len(part) for part in unit], dtype=torch.float64)
    together = torch.stack([part.sum(dim=0) for part in unit]).sum(dim=0).square().sum()
    centres = torch.stack([group.mean(dim=0) for group in present])
    radius = z.square().sum(dim=1).mean().sqrt()
    radii = [float((group - group.mean(dim=0)).square().sum(dim=1).mean().sqrt() / radius) for group in present]
    return {
        "dimensionality_class": _mean([_participation(_covariance(group)) for group in groups]),
        "within_cosine": float((lengths - itself).sum() / (counts * (counts - 1)).sum()),
        "across_cosine": float((together - lengths.sum()) / (counts.sum() ** 2 - counts.square().sum())),
        "class_radius": _mean(radii),
        "centre_correlation": _centre_correlation(centres),
    }


def _centre_correlation(centres: Tensor) -> float:
    """Return the mean over pairs of the correlation of two class centres (K, M) across the neurons."""
    if min(centres.shape) < 2:
        return math.nan
    unit = F.normalize(centres - centres.mean(dim=1, keepdim=True), dim=1)
    cosine = unit @ unit.T
    return float((cosine.sum() - cosine.trace()) / (len(centres) * (len(centres) - 1)))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
