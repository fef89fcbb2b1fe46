"""Hebbian layers: one class for MLP and one for CNN, each with its synapses.

On the CPU, maps and convolution weights have the channels last in memory. A map (B, C, H, W) is then, without a copy,
the matrix (B H W, C) whose rows compete, and sums over samples and pixels run along whole rows: the step is several
times faster than with the pixels last.

Shapes: B batch, C channels or neurons of the layer, H height, W width, N inputs of a linear layer, k side of a filter.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

from hebb.config.rule import Softmax
from hebb.config.specs import LayerSpec
from hebb.config.vocabulary import PaddingMode
from hebb.kernels import matmul
from hebb.kernels.competition import Competed
from hebb.kernels.convolution import Convolution
from hebb.nn import contracts, response
from hebb.nn.hebb_layer import HebbLayer
from hebb.nn.radii import R1_CONV


class LinearHebbLayer(HebbLayer):
    """Fully connected Hebbian layer: x (B, N) -> u (B, C)."""

    def __init__(self, spec: LayerSpec, in_features: int, out_features: int, behind_norm: bool = False) -> None:
        super().__init__(spec, (out_features, in_features), behind_norm)

    def _geometry(self) -> list[str]:
        out_features, in_features = self.weight.shape
        return [f"in_features={in_features}", f"out_features={out_features}"]

    def currents(self, x: Tensor, weight: Tensor) -> Tensor:
        """x w^T."""
        return F.linear(x, weight.to(x.dtype)).to(weight.dtype)

    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        """y^T x."""
        return matmul.linear(y.T.to(x.dtype), x.T).to(y.dtype)

    def squares(self, x: Tensor) -> Tensor:
        """Return |x|^2 of every sample, (B, 1)."""
        return x.to(self.weight.dtype).square().sum(dim=1, keepdim=True)


class ConvHebbLayer(HebbLayer):
    """Convolutional Hebbian layer: x (B, C_in, H, W) -> u (B, C_out, H', W').

    The padding is added outside the convolution, so that border patches compete with the values of the padding mode.

    Attributes:
        convolution: the operation.
        surround: the filter (k, k) on each map of u, where the layer has one.
        channels_last: whether maps are converted to that memory layout.
    """

    surround: Tensor
    r1_threshold = R1_CONV
    bias_scale = 0.1
    channels_last = True

    def __init__(self, spec: LayerSpec, in_channels: int, out_channels: int, behind_norm: bool = False) -> None:
        side = spec.kernel_size
        super().__init__(spec, (out_channels, in_channels // spec.groups, side, side), behind_norm)
        self.weight = self.weight.contiguous(memory_format=torch.channels_last)
        self.convolution = Convolution(side, spec.stride, spec.dilation, spec.groups)
        self._softmax = self._competes_alone()
        if spec.surround:
            kernel = response.surround_kernel(spec.surround, spec.sigma_excite, spec.sigma_inhibit)
            self.register_buffer("surround", kernel, persistent=False)

    def _geometry(self) -> list[str]:
        spec, (out_channels, channels) = self.spec, self.weight.shape[:2]
        squares = {"kernel_size": spec.kernel_size, "stride": spec.stride}
        squares |= {"padding": spec.padding} if spec.padding else {}
        squares |= {"dilation": spec.dilation} if spec.dilation > 1 else {}
        sizes = [f"{name}={(side, side)}" for name, side in squares.items()]
        sizes += [f"padding_mode={spec.padding_mode}"] if spec.padding else []
        sizes += [f"groups={spec.groups}"] if spec.groups > 1 else []
        return [str(channels * spec.groups), str(out_channels), *sizes]

    @property
    def linear(self) -> bool:
        """Whether u = x * effective weight."""
        return super().linear and not self.spec.pre_triangle and not self.spec.surround

    def prepare(self, x: Tensor) -> Tensor:
        """Pad the four sides and put the channels last."""
        x, p = super().prepare(x), self.spec.padding
        if p:
            mode = "constant" if self.spec.padding_mode == PaddingMode.ZEROS else self.spec.padding_mode.value
            x = F.pad(x, (p, p, p, p), mode=mode)
        # after the padding: a few channels are padded faster one by one, and a GPU pads into contiguous memory anyway
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x

    def currents(self, x: Tensor, weight: Tensor) -> Tensor:
        """Convolve the padded input."""
        return self.convolution.forward(x, weight)

    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the weight gradient of the convolution for output gradient y: the sum over patches of y x."""
        return self.convolution.weight_gradient(x, y, self.weight)

    def _one_batch(self) -> AbstractContextManager[None]:
        """Let both products share the patches of a batch."""
        return nullcontext() if torch.compiler.is_compiling() else self.convolution.one_batch()

    def _compete(self, x: Tensor, *, unread: bool) -> Competed | None:
        """Do all that runs over pixels in one loop, where that pays."""
        gate = self._softmax
        if gate is None or torch.compiler.is_compiling():
            return None
        if self.is_new("softmax"):
            contracts.require_softmax_signal(self.rule, gate, self.spec)
        return self.convolution.compete(x, self.effective_weight(), gate.beta, signed=gate.signed, unread=unread)

    def _competes_alone(self) -> Softmax | None:
        """Return the softmax that the gate is, if a step needs no y beyond sum_b y x and its mass."""
        rule, spec = self.rule, self.spec
        if rule.softmax is None or not self.linear or self.bias is not None:
            return None
        return contracts.require_softmax(rule, rule.softmax(spec))

    def squares(self, x: Tensor) -> Tensor:
        """Return the sum of squares in the patch of every output pixel, (B, 1, H', W'), of its group (B, C, H', W')."""
        spec, groups = self.spec, self.groups
        energy = x.to(self.weight.dtype).square().unflatten(1, (groups, -1)).sum(dim=2)  # (B, groups, H, W)
        ones = energy.new_ones(groups, 1, spec.kernel_size, spec.kernel_size)
        sums = F.conv2d(energy, ones, None, spec.stride, 0, spec.dilation, groups)
        return sums if groups == 1 else sums.repeat_interleave(len(self.weight) // groups, dim=1)

    def pre_gate(self, u: Tensor) -> Tensor:
        """Filter the maps with ``surround``, then relu(u - mean over all channels) with ``pre_triangle``."""
        if self.spec.surround:
            u = response.surrounded(u, self.surround)
        return (u - u.mean(dim=1, keepdim=True)).relu() if self.spec.pre_triangle else u
