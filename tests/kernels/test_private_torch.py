"""What is asked of torch's private functions, against its public ones.

Without it a new version of torch could change what a step does.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from hebb.kernels import private_torch


@pytest.mark.parametrize(
    ("ours", "theirs", "arguments"),
    [
        (private_torch.Adam, torch.optim.Adam, {"weight_decay": 0.1}),
        (private_torch.SGD, torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    ],
)
def test_optimisers_learn_like_those_of_torch(
    ours: type[torch.optim.Optimizer], theirs: type[torch.optim.Optimizer], arguments: dict[str, float]
) -> None:
    """The same bits, also over a stored state; and the step leaves no graph behind."""
    draw = torch.Generator().manual_seed(0)
    weights = [torch.nn.Parameter(torch.ones(40)) for _ in range(2)]
    optimisers = [
        kind([weight], lr=0.1, fused=True, **arguments) for kind, weight in zip((ours, theirs), weights, strict=True)
    ]
    for update in range(6):
        gradient = torch.randn(40, generator=draw)
        for weight, optimiser in zip(weights, optimisers, strict=True):
            optimiser.zero_grad()
            (weight * gradient).sum().backward()
            optimiser.step()
        if update == 2:
            state = optimisers[0].state_dict()
            optimisers[0] = ours([weights[0]], lr=0.1, fused=True, **arguments)
            optimisers[0].load_state_dict(state)
    assert torch.equal(*weights)
    assert all(weight.grad_fn is None and weight.requires_grad for weight in weights)


def test_an_optimiser_does_not_import_the_compiler() -> None:
    program = (
        "import sys, torch; from hebb.kernels import private_torch\n"
        "weight = torch.nn.Parameter(torch.ones(2)); weight.grad = torch.ones(2)\n"
        "for kind in (private_torch.Adam, private_torch.SGD):\n"
        "    optimiser = kind([weight], lr=0.1, fused=True); optimiser.step(); optimiser.zero_grad()\n"
        "    optimiser.load_state_dict(optimiser.state_dict())\n"
        "assert not any(name.startswith(('torch._dynamo', 'sympy')) for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_a_silenced_slope_is_the_gradient_of_relu() -> None:
    slope, f = torch.ones(5, 2)[:, :1].contiguous(), torch.tensor([[-1.0], [0.0], [0.5], [torch.inf], [2.0]])
    wide = torch.ones(5, 3)
    private_torch.silence(slope, f)
    private_torch.silence(wide[:, :1], f)  # a view of a wider state
    assert slope.flatten().tolist() == wide[:, 0].tolist() == [0, 0, 1, 1, 1]
    assert wide[:, 1:].eq(1).all()
