"""Train with the published padding of the adaptive threshold: its map of similarities is padded twice.

    python records/2026-11-30-instars/twice_padded.py --preset 4ThresholdInstarCnnCIFAR ...

Takes the words of ``multi_layer.py``. The map is then larger than the layer's output by 2 p, and the correlation with
the padded input has a single tap, which all taps of a filter on a channel get.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from torch import Tensor
from torch.nn import functional as F

from hebb.cli import train
from hebb.cli.entry import run_command
from hebb.nn.layers import ConvHebbLayer


def rivals(layer: ConvHebbLayer, x: Tensor, u: Tensor) -> Tensor:
    """Return the projections (B, C, H + 2 p, W + 2 p) of the input x, which is padded already."""
    w = layer.weight
    similarities: Tensor = F.conv2d(x, w, padding=layer.spec.padding) / w.flatten(1).norm(dim=1).view(-1, 1, 1)
    return similarities


def change(layer: ConvHebbLayer, x: Tensor, u: Tensor, y: Tensor) -> Tensor:
    """Return the change of the weights for the gate y of that size."""
    taps = layer.rows(y).T @ layer.rows(x)
    return taps[:, :, None, None] - y.sum(dim=(0, 2, 3)).view(-1, 1, 1, 1) * layer.weight


ConvHebbLayer.rivals, ConvHebbLayer.change = rivals, change  # type: ignore[method-assign, assignment]

if __name__ == "__main__":
    run_command(train.main)
