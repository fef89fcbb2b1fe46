"""Adam as predictive coding uses it: epsilon is added to sqrt(v) before the bias correction of v.

    m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2;   w <- w - lr sqrt(1 - b2^t)/(1 - b1^t) m/(sqrt(v) + epsilon)

torch's adds epsilon to the corrected root. A CPU takes torch's fused step with an epsilon that the host computes from
t. On a GPU t lies on the device, where neither a wait nor a graph's replay needs the host.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hebb.energy.layer import SettlingLayer
from hebb.kernels import private_torch

_EPSILON = 1e-8
_BETAS = (0.9, 0.999)


def of_layers(layers: Sequence[SettlingLayer]) -> torch.optim.Optimizer:
    """Return the optimiser of weights and biases, with one group per layer."""
    groups = [{"params": [layer.weight, layer.bias], "lr": layer.spec.lr} for layer in layers]
    return private_torch.Adam(groups, betas=_BETAS, fused=True)


def step(optimiser: torch.optim.Optimizer, rates: Sequence[float]) -> None:
    """Make one step, with a rate for each group, and drop the gradients."""
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = rate
    if optimiser.param_groups[0]["params"][0].device.type == "cpu":
        _by_torch(optimiser)
    else:
        _on_device(optimiser)
    optimiser.zero_grad(set_to_none=True)


def _by_torch(optimiser: torch.optim.Optimizer) -> None:
    """Let torch make the step, with the epsilon that undoes the correction of v."""
    state = optimiser.state.get(optimiser.param_groups[0]["params"][0], {})
    count = 1 + int(state.get("step", 0))
    for group in optimiser.param_groups:
        group["eps"] = _EPSILON / math.sqrt(1 - _BETAS[1] ** count)
    optimiser.step()


def _moments(optimiser: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """Return t, m and v of a parameter under torch's names, which its checkpoints have."""
    state: dict[str, Tensor] = optimiser.state[parameter]
    if not state:
        state["step"] = torch.zeros((), device=parameter.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    elif state["step"].device != parameter.device:  # of a checkpoint whose steps were counted on the host
        state["step"] = state["step"].to(parameter.device, torch.float32)
    return state


def _on_device(optimiser: torch.optim.Optimizer) -> None:
    """Make the step by operations of the device alone."""
    groups = [group["params"] for group in optimiser.param_groups]
    states = [_moments(optimiser, parameter) for group in groups for parameter in group]
    counts, m, v = ([state[name] for state in states] for name in ("step", "exp_avg", "exp_avg_sq"))
    changes = iter(
        private_torch.adam_changes([p.grad for group in groups for p in group], counts, m, v, _BETAS, _EPSILON)
    )
    first, second = (torch.expm1(counts[0] * math.log(beta)).neg_() for beta in _BETAS)  # 1 - beta^t
    factor = second.sqrt_().div_(first)
    for group in optimiser.param_groups:
        private_torch.descend(
            group["params"], list(itertools.islice(changes, len(group["params"]))), factor * group["lr"]
        )
