"""The published code of networks that settle, from where its checkout lies: one batch of each method, unchanged.

It is imported into this process, so that both sides of a ratio take turns. Its classes start from our weights, and get
the batch, the sign and the settings of the preset; debug logs are off.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hebb.core.errors import ConfigError
from hebb.data import sources
from hebb.energy.network import EnergyNetwork

_RULES = {"constant": "constant", "slow": "divide_by_slow_loop_index", "loop": "divide_by_loop_index"}


class Published:
    """One network of the published code, with the weights and the settings of ours."""

    def __init__(self, source: Path, network: EnergyNetwork) -> None:
        self.ours, self.settings = network, network.settings
        first = network.layers[0].weight
        self.sizes = [first.shape[1], *(len(layer.weight) for layer in network.layers)]
        self.method = network.layers[0].spec.method
        self.rates = [layer.spec.lr for layer in network.layers]
        self.code = _import(source, "ExplicitModels" if self.method.startswith("PC") else "ContrastiveModels")
        self.model = self._build()
        self._load()

    def _build(self) -> Any:
        s, code = self.settings, self.code
        if self.method in ("CorInfoMax", "CorInfoMaxSparse"):
            arguments = {"architecture": self.sizes, "lambda_": s.forgetting, "epsilon": s.epsilon}
            arguments |= {"activation": code.hard_sigmoid, "device": torch.device("cpu")}
            if self.method == "CorInfoMax":
                return code.ContrastiveCorInfoMaxHopfield(**arguments)
            return code.ContrastiveCorInfoMaxHopfieldSparse(**arguments, sparse_layers=[*range(1, len(self.sizes))])
        if self.method == "EP":
            model = code.EP(self.sizes, activation=code.hard_sigmoid)
            groups = [{"params": w.parameters(), "lr": r} for w, r in zip(model.W, self.rates, strict=True)]
            self.optimiser = torch.optim.SGD(groups, lr=0.1)
            return model
        if self.method == "CSM":
            self.lateral = [-layer.spec.lr_lateral for layer in self.ours.layers[:-1]]
            return code.CSM(self.sizes, activation=code.hard_sigmoid, alphas_W=self.rates, alphas_M=self.lateral)
        if self.method == "PC":
            return code.SupervisedPredictiveCoding(self.sizes, "sigmoid")
        return code.SupervisedPredictiveCodingNudgedV2_wAutoGrad(
            self.sizes, F.relu, optimizer_type="sgd", optim_lr=self.rates[0], use_stepLR=True
        )

    def _load(self) -> None:
        """Give it copies of our weights."""
        for i, layer in enumerate(self.ours.layers):
            for name, (place, key) in self._places(i).items():
                value = getattr(layer, name).clone()
                value = value.unsqueeze(1) if name == "bias" and self.method.startswith("PC") else value
                if isinstance(place, torch.nn.Module):
                    getattr(place, key).data = value
                elif self.method == "PCNudge":
                    place[key].data.copy_(value)
                else:
                    place[key] = value
            if self.method == "CSM" and layer.lateral is not None:
                self.model.M_copy[i].weight.data = self.model.M[i].weight.data

    def _places(self, i: int) -> dict[str, tuple[Any, str]]:
        """Say where the tensors of layer i are, by our name of them."""
        model, layer = self.model, self.ours.layers[i]
        if self.method in ("EP", "CSM"):
            places = {"weight": (model.W[i], "weight"), "bias": (model.W[i], "bias")}
            return places | ({"lateral": (model.M[i], "weight")} if layer.lateral is not None else {})
        places = {"weight": (model.Wff[i], "weight")}
        if self.method.startswith("PC"):
            return places | {"bias": (model.Wff[i], "bias")}
        places["lateral"] = (model.B[i], "weight")
        return places | ({"feedback": (model.Wfb[i], "weight")} if i else {})

    def learn(self, x: Tensor, labels: Tensor, sign: int) -> None:
        """Make one batch step; x is (N, n_0)."""
        s, model = self.settings, self.model
        if self.method in ("EP", "CSM"):
            self._contrast(x, labels, sign)
            return
        columns, y = x.T, F.one_hot(labels, self.sizes[-1]).T
        if self.method == "PC":
            y = (1 - 2 * s.margin) * y + s.margin
            x_inverse = self.code.activation_inverse(columns, "sigmoid")
            model.batch_step(
                x_inverse, y, {"ff": self.rates[0]}, s.step, s.step, "constant", 0.01, s.steps, optimizer="adam"
            )
        elif self.method == "PCNudge":
            model.batch_step(columns, y, sign * s.beta, s.step, s.step, "constant", 0.01, s.steps)
        else:
            feedback = [getattr(layer.spec, "lr_feedback", 0.0) for layer in self.ours.layers]
            lr = {"ff": np.array(self.rates), "fb": np.array(feedback)}
            thresholds = [layer.spec.lr_threshold for layer in self.ours.layers] if "Sparse" in self.method else None
            model.batch_step_hopfield(
                columns,
                y,
                s.gain,
                lr,
                s.step,
                s.step_floor,
                *([thresholds] if thresholds else []),
                _RULES[s.step_rule],
                s.step_slope,
                s.free_steps,
                s.nudged_steps,
                sign * s.beta,
                s.third_phase,
                False,
            )

    def _contrast(self, x: Tensor, labels: Tensor, sign: int) -> None:
        s, model, criterion = self.settings, self.model, torch.nn.MSELoss(reduction="none")
        betas = (0.0, sign * s.beta)
        neurons = model.init_neurons(len(x), x.device)
        free = self.code.copy(model(x, labels, neurons, s.free_steps, beta=0.0, criterion=criterion))
        neurons = model(x, labels, neurons, s.nudged_steps, beta=betas[1], criterion=criterion)
        nudged = self.code.copy(neurons)
        if self.method == "EP":
            model.compute_syn_grads(x, labels, free, nudged, betas, criterion)
            self.optimiser.step()
        else:
            model.compute_syn_grads(x, labels, free, nudged, betas, self.lateral, criterion)

    def difference(self) -> float:
        """Return the largest difference of a weight from ours."""
        largest = 0.0
        for i, layer in enumerate(self.ours.layers):
            for name, (place, key) in self._places(i).items():
                theirs = getattr(place, key) if isinstance(place, torch.nn.Module) else place[key]
                largest = max(
                    largest, float((theirs.detach().view_as(getattr(layer, name)) - getattr(layer, name)).abs().max())
                )
        return largest


def _import(source: Path, name: str) -> ModuleType:
    folder = source / "src"
    if not (folder / f"{name}.py").exists():
        raise ConfigError("--published", f"{source} is no checkout of the published code: no src/{name}.py")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    sources.declare_missing_operators()  # it imports torchvision
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError("--published", f"{folder / name}.py cannot be imported: {error}") from None
