"""Compute the shapes in a network without building it. An error shows the chain of shapes that led to it.

conv: floor((W + 2p - d(k-1) - 1)/s) + 1;  pool: floor((W + 2p - k)/s) + 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from hebb.config import hooks
from hebb.config.data_spec import DataSpec, held_out
from hebb.config.registry import DATASETS
from hebb.config.rule import SettlingRule
from hebb.config.specs import FEATURE_BYTES, BlockSpec, LayerSpec, NetworkSpec, PoolSpec, RunConfig
from hebb.config.vocabulary import Arch, PaddingMode, Part
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from hebb.config.phase import Phase

Shape = tuple[int, ...]
STORED = ("weight", "bias", "feedback", "lateral")
"""Names of what a layer of a settling network may store."""


@dataclass(frozen=True, kw_only=True)
class BlockShapes:
    """Shapes of one block, without the batch dimension: (C, H, W) or (N,).

    Attributes:
        into: input of the block.
        layer_in: input of its layer, after the operations.
        layer_out: pre-activation.
        out: output of the block.
        weights: shape of the layer's weights.
        parameters: number of weights and biases, and of the scales and shifts of an affine norm.
    """

    into: Shape
    layer_in: Shape
    layer_out: Shape
    out: Shape
    weights: Shape
    parameters: int

    @property
    def out_channels(self) -> int:
        """Neurons or filters of the layer."""
        return self.weights[0]

    @property
    def multiply_accumulates(self) -> int:
        """Products of a weight and an input in one pass of an image through the layer: weights times output pixels."""
        return prod(self.weights) * prod(self.layer_out[1:])


def input_shape(config: RunConfig) -> Shape:
    """Return the shape of an image of the supervised dataset."""
    return _image(config.dataset_sup, "dataset_sup")


def _image(data: DataSpec, where: str) -> Shape:
    return DATASETS.get(data.dataset, where).shape(data.size, where)


@dataclass(frozen=True, kw_only=True)
class Features:
    """The cached output of frozen blocks, which a phase reads more than once.

    Attributes:
        shape: shape of one image's features, (C, H, W) or (N,).
        images: number of images whose features are kept: training, validation and test.
        size: bytes of all features together.
    """

    shape: Shape
    images: int
    size: int


def features(config: RunConfig, phase: Phase) -> Features | None:
    """Return what the feature cache holds for a phase; None where nothing is kept."""
    if not phase.keeps_features:
        return None
    spec = config.datasets[phase.data]
    entry = DATASETS.get(spec.dataset, "dataset")
    images = entry.train_samples(spec.classes, Part.TEST)
    if not spec.held:
        images += held_out(spec.pool_samples(), spec.validation)
    if spec.mirror and spec.zoom == 1:  # their mirror images as well
        images += 2 * spec.train_samples()
    elif not spec.varied:  # else there are new training images in every epoch
        images += spec.train_samples()
    shape = of_run(config)[phase.first].into
    return Features(shape=shape, images=images, size=images * prod(shape) * FEATURE_BYTES[config.feature_dtype])


def of_run(config: RunConfig) -> tuple[BlockShapes, ...]:
    """Return the shapes of every block of a run, for the images of its datasets."""
    shape, unsup = input_shape(config), config.dataset_unsup
    other = _image(unsup, "dataset_unsup")
    if other != shape:
        raise ConfigError(
            "dataset_unsup",
            f"{unsup.dataset} has images of {text(other)}, {config.dataset_sup.dataset} of {text(shape)}",
            hint="both datasets go through the same network",
        )
    return trace(config.network, shape, config.classes)


def trace(network: NetworkSpec, into: Shape, classes: int) -> tuple[BlockShapes, ...]:
    """Return the shapes of every block for images of shape ``into``."""
    chain = [f"input {text(into)}"]
    shapes = []
    for i, block in enumerate(network.blocks):
        where = f"{network.name}, b{i}" if len(network.name) < 40 else f"b{i}"
        last = i == len(network.blocks) - 1
        one = _block(block, into, classes if last else None, where, chain)
        if block.settles:
            one = replace(one, parameters=_stored(network.settling_rule, one.weights, i == 0, last))
        shapes.append(one)
        chain.append(f"b{i} {text(one.out)}")
        into = one.out
    return tuple(shapes)


def _stored(rule: SettlingRule, weights: Shape, first: bool, last: bool) -> int:
    """Count the numbers that a layer of a settling network stores."""
    width, fan_in = weights
    return sum(prod(shape) for shape, _ in stored_tensors(rule, fan_in, width, first=first, last=last).values())


def stored_tensors(
    rule: SettlingRule, fan_in: int, width: int, *, first: bool, last: bool
) -> dict[str, tuple[Shape, float]]:
    """Return shape and bound of what a layer of a settling network stores, by name; raise for a rule that errs."""
    tensors = rule.tensors(fan_in, width, first, last)
    if not isinstance(tensors, dict) or not all(_is_shape_and_bound(value) for value in tensors.values()):
        raise hooks.broken(rule, "tensors", f"must return a dict of (shape, bound) by name, got {tensors!r}")
    unknown = [name for name in tensors if name not in STORED]
    if unknown:
        raise hooks.broken(rule, "tensors", f"must name {', '.join(STORED)}, got '{unknown[0]}'")
    weight = tuple(tensors["weight"][0]) if "weight" in tensors else None
    if weight != (width, fan_in):
        raise hooks.broken(rule, "tensors", f"must return a weight of shape {(width, fan_in)}, got {weight}")
    return tensors


def _is_shape_and_bound(value: object) -> bool:
    if not isinstance(value, tuple) or len(value) != 2 or not isinstance(value[0], tuple):
        return False
    shape, bound = value
    return all(isinstance(side, int) for side in shape) and isinstance(bound, int | float)


def text(shape: Shape) -> str:
    """Write a shape as 3x32x32."""
    return "x".join(map(str, shape))


def too_few_rivals(layer: LayerSpec, width: int) -> str | None:
    """Return what is wrong with a rank, or a number of winners, that ``width`` neurons in groups do not have."""
    rivals = width // layer.groups
    for noun, place in (("rank", layer.ranking_param), ("number of winners", layer.winners)):
        if place > rivals:
            return f"{noun} {place} exceeds the {rivals} competing neurons"
    if "deviations" not in dict(layer.values):
        return None
    if rivals < 2:
        return "a neuron cannot stand out from others: it needs two competing neurons or more"
    if layer.deviations * math.sqrt(rivals) >= rivals - 1:
        most = f"none of {rivals} competing neurons lies {(rivals - 1) / math.sqrt(rivals):.3g} above their mean"
        return f"deviations must be less, got {layer.deviations:g}: {most}"
    return None


def _block(block: BlockSpec, into: Shape, classes: int | None, where: str, chain: list[str]) -> BlockShapes:
    def fail(problem: str, hint: str | None = None) -> ConfigError:
        return ConfigError(where, f"{problem}; {' -> '.join(chain)}", hint=hint)

    layer = block.layer
    shape = into
    if block.att_dropout and (len(shape) != 3 or shape[0] < 2):
        raise fail(f"attdrop needs maps of two channels or more, got {text(shape)}")
    for name in block.operations:
        if name == "batchnorm2d" and len(shape) != 3:
            raise fail(f"batchnorm2d needs maps, got {text(shape)}")
        if name == "flatten":
            shape = (prod(shape),)
        if name == "batchnorm1d" and len(shape) != 1:
            raise fail(f"batchnorm1d needs a vector, got {text(shape)}", "add flatten")
    width = layer.out_channels or classes
    if width is None:
        raise fail("only the last block may leave out its width", "give the number of neurons, as in c96")
    if classes is not None and block.local and layer.rule.labels:
        raise fail(
            f"{layer.method} gives no class at the end of a network", "end it with a BP block, as in '... BP:flatten'"
        )
    if classes is not None and block.supervised and width != classes:
        raise fail(
            f"the width of the last block must be the number of classes, {classes}, got {width}", "leave out its c"
        )
    if problem := too_few_rivals(layer, width):
        raise fail(problem)
    if layer.arch == Arch.MLP:
        if len(shape) != 1:
            raise fail(f"a fully connected layer needs a vector, got {text(shape)}", "add flatten to the block")
        weights, out = _linear(shape[0], width)
    else:
        weights, out = _conv(layer, shape, width, fail)
    layer_out: Shape = out
    biases = (width if layer.add_bias else 0) + (2 * width if block.affine_norm else 0)
    if block.pool is not None:
        if len(out) != 3:
            raise fail(f"a pool needs maps, got {text(out)}")
        out = (out[0], *(_pooled(block.pool, side, fail) for side in out[1:]))
    if block.residual:
        _check_residual(into, out, fail)
    if classes is not None and block.supervised and prod(out) != classes:
        raise fail(f"the last block must give one number for each of the {classes} classes, got {text(out)}")
    return BlockShapes(
        into=into,
        layer_in=shape,
        layer_out=layer_out,
        out=out,
        weights=weights,
        parameters=prod(weights) + biases,
    )


def _linear(fan_in: int, width: int) -> tuple[Shape, Shape]:
    return (width, fan_in), (width,)


def _conv(layer: LayerSpec, shape: Shape, width: int, fail: Callable[..., ConfigError]) -> tuple[Shape, Shape]:
    if len(shape) != 3:
        raise fail(f"a convolution needs maps, got {text(shape)}", "remove flatten, or leave out k")
    channels, *sides = shape
    if channels % layer.groups or width % layer.groups:
        raise fail(f"{layer.groups} groups do not divide {channels} input and {width} output channels")
    reach = layer.dilation * (layer.kernel_size - 1) + 1
    out = [width]
    for side in sides:
        if layer.padding_mode == PaddingMode.REFLECT and layer.padding >= side:
            raise fail(f"reflect padding {layer.padding} needs a map larger than {side} pixels")
        if layer.padding_mode == PaddingMode.CIRCULAR and layer.padding > side:
            raise fail(f"circular padding {layer.padding} needs a map of {layer.padding} pixels or more, got {side}")
        padded = side + 2 * layer.padding
        if reach > padded:
            raise fail(f"a kernel that reaches {reach} pixels is larger than the padded map of {padded}")
        out.append((padded - reach) // layer.stride + 1)
    return (width, channels // layer.groups, layer.kernel_size, layer.kernel_size), tuple(out)


def _check_residual(into: Shape, out: Shape, fail: Callable[..., ConfigError]) -> None:
    if len(into) != len(out):
        raise fail(f"a residual needs maps before and after the block, or vectors, got {text(into)} and {text(out)}")
    if into[0] > out[0]:
        raise fail(
            f"a residual needs at least as many channels after the block, got {into[0]} before and {out[0]} after"
        )
    if any(before % after for before, after in zip(into[1:], out[1:], strict=True)):
        raise fail(f"a residual is averaged over whole pixels, which {text(into)} and {text(out)} do not divide into")


def _pooled(pool: PoolSpec, side: int, fail: Callable[..., ConfigError]) -> int:
    padded = side + 2 * pool.padding
    if pool.kernel_size > padded:
        raise fail(f"a pool of {pool.kernel_size} pixels is larger than the padded map of {padded}")
    return (padded - pool.kernel_size) // pool.stride + 1
