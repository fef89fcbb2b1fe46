"""Latent Predictive Learning: two views of an image pull together, neurons push apart. And its two rivals.

With z (B, M) the block's output, averaged over the map, for one view, and v its variance over the batch,

    pull    = 1/(B M) sum_bi (z1_bi - z2_bi)^2                     predict the other view
    push    = -1/M sum_i ln(v_i + 1e-4), mean over the views       Hebbian: keep the variance up
    decorr  = 1/(M^2 - M) sum_{i != k} C_ik^2, mean over the views C the covariance of z: neurons differ
    loss    = pull_coeff pull + push_coeff push + decorr_coeff decorr

so that the signal of the neuron is y = -dloss/du = -f'(u) dloss/dz with

    dloss/dz1_bi = 2 (z1 - z2)_bi/(B M) - (z1 - m)_bi/((B-1) M (v_i + 1e-4))
                   + 10 * 2/((B-1)(M^2 - M)) sum_{k != i} C_ik (z1 - m)_bk          m: mean over the batch

for the coefficients 1, 1, 10. Variance and covariance are those of the batch, unbiased, each view's own. No gradient is
stopped in the pull; as a sum over views of a pull with the other view held fixed it is the same step. Halvagal &
Zenke 2023 (Nat. Neurosci. 26:1906), eqs. 1 to 6; eq. 6 with its published erratum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hebb.config.fields import ARCHS, CNN, LOCAL, LayerFields, Value
from hebb.config.registry import RULES, Field, LocalRule
from hebb.core.errors import ConfigError
from hebb.rules.backprop import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor

    from hebb.config.rule import LossContext

FLOOR = 1e-4
"""Added to a variance: a silent neuron costs -ln(1e-4) = 9.21."""


def pull(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean squared difference of two views of any shape."""
    return (first - second).square().mean()


def push(z: Tensor) -> Tensor:
    """Return -mean ln(v + 1e-4), v the unbiased variance over the batch of each number: (B, M) or (B, C, H, W)."""
    return -(z.var(dim=0) + FLOOR).log().mean()


def stale_push(z: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Return -1/(M (B-1)) sum (z - m)^2/(v + 1e-4) with the mean m and variance v (M,) of the batch before.

    Its gradient is that of ``push`` with the statistics that a neuron can already know.
    """
    scaled = (z - mean).square() / (variance + FLOOR)
    return -scaled.sum() / ((len(z) - 1) * z.shape[1])


def decorrelation(z: Tensor) -> Tensor:
    """Return the mean squared covariance between different neurons; maps count every pixel as a sample."""
    if z.dim() == 4:
        z = z.movedim(1, -1).flatten(0, 2)  # (B H W, C)
    samples, neurons = z.shape
    z = z - z.mean(dim=0)
    others = (z.T @ z / (samples - 1)).fill_diagonal_(0)  # (M, M)
    return others.square().sum() / max(neurons**2 - neurons, 1)


def cosine_push(z: Tensor) -> Tensor:
    """Return the mean squared cosine of each sample (B, M) with all others of its view."""
    from torch.nn import functional as F

    u = F.normalize(z, dim=1)
    others = (u @ u.T).fill_diagonal_(0)  # (B, B)
    return others.square().sum() / (len(z) ** 2 - len(z))


def lpl(views: tuple[Tensor, ...], layer: LayerFields, context: LossContext) -> dict[str, Tensor]:
    """Return pull, push and decorrelation; a term whose coefficient is 0 is not computed."""
    first, second = views
    terms = {}
    if layer.pull:
        terms["pull"] = pull(first, second if context.order is None else second[context.order.to(second.device)])
    if layer.push and context.before is not None:
        terms["push"] = (stale_push(first, *context.before) + stale_push(second, *context.before)) / 2
    elif layer.push:
        terms["push"] = (push(first) + push(second)) / 2
    if layer.decorr:
        terms["decorr"] = (decorrelation(first) + decorrelation(second)) / 2
    return terms


def contrastive(views: tuple[Tensor, ...], layer: LayerFields, context: LossContext) -> dict[str, Tensor]:
    """Return pull = -1/B sum_b cos(z1_b, z2_b) and push = 1/(B^2 - B) sum_{b != c} cos(z_b, z_c)^2.

    z1_b and z2_b (M,) are the two views of image b; the push is the mean over the views.
    """
    from torch.nn import functional as F

    first, second = views
    terms = {}
    if layer.pull:
        terms["pull"] = -F.cosine_similarity(first, second, dim=1).mean()
    if layer.push:
        terms["push"] = (cosine_push(first) + cosine_push(second)) / 2
    return terms


def _check(values: Mapping[str, Value], where: str) -> None:
    terms = [name for name in ("pull", "push", "decorr") if name in values]
    if terms and not any(values[name] for name in terms):
        raise ConfigError(where, f"{', '.join(terms)} are all 0: there is nothing to learn from")
    if values.get("pooling", True):
        return
    for name, why in (
        ("projector", "reads one vector an image"),
        ("shuffle", "permutes pooled outputs"),
        ("stale", "keeps the statistics of pooled outputs"),
    ):
        if values.get(name):
            raise ConfigError(where, f"{name}=1 {why}, and pooling=0 gives maps", hint="leave one of the two out")


def _switch(name: str, default: bool, meaning: str, archs: tuple[str, ...] = ARCHS) -> Field:
    return Field(name=name, token=None, kind=bool, default=default, meaning=meaning, archs=archs)


_DEFAULTS: dict[str, dict[str, Value]] = {
    "MLP": {"add_bias": True},
    "CNN": {"add_bias": True, "padding_mode": "zeros"},
}

RULES.register(
    LocalRule(
        name="LPL",
        summary="Latent Predictive Learning: predict the other view, keep variance, decorrelate; all layer-local",
        source="Halvagal & Zenke 2023 (Nat. Neurosci. 26:1906), eqs. 1 to 6, and its erratum",
        fields=(*LOCAL, "pull", "push"),
        own_fields=(
            Field(
                name="decorr",
                token="decorr",
                kind=float,
                minimum=0,
                default=10.0,
                meaning="coefficient of the decorrelation of the neurons",
            ),
            _switch("pooling", True, "the loss reads the mean over the map (1) or every pixel (0)", CNN),
            _switch("shuffle", False, "pull towards a view of another image: a control"),
            _switch("stale", False, "push with the mean and variance of the batch before"),
        ),
        defaults=_DEFAULTS,
        views=2,
        mode="consecutive",
        loss=lpl,
        check=_check,
    )
)
RULES.register(
    LocalRule(
        name="ContrastiveLPL",
        summary="negative samples in place of variance and decorrelation: cosines of other images, layer-local",
        source="Halvagal & Zenke 2023, the comparison with negative samples",
        fields=(*LOCAL, "pull", "push"),
        defaults={arch: {**values, "projector": True} for arch, values in _DEFAULTS.items()},
        views=2,
        mode="consecutive",
        loss=contrastive,
        check=_check,
    )
)
RULES.register(
    LocalRule(
        name="SupervisedLPL",
        summary="a linear classifier on every block, whose gradient stays in it: the layer-local supervised arm",
        source="Halvagal & Zenke 2023, the comparison with supervised training",
        fields=LOCAL,
        defaults=_DEFAULTS,
        views=2,
        mode="consecutive",
        labels=True,
        loss=cross_entropy,
    )
)
