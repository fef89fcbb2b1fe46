"""SPHeRe: the similarities of the images of a batch survive the block, and its features stay orthogonal.

With x (B, K) the block's input, all its channels and pixels in a row, and z (B, d) the block's output behind a
projector,

    n_b       = x_b/|x_b|, m_b = z_b/|z_b|     rows of length 1; m^j = z^j/|z^j| for the columns of z
    structure = 1/B^2 sum_bc (n_b.n_c - m_b.m_c)^2
    ortho     = 1/d^2 sum_ij (m^i.m^j - delta_ij)^2
    loss      = structure + 0.8 ortho

so that the first term has the gradient

    dstructure/dz_b = 4/B^2 sum_c (m_b.m_c - n_b.n_c) (m_c - (m_b.m_c) m_b)/|z_b|

Nothing sets the length of z but the decay of the weights. Columns of B numbers can be orthogonal only where d <= B;
else ortho stays above 1/B - 1/d. The projector is a 1x1 convolution to half the channels, an affine batch norm, relu,
the mean over the map and a linear map. Deng et al. 2025 (NeurIPS), and its published code, whose first version compared
distances (``similarity=distance``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hebb.config.fields import LOCAL, LayerFields, Value
from hebb.config.registry import RULES, Field, LocalRule
from hebb.config.vocabulary import Similarity
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from hebb.config.rule import LossContext


def directions(rows: Tensor) -> Tensor:
    """Return the rows of (B, K) with length 1; a row of zeros stays, and has cosine 0 with all others."""
    length: Tensor = rows.norm(dim=1, keepdim=True)
    return rows / length.where(length > 0, 1.0)


def cosines(rows: Tensor) -> Tensor:
    """Return the cosines of all pairs of rows, (B, K) -> (B, B)."""
    unit = directions(rows)
    return unit @ unit.T


def structure(x: Tensor, z: Tensor) -> Tensor:
    """Return 1/B^2 sum_bc (cos(x_b, x_c) - cos(z_b, z_c))^2 for x (B, K) and z (B, d)."""
    return (cosines(x) - cosines(z)).square().mean()


def distances(x: Tensor, z: Tensor) -> Tensor:
    """Return the mean over pairs b < c of (|n_b - n_c| - |m_b - m_c|)^2, n and m the rows of x and z of length 1."""
    from torch.nn import functional as F

    return (F.pdist(directions(x)) - F.pdist(directions(z))).square().mean()


def orthogonality(z: Tensor) -> Tensor:
    """Return 1/d^2 sum_ij (cos(z^i, z^j) - delta_ij)^2 over the columns of z (B, d)."""
    return cosines(z.T).fill_diagonal_(0).square().mean()


def sphere(views: tuple[Tensor, ...], layer: LayerFields, context: LossContext) -> dict[str, Tensor]:
    """Return structure and ortho; a term whose coefficient is 0 is not computed.

    structure = 1/B^2 sum_bc (cos(x_b, x_c) - cos(z_b, z_c))^2      x: the block's input, z: what the projector makes
    ortho     = 1/d^2 sum_ij (cos(z^i, z^j) - delta_ij)^2           of its output
    """
    (z,), (x,) = views, context.inputs
    terms = {}
    if layer.structure:
        compare = structure if layer.similarity == Similarity.COSINE else distances
        terms["structure"] = compare(x.flatten(1), z)
    if layer.ortho:
        terms["ortho"] = orthogonality(z)
    return terms


def projector(width: int, layer: LayerFields) -> Module:
    """Return 1x1 convolution, affine batch norm, relu, mean over the map and linear map; for vectors likewise."""
    from torch import nn

    hidden = layer.projector_hidden or max(1, width // 2)
    last = nn.Linear(hidden, layer.projector_out)
    if "kernel_size" not in vars(layer):
        return nn.Sequential(nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), last)
    mean = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(nn.Conv2d(width, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU(), *mean, last)


def _check(values: Mapping[str, Value], where: str) -> None:
    if not values["structure"] and not values["ortho"]:
        raise ConfigError(where, "structure, ortho are all 0: there is nothing to learn from")


def _coefficient(name: str, default: float, meaning: str) -> Field:
    return Field(name=name, token=None, kind=float, minimum=0, default=default, meaning=f"coefficient of {meaning}")


_DEFAULTS: dict[str, Value] = {"add_bias": True, "projector": True, "warmup": 0}

RULES.register(
    LocalRule(
        name="SPHeRe",
        summary="keep the similarities between the images of a batch, and orthogonal features; all layer-local",
        source="Deng et al. 2025 (NeurIPS, arXiv:2510.14810) and its published code",
        fields=LOCAL,
        own_fields=(
            _coefficient("structure", 1.0, "the similarities between images"),
            _coefficient("ortho", 0.8, "the orthogonality of the features"),
            Field(
                name="similarity",
                token=None,
                kind=str,
                choices=tuple(Similarity),
                default=Similarity.COSINE,
                meaning="of two images: cosine, or distance of their directions",
            ),
            Field(
                name="projector_hidden",
                token=None,
                kind=int,
                minimum=0,
                default=0,
                meaning="hidden channels of the projector; 0: half as many as the layer has",
            ),
            Field(
                name="weight_decay",
                token=None,
                kind=float,
                minimum=0,
                default=0.05,
                meaning="decay of all parameters of the block, apart from the gradient (AdamW)",
            ),
        ),
        defaults={"MLP": _DEFAULTS, "CNN": {**_DEFAULTS, "padding_mode": "zeros"}},
        mode="simultaneous",
        loss=sphere,
        projector=projector,
        decoupled=True,
        check=_check,
    )
)
