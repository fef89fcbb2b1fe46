"""``hebb.HebbLinear`` and ``hebb.HebbConv2d``: Hebbian layers for anyone's ``nn.Module``.

They take the arguments of ``nn.Linear`` and ``nn.Conv2d``, and a rule. ``layer(x)`` is the pre-activation u and learns
nothing; ``layer.learn(x)`` returns u and makes one plasticity step. No normalisation happens inside: put a batch norm
before the layer where the rule expects one.

Shapes: B batch, N inputs and C outputs of a layer, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hebb import builtin
from hebb.api.arguments import checked
from hebb.config import catalog, grammar, shapes
from hebb.config.rule import HebbianRule
from hebb.config.specs import LayerSpec
from hebb.config.vocabulary import Arch
from hebb.core.errors import ConfigError
from hebb.nn.hebb_layer import HebbLayer
from hebb.nn.layers import ConvHebbLayer, LinearHebbLayer

_FLATTEN = "put an nn.Flatten() before the layer if x is a batch of images"


class _Learning(HebbLayer):
    """What both layers add to those of a network: parameters, and a step that needs no trainer."""

    def _settle(self, device: torch.device | str | None, dtype: torch.dtype | None, generator: Any) -> None:
        """Draw the weights, and make them and the bias parameters that no optimiser changes."""
        self.initialise(generator)
        for name in ("weight", "bias"):
            values = self._buffers.pop(name)
            parameter = None if values is None else nn.Parameter(values, requires_grad=False)
            self.register_parameter(name, parameter)
        self.to(device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return the pre-activation u; nothing is learnt."""
        return self._like(super().forward(self._batch(x)), x)

    @torch.no_grad()
    def learn(
        self,
        x: Tensor,
        rate: Tensor | float | None = None,
        labels: Tensor | None = None,
        *,
        unread: bool = False,
    ) -> Tensor:
        """Return the pre-activation u of this batch, without a gradient, and make one Hebbian step.

        An input with NaN makes the weights NaN; no value is looked at, so that a GPU need not wait. Then
        ``finite_updates`` stays behind ``update_count``.

        Args:
            x: as ``nn.Linear`` or ``nn.Conv2d`` take it.
            rate: of this step, where the rule's rate does not adapt to the radius (``v0``); None takes ``lr``.
            labels: int64 from 0 to C - 1, one for each row or image, for rules that read them. Their values are not
                looked at either: torch refuses others.
            unread: you do not use u, which may then be of no images; a step takes less time where it is not kept.

        Raises:
            ConfigError: for a rate of a layer whose rate adapts, for labels that are missing, of another number or no
                integers, and for an empty batch.
        """
        if rate is not None and self.spec.adaptive:
            raise ConfigError(
                "rate", "adapts to the radius of each neuron, and lr scales it", hint="v0 lets you set it"
            )
        if self.rule.labels and labels is None:
            raise ConfigError("labels", f"{self.rule.name} learns from labels: pass learn(x, labels=labels)")
        batch = self._batch(x)
        if not batch.numel():
            raise ConfigError("x", f"must hold at least one sample to learn from, got {tuple(x.shape)}")
        if labels is not None:
            labels = labels.reshape(-1)
            if labels.is_floating_point() or len(labels) != len(batch):
                got = f"got {len(labels)} of {labels.dtype} for {len(batch)}"
                raise ConfigError("labels", f"must be integers, one for each row or image: {got}")
        u = super().learn(batch, rate, labels, unread=unread)
        return u if unread else self._like(u, x)

    def _batch(self, x: Tensor) -> Tensor:
        """Return the input with one dimension for the batch."""
        raise NotImplementedError

    def _like(self, u: Tensor, x: Tensor) -> Tensor:
        """Return u with the dimensions that x had in place of the batch's."""
        raise NotImplementedError


