"""Activations of a block, applied to the pre-activation u (B, C) or (B, C, H, W).

They come after plasticity and never enter the Hebbian update. Functions with a parameter take it as second
argument; its default is 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hebb.config.registry import ACTIVATIONS, Activation

if TYPE_CHECKING:
    from torch import Tensor


def relu(u: Tensor) -> Tensor:
    """Return u where it is positive, else 0."""
    return u.relu()


def leaky(u: Tensor, slope: float) -> Tensor:
    """Return u where it is positive, else slope times u."""
    from torch.nn import functional as F

    return F.leaky_relu(u, slope)


def centred(u: Tensor) -> Tensor:
    """Return u minus its mean over channels, which passes no gradient (Coates, Ng & Lee 2011)."""
    return u - u.detach().mean(dim=1, keepdim=True)


def repu(u: Tensor, power: float) -> Tensor:
    """relu(u)^power (Krotov & Hopfield 2019)."""
    from hebb.kernels import loops

    if power == 1:
        return u.relu()
    return loops.power(u, power) if power != 2 and loops.pays(u) else u.relu().pow(power)


def softmax(u: Tensor, t_invert: float) -> Tensor:
    """Return the softmax of t u over channels, with t = ``t_invert``."""
    return (u * t_invert).softmax(dim=1)


def exp(u: Tensor, t_invert: float) -> Tensor:
    """Return e to the power t u, with t = ``t_invert``."""
    return (u * t_invert).exp()


def tanh(u: Tensor, slope: float) -> Tensor:
    """Return the hyperbolic tangent of slope times u."""
    return (u * slope).tanh()


def sigmoid(u: Tensor, slope: float) -> Tensor:
    """1 / (1 + exp(-slope u))."""
    return (u * slope).sigmoid()


def hard(u: Tensor) -> Tensor:
    """One-hot of the largest channel."""
    import torch

    winner = u.argmax(dim=1, keepdim=True)
    return torch.zeros_like(u).scatter(1, winner, 1.0)


for _entry in (
    Activation(name="relu", formula="relu(u)", function=relu, rising=True),
    Activation(
        name="leaky",
        formula="u where u > 0, else s u",
        function=leaky,
        parameter="slope s",
        default=0.2,
        rising=True,
    ),
    Activation(
        name="triangle",
        formula="relu(u - channel mean)^g",
        function=repu,
        parameter="power g",
        centre=centred,
        rising=True,
    ),
    Activation(name="repu", formula="relu(u)^g", function=repu, parameter="power g", rising=True),
    Activation(name="softmax", formula="softmax(t u) over channels", function=softmax, parameter="t"),
    Activation(name="exp", formula="exp(t u)", function=exp, parameter="t", rising=True),
    Activation(name="tanh", formula="tanh(b u)", function=tanh, parameter="slope b", rising=True),
    Activation(name="sigmoid", formula="1/(1 + exp(-b u))", function=sigmoid, parameter="slope b", rising=True),
    Activation(name="hard", formula="one-hot of the largest channel", function=hard),
):
    ACTIVATIONS.register(_entry)
