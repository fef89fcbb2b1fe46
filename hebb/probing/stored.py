"""Load stored models and evaluate them on a dataset."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from hebb.config import shapes
from hebb.config.data_spec import DataSpec
from hebb.config.registry import DATASETS
from hebb.config.specs import RunConfig
from hebb.core import files
from hebb.core.errors import ConfigError
from hebb.data import images
from hebb.nn import losses, model, numerics
from hebb.nn.model import Network
from hebb.probing import readout
from hebb.storage.folders import Home

Read = TypeVar("Read")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Evaluation of a model on the test images of a dataset.

    Attributes:
        loss: mean loss per sample.
        accuracy: in percent.
        classes: for each label: the label, number of images, accuracy in percent (NaN without images).
    """

    loss: float
    accuracy: float
    classes: list[tuple[int, int, float]]


def evaluate(
    config: RunConfig,
    checkpoint: Path,
    data: DataSpec,
    home: Home,
    *,
    device_index: int = 0,
    features: Path | None = None,
) -> Evaluation:
    """Load the model of ``config`` from ``checkpoint`` and evaluate it on the test images of ``data``.

    Args:
        config: config of the run that trained the model.
        checkpoint: weights of the model.
        data: any dataset with the same image size and number of classes.
        home: folders of datasets and caches.
        device_index: number of the GPU, where one is used.
        features: ``.npz`` file to write: ``features`` (inputs of the last block), ``logits``, ``labels``.

    Raises:
        ConfigError: when the network has no classifier, or the dataset does not fit it.
    """
    if not config.network.blocks[-1].supervised:
        raise ConfigError(config.network.name, "has no classifier to evaluate")
    _check_fit(config, data)
    network = restore(config, checkpoint, device_index)
    split = images.load(data, home.datasets, config.split_seed, network.device, home.cache).test
    logits, labels, inputs = readout.predict(network, split, keep_inputs=features is not None)
    if features is not None:
        features.parent.mkdir(parents=True, exist_ok=True)
        assert inputs is not None
        with files.replaced(features) as (temporary,), open(temporary, "wb") as file:
            np.savez(file, features=inputs.numpy(), logits=logits.numpy(), labels=labels.numpy())
    hits = logits.argmax(dim=1) == labels
    return Evaluation(
        loss=float(losses.loss(network.loss, logits.double(), labels)),
        accuracy=100 * float(hits.double().mean()),
        classes=[_of_class(c, hits, labels) for c in range(config.classes)],
    )


def read_first(places: Sequence[Path], read: Callable[[Path], Read]) -> Read:
    """Return what ``read`` makes of the first folder of datasets that has the images; raise as it does for the last."""
    for folder in places[:-1]:
        with contextlib.suppress(ConfigError, OSError):
            return read(folder)
    return read(places[-1])


def restore(config: RunConfig, checkpoint: Path, device_index: int = 0) -> Network:
    """Return the trained network in evaluation mode, on the device and with the threads of ``config``."""
    device = model.device_of(config, device_index)
    numerics.settle(config, device)
    network = model.build(config)
    model.load_weights(network, checkpoint)
    return network.eval().to(device)


def _of_class(label: int, hits: torch.Tensor, labels: torch.Tensor) -> tuple[int, int, float]:
    mine = labels == label
    return label, int(mine.sum()), 100 * float(hits[mine].double().mean())


def _check_fit(config: RunConfig, data: DataSpec) -> None:
    entry = DATASETS.get(data.dataset, "--dataset-sup")
    if entry.classes != config.classes:
        raise ConfigError(
            "--dataset-sup",
            f"{entry.name} has {entry.classes} classes, the model was trained on {config.classes}",
        )
    shape, expected = shapes.input_shape(replace(config, dataset_sup=data)), shapes.input_shape(config)
    if shape != expected:
        raise ConfigError(
            "--dataset-sup",
            f"{entry.name} has images of {shapes.text(shape)}, the model takes {shapes.text(expected)}",
            hint=f"--set dataset_sup.size={expected[1]} resizes them" if shape[0] == expected[0] else None,
        )
