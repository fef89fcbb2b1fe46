"""What the functions of rules and activations must return, checked where they are called.

Shape and number type are compared at every call, which costs less than a microsecond. What reads values, or would
otherwise cost something, is checked at the first call: that nothing is written to the inputs, and that the result is
finite.

Shapes: M rows that compete, C neurons, N inputs of a neuron.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from hebb.config import hooks
from hebb.config.rule import HebbianRule, Signal, Softmax
from hebb.config.specs import LayerSpec


def alike(value: object, like: Tensor) -> bool:
    """Tell whether a value is a tensor in the shape, the number type and the layout of another."""
    if not isinstance(value, Tensor) or value.shape != like.shape or value.dtype != like.dtype:
        return False
    return value.layout is like.layout


def require_alike(entry: hooks.Entry, name: str, value: object, like: Tensor, shape: str) -> None:
    """Raise unless ``value``, which the function ``name`` of an entry returned, is a tensor like another.

    Args:
        entry: rule or activation.
        name: its function, as in ``signal``.
        value: what it returned.
        like: a tensor in the shape, of the number type and on the device that the value must have.
        shape: the shape in letters and its model, as in ``(M, C) like u``.
    """
    if alike(value, like):
        return
    size = f"{shape.rpartition(' ')[2]} is {tuple(like.shape)} here"
    if not isinstance(value, Tensor):
        raise hooks.broken(entry, name, f"must return {shape}, got {_described(value)}; {size}")
    if value.shape != like.shape:
        raise hooks.broken(entry, name, f"must return {shape}, got {tuple(value.shape)}; {size}")
    if value.dtype != like.dtype:
        raise hooks.broken(entry, name, f"must return {shape} in {_type(like)}, got {_type(value)}")
    raise hooks.broken(entry, name, f"must return {shape}, a dense tensor, got a sparse one: add .to_dense()")


class Inputs:
    """The inputs of a function before its first call.

    Args:
        tensors: the inputs by name; a missing one is None.
    """

    def __init__(self, **tensors: Tensor | None) -> None:
        self._tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        self._versions = {name: _version(tensor) for name, tensor in self._tensors.items()}

    def check(self, entry: hooks.Entry, name: str, value: Tensor) -> None:
        """Raise for a function that wrote to an input, or made of finite inputs something that is not finite."""
        for of, tensor in self._tensors.items():
            if _version(tensor) != self._versions[of]:
                raise hooks.broken(entry, name, f"must leave {of} as it is, and writes to it: work on {of}.clone()")
        model = next(iter(self._tensors.values()))
        if value.device != model.device:
            raise hooks.broken(entry, name, f"must return a tensor on {model.device}, got one on {value.device}")
        finite = all(bool(tensor.isfinite().all()) for tensor in self._tensors.values())
        if finite and not bool(value.isfinite().all()):
            raise hooks.broken(entry, name, "must return finite numbers, got NaN or infinity from finite inputs")


def lawful(entry: hooks.Entry, name: str, weight: Tensor, spec: LayerSpec, *, new: bool) -> Tensor:
    """Return what a law of weights, the function ``name`` of a rule, makes of them; raise for another shape or type.

    Args:
        entry: the rule.
        name: its function.
        weight: the weights.
        spec: their layer.
        new: whether it is called for the first time.
    """
    inputs = Inputs(weight=weight) if new else None
    value: Tensor = getattr(entry, name)(weight, spec)
    require_alike(entry, name, value, weight, "(C, ...) like weight")
    if inputs is not None:
        inputs.check(entry, name, value)
    return value


def require_state(entry: hooks.Entry, new: object, state: Mapping[str, Tensor]) -> None:
    """Raise unless the new state of a rule has the tensors of the old one."""
    names = ", ".join(state)
    if not isinstance(new, Mapping) or set(new) != set(state):
        got = ", ".join(map(str, new)) if isinstance(new, Mapping) else _described(new)
        raise hooks.broken(entry, "advance", f"must return a dict of {names}, got {got}")
    for name, tensor in state.items():
        require_alike(entry, "advance", new[name], tensor, f"'{name}' like {name}")


def require_weights(entry: hooks.Entry, value: object, shape: torch.Size) -> Tensor:
    """Return the initial weights of a rule; raise unless they are finite numbers of the given shape."""
    size = tuple(shape)
    if not isinstance(value, Tensor):
        raise hooks.broken(entry, "initialise", f"must return weights of shape {size}, got {_described(value)}")
    if value.shape != shape:
        raise hooks.broken(entry, "initialise", f"must return weights of shape {size}, got {tuple(value.shape)}")
    if not bool(value.isfinite().all()):
        raise hooks.broken(entry, "initialise", "must return finite weights, got NaN or infinity")
    return value


def require_softmax(entry: hooks.Entry, value: object) -> Softmax | None:
    """Return the softmax that the signal of a rule is; raise unless it is one, or None."""
    if value is not None and not isinstance(value, Softmax):
        raise hooks.broken(entry, "softmax", f"must return a Softmax or None, got {_described(value)}")
    return value


def require_softmax_signal(entry: HebbianRule, gate: Softmax, spec: LayerSpec) -> None:
    """Raise unless the signal of a rule is the softmax that it declares, for a few rows of numbers."""
    u = torch.linspace(-2, 3, 12).sin().view(3, 4)
    y = cast(Signal, entry.signal)(u.clone(), spec, None)
    require_alike(entry, "signal", y, u, "(M, C) like u")
    if not torch.allclose(y, gate.of(u), rtol=1e-4, atol=1e-6):
        raise hooks.broken(entry, "softmax", f"must be what the signal is; {gate} is another")


def require_module(entry: hooks.Entry, name: str, value: object) -> nn.Module:
    """Return what the function ``name`` of an entry made; raise unless it is a module."""
    if not isinstance(value, nn.Module):
        raise hooks.broken(entry, name, f"must return a torch module, got {_described(value)}")
    return value


def require_layer(entry: hooks.Entry, name: str, module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Return the layer that the function ``name`` of an entry made; raise unless it has weights of the shape."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or tuple(weight.shape) != shape:
        got = tuple(weight.shape) if isinstance(weight, Tensor) else _described(weight)
        raise hooks.broken(entry, name, f"must return a module with a weight of shape {shape}, got {got}")
    return module


def require_terms(entry: hooks.Entry, terms: object) -> None:
    """Raise unless a local loss returned its terms: numbers on the device, by name."""
    if not isinstance(terms, dict) or not terms:
        raise hooks.broken(entry, "loss", f"must return a dict of terms by name, got {_described(terms)}")
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.dim():
            got = tuple(term.shape) if isinstance(term, Tensor) else _described(term)
            raise hooks.broken(entry, "loss", f"must return a number for the term '{name}', a tensor (), got {got}")


def require_gradient(entry: hooks.Entry, loss: Tensor, views: Tensor) -> None:
    """Raise for a local loss that depends on none of the views: no gradient flows through it."""
    if views.requires_grad and not loss.requires_grad:
        raise hooks.broken(entry, "loss", "must depend on the views, got terms without a gradient")


def _version(tensor: Tensor) -> int | None:
    """Return how often a tensor was written to; None where torch does not count it."""
    return None if tensor.is_inference() else tensor._version


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _described(value: object) -> str:
    if value is None:
        return "None"
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    text = repr(value)
    return f"{type(value).__name__} {text}" if len(text) < 60 else f"an object of type {type(value).__name__}"
