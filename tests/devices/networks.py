"""Small networks of every method, by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small
import torch

from hebb.config.registry import RULES, HebbianRule, LocalRule, SettlingRule
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import DeviceKind
from hebb.training import train

TOLERANCE = 2e-3
"""Largest difference from the CPU's, in units of the largest weight of a tensor."""

TOKENS = {"CorInfoMax": "-lf0.2", "CorInfoMaxSparse": "-lf0.2-lt0.1", "CSM": "-lm0.1"}


def _networks() -> dict[str, str]:
    networks: dict[str, str] = {}
    for rule in RULES.entries():
        name = rule.name
        if isinstance(rule, HebbianRule) and "CNN" in rule.archs:
            first, second = f"{name}-c6-k3-p1:bn:relu:max_2_2_0", f"{name}-c8-k3-p1:bn:triangle_0.7:avg_2_2_0"
            networks[f"{name} cnn"] = f"{first} {second} BP:flatten"
            networks[f"{name} mlp"] = f"{name}-c12:flatten BP"
        elif isinstance(rule, LocalRule):
            first, second = (f"{name}-c{c}-k3-p1-ls0.01:relu:warmup=0" for c in (6, 8))
            networks[name] = f"{first} {second} BP:flatten"
        elif isinstance(rule, SettlingRule):
            hidden = "" if name == "CSM" else f" {name}-c12"
            networks[name] = f"{name}-c16:flatten{hidden} {name}{TOKENS.get(name, '')}"
    return networks | {
        "supervised": "Soft-c6-k3-p1:bn:triangle:avg_2_2_0 SupervisedSoftKrotov-t12-lr0.045-r3-v0:flatten",
        "bias": "SoftKrotov-c12-b1:flatten BP",
        "repu": "Soft-c6-k3-p1:bn:relu:soft_activation_fn=repu BP:flatten",
        "strides": "SoftKrotov-c8-k3-p2-s2-g1:bn:relu BP-c6-k3-p1-s2:relu BP:flatten",
        "surround": "BCM-c6-k3-p1:bn:relu:surround=3:dale=1 HardInstar-c6-k3-p1:bn:relu:presynaptic=norm BP:flatten",
        "bp": small.BP,
        "PC of errors": "settle:solver=error,steps=10,step=0.3 PC-c16:flatten PC-c12 PC",
        "PCNudge of errors": "settle:solver=error,steps=5,step=0.4 PCNudge-c16:flatten PCNudge-c12 PCNudge",
        "FA": "FA-c20:flatten:relu FA-c15:relu FA",
        "joint": small.MIXED,
        "SPHeRe of distances": "SPHeRe-c12:flatten:bn_affine:relu:similarity=distance BP",
        "SCFF of vectors": "SCFF-c12:flatten:relu SCFF-c16:relu:residual BP",
        "residual": "BP-c6-k3-p1:bn_affine:relu:avg_2_2_0:residual Soft-c8-k3-p1:bn:relu:residual BP:flatten",
        "stale": "LPL-c6-k3-p1-ls0.01:relu:stale=true:warmup=0 BP:flatten",
        "shuffle": "LPL-c6-k3-p1-ls0.01:relu:shuffle=true:warmup=0 BP:flatten",
    }


NETWORKS = _networks()

