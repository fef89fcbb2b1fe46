"""Compiled Hebbian steps: ``torch.compile`` of what a block does with a batch while it learns.

The whole step of a block (batch norm, padding, currents, gate, update, rate) is one graph without a break. The update
number stays outside the graph and a scheduled rate enters as a tensor, so that no step recompiles; a new batch size
recompiles once. On the CPU the gate and the passes over the weights are fused into C++ loops. On a GPU the kernels of a
step are replayed as one CUDA graph, which matters with batches of ten, where kernel launches are the bottleneck. Sums
run in another order, so the last bits differ from those of an uncompiled run.

Not compiled: dropout before a layer, activation and pool, phases that also back-propagate on the same batches, blocks
with a local loss, classifiers and packs.

Shapes: B batch; the others are those of ``hebb.nn.layers``.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from hebb.config.specs import RunConfig
from hebb.core.errors import ConfigError
from hebb.kernels import private_torch
from hebb.nn.blocks import Block, Dropout

_LOG = logging.getLogger(__name__)
_GRAPHS = 64
"""Most graphs compiled from one function, blocks times batch sizes; torch's own limit is 8."""


class Step:
    """The step of one block, compiled at its first batch."""

    def __init__(self, block: Block) -> None:
        layer = block.hebb
        assert layer is not None
        random = any(isinstance(module, Dropout) for module in block.before)  # by numpy, so no graph
        self._layer, self._into = layer, block.shapes.layer_in
        self._outside: nn.Module = block.before if random else nn.Identity()
        self._inside: nn.Module = nn.Identity() if random else block.before
        self._compiled: Callable[..., Tensor] | None = None

    def __call__(self, x: Tensor, rate: Tensor | float | None, labels: Tensor | None) -> Tensor:
        """Return the pre-activation u of a batch and make one update, as ``Block.learn`` does."""
        if self._compiled is None:
            self._layer.rehearse(self._into)  # the compiled step looks at no value
            mode = "reduce-overhead" if x.is_cuda else None  # CUDA graphs
            self._compiled = torch.compile(self._step, fullgraph=True, dynamic=False, mode=mode)
        self._layer.update_count += 1
        scheduled = (
            None if rate is None or self._layer.spec.adaptive else torch.full((1,), float(rate), device=x.device)
        )
        x = self._outside(x)
        try:
            return self._compiled(x, scheduled, labels if self._layer.rule.labels else None)
        except RuntimeError as error:
            if not private_torch.is_compiler_error(error):
                raise
            problem = f"{self._layer.rule.name} cannot be compiled: {_first_line(error)}"
            raise ConfigError("--compile", problem, hint="leave it out") from error

    def _step(self, x: Tensor, rate: Tensor | None, labels: Tensor | None) -> Tensor:
        return self._layer.update(self._inside(x), rate, labels)


def use(blocks: Iterable[Block]) -> None:
    """Let the Hebbian blocks learn by compiled steps."""
    private_torch.prepare_compiler(_GRAPHS)
    for block in blocks:
        if block.hebb is not None:
            block.compiled = Step(block)


def resolved(config: RunConfig, device: torch.device, *, required: bool = False) -> RunConfig:
    """Return the run as this machine can make it: if nothing compiles here, without ``compile`` and with a warning.

    Args:
        config: the run.
        device: the device of the run.
        required: raise instead, for a run that continues a compiled one and must reach the same bits.
    """
    problem = missing(device) if config.compile else None
    if problem is None:
        return config
    if required:
        raise ConfigError("compile", f"the run was compiled, and torch.compile does not work here: {problem}")
    _LOG.warning("--compile is ignored, because torch.compile does not work here: %s", problem)
    return replace(config, compile=False)


@functools.cache
def missing(device: torch.device) -> str | None:
    """Return why nothing compiles for a device; None if the sum of two numbers does."""
    try:
        private_torch.require_cpp_compiler()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's compiler imports modules that torch deprecates
            torch.compile(lambda x: x + x, fullgraph=True)(torch.ones(1, device=device))
    except (RuntimeError, OSError, ImportError) as error:
        return _first_line(error)
    return None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
