"""Back-propagation and feedback alignment: comparison arms, and the classifier on top of Hebbian blocks."""

from __future__ import annotations

from hebb.config.registry import RULES, BackpropRule

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
