"""The gradient of the function that a network really computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from hebb.config.registry import ACTIVATIONS
from hebb.nn.blocks import Activate
from hebb.rules.activations import centred


@contextmanager
def whole(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let the gradient of every triangle below ``modules`` pass through the mean that it subtracts.

    In training that mean is a constant, as in the published code. An attack that treated it as one would follow a wrong
    gradient, and the network would seem more robust than it is. So each triangle receives u - (m - m') in place of u,
    where m is the mean and m' the same number without a gradient: the value of u to the bit, and the gradient of u - m.
    """

    def through_mean(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        mean = inputs[0].mean(dim=1, keepdim=True)
        return inputs[0] - (mean - mean.detach()), *inputs[1:]

    activations = [part for module in modules for part in module.modules() if isinstance(part, Activate)]
    triangles = [part for part in activations if ACTIVATIONS.get(part.name, "activation").centre is centred]
    hooks = [part.register_forward_pre_hook(through_mean) for part in triangles]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
