"""The losses of back-prop and of evaluations.

Shapes: B batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hebb.config.vocabulary import ClassifierLoss


def loss(name: ClassifierLoss, outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss over a batch of outputs (B, classes) for labels (B,).

    cross_entropy: -log softmax(output)_label;  mse: mean over the classes of (output - one-hot label)^2.
    """
    if name == ClassifierLoss.CROSS_ENTROPY:
        return F.cross_entropy(outputs, labels)
    classes = torch.arange(outputs.shape[1], device=labels.device)
    return F.mse_loss(outputs, (labels.unsqueeze(1) == classes).to(outputs.dtype))
