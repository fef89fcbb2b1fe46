"""Self-contrastive forward-forward: loud for an image beside itself, quiet for it beside another image.

A layer answers a pair of inputs with u = W * a + W * a' + 2 b, a and a' standardised together
(``hebb.kernels.paired``). With the goodness of a pixel of the map, G = 1/C sum_c relu(u_c)^2,

    positive  = mean ln(1 + exp(positive_goodness - G+))       over images and pixels; G+ of the pair (x_b, x_b)
    negative  = mean ln(1 + exp(G- - negative_goodness))       G- of the pair (x_b, x_{b+s mod B})
    flatness  = 1/B sum_b |G+_b|                               Euclidean norm over the pixels
    loss      = positive + negative + flatness_coefficient flatness

where the shift s, 1 to B - 1, is drawn for every batch. With P pixels, S(v) = 1/(1 + exp(-v)) and u+ and u- of a pixel
for the two pairs, the gradient is

    dloss/du+_c = 2/(B C) relu(u+_c) (flatness_coefficient G+/|G+_b| - S(positive_goodness - G+)/P)
    dloss/du-_c = 2/(B C P) relu(u-_c) S(G- - negative_goodness)

so that every neuron of a pixel moves along its own answer, by a factor that all of them share. The goodness is that of
the layer, before activation and pool. Every block makes pairs of what it gets. In the published code the second of
three blocks is given the answers of the first to its pairs; there u has no factor 2, so that its thresholds do not
carry over. Chen et al. 2025 (Nat. Commun. 16:5978), and its published code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hebb.config.fields import LOCAL, PROJECTOR, LayerFields, Value
from hebb.config.registry import RULES, Field, LocalRule

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from hebb.config.rule import LossContext


def goodness(u: Tensor) -> Tensor:
    """Return 1/C sum_c relu(u_c)^2 for u (B, C, ...): a map (B, H, W), or (B,)."""
    return u.relu().square().mean(dim=1)


def scff(views: tuple[Tensor, ...], layer: LayerFields, context: LossContext) -> dict[str, Tensor]:
    """Return positive, negative and flatness, G = 1/C sum_c relu(u_c)^2 for u (C channels) of a pair.

    positive = mean ln(1 + exp(positive_goodness - G+))        mean over images and pixels; pairs (x_b, x_b)
    negative = mean ln(1 + exp(G- - negative_goodness))        pairs (x_b, x_{b+s mod B})
    flatness = 1/B sum_b |G+_b|                                Euclidean norm over the pixels
    """
    from torch.nn import functional as F

    (u,), (x,) = context.answers, context.fed
    assert context.order is not None
    loud = goodness(u)
    quiet = goodness(context.module.pair(x, x[context.order.to(x.device)]))
    terms = {
        "positive": F.softplus(layer.positive_goodness - loud).mean(),
        "negative": F.softplus(quiet - layer.negative_goodness).mean(),
    }
    if layer.flatness:
        terms["flatness"] = loud.flatten(1).norm(dim=1).mean() if loud.dim() > 1 else loud.mean()
    return terms


def module(fan_in: int, width: int, layer: LayerFields) -> Module:
    """Return a layer that answers pairs."""
    from hebb.kernels.channels_last import geometry
    from hebb.kernels.paired import PairedConv2d, PairedLinear

    if "kernel_size" not in vars(layer):
        return PairedLinear(fan_in, width, bias=layer.add_bias)
    return PairedConv2d(fan_in, width, **geometry(layer))


def _number(name: str, default: float, meaning: str, token: str | None = None) -> Field:
    return Field(name=name, token=token, kind=float, minimum=0, default=default, meaning=meaning)


_DEFAULTS: dict[str, Value] = {"add_bias": True, "warmup": 0, "lr_sup": 0.01}

RULES.register(
    LocalRule(
        name="SCFF",
        summary="self-contrastive forward-forward: loud for an image beside itself, quiet for it beside another",
        source="Chen et al. 2025 (Nat. Commun. 16:5978, arXiv:2409.11593) and its published code",
        fields=tuple(name for name in LOCAL if name not in PROJECTOR),  # it reads the layer's own answer
        own_fields=(
            _number("positive_goodness", 0.0, "goodness of a positive pair above which its loss falls off"),
            _number("negative_goodness", 1.0, "goodness of a negative pair below which its loss falls off"),
            _number("flatness", 0.0012, "coefficient of the norm of the map of the goodness of positive pairs"),
            _number("weight_decay", 1e-4, "decay of all parameters of the block, apart from the gradient (AdamW)"),
        ),
        defaults={"MLP": _DEFAULTS, "CNN": _DEFAULTS},
        loss=scff,
        module=module,
        partners=True,
        decoupled=True,
    )
)
