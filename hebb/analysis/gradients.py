"""The gradient of what a network really computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from hebb.config.registry import ACTIVATIONS
from hebb.nn.blocks import Activate
from hebb.rules.activations import centred


@contextmanager
def whole(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let the gradient of every triangle below ``modules`` pass through the mean that it subtracts.

    In training that mean is a constant, as in the published code. An attack or an ascent that took it for one would
    follow a wrong gradient, and a network would seem robust that is not. Each triangle is given u - (m - m') in place
    of u, where m is the mean and m' the same without a gradient: u's number to the bit, and the gradient of u - m.
    """

    def through_mean(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        mean = inputs[0].mean(dim=1, keepdim=True)
        return inputs[0] - (mean - mean.detach()), *inputs[1:]

    found = [part for module in modules for part in module.modules() if isinstance(part, Activate)]
    triangles = [part for part in found if ACTIVATIONS.get(part.name, "activation").centre is centred]
    hooks = [part.register_forward_pre_hook(through_mean) for part in triangles]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
