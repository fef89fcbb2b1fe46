"""The single rate neuron: its rule against autograd on the losses of LPL, directions and norms by theory.

Without it the neuron could pick the predictable direction for the wrong reason.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import Command
from torch import Tensor

from hebb.config import experiment
from hebb.core.errors import ConfigError
from hebb.rules import lpl
from hebb.spiking import rate_neuron
from hebb.spiking.rate_neuron import ARMS, ToyConfig

CONFIG = ToyConfig(sigmas=(0.05, 0.5, 0.9, 1.1, 2.0, 5.0), seeds=(0, 1, 2), steps=6000, dtype="float64")


@pytest.mark.parametrize(("pull", "push"), [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.3, 2.5)])
def test_the_rule_is_minus_the_gradient_of_the_losses(pull: float, push: float) -> None:
    """sum_b s_b x_b = -d/dw (pull(z, z_before) + push(z)), with the answer to the step before held fixed."""
    torch.manual_seed(0)
    x, before = torch.randn(2, 9, 2, dtype=torch.float64)
    w = torch.randn(2, dtype=torch.float64, requires_grad=True)
    z, old = x @ w, (before @ w).detach()
    (gradient,) = torch.autograd.grad(pull * lpl.pull(z[:, None], old[:, None]) + push * lpl.push(z[:, None]), w)
    s = rate_neuron.signal(z.detach(), old, pull, push)
    assert torch.allclose((s[:, None] * x).sum(dim=0), -gradient, atol=1e-14)


@pytest.fixture(scope="module")
def weights() -> Tensor:
    return rate_neuron.learn(CONFIG)


def of(weights: Tensor, arm: str, sigma: float) -> Tensor:
    """Return the weights (seeds, 2)."""
    return weights[CONFIG.arms.index(arm), CONFIG.sigmas.index(sigma)]


@pytest.mark.parametrize("sigma", CONFIG.sigmas)
def test_pull_and_push_pick_what_can_be_predicted(weights: Tensor, sigma: float) -> None:
    """For every sigma; there 2 (1 + noise^2)/v = 2 noise^2 + decay, which gives w_x."""
    found = of(weights, "both", sigma)
    assert (rate_neuron.alignment(found) > 0.99).all()
    v = 2 * (1 + CONFIG.noise**2) / (2 * CONFIG.noise**2 + CONFIG.decay)
    assert torch.allclose(found[:, 0].abs(), torch.tensor(v / 1.01, dtype=torch.float64).sqrt(), rtol=0.03)


@pytest.mark.parametrize("sigma", CONFIG.sigmas)
@pytest.mark.parametrize("arm", ["push", "oja"])
def test_without_the_pull_the_larger_variance_wins(weights: Tensor, sigma: float, arm: str) -> None:
    """It is x where sigma^2 < 1 + noise^2, else y. The norm with push: 2 v / v = decay w^2."""
    found = of(weights, arm, sigma)
    alignment = rate_neuron.alignment(found)
    assert (alignment > 0.95).all() if sigma < 1 else (alignment < 0.35).all()
    variance = max(1.01, sigma**2)
    expected = 2 / CONFIG.decay if arm == "push" else 1 - CONFIG.decay / variance
    if abs(sigma - 1) > 0.2:  # near the tie directions still turn
        assert torch.allclose(found.norm(dim=1).square(), torch.tensor(expected, dtype=torch.float64), rtol=0.06)


def test_pull_alone_collapses(weights: Tensor) -> None:
    """w_x decays at rate (noise^2 2 + decay), w_y at rate (sigma^2 2 + decay)."""
    for sigma in CONFIG.sigmas:
        time = CONFIG.steps * CONFIG.rate / max(1.0, sigma)
        found = of(weights, "pull", sigma).abs()
        assert (found[:, 0] < 1.2 * math.exp(-time * (2 * CONFIG.noise**2 + CONFIG.decay))).all()
        assert (found[:, 1] < 1.2 * math.exp(-time * CONFIG.decay)).all()
    spread = rate_neuron.response(weights, CONFIG)[CONFIG.arms.index("pull")]
    assert (spread < 0.15).all()
    assert (rate_neuron.response(weights, CONFIG)[CONFIG.arms.index("both")] > 3).all()


def test_same_seed_same_bits_and_seeds_alone_make_a_run() -> None:
    config = replace(CONFIG, steps=30, sigmas=(0.5, 2.0))
    first = rate_neuron.learn(config)
    assert torch.equal(first, rate_neuron.learn(config))
    alone = rate_neuron.learn(replace(config, seeds=(2,), arms=("push",), sigmas=(2.0,)))
    assert torch.allclose(alone[0, 0, 0], first[config.arms.index("push"), 1, 2], atol=1e-15)
    assert len(first.flatten(0, 2).unique(dim=0)) == len(ARMS) * 2 * 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("arms=bot", "did you mean 'both'"),
        ("batch=201", "must be even, for two clusters"),
        ("sigmas=1,-1", "must be a number >= 0 and <= 100, got -1"),
        ("seeds=1.5", "must be whole numbers"),
        ("dtype=half", "unknown 'half'"),
        ("step=3", "did you mean 'steps'"),
        ("steps=1e99", "must be a number >= 1 and <= 1e"),
    ],
)
def test_bad_values_are_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        experiment.change(ToyConfig(), [text])


def test_toy_command(forked: Command, tmp_path: Path) -> None:
    """The files hold what was drawn and what decides it; bad values end with 2 and one message."""
    out = tmp_path / "out"
    line = ("analysis.py", "toy", "--out", str(out), "--set", "steps=20", "sigmas=0.5,2", "seeds=0,1")
    done = forked(*line)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in out.iterdir()) == ["toy.config.json", "toy.csv", "toy.png", "toy.svg"]
    config = json.loads((out / "toy.config.json").read_text())
    assert (config["experiment"], config["threads"], config["steps"], config["sigmas"]) == ("toy", 1, 20, [0.5, 2.0])
    frame = pd.read_csv(out / "toy.csv")
    assert len(frame) == len(ARMS) * 2 * 2
    weights = rate_neuron.learn(ToyConfig(steps=20, sigmas=(0.5, 2.0), seeds=(0, 1)))
    row = frame[(frame["rule"] == "push") & (frame["sigma"] == 2) & (frame["measure"] == "alignment")].iloc[0]
    assert row["n"] == 2
    assert row["mean"] == pytest.approx(float(rate_neuron.alignment(weights[1, 1]).mean()), rel=1e-5)
    bad = forked("analysis.py", "toy", "--out", str(out), "--overwrite", "--set", "stepps=3")
    assert bad.returncode == 2
    assert "did you mean 'steps'" in bad.stderr
    assert "Traceback" not in bad.stderr
