"""Small runs on Digits, made in a line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from hebb import builtin
from hebb.config import catalog, overrides
from hebb.config.data_spec import DataSpec
from hebb.config.grammar import make_layer
from hebb.config.specs import RunConfig
from hebb.nn.hebb_layer import HebbLayer
from hebb.nn.layers import ConvHebbLayer, LinearHebbLayer
from hebb.training import train

CNN = "SoftKrotov-c8-k3-p1-t1-lr0.08-lp0.5:bn:triangle_0.7:avg_2_2_0 BP:flatten:drop_0.2"
DEEP = (
    "SoftKrotov-c8-k3-p1-t1-lr0.08-lp0.5:bn:triangle_0.7:max_2_2_0 "
    "Soft-c12-k3-p1-t0.65-lr0.005:bn:triangle_1.4:avg_2_2_0 BP:flatten:drop_0.5"
)
BP = "BP-c8-k3-p1:bn:relu:max_2_2_0 BP-c12-k3-p1:bn:relu:avg_2_2_0 BP:flatten"
MIXED = "BP-c8-k3-p1:bn:relu:max_2_2_0 Soft-c12-k3-p1-t0.65:bn:triangle BP:flatten"
MLP = "Soft-c30-t12-lr0.045-r10:flatten:softmax_5 BP"
HEBBIAN_CLASSIFIER = "Soft-c8-k3-p1-t1-lr0.08:bn:triangle:avg_2_2_0 SupervisedSoftKrotov-t12-lr0.045-r3-v0:flatten"


builtin.load()  # a process that a test starts imports this first


def config(network: str = CNN, *changes: str, mode: str = "successive", **fields: object) -> RunConfig:
    """Return a run of ``network`` on 200 Digits images, one epoch a phase, with ``--set`` changes."""
    presets = catalog.load()
    data = DataSpec(dataset="Digits", epochs=1, batch_size=20, print_freq=1, samples=200)
    run = RunConfig(network=presets.network(network), mode=mode, dataset_sup=data, dataset_unsup=data)
    return overrides.apply(replace(run, **fields), overrides.parse(changes), presets)  # type: ignore[arg-type]


def run(config: RunConfig, folder: Path | None = None, **place: object) -> train.Result:
    """Train it; with a folder, on disk."""
    return train.run(config, place=train.Place(**{"datasets": Path("nowhere"), "folder": folder, **place}))  # type: ignore[arg-type]


def layer(method: str, arch: str = "MLP", fan_in: int = 4, **values: object) -> HebbLayer:
    """Return a layer of three neurons."""
    fields = {"out_channels": 3, **({"kernel_size": 1} if arch == "CNN" else {}), **values}
    spec = make_layer(method, arch, fields, catalog.load().defaults, "test")
    return (ConvHebbLayer if arch == "CNN" else LinearHebbLayer)(spec, fan_in, spec.out_channels)


def maps(*shape: int, seed: int = 0) -> Tensor:
    """Return normal random numbers (B, C, H, W) with the channels last in memory."""
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return numbers.contiguous(memory_format=torch.channels_last)
