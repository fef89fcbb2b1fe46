"""A block: operations, layer, activation and pool, as an ordinary ``nn.Module``.

Order: att_dropout, [BatchNorm2d], [Flatten], [BatchNorm1d], [MaxNorm], [NormNorm], dropout, layer, [affine norm],
activation, [batch norm], pool, [residual]. Batch norms have momentum 0.1 and eps 1e-5, and but for the affine norm no
scale and no shift.

Shapes: B batch, C channels or neurons, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hebb.config.registry import ACTIVATIONS
from hebb.config.rule import HebbianRule, LocalRule
from hebb.config.shapes import BlockShapes
from hebb.config.specs import BlockSpec, LayerSpec, PoolSpec
from hebb.config.vocabulary import Arch, LossSource, Operation, PoolKind
from hebb.core import initial
from hebb.core.errors import ConfigError
from hebb.energy.layer import SettlingLayer
from hebb.kernels.channels_last import Conv2d, Flatten, geometry
from hebb.kernels.matmul import Linear
from hebb.nn import contracts
from hebb.nn.feedback import FeedbackLinear
from hebb.nn.hebb_layer import HebbLayer
from hebb.nn.layers import ConvHebbLayer, LinearHebbLayer
from hebb.nn.local_loss import LocalLoss, Pass
from hebb.nn.noise import Noise


class MaxNorm(nn.Module):
    """Divide each sample by its largest value."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...); a sample whose maximum is 0 stays as it is."""
        peak = x.flatten(1).amax(dim=1).view(-1, *[1] * (x.dim() - 1))
        return x / peak.where(peak != 0, 1.0)


class NormNorm(nn.Module):
    """Scale each sample to 10 times unit L2 norm over dimension 1."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C, ...)."""
        return 10 * F.normalize(x, dim=1)


class Dropout(nn.Module):
    """Zero elements with probability p while training and scale the rest by 1/(1-p).

    The trainer sets a seeded ``noise``; without one the mask comes from torch's global generator.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.noise: Noise | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        if not self.training:
            return x
        if self.noise is None:
            return F.dropout(x, self.p)
        return self.noise.drop_out(x, self.p)

    def extra_repr(self) -> str:
        """Describe the module in ``print(model)``."""
        return f"p={self.p}"


class AttDropout(Dropout):
    """Dropout that spares pixels of high contrast: probability p (1 - s/max s), s the std over channels."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W); the maximum is taken over the batch."""
        if not self.training:
            return x
        contrast = x.std(dim=1, keepdim=True)  # (B, 1, H, W)
        top = contrast.max()
        drop = self.p * (1 - contrast / top.where(top != 0, 1.0))
        if self.noise is None:
            return x * (torch.rand_like(x) >= drop)
        return x * self.noise.keep_mask(x.shape, drop, x.device)


