"""A strict stand-in for a CUDA graph: it records operations on tensors, and replays those and nothing else.

What the host computes is frozen, as in a graph: a number that Python reads, a tensor that it makes anew, a mask that it
draws. So an update that depends on the host repeats its first one, and the bits show it. To learn the shapes the
recording runs the operations, and then undoes what they wrote; a graph only records them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
REFUSED = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten._unique2.default,
}
"""Operations for which the host waits: a stream that is being recorded does not permit them."""


def memory(tensor: torch.Tensor) -> Any:
    """Return the storage behind a tensor, of a pretended GPU too."""
    return getattr(tensor, "raw", tensor).untyped_storage()


class Tape(TorchDispatchMode):
    """Records the operations made inside ``with``."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, list[tuple[int, torch.Tensor]]]] = []
        self._own: set[int] = set()
        self._before: dict[int, tuple[Any, Any]] = {}
        self._states: dict[torch.Generator, torch.Tensor] = {}
        self._results: list[Any] = []

    def __torch_dispatch__(self, function: Any, kinds: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        if function in REFUSED:
            raise RuntimeError(f"{function}: operation not permitted when stream is capturing")
        flat = pytree.tree_leaves((arguments, options))
        for generator in (value for value in flat if isinstance(value, torch._C.Generator)):
            self._states.setdefault(generator, generator.get_state())
        overwritten = list(written(function, arguments, options))
        for tensor in overwritten:
            self._save(tensor)
        result = function(*arguments, **options)
        # by memory and not by schema: a conversion may be its argument, and a view never is a copy
        seen = {memory(value)._cdata for value in flat if isinstance(value, torch.Tensor)}
        leaves = enumerate(pytree.tree_leaves(result))
        fresh = [(i, leaf) for i, leaf in leaves if isinstance(leaf, torch.Tensor) and memory(leaf)._cdata not in seen]
        self._own.update(memory(leaf)._cdata for _, leaf in fresh)
        if fresh or overwritten:
            self._calls.append((function, arguments, options, fresh))
        self._results.append(result)  # keeps the memory from being used again
        return result

    def _save(self, tensor: torch.Tensor) -> None:
        """Take down what an operation is going to overwrite, unless the recording made it."""
        storage = memory(tensor)
        if storage._cdata not in self._own:
            self._before.setdefault(storage._cdata, (storage, storage.clone()))

    def undo(self) -> None:
        """Restore what the recording wrote and drew."""
        for storage, copy in self._before.values():
            storage.copy_(copy)
        for generator, state in self._states.items():
            generator.set_state(state)

    def replay(self) -> None:
        """Make the recorded operations again, on the same memory."""
        with torch.no_grad():
            for function, arguments, options, fresh in self._calls:
                leaves = pytree.tree_leaves(function(*arguments, **options))
                for i, tensor in fresh:
                    tensor.copy_(leaves[i])


def written(function: Any, arguments: Any, options: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors that an operation writes to."""
    if function is aten.native_batch_norm.default:  # its schema does not say so
        yield from (tensor for tensor in arguments[3:5] if tensor is not None)
    for i, argument in enumerate(function._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = options.get(argument.name) if argument.kwarg_only or i >= len(arguments) else arguments[i]
        yield from (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor))


def record(updates: Callable[[], None]) -> Callable[[], None]:
    """Record updates and return what replays them, as ``hebb.training.graphs`` asks of a device."""
    tape = Tape()
    try:
        with tape:
            updates()
    finally:
        tape.undo()
    return tape.replay
