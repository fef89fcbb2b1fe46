"""Convolutions that compute four outputs at once, against those of double precision, in every part and size.

Without it the numbers at an odd edge, or of a batch that is cut in parts, could be anything.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
from conftest import ROOT
from small import maps
from torch import Tensor, nn
from torch.nn import functional as F

from hebb.kernels import loops, matmul, private_torch, winograd
from hebb.kernels.channels_last import Conv2d
from hebb.kernels.convolution import Convolution

SIZES = [(10, 96, 50, 16, 16), (3, 41, 200, 7, 9), (1, 48, 64, 1, 2), (2, 400, 40, 3, 30), (40, 64, 72, 8, 8)]
"""Images, channels, neurons, height and width of the output."""


def case(images: int, channels: int, neurons: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return an input, weights and a gradient of the output."""
    x, weight = maps(images, channels, height + 2, width + 2), maps(neurons, channels, 3, 3, seed=1)
    return x, weight, maps(images, neurons, height, width, seed=2)


def plain_gradient(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    return private_torch.convolution_weight_gradient(x, y, weight, stride=1, dilation=1, groups=1)


def require_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 3e-6 * expected.abs().max()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("parts", [(640, 1 << 20), (5, 1000), (1, 1)])
@pytest.mark.parametrize("size", SIZES)
def test_both_directions_agree_with_double_precision(
    size: tuple[int, int, int, int, int], parts: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a part is a few images, some rows of one, or a single neuron."""
    if parts == (1, 1) and size != SIZES[1]:
        size = (*(min(count, 5) for count in size[:3]), 3, 4)
    monkeypatch.setattr(winograd, "_TILES", parts[0])
    monkeypatch.setattr(winograd, "_PAIRS", parts[1])
    x, weight, y = case(*size)
    require_close(winograd.forward(x, weight), F.conv2d(x.double(), weight.double()))
    require_close(winograd.weight_gradient(x, y), plain_gradient(x.double(), y.double(), weight.double()))


def test_any_order_of_memory() -> None:
    """The result has the channels last, as the weights of a layer have."""
    x, weight, y = case(*SIZES[0])
    u, dw = winograd.forward(x, weight), winograd.weight_gradient(x, y)
    assert u.is_contiguous(memory_format=torch.channels_last) and dw.stride() == weight.stride()
    assert torch.equal(winograd.forward(x.contiguous(), weight.contiguous()), u)
    assert torch.equal(winograd.weight_gradient(x.contiguous(), y.contiguous()), dw)


def test_transforms_do_not_depend_on_the_threads(threads: int) -> None:
    weight = maps(48, 200, 3, 3)
    filters = winograd._points(winograd._G, winograd._filters(weight))
    torch.set_num_threads(1)
    assert torch.equal(winograd._points(winograd._G, winograd._filters(weight)), filters)
    g, transform = weight.permute(0, 2, 3, 1).double(), winograd._G[:, :3].double()
    expected = torch.einsum("ia,naco,jc->ijno", transform, g, transform).flatten(0, 1)
    require_close(filters, expected)


def test_the_order_of_products_on_other_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """One product after the other, by oneDNN."""
    monkeypatch.setattr(matmul, "_pays", lambda x, weight: x.dim() == 2)
    x, weight, y = case(*SIZES[0])
    require_close(winograd.forward(x, weight), F.conv2d(x.double(), weight.double()))
    require_close(winograd.weight_gradient(x, y), plain_gradient(x.double(), y.double(), weight.double()))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((10, 96, 384, 16, 16), True),
        ((10, 384, 1536, 8, 8), True),
        ((100, 1536, 48, 15, 16), True),
        ((10, 3, 96, 32, 32), False),
        ((10, 64, 512, 16, 16), False),
        ((10, 96, 3, 32, 32), False),
        ((1, 384, 384, 4, 4), False),
        ((0, 96, 384, 16, 16), False),
        ((1000, 128, 128, 1, 1), False),
        ((400, 384, 384, 3, 3), False),
        ((400, 384, 384, 1, 8), False),
    ],
)
def test_it_is_for_many_channels_neurons_and_tiles(size: tuple[int, int, int, int, int], expected: bool) -> None:
    """And for sizes whose tiles do not reach far over the edge."""
    x, weight, _ = case(*size)
    assert winograd.pays(x, weight) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, True), ({"side": 1}, False), ({"stride": 2}, False), ({"dilation": 2}, False), ({"groups": 2}, False)],
)
def test_a_convolution_of_another_kind_is_plain(
    changes: dict[str, int], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("forward", "weight_gradient"):
        ours = getattr(winograd, name)
        monkeypatch.setattr(winograd, name, lambda *of, name=name, ours=ours: calls.append(name) or ours(*of))
    geometry = {"side": 3, "stride": 1, "dilation": 1, "groups": 1} | changes
    layer, side, groups = Convolution(**geometry), geometry["side"], geometry["groups"]
    x, weight = maps(10, 128 * groups, 20, 20), maps(128 * groups, 128, side, side, seed=1)
    with torch.no_grad():
        u = layer.forward(x, weight)
        dw = layer.weight_gradient(x, u, weight)
    options = {name: geometry[name] for name in ("stride", "dilation", "groups")}
    require_close(u, F.conv2d(x.double(), weight.double(), None, options["stride"], 0, options["dilation"], groups))
    require_close(dw, private_torch.convolution_weight_gradient(x.double(), u.double(), weight.double(), **options))
    assert calls == (["forward", "weight_gradient"] if expected else [])


def test_it_is_for_plain_numbers_without_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, y = case(10, 128, 128, 16, 16)
    layer = Convolution(3, 1, 1, 1)
    assert winograd.pays(x, weight) and winograd.pays(x, nn.Parameter(weight), y)
    assert not winograd.pays(x, weight, y.clone().requires_grad_())
    assert not winograd.pays(x, weight.to("meta"))
    assert not winograd.pays(x, weight, y.to("meta"))
    assert not winograd.pays(x, torch._neg_view(weight))
    assert layer.weight_gradient(x, y.half(), weight).dtype == torch.float16
    assert layer.weight_gradient(x, y.to("meta"), weight).is_meta
    assert not winograd.pays(x.bfloat16(), weight)
    assert not winograd.pays(x, weight.bfloat16())
    assert not winograd.pays(x.clone().requires_grad_(), weight)
    assert layer.forward(x, weight.clone().requires_grad_()).requires_grad
    pack = torch.vmap(lambda x: x if winograd.pays(x, weight) else 0 * x)(x[None])
    assert pack.eq(0).all()
    monkeypatch.setattr(loops, "pays_between", lambda x, passes=1: False)
    assert not winograd.pays(x, weight)


def test_traced_layers_are_plain() -> None:
    """A trace records torch's operations, and a loop would be none."""
    x, weight, _ = case(10, 128, 128, 16, 16)
    layer = Convolution(3, 1, 1, 1)
    with torch.no_grad():
        expected = layer.forward(2 * x, weight)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch advises against traces, and against len in them
            traced = torch.jit.trace(lambda x: layer.forward(x, weight), (x,), check_trace=False)
        require_close(traced(2 * x), expected)
        require_close(torch.func.functionalize(lambda x: layer.forward(x, weight))(2 * x), expected)


def test_it_does_not_depend_on_torch_s_defaults() -> None:
    program = (
        "import torch; torch.set_default_dtype(torch.float64); torch.set_default_device('meta')\n"
        "from hebb.kernels import loops, winograd\n"
        "draw = torch.Generator().manual_seed(0); kind = {'dtype': torch.float32, 'device': 'cpu', 'generator': draw}\n"
        "x, w = torch.randn(10, 128, 10, 10, **kind), torch.randn(256, 128, 3, 3, **kind)\n"
        "assert winograd.pays(x, w)\n"
        "exact = torch.nn.functional.conv2d(x.double(), w.double())\n"
        "assert (winograd.forward(x, w) - exact).abs().max() < 1e-3\n"
        "change = torch.randn(600, 500, **kind); peak, norms = loops.decay(change, 0 * change, None)\n"
        "assert peak == change.abs().max() and not norms.any()\n"
        "assert torch.allclose(loops.positive_sums(change), change.relu().sum(dim=0), rtol=1e-4)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def gradients(layer: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    """Return the output for x and the gradients of x and all parameters for the gradient y of the output."""
    x = x.detach().requires_grad_()
    u = layer(x)
    return [u.detach(), *torch.autograd.grad(u, [x, *layer.parameters()], y)]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 2, 3])
def test_gradients_of_a_back_prop_layer_agree_with_double_precision(padding: int, bias: bool) -> None:
    layer = Conv2d(320, 400, 3, padding=padding, bias=bias)
    x, y = maps(20, 320, 10, 11), maps(20, 400, 8 + 2 * padding, 9 + 2 * padding, seed=1)
    assert winograd.pays_with_gradient(x, layer.weight, padding)
    ours = gradients(layer, x, y)
    for found, expected in zip(ours, gradients(layer.double(), x.double(), y.double()), strict=True):
        require_close(found, expected)


def test_a_back_prop_layer_computes_the_gradients_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of the lowest layer need none, nor do the weights of a frozen layer."""
    layer = Conv2d(320, 400, 3)
    x = maps(10, 320, 12, 12)
    layer(x).sum().backward()
    assert layer.weight.grad is not None and x.grad is None
    layer.requires_grad_(False)
    monkeypatch.setattr(winograd, "weight_gradient", None)
    layer(x.requires_grad_()).sum().backward()
    assert x.grad is not None
    with torch.no_grad():
        assert not layer(x).requires_grad


def test_the_gradient_of_a_gradient() -> None:
    layer, x = Conv2d(320, 400, 3, padding=1), maps(10, 320, 8, 8)
    ours, exact = (x.detach().to(kind).requires_grad_() for kind in (torch.float32, torch.float64))
    found = []
    for image in (ours, exact):
        layer = layer.to(image.dtype)
        (slope,) = torch.autograd.grad(layer(image).square().sum(), image, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), [image, layer.weight]))
    for pair in zip(*found, strict=True):
        require_close(*pair)


def test_transforms_of_functions_see_plain_layers() -> None:
    """They hold tensors without memory."""
    layer, x = Conv2d(320, 400, 3), maps(10, 320, 12, 12)

    def energy(image: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": layer.bias}, (image,)).square().sum()

    image, weight = x.clone().requires_grad_(), layer.weight
    expected = torch.autograd.grad(energy(image, weight), [image, weight])
    for pair in zip(torch.func.grad(energy, argnums=(0, 1))(x, weight), expected, strict=True):
        require_close(*pair)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"padding": 1}, True),
        ({"padding": (0, 1)}, False),
        ({"padding": "same"}, False),
        ({"padding": 2, "padding_mode": "reflect"}, True),
        ({"padding": 1, "padding_mode": "circular"}, True),
        ({"kernel_size": 1}, False),
        ({"kernel_size": (1, 3)}, False),
        ({"stride": 2}, False),
        ({"dilation": 2}, False),
        ({"groups": 2}, False),
    ],
)
def test_a_back_prop_layer_of_another_kind_is_plain(
    changes: dict[str, Any], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    ours = winograd.convolve
    monkeypatch.setattr(winograd, "convolve", lambda *of: calls.append(1) or ours(*of))
    layer = Conv2d(**{"in_channels": 320, "out_channels": 320, "kernel_size": 3} | changes)
    x = maps(10, 320, 12, 12)
    y = maps(*layer(x).shape, seed=1)
    slopes = gradients(layer, x, y)
    for found, exact in zip(slopes, gradients(layer.double(), x.double(), y.double()), strict=True):
        require_close(found, exact)
    assert bool(calls) == expected


def test_a_small_or_packed_back_prop_layer_is_plain() -> None:
    layer = Conv2d(320, 320, 3)
    x = maps(10, 320, 12, 12)
    assert winograd.pays_with_gradient(x, layer.weight, 0)
    assert not winograd.pays_with_gradient(x[:1], layer.weight, 0)
    assert not winograd.pays_with_gradient(x.double(), layer.weight, 0)
    assert not winograd.pays_with_gradient(x[:, :3], layer.weight[:, :3], 0)
    assert not winograd.pays_with_gradient(x[:0], layer.weight, 0)
    pack = torch.vmap(lambda x: x if winograd.pays_with_gradient(x, layer.weight, 0) else 0 * x)(x[None])
    assert pack.eq(0).all()