CNN = NETWORKS["SoftKrotov cnn"]
WAYS: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "consecutive": (CNN, [], {"mode": "consecutive"}),
    "simultaneous": (CNN, [], {"mode": "simultaneous"}),
    "stop": (CNN, ["stop.patience=1", "stop.convergence=0.001", "dataset_unsup.epochs=2"], {}),
    "sgd": (CNN, ["classifier.optimiser=sgd", "classifier.momentum=0.5", "classifier.lr=0.001"], {}),
    "adamw": (CNN, ["classifier.optimiser=adamw", "classifier.weight_decay=0.1"], {}),
    "mse": (CNN, ["classifier.loss=mse"], {}),
    "validation": (CNN, ["dataset_sup.validation=0.2", "dataset_unsup.validation=0.2"], {}),
    "features of 16 bits": (CNN, ["feature_dtype=float16"], {}),
    "consecutive, local losses": (NETWORKS["LPL"], [], {"mode": "consecutive"}),
    "simultaneous, local losses": (NETWORKS["LPL"], [], {"mode": "simultaneous"}),
    "simultaneous, without a gradient": (NETWORKS["supervised"], [], {"mode": "simultaneous"}),
    "frozen blocks": (CNN, [], {"training_blocks": (2,)}),
    "frozen blocks, consecutive": (CNN, [], {"mode": "consecutive", "training_blocks": (1, 2)}),
    "blockwise": (NETWORKS["bp"], [], {"bp_blockwise": True}),
    "probes": (CNN, [], {"probes": ("linear", "knn", "geometry", "neuron", "short")}),
    "simultaneous, by rule and gradient": (NETWORKS["joint"], [], {"mode": "simultaneous"}),
    "compute in bfloat16": (CNN, ["compute_dtype=bfloat16"], {}),
    "back-prop in bfloat16": (NETWORKS["bp"], ["compute_dtype=bfloat16"], {}),
    "zca": (CNN, ["dataset_sup.zca=true", "dataset_unsup.zca=true"], {}),
    "zoom": (CNN, ["dataset_sup.zoom=1.2", "dataset_unsup.zoom=1.2"], {}),
    "augmentation": (CNN, ["dataset_sup.augmentation=true", "dataset_unsup.augmentation=true"], {}),
}
"""Ways to train: network, changes, fields of the run."""


_FEW = {"samples": "60", "batch_size": "10"}


def config(network: str, *changes: str, **fields: Any) -> RunConfig:
    """Return a run of 60 images in batches of 10."""
    few = {f"dataset_{role}.{name}": value for role in ("sup", "unsup") for name, value in _FEW.items()}
    few |= dict(change.split("=", 1) for change in changes)
    return small.config(network, *(f"{path}={value}" for path, value in few.items()), **fields)


def on_cpu(config: RunConfig, **place: Any) -> train.Result:
    """Run it on the CPU."""
    return small.run(replace(config, device=DeviceKind.CPU), **place)


def on_gpu(config: RunConfig, index: int = 0, **place: Any) -> train.Result:
    """Run it on a pretended GPU."""
    return small.run(replace(config, device=DeviceKind.CUDA), device_index=index, **place)


def assert_close(first: train.Result, second: train.Result, tolerance: float = TOLERANCE) -> None:
    """Fail unless two networks have the same weights up to rounding."""
    mine, other = first.network.state_dict(), second.network.state_dict()
    assert mine.keys() == other.keys()
    for name, tensor in mine.items():
        a, b = tensor.to("cpu").double(), other[name].to("cpu").double()
        assert (a - b).abs().max() <= tolerance * max(float(a.abs().max()), 1e-6), name


SCORES = ("train_loss", "train_acc", "val_loss", "val_acc", "test_loss", "test_acc")


def assert_alike(first: train.Result, second: train.Result, tolerance: float = TOLERANCE) -> None:
    """Fail unless two runs have the same weights, scores, probes and geometry up to rounding."""
    assert_close(first, second, tolerance)
    for mine, other in zip(first.rows, second.rows, strict=True):
        assert_near([mine.get(key) for key in SCORES], [other.get(key) for key in SCORES])
    for mine, other in ((vars(a), vars(b)) for a, b in zip(first.probes, second.probes, strict=True)):
        assert_near(list(mine.values()), list(other.values()))
    for mine, other in zip(first.geometry, second.geometry, strict=True):
        assert_near(list(mine.row.values()), list(other.row.values()))


def assert_near(mine: list[Any], other: list[Any]) -> None:
    """Fail unless numbers agree up to rounding; an image or two of a hundred may change sides."""
    for a, b in zip(mine, other, strict=True):
        assert a == b or a == pytest.approx(b, rel=1e-2, abs=2.0 if abs(b) > 10 else 1e-3), (mine, other)


def nowhere() -> Path:
    return Path("nowhere")


def devices(result: train.Result) -> set[torch.device]:
    """Return where the tensors of a network are."""
    return {tensor.device for tensor in result.network.state_dict().values()}
