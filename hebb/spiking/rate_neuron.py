"""A single linear neuron that learns by the rate-based LPL rule: which input direction does it select?

The input (x, y) lies in one of two clusters: x = +-1 + noise keeps its side from one step to the next, while y, of
deviation sigma, is drawn anew. So x is predictable for every sigma; y merely has the larger variance when sigma is
large. For a batch of B such sequences and z = w_x x + w_y y the neuron learns by

    dw = rate (sum_b s_b x_b - decay w),    s = -pull 2 (z - z_before)/B + push 2 (z - m)/((B - 1)(v + 1e-4))

m, v the mean and unbiased variance of z over the batch, z_before the output at the previous step: minus the gradient of
pull(z, z_before) + push(z) of ``hebb/rules/lpl.py``, z_before held fixed. Halvagal & Zenke 2023 (Nat. Neurosci.
26:1906), figure 2. In their rule dz/dt has a minus sign, and sigma^2 stands below the fraction bar.

Without the push nothing opposes pull and decay: w goes to 0. Without the pull w takes the direction of larger
variance, as it does by Oja's rule, dw = rate (mean_b z x - (mean_b z^2 + decay) w). With both it takes x for every
sigma: there 2 (1 + noise^2)/v = 2 noise^2 + decay, and a small w_y changes at the rate sigma^2 (2/v - 2) - decay,
which is negative. Imports torch in its functions only.

Shapes: B sequences of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hebb.config.experiment import check, check_seeds, check_words
from hebb.core.errors import ConfigError
from hebb.rules.lpl import FLOOR

if TYPE_CHECKING:
    from torch import Tensor

_DRAWN = 500
"""Steps per draw of noise."""


@dataclass(frozen=True, kw_only=True)
class RateArm:
    """Coefficients of the terms of a rule."""

    title: str
    pull: float = 0.0
    push: float = 0.0
    oja: float = 0.0


ARMS: Mapping[str, RateArm] = {
    "both": RateArm(title="pull and push (LPL)", pull=1.0, push=1.0),
    "push": RateArm(title="push only", push=1.0),
    "pull": RateArm(title="pull only", pull=1.0),
    "oja": RateArm(title="Oja", oja=1.0),
}


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """The experiment; the defaults are the published ones, with fewer deviations and more steps.

    ``FLOOR``, which is added to the variance, is that of LPL's networks, 1e-4; the published program adds 1e-8 here.

    Attributes:
        arms: rules to compare, from ``ARMS``.
        sigmas: deviations of the unpredictable direction.
        noise: deviation of x within a cluster.
        seeds: each gives initial weights and noise, the same for all arms.
        steps: number of updates.
        batch: sequences in a batch, half of them in each cluster.
        rate: learning rate, divided by sigma where that is above 1.
        decay: weight decay.
        dtype: number type.
    """

    arms: tuple[str, ...] = tuple(ARMS)
    sigmas: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 1.1, 1.5, 2.0, 3.0, 5.0, 10.0)
    noise: float = 0.1
    seeds: tuple[int, ...] = tuple(range(10))
    steps: int = 20000
    batch: int = 200
    rate: float = 0.01
    decay: float = 0.15
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_words("arms", self.arms, ARMS)
        check_words("dtype", (self.dtype,), ("float32", "float64"))
        check_seeds(self.seeds)
        check(self, 0, 100, "sigmas", "noise")
        check(self, 1, 10**8, "steps")
        check(self, 4, 10**6, "batch")
        check(self, 0, 1, "rate", above=True)
        check(self, 0, 10, "decay")
        if not self.sigmas:
            raise ConfigError("sigmas", "must name at least one deviation, got none")
        if self.batch % 2:
            raise ConfigError("batch", f"must be even, for two clusters of equal size, got {self.batch}")


def signal(z: Tensor, before: Tensor, pull: Tensor | float, push: Tensor | float) -> Tensor:
    """Return s of the rule for outputs z and ``before`` (..., B), with coefficients that broadcast."""
    samples = z.shape[-1]
    spread = z.var(dim=-1, keepdim=True) + FLOOR
    hebbian = (z - z.mean(dim=-1, keepdim=True)) / ((samples - 1) * spread)
    return 2 * (push * hebbian - pull * (z - before) / samples)


def learn(config: ToyConfig) -> Tensor:
    """Return the weights (arms, sigmas, seeds, 2) after ``steps`` updates; [..., 0] is that of x."""
    import torch

    from hebb.core import seeds

    dtype: torch.dtype = getattr(torch, config.dtype)
    arms = [ARMS[name] for name in config.arms]

    def each(name: str) -> Tensor:
        return torch.tensor([getattr(arm, name) for arm in arms], dtype=dtype)[:, None, None, None]

    pull, push, oja = each("pull"), each("push"), each("oja")
    sigmas = torch.tensor(config.sigmas, dtype=dtype)[:, None, None]  # (sigmas, 1, 1)
    rate = config.rate / sigmas.clamp(min=1)
    side = torch.ones(config.batch, dtype=dtype)
    side[: config.batch // 2] = -1
    start = [
        torch.rand(2, generator=seeds.generator(seed, "toy weights"), dtype=torch.float64) for seed in config.seeds
    ]
    w = ((2 * torch.stack(start) - 1) / 2**0.5).to(dtype).expand(len(arms), len(sigmas), -1, -1).clone()
    before: tuple[Tensor, Tensor] | None = None
    for chunk in range(-(-(config.steps + 1) // _DRAWN)):
        generators = [seeds.generator(seed, "toy inputs", epoch=chunk) for seed in config.seeds]
        drawn = torch.stack(
            [torch.randn(_DRAWN, 2, config.batch, generator=one, dtype=dtype) for one in generators], dim=2
        )  # (steps, 2, seeds, B)
        for number, (along, across) in enumerate(drawn, chunk * _DRAWN):
            if number > config.steps:
                break
            inputs = side + config.noise * along, sigmas * across  # (seeds, B), (sigmas, seeds, B)
            if before is not None:
                z, old = (w[..., 0, None] * x + w[..., 1, None] * y for x, y in (inputs, before))
                s = signal(z, old, pull, push) + oja * z / config.batch
                change = torch.stack([(s * x).sum(dim=-1) for x in inputs], dim=-1)
                shrink = config.decay + (oja * z.square()).mean(dim=-1, keepdim=True)
                w += rate * (change - shrink * w)
            before = inputs
    return w


def alignment(w: Tensor) -> Tensor:
    """Return |w_x|/|w| (...) of weights (..., 2): 1 along the predictable direction, 0 across it."""
    cosine: Tensor = w[..., 0].abs() / w.norm(dim=-1)
    return cosine


def response(w: Tensor, config: ToyConfig) -> Tensor:
    """Return the deviation of z over all inputs, for weights (arms, sigmas, seeds, 2): 0 where a neuron collapsed."""
    import torch

    sigmas = torch.tensor(config.sigmas, dtype=w.dtype)[:, None]
    variance = w[..., 0].square() * (1 + config.noise**2) + (w[..., 1] * sigmas).square()
    return variance.sqrt()
