"""Data that the trials of a node share: read once, kept in Ray's object store, seen by every worker as it lies there.

The arrays are read-only to numpy but not to torch, whose in-place operations would change the data of every other
trial. So batches are copies (``Split.batches`` indexes), and nothing else touches the arrays.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from torch import Tensor

from hebb.config.specs import DataSpec, RunConfig
from hebb.data import images
from hebb.data.images import Images, Split

_MOST = 8  # datasets that are kept; a space over hundreds of subsets reads them as it goes
Key = tuple[DataSpec, int]


def specs(configs: Iterable[RunConfig]) -> list[Key]:
    """List the datasets of some runs, those that differ in more than epochs and batches, at most ``_MOST``."""
    found = {
        _key(spec, config.split_seed): None for config in configs for spec in (config.dataset_sup, config.dataset_unsup)
    }
    return list(found)[:_MOST]


def _key(spec: DataSpec, split_seed: int) -> Key:
    return dataclasses.replace(spec, epochs=1, batch_size=1, print_freq=1), split_seed


def read(keys: Iterable[Key], datasets: Path, cache: Path | None) -> dict[Key, dict[str, Any]]:
    """Read datasets into arrays; those that are streamed from their files are left out."""
    found = {}
    for spec, split_seed in keys:
        packed = _pack(images.load(spec, datasets, split_seed, torch.device("cpu"), cache), spec)
        if packed is not None:
            found[spec, split_seed] = packed
    return found


def size(packed: dict[Key, dict[str, Any]]) -> int:
    """Return the bytes of the arrays."""
    splits = (split for data in packed.values() for split in data.values() if isinstance(split, dict))
    return sum(value.nbytes for split in splits for value in split.values() if isinstance(value, np.ndarray))


def _pack(data: Images, spec: DataSpec) -> dict[str, Any] | None:
    # the test images of unlabelled data are never looked at
    test = None if "unlabeled" in spec.split else data.test
    splits = {"train": data.train, "val": data.val, "test": test}
    if any(split is not None and not isinstance(split.images, Tensor) for split in splits.values()):
        return None
    return {"sha256": data.sha256, **{name: split and _arrays(split) for name, split in splits.items()}}


def _arrays(split: Split) -> dict[str, Any]:
    fields = {field.name: getattr(split, field.name) for field in dataclasses.fields(split)}
    return {name: value.contiguous().numpy() if isinstance(value, Tensor) else value for name, value in fields.items()}


class Shared:
    """Reads datasets like ``images.load``, from the object store where they are there. Goes to the workers.

    A GPU keeps a copy of its own for each worker, which outlives the trial.
    """

    def __init__(self, packed: dict[Key, dict[str, Any]]) -> None:
        self._stored = {key: ray.put(data) for key, data in packed.items()}

    def __call__(
        self, spec: DataSpec, folder: Path, split_seed: int, device: torch.device, cache: Path | None = None
    ) -> Images:
        """Return the dataset on ``device``."""
        key = _key(spec, split_seed)
        if device.type == "cpu" and key in self._stored:
            return _unpack(ray.get(self._stored[key]), lambda: images.load(spec, folder, split_seed, device, cache))
        if (key, device) not in _LOADED:
            _LOADED[key, device] = images.load(spec, folder, split_seed, device, cache)
        return _LOADED[key, device]


_LOADED: dict[tuple[Key, torch.device], Images] = {}


def _unpack(data: dict[str, Any], reload: Callable[[], Images]) -> Images:
    splits = {name: None if data[name] is None else _split(data[name]) for name in ("train", "val", "test")}
    test = splits["test"]
    assert splits["train"] is not None
    return Images(
        train=splits["train"],
        val=splits["val"],
        read_test=(lambda: reload().test) if test is None else (lambda: test),
        sha256=data["sha256"],
    )


def _split(arrays: dict[str, Any]) -> Split:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        tensors: dict[str, Any] = {
            k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in arrays.items()
        }
    return Split(**tensors)