class HebbLinear(_Learning, LinearHebbLayer):
    """A fully connected Hebbian layer: x (B, N) -> u (B, C), or (..., N) -> (..., C), whose rows are all samples.

    Args:
        in_features: N.
        out_features: C.
        bias: learn a bias; only some rules have one.
        device, dtype: as in ``nn.Linear``.
        rule: method and its tokens without those of the shape, such as ``"SoftKrotov-lr0.08-lp0.5"``.
        behind_norm: draw normal weights, for an input that a norm centres around 0, rather than weights above 0.
        generator: draws the weights; None is torch's global one.

    Raises:
        ConfigError: for a rule that is not Hebbian, a token that it does not have, a rank or number of winners beyond
            the neurons that compete, and an input of another shape.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        rule: str = "SoftKrotov",
        behind_norm: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        spec = _spec(rule, Arch.MLP, {"out_channels": out_features}, bias=bias)
        super().__init__(spec, _positive(in_features, "in_features"), spec.out_channels, behind_norm)
        self.in_features, self.out_features = in_features, out_features
        self._settle(device, dtype, generator)

    def _batch(self, x: Tensor) -> Tensor:
        if x.dim() < 1 or x.shape[-1] != self.in_features:
            raise ConfigError("x", f"must be (..., {self.in_features}), got {tuple(x.shape)}", hint=_FLATTEN)
        return _floats(x).reshape(-1, self.in_features)

    def _like(self, u: Tensor, x: Tensor) -> Tensor:
        return u.view(*x.shape[:-1], self.out_features)


class HebbConv2d(_Learning, ConvHebbLayer):
    """A convolutional Hebbian layer: x (B, C_in, H, W) -> u (B, C_out, H', W'), or one image without B.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel_size, stride, padding, dilation: as in ``nn.Conv2d``, the same for rows and columns.
        groups: channels compete inside their group.
        bias: learn a bias; only some rules have one.
        padding_mode: ``zeros``, ``reflect``, ``replicate`` or ``circular``. The layer learns from padded maps, so
            border patches compete too.
        device, dtype: as in ``nn.Conv2d``.
        rule, behind_norm, generator: as in ``HebbLinear``.

    Raises:
        ConfigError: as in ``HebbLinear``, and for filters that are not square.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = False,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        rule: str = "SoftKrotov",
        behind_norm: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if _positive(channels, name) % _positive(groups, "groups"):
                raise ConfigError(name, f"must be a multiple of groups, {groups}, got {channels}")
        shape: dict[str, object] = {
            "out_channels": out_channels,
            "kernel_size": _square(kernel_size, "kernel_size"),
            "stride": _square(stride, "stride"),
            "dilation": _square(dilation, "dilation"),
            "groups": groups,
            "padding_mode": padding_mode,
        }
        if padding == "same":
            span = int(str(shape["dilation"])) * (int(str(shape["kernel_size"])) - 1)
            if span % 2 or stride not in (1, (1, 1)):
                raise ConfigError("padding", "'same' needs stride 1 and an odd span of the filter")
            padding = span // 2
        shape["padding"] = 0 if padding == "valid" else _square(padding, "padding")
        spec = _spec(rule, Arch.CNN, shape, bias=bias)
        super().__init__(spec, in_channels, spec.out_channels, behind_norm)
        self.in_channels, self.out_channels = in_channels, out_channels
        self._settle(device, dtype, generator)

    def _batch(self, x: Tensor) -> Tensor:
        if x.dim() not in (3, 4) or x.shape[-3] != self.in_channels:
            channels = self.in_channels
            raise ConfigError("x", f"must be (B, {channels}, H, W) or ({channels}, H, W), got {tuple(x.shape)}")
        return _floats(x) if x.dim() == 4 else _floats(x)[None]

    def _like(self, u: Tensor, x: Tensor) -> Tensor:
        return u if x.dim() == 4 else u[0]


@checked
def _spec(rule: str, arch: Arch, shape: Mapping[str, object], *, bias: bool) -> LayerSpec:
    """Return the layer that a rule and a shape describe."""
    builtin.load()
    named = {**shape, "add_bias": True} if bias else dict(shape)
    spec = grammar.parse_layer(rule, catalog.load().defaults, "rule", arch=arch, named=named)
    if not isinstance(spec.rule, HebbianRule):
        raise ConfigError(f"rule '{rule}'", f"must be a Hebbian rule, and {spec.method} learns by {spec.rule.learning}")
    if problem := shapes.too_few_rivals(spec, spec.out_channels):
        raise ConfigError(f"rule '{rule}'", problem)
    return spec


def _floats(x: Tensor) -> Tensor:
    """Return an input that the weights can be multiplied with; whole numbers would round them."""
    if not x.is_floating_point():
        raise ConfigError("x", f"must be floating point, got {x.dtype}", hint="x.float() / 255 scales images to 0..1")
    return x


def _positive(number: int, where: str) -> int:
    if not isinstance(number, int) or number < 1:
        raise ConfigError(where, f"must be a whole number >= 1, got {number}")
    return number


def _square(sides: int | tuple[int, int] | str, where: str) -> int:
    """Return the number that stands for both directions."""
    if isinstance(sides, tuple) and len(set(sides)) == 1:
        sides = sides[0]
    if not isinstance(sides, int) or isinstance(sides, bool):
        raise ConfigError(where, f"must be one number for rows and columns, got {sides}")
    return sides