def shortcut(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the residual of an input (B, ...) for an output of ``shape``, (C, H, W) or (N,).

    Maps are averaged over pixels; the further channels are zeros.
    """
    if x.dim() == 4 and x.shape[2:] != shape[1:]:
        sides = [before // after for before, after in zip(x.shape[2:], shape[1:], strict=True)]
        x = F.avg_pool2d(x, sides)
    missing = shape[0] - x.shape[1]
    return F.pad(x, (0, 0) * (x.dim() - 2) + (0, missing)) if missing else x


class Activate(nn.Module):
    """A registered activation with its parameter."""

    def __init__(self, name: str, parameter: float) -> None:
        super().__init__()
        self.name, self.parameter = name, parameter

    def forward(self, u: Tensor, pool: nn.Module | None = None) -> Tensor:
        """(B, C, ...) -> (B, C, ...), followed by the max pool ``pool`` if there is one.

        If the function never falls, the pool comes first: the power of the triangle then runs over a quarter of the
        pixels, and the result is the same up to the rounding of that power.
        """
        entry = ACTIVATIONS.get(self.name, "activation")
        parameters = () if entry.parameter is None else (self.parameter,)
        if entry.centre is not None:
            centred = entry.centre(u)
            contracts.require_alike(entry, "centre", centred, u, "(B, C, ...) like u")
            u = centred
        if pool is not None and entry.rising and self.parameter > 0:
            u, pool = pool(u), None
        output: Tensor = entry.function(u, *parameters)
        contracts.require_alike(entry, "function", output, u, "(B, C, ...) like u")
        if pool is not None:
            output = pool(output)
        return output

    def extra_repr(self) -> str:
        """Describe the module in ``print(model)``."""
        return f"{self.name}, {self.parameter:g}"


class After(nn.Sequential):
    """The modules after the layer: affine norm, activation, batch norm, pool."""

    def forward(self, u: Tensor) -> Tensor:
        """(B, C, ...) -> the block's output."""
        modules = list(self)
        if len(modules) > 1 and isinstance(modules[-2], Activate) and isinstance(modules[-1], nn.MaxPool2d):
            pool, activate = modules.pop(), modules.pop()
            for module in modules:
                u = module(u)
            u = activate(u, pool)
            modules = []
        for module in modules:
            u = module(u)
        return u


class Block(nn.Module):
    """One block of a network.

    Attributes:
        spec, shapes: as in the arguments.
        before: the modules before the layer.
        layer: ``LinearHebbLayer`` or ``ConvHebbLayer``, or torch's own layers for BP and rules with a local loss.
        after: affine norm, activation, batch norm, pool.
        local: the local loss, if the block has one.
        compiled: the compiled Hebbian step, if ``hebb.nn.compiled`` made one.

    Args:
        spec: the block's description.
        shapes: its shapes.
        classes: number of labels, for a local loss that reads them.
        settling: the layer, if the block is part of a settling network.
    """

    def __init__(
        self, spec: BlockSpec, shapes: BlockShapes, *, classes: int = 0, settling: SettlingLayer | None = None
    ) -> None:
        super().__init__()
        self.spec, self.shapes = spec, shapes
        self.before = nn.Sequential(*_before(spec, shapes))
        behind_norm = any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in self.before)
        self.layer = settling or _layer(spec.layer, shapes, behind_norm)
        self.after = After(*_after(spec, shapes))
        self.local = LocalLoss(spec.layer, shapes.out[0], classes) if spec.local else None
        self.compiled: Callable[[Tensor, Tensor | float | None, Tensor | None], Tensor] | None = None

    @property
    def hebb(self) -> HebbLayer | None:
        """The layer, if it learns by a Hebbian rule."""
        return self.layer if isinstance(self.layer, HebbLayer) else None

    @property
    def weight(self) -> Tensor:
        """The weights of the layer, one row per neuron."""
        weight = self.layer.weight
        assert isinstance(weight, Tensor)
        return weight

    def pre_activation(self, x: Tensor) -> Tensor:
        """Return u, the output of the layer."""
        u: Tensor = self.layer(self.before(x))
        return u

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output. Only batch statistics change, and only in training mode.

        A block of a settling network has no output of its own: this is what drives its layer, without the blocks above.
        """
        return self._with_residual(self.after(self.layer(self.before(x))), x)

    def _with_residual(self, out: Tensor, x: Tensor) -> Tensor:
        return out + shortcut(x, self.shapes.out) if self.spec.residual else out

    def learn(
        self, x: Tensor, rate: Tensor | float | None = None, labels: Tensor | None = None, *, last: bool = False
    ) -> Tensor:
        """Return the block's output for this batch and make one Hebbian update.

        The output comes from the weights before the update, as if the whole network had run first. A rule with
        ``HebbianRule.answers_updated`` returns the output of the updated block in evaluation mode instead.

        Args:
            x: a batch.
            rate: rate of this update, unless the layer is adaptive; as of ``HebbLayer.learn``.
            labels: (B,) int64, for rules that read them.
            last: nobody reads the output, so activation and pool are skipped unless they learn themselves, and it may
                be of no images.
        """
        if not isinstance(self.layer, HebbLayer):
            problem = f"has no Hebbian rule, it learns by {self.spec.layer.method}"
            raise ConfigError("learn", problem, hint="hebb.train trains any network")
        again = self.layer.rule.answers_updated and not last
        unread = (last or again) and not self.spec.batch_norm
        if self.compiled is None or torch.is_grad_enabled():
            u = self.layer.learn(self.before(x), rate, labels, unread=unread)
        else:
            u = self.compiled(x, rate, labels)
        output = u if unread else self._with_residual(self.after(u), x)
        if again:
            learning = self.training
            output = self.train(False)(x)
            self.train(learning)
        return output

    def descend(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the block's output for this batch, and accumulate the gradient of its local loss.

        The output is detached, so that the block above does not train this one. The exception is a block that learns
        from the loss of the block above.
        """
        assert self.local is not None
        with torch.enable_grad():
            fed = self.before(x)
            u = self.layer(fed)
            out: Tensor = self.after(u)
            if self.spec.layer.loss == LossSource.ABOVE:
                return self._with_residual(out, x)
            self.local(out, labels, Pass(x.detach(), fed, u, self.layer)).backward()
        return self._with_residual(out.detach(), x.detach())

    def set_noise(self, noise: Noise | None) -> None:
        """Set the random numbers of the dropouts."""
        for module in self.before:
            if isinstance(module, Dropout):
                module.noise = noise

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the initial weights; BP layers as torch does, uniform in +-1/sqrt(fan-in)."""
        own = getattr(self.layer, "initialise", None)
        if own is not None:
            own(generator)
        else:
            bound = initial.torch_bound(math.prod(self.shapes.weights[1:]))
            for parameter in self.layer.parameters():
                initial.draw_uniform(parameter, bound, generator)
        if self.local is not None:
            self.local.initialise(generator)


def _before(spec: BlockSpec, shapes: BlockShapes) -> list[nn.Module]:
    modules: list[nn.Module] = []
    if spec.att_dropout:
        modules.append(AttDropout(spec.att_dropout))
    operations: dict[Operation, Callable[[], nn.Module]] = {
        Operation.BATCHNORM2D: lambda: nn.BatchNorm2d(shapes.into[0], affine=False),
        Operation.FLATTEN: Flatten,
        Operation.BATCHNORM1D: lambda: nn.BatchNorm1d(shapes.layer_in[0], affine=False),
        Operation.MAXNORM: MaxNorm,
        Operation.NORMNORM: NormNorm,
    }
    modules += [operations[Operation(name)]() for name in spec.operations]
    if spec.dropout:
        modules.append(Dropout(spec.dropout))
    return modules


def _after(spec: BlockSpec, shapes: BlockShapes) -> list[nn.Module]:
    modules: list[nn.Module] = []
    norm = nn.BatchNorm2d if len(shapes.layer_out) == 3 else nn.BatchNorm1d
    if spec.affine_norm:
        modules.append(norm(shapes.out_channels))
    if spec.activation is not None:
        assert spec.activation.parameter is not None
        modules.append(Activate(spec.activation.name, spec.activation.parameter))
    if spec.batch_norm:
        modules.append(norm(shapes.out_channels, affine=False))
    if spec.pool is not None:
        modules.append(_pool(spec.pool))
    return modules


def _pool(spec: PoolSpec) -> nn.Module:
    kind = nn.MaxPool2d if spec.kind == PoolKind.MAX else nn.AvgPool2d
    return kind(spec.kernel_size, spec.stride, spec.padding)


def _layer(spec: LayerSpec, shapes: BlockShapes, behind_norm: bool) -> nn.Module:
    fan_in, width = shapes.layer_in[0], shapes.out_channels
    if isinstance(spec.rule, HebbianRule):
        kind = ConvHebbLayer if spec.arch == Arch.CNN else LinearHebbLayer
        return kind(spec, fan_in, width, behind_norm)
    if isinstance(spec.rule, LocalRule) and spec.rule.module is not None:
        layer = contracts.require_module(spec.rule, "module", spec.rule.module(fan_in, width, spec))
        return contracts.require_layer(spec.rule, "module", layer, shapes.weights)
    if spec.method == "FA":
        return FeedbackLinear(fan_in, width, spec.add_bias)
    if spec.arch == Arch.MLP:
        return Linear(fan_in, width, bias=spec.add_bias)
    return Conv2d(fan_in, width, **geometry(spec))
