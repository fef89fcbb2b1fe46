"""Diagnostics of a settling network: alignment of its weights, activity and correlation of its layers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from hebb.energy.network import EnergyNetwork
from hebb.kernels.precision import doubles


@dataclass(frozen=True)
class Look:
    """Numbers measured in a network while it learns.

    Attributes:
        update: number of updates before the measurement.
        blocks: numbers by name, for each block ``bN``.
    """

    update: int
    blocks: dict[str, dict[str, float]]


def angle(forward: Tensor, backward: Tensor) -> float:
    """Return the angle in degrees between two matrices of one shape: acos(<A, B>/(|A| |B|)), Frobenius.

    It is near 90 for independent matrices, 0 if one is a positive multiple of the other, and NaN if one is 0.
    """
    a, b = doubles(forward.detach()).flatten(), doubles(backward.detach()).flatten()
    cosine = (a @ b) / (a.norm() * b.norm())
    return math.degrees(math.acos(float(cosine.clamp(-1, 1)))) if bool(cosine.isfinite()) else math.nan


def alignment(layer: nn.Module) -> float | None:
    """Return the angle between a layer's forward weights and its transposed feedback weights; None without any."""
    feedback, weight = getattr(layer, "feedback", None), layer.weight
    if feedback is None:
        return None
    assert isinstance(feedback, Tensor)
    assert isinstance(weight, Tensor)
    return angle(weight, feedback.T)


def sparsity(activity: Tensor) -> float:
    """Return the share of entries of (N, n) that are exactly 0, in percent."""
    return 100 * float(doubles(activity == 0).mean())


def correlation(activity: Tensor) -> float:
    """Return the mean of |r_ij| over pairs i < j of neurons, where r is their correlation over the N images of (N, n).

    Neurons that do not vary are left out; NaN if fewer than two vary.
    """
    activity = doubles(activity)
    centred = activity - activity.mean(dim=0)
    norms = centred.norm(dim=0)
    units = centred[:, norms > 0] / norms[norms > 0]
    n = units.shape[1]
    if n < 2:
        return math.nan
    matrix = (units.T @ units).abs()
    return float((matrix.sum() - matrix.diagonal().sum()) / (n * (n - 1)))


def layer_numbers(network: EnergyNetwork, x: Tensor) -> dict[str, dict[str, float]]:
    """Return the recorded numbers of every layer, by ``bN``; this waits for the device.

    Args:
        network: the network.
        x: images (N, n_0) whose free state is measured.
    """
    blocks = {}
    for i, (layer, activity) in enumerate(zip(network.layers, network.predict(x), strict=True)):
        numbers = {
            "weight_norm": float(layer.weight.norm()),
            "activity": float(doubles(activity).mean()),
            "sparsity": sparsity(activity),
            "correlation": correlation(activity),
        }
        degrees = alignment(layer)
        blocks[f"b{i}"] = numbers if degrees is None else {"angle": degrees, **numbers}
    return blocks
