"""One neuron of a block and the piece of image that it sees: the network cut off above it and without borders.

As in Journe et al. (ICLR 2023, appendix B), padding, the last activation and the last pool are left out, and the image
is as large as the receptive field, so that the layer answers with one number per neuron. A triangle before the
competition is left out of the last layer too, because a neuron that it silences has no gradient to start from.

Shapes: n neurons or images, N neurons of a block, C channels, H x W pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hebb.analysis import receptive
from hebb.core import seeds
from hebb.core.errors import ConfigError
from hebb.nn.blocks import Activate, After, Block
from hebb.nn.layers import ConvHebbLayer
from hebb.probing import neuron_order


@dataclass(frozen=True)
class Isolated:
    """Neurons of a block on their own.

    Attributes:
        blocks: copies of the blocks up to theirs.
        shape: (C, H, W) of the image that they see.
    """

    blocks: tuple[Block, ...]
    shape: tuple[int, ...]

    def respond(self, x: Tensor) -> Tensor:
        """Return the pre-activations (n, N) of images (n, C, H, W)."""
        for block in self.blocks[:-1]:
            x = block(x)
        return self.blocks[-1].pre_activation(x).flatten(1)


def isolate(blocks: Sequence[Block], top: int, *, linear: bool = False) -> Isolated:
    """Copy the network up to block ``top`` as one of its neurons sees it.

    Behind a flattened map a neuron has a weight for every place of the map below. It then sees the whole image, and the
    borders stay.

    Args:
        blocks: the network.
        top: number of the block.
        linear: leave out the activations below and replace maxima by averages, so that a neuron computes one filter on
            the image (behind the batch norms).

    Raises:
        ConfigError: when the blocks settle.
    """
    check_receptive_field(blocks)
    copies = [copy.deepcopy(block).eval() for block in blocks[: top + 1]]
    specs = [block.spec for block in blocks]
    channels, height, width = blocks[0].shapes.into
    if not receptive.sees_all(specs, top):
        height = width = receptive.side(specs, top)
        for block in copies:
            _leave_out_padding(block)
    _no_triangle(copies[-1])
    if linear:
        for block in copies[:-1]:
            _linearise(block)
    return Isolated(tuple(copies), (channels, height, width))


def check_receptive_field(blocks: Sequence[Block]) -> None:
    """Raise for a settling network: all its blocks act on each other, so a neuron has no receptive field of its own."""
    if blocks[0].spec.settles:
        raise ConfigError("network", "settles as a whole: its neurons have no receptive field of their own")


def _leave_out_padding(block: Block) -> None:
    layer = block.layer
    if isinstance(layer, ConvHebbLayer):
        values = tuple((name, 0 if name == "padding" else value) for name, value in layer.spec.values)
        layer.spec = replace(layer.spec, values=values)
    elif isinstance(layer, nn.Conv2d):
        layer.padding, layer.padding_mode = (0, 0), "zeros"
    for module in block.after:
        if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            module.padding = 0


def _linearise(block: Block) -> None:
    _no_triangle(block)
    kept: list[nn.Module] = []
    for module in block.after:
        if isinstance(module, nn.MaxPool2d):
            kept.append(nn.AvgPool2d(module.kernel_size, module.stride, module.padding))
        elif not isinstance(module, Activate):
            kept.append(module)
    block.after = After(*kept)


def _no_triangle(block: Block) -> None:
    if isinstance(block.layer, ConvHebbLayer) and block.layer.spec.pre_triangle:
        values = tuple((name, 0 if name == "pre_triangle" else value) for name, value in block.layer.spec.values)
        block.layer.spec = replace(block.layer.spec, values=values)


def choose(weight: Tensor, count: int, seed: int, block: int = 0) -> Tensor:
    """Return ``count`` random neurons (all of them where there are fewer), largest deviation of the weights first.

    Args:
        weight: (N, ...).
        count: how many.
        seed: decides the choice.
        block: number of the block; the choice differs from block to block.
    """
    generator = seeds.generator(seed, "neurons", block=block)
    some = torch.randperm(len(weight), generator=generator)[:count]
    return some[neuron_order.by_deviation(weight[some])]


def maximise(
    respond: Callable[[Tensor], Tensor],
    shape: Sequence[int],
    neurons: Tensor,
    *,
    steps: int = 500,
    step: float = 1e-3,
    radius: float = 1.0,
    start: float = 1e-5,
    positive: bool = True,
    generator: torch.Generator,
    batch: int = 64,
) -> tuple[Tensor, Tensor]:
    """Find the image of norm R = ``radius`` to which each neuron answers most, by projected gradient.

        x <- R P(x + step R grad u_i(x)) / |P(x + step R grad u_i(x))|

    from a random x of norm ``start`` R, with P(x) = max(x, 0) if ``positive``, else P(x) = x. For a linear neuron,
    u = w x, the image is R max(w, 0)/|max(w, 0)|, or R w/|w|. The defaults are those of Journe et al. (ICLR 2023,
    figures 2 and B.8 to B.11), whose code uses |x| in place of max(x, 0) and so oscillates around it.

    Args:
        respond: images (n, C, H, W) -> pre-activations (n, N).
        shape: (C, H, W) of an image.
        neurons: (n,) numbers of the neurons, on any device.
        steps: number of steps.
        step: length of a step for a gradient of norm 1, in units of the radius.
        radius: norm of the images.
        start: norm of the first image, in units of the radius.
        positive: allow no negative pixel; the image of a neuron that every pixel inhibits is black.
        generator: draws the start, on the CPU.
        batch: neurons at a time.

    Returns:
        Images (n, C, H, W), the best on the way, because a step of fixed length can overshoot in a deep network; and
        pre-activations (n, 2): the highest of the first nine tenths of the steps, and of all.
    """
    images, answers = [], []
    device = neurons.device
    for some in neurons.split(batch):
        x = torch.randn(len(some), *shape, generator=generator)
        x = (x.abs() if positive else x).to(device)
        x = _scaled(x, start * radius)
        best, highest = x, torch.full((len(some),), -torch.inf, device=device)
        early = highest
        for i in range(steps + 1):
            x.requires_grad_()
            u = respond(x).gather(1, some.unsqueeze(1)).squeeze(1)
            if i > 0:  # the start has another norm
                better = u.detach() > highest
                best = x.detach().where(better.view(-1, 1, 1, 1), best)
                highest = u.detach().where(better, highest)
            if i == steps * 9 // 10:
                early = highest
            if i < steps:
                (gradient,) = torch.autograd.grad(u.sum(), x)
                x = x.detach() + step * radius * gradient
                x = _scaled(x.clamp(min=0) if positive else x, radius)
        images.append(best)
        answers.append(torch.stack([early, highest], dim=1))
    return torch.cat(images), torch.cat(answers)


def _scaled(x: Tensor, norm: float) -> Tensor:
    """Scale every image to this norm; an image of zeros stays one."""
    norms: Tensor = x.flatten(1).norm(dim=1).clamp(min=1e-30)
    return x * (norm / norms).view(-1, 1, 1, 1)


def projected(isolated: Isolated, neurons: Tensor) -> Tensor:
    """Return the filters (n, C, H, W) of linear neurons: the gradient of their answer, which is the same everywhere."""
    x = torch.zeros(len(neurons), *isolated.shape, device=neurons.device, requires_grad=True)
    answer = isolated.respond(x).gather(1, neurons.unsqueeze(1))
    (gradient,) = torch.autograd.grad(answer.sum(), x)
    return gradient
