"""What a rule keeps from update to update: the tensors of its state, a set for each group of channels.

Shapes: B batch, C neurons of a group, H height and W width of a map, G groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from hebb.config.rule import HebbianRule, State
from hebb.config.specs import LayerSpec
from hebb.core import user_code
from hebb.core.errors import ConfigError
from hebb.nn import contracts


class RuleState(nn.Module):
    """The state of a rule as buffers (G, ...), named as the rule names them.

    Attributes:
        map_shape: shape of the maps whose state is kept, all groups together; None until there are some.
        unchecked: functions of the rule that were not called yet.
    """

    def __init__(self, rule: HebbianRule, spec: LayerSpec, neurons: int) -> None:
        super().__init__()
        self.rule, self.spec = rule, spec
        self.map_shape: tuple[int, ...] | None = None
        self.unchecked = {"advance"}
        for state in rule.state:
            if not state.name.isidentifier() or hasattr(self, state.name):
                problem = "must be a word that no other state, and nothing of a torch module, is called by"
                raise ConfigError(f"state of {rule.name}", f"{problem}, got '{state.name}'", hint="another name")
            start = None if state.maps else self._start(state, (neurons,), torch.zeros(()))
            self.register_buffer(state.name, start, persistent=not state.maps)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, (G, ...) each; maps are among them once the layer has learnt."""
        named = {state.name: getattr(self, state.name) for state in self.rule.state}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def advance(self, u: Tensor) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
        """Move on by a batch u (B, G C, ...); yield the maps and the state of every group."""
        if self.rule.keeps_maps and self.map_shape != tuple(u.shape[1:]):
            self.map_shape = tuple(u.shape[1:])
            self.forget(like=u)
        kept = self.tensors()
        for group, maps in enumerate(u.chunk(self.spec.groups, dim=1)):
            state = self._advanced(maps, {name: tensor[group] for name, tensor in kept.items()})
            for name, tensor in kept.items():
                tensor[group].copy_(state[name])
            yield maps, state

    def _advanced(self, u: Tensor, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the state of a batch, checked."""
        assert self.rule.advance is not None
        inputs = contracts.Inputs(u=u, **state) if self.unchecked else None
        self.unchecked.clear()
        new = self.rule.advance(u, self.spec, state)
        contracts.require_state(self.rule, new, state)
        if inputs is not None:
            for value in new.values():
                inputs.check(self.rule, "advance", value)
        return new

    def forget(self, like: Tensor | None = None) -> None:
        """Start the maps anew, where they lie: recorded updates look for them there."""
        for state in self.rule.state:
            if state.maps and self.map_shape is not None:
                kept = getattr(self, state.name)
                start = self._start(state, self.map_shape, kept if like is None else like)
                if kept is None or kept.shape != start.shape:
                    setattr(self, state.name, start)
                else:
                    kept.copy_(start)

    def _start(self, state: State, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return the state of all groups at the start, for neurons or maps of ``shape``."""
        value = state.start((shape[0] // self.spec.groups, *shape[1:]), self.spec)
        if not isinstance(value, Tensor):
            what = f"start of the state '{state.name}' of {self.rule.name}"
            raise user_code.broken(state.start, what, f"must return a tensor, got {type(value).__name__}")
        return value.to(like).expand(self.spec.groups, *value.shape).clone()

    def copies(self) -> dict[str, Tensor]:
        """Return what ``restore`` takes: the tensors as they are now."""
        return {name: tensor.clone() for name, tensor in self.tensors().items()}

    def restore(self, copies: Mapping[str, Tensor]) -> None:
        """Go back to where ``copies`` was called; maps that did not exist then start anew."""
        self.forget()
        for name, tensor in copies.items():
            getattr(self, name).copy_(tensor)
