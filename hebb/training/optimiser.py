"""The optimiser of a phase and its rates.

BP blocks use the optimiser of the classifier, blocks with a local loss use Adam or AdamW, and a settling network has
its own.

Shapes: C neurons; weights are (C, ...) with two dimensions or more, biases (C,).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from hebb.config.phase import Phase, PhaseKind
from hebb.config.rule import LocalRule
from hebb.config.specs import LayerSpec, RunConfig
from hebb.config.vocabulary import Optimiser
from hebb.core import user_code
from hebb.core.errors import ConfigError
from hebb.energy.network import EnergyNetwork
from hebb.kernels import private_torch
from hebb.nn.model import Network
from hebb.rules import rates

_DECOUPLED = "decoupled_weight_decay"  # torch's word for AdamW
Learnt = Callable[[Iterable[int]], list[nn.Parameter]]
"""Returns the parameters of some blocks: ``Network.learnt`` or ``Pack.learnt``."""


def optimiser_of(config: RunConfig, phase: Phase, network: Network) -> torch.optim.Optimizer | None:
    """Return the optimiser of a phase; None when nothing in the phase needs one."""
    if phase.kind == PhaseKind.SETTLE:
        return None if network.energy is None else _of_energy(network.energy)
    return of_blocks(config, phase, network.learnt)


def _of_energy(energy: EnergyNetwork) -> torch.optim.Optimizer | None:
    """Return the optimiser that a settling network makes; raise unless it is one."""
    optimiser = energy.optimiser()
    if optimiser is not None and not isinstance(optimiser, torch.optim.Optimizer):
        problem = f"must return a torch optimiser or None, got {optimiser!r}"
        raise user_code.broken(type(energy).optimiser, f"optimiser of {energy.layers[0].spec.method}", problem)
    return optimiser


def of_blocks(config: RunConfig, phase: Phase, learnt: Learnt) -> torch.optim.Optimizer | None:
    """Return the optimiser of the BP blocks and the blocks with a local loss; None when the phase has neither."""
    spec = config.classifier
    groups: list[dict[str, Any]] = []
    if phase.lr is not None:
        backprop = learnt(i for i in phase.blocks if not config.network.blocks[i].local)
        groups.append({"params": backprop, "lr": phase.lr, "weight_decay": spec.weight_decay})
        if spec.optimiser == Optimiser.ADAMW:
            groups[0][_DECOUPLED] = True
    for i in phase.blocks:
        groups += _of_loss(config.network.blocks[i].layer, i, learnt)
    if phase.lr is not None and spec.optimiser == Optimiser.SGD:
        if len(groups) > 1:
            raise ConfigError(
                "classifier.optimiser",
                "must be adam or adamw: blocks with a loss of their own learn by it, on the same batches as BP",
                hint="use --training-mode successive or consecutive",
            )
        return private_torch.SGD(groups, lr=phase.lr, momentum=spec.momentum, fused=True)
    return private_torch.Adam(groups, fused=True) if groups else None


def _of_loss(layer: LayerSpec, i: int, learnt: Learnt) -> list[dict[str, Any]]:
    """Return the groups of parameters of a block with a local loss; none of another block."""
    rule = layer.rule
    if not isinstance(rule, LocalRule):
        return []
    parameters, group = learnt([i]), {"lr": layer.lr_sup, "weight_decay": layer.weight_decay, "block": i}
    if rule.decoupled:
        return [{"params": parameters, **group, _DECOUPLED: True}]
    parts = (
        (group, [p for p in parameters if p.dim() > 1]),
        ({**group, "weight_decay": 0.0}, [p for p in parameters if p.dim() == 1]),
    )
    return [{"params": chosen, **values} for values, chosen in parts if chosen]


def set_rates(config: RunConfig, phase: Phase, optimiser: torch.optim.Optimizer | None, epoch: int) -> None:
    """Set the rates of an epoch: a local loss follows the schedule of its layer, other groups the classifier's."""
    if optimiser is None or phase.kind in (PhaseKind.CALIBRATE, PhaseKind.SETTLE):
        return
    for group in optimiser.param_groups:
        if "block" in group:
            layer = config.network.blocks[group["block"]].layer
            group["lr"] = rates.warm_cosine(layer, epoch, phase.epochs)
            continue
        assert phase.lr is not None
        group["lr"] = phase.lr * rates.classifier_factor(config.classifier, epoch, phase.epochs)
