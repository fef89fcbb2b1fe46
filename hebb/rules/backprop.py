"""Back-propagation: the comparison arm, and the classifier on top of Hebbian blocks."""

from __future__ import annotations

from hebb.registry import RULES, Rule

RULES.register(
    Rule(
        name="BP",
        summary="gradient of the cross-entropy; neighbouring BP blocks train end to end",
        source="Rumelhart, Hinton & Williams 1986; Adam: Kingma & Ba 2015",
        learning="backprop",
        fields=("lr_sup", "add_bias"),
        defaults={"MLP": {"add_bias": True}},
    )
)
