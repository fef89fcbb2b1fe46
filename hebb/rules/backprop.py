"""Back-propagation and feedback alignment: comparison arms, and the classifier on top of Hebbian blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hebb.config.fields import CNN, LOCAL, LayerFields
from hebb.config.registry import RULES, BackpropRule, Field, LocalRule

if TYPE_CHECKING:
    from torch import Tensor

    from hebb.config.rule import LossContext


def cross_entropy(views: tuple[Tensor, ...], layer: LayerFields, context: LossContext) -> dict[str, Tensor]:
    """Return cross_entropy = -1/B sum_b ln softmax(V z_b)_label, V the block's own classifier, mean over the views."""
    from torch.nn import functional as F

    losses = [F.cross_entropy(logits, context.labels) for logits in views]
    return {"cross_entropy": sum(losses[1:], losses[0]) / len(losses)}


RULES.register(
    BackpropRule(
        name="BP",
        summary="gradient of the cross-entropy; neighbouring BP blocks train end to end",
        source="Rumelhart, Hinton & Williams 1986; Adam: Kingma & Ba 2015",
        fields=("lr_sup", "add_bias"),
        defaults={"MLP": {"add_bias": True}},
    )
)
RULES.register(
    BackpropRule(
        name="FA",
        summary="feedback alignment: as BP, but errors travel down through fixed random weights",
        source="Lillicrap et al. 2016 (Nat. Commun. 7:13276)",
        fields=("lr_sup", "add_bias"),
        archs=("MLP",),
        defaults={"MLP": {"add_bias": True}},
    )
)
RULES.register(
    LocalRule(
        name="LocalBP",
        summary="back-prop inside each block: the cross-entropy of a linear head of its own, which is thrown away",
        source="Belilovsky et al. 2019 (ICML); Noekland & Eidnes 2019 (ICML), the loss `pred`",
        fields=LOCAL,
        own_fields=(
            Field(
                name="head_map",
                token="hm",
                kind=int,
                minimum=1,
                default=4,
                meaning="the head reads the map averaged to this many pixels each way, those of a smaller map repeated",
                archs=CNN,
            ),
        ),
        defaults={
            "MLP": {"add_bias": True, "warmup": 0, "weight_decay": 0.0},
            "CNN": {"warmup": 0, "weight_decay": 0.0},
        },
        labels=True,
        loss=cross_entropy,
    )
)
