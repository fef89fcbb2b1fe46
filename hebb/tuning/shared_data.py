"""Data that the trials of a node share: read once, kept in Ray's object store, and used there by every worker.

The arrays are read-only for numpy but not for torch, whose in-place operations would change the data of every other
trial. So batches are copies (``Split.batches`` indexes), and nothing else touches the arrays.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from hebb.config.data_spec import DataSpec
from hebb.config.specs import RunConfig
from hebb.data import images, memory
from hebb.data.contents import Contents
from hebb.data.images import Images, Split
from hebb.data.memory import ArrayData

_OF_A_RUN = 2  # datasets that one run uses, and a worker keeps: a GPU has no room for those of a whole space
_MOST = 8  # datasets that are kept; a space over hundreds of subsets reads them as it goes
Key = tuple[DataSpec, int]
Arrays = dict[str, Any]
"""The fields of a ``Split``, its tensors as numpy arrays."""


class PackedData(TypedDict):
    """A dataset as numpy arrays."""

    sha256: str
    contents: Contents | None
    train: Arrays
    val: Arrays | None
    test: Arrays | None


Packed = dict[Key, PackedData]


def specs(configs: Iterable[RunConfig]) -> list[Key]:
    """List the datasets of some runs, at most ``_MOST``; epochs and batches make no difference."""
    keys = {
        _key(spec, config.split_seed): None for config in configs for spec in (config.dataset_sup, config.dataset_unsup)
    }
    return list(keys)[:_MOST]


def _key(spec: DataSpec, split_seed: int) -> Key:
    return dataclasses.replace(spec, epochs=1, batch_size=1, print_freq=1), split_seed


def read(keys: Iterable[Key], datasets: Path, cache: Path | None) -> Packed:
    """Read datasets into arrays, except those that are streamed from their files."""
    packed: Packed = {}
    for spec, split_seed in keys:
        data = _pack(images.load(spec, datasets, split_seed, torch.device("cpu"), cache), spec)
        if data is not None:
            packed[spec, split_seed] = data
    return packed


def size(packed: Packed) -> int:
    """Return the bytes of the arrays."""
    splits = (split for data in packed.values() for split in (data["train"], data["val"], data["test"]) if split)
    return sum(value.nbytes for split in splits for value in split.values() if isinstance(value, np.ndarray))


def _pack(data: Images, spec: DataSpec) -> PackedData | None:
    test = None if "unlabeled" in spec.split else data.test  # the test images of unlabelled data are never used
    if any(split is not None and not isinstance(split.images, Tensor) for split in (data.train, data.val, test)):
        return None
    return {
        "sha256": data.sha256,
        "contents": data.contents,
        "train": _arrays(data.train),
        "val": None if data.val is None else _arrays(data.val),
        "test": None if test is None else _arrays(test),
    }


def _arrays(split: Split) -> Arrays:
    fields = {field.name: getattr(split, field.name) for field in dataclasses.fields(split)}
    return {name: value.contiguous().numpy() if isinstance(value, Tensor) else value for name, value in fields.items()}


class Shared:
    """Reads datasets as ``images.load`` does, from the object store where it holds them; it is sent to the workers.

    On a GPU each worker keeps copies of its own, those of the last trial.
    """

    def __init__(self, packed: Packed) -> None:
        from hebb.tuning.ray_session import ray

        self._stored = {key: ray.put(data) for key, data in packed.items()}
        arrays = {spec.dataset: memory.registered(spec.dataset) for spec, _ in packed}
        self._arrays = {name: ray.put(data) for name, data in arrays.items() if data is not None}

    def __call__(
        self, spec: DataSpec, folder: Path, split_seed: int, device: torch.device, cache: Path | None = None
    ) -> Images:
        """Return the dataset on ``device``."""
        from hebb.tuning.ray_session import ray

        key = _key(spec, split_seed)
        if device.type == "cpu" and key in self._stored:
            return _unpack(ray.get(self._stored[key]), lambda: images.load(spec, folder, split_seed, device, cache))
        if spec.dataset in self._arrays and spec.dataset not in _ADOPTED:  # final runs hold nothing out: another split
            _ADOPTED[spec.dataset] = ray.get(self._arrays[spec.dataset])
            memory.adopt(_ADOPTED[spec.dataset])
        loaded = _LOADED.pop((key, device), None)
        while loaded is None and len(_LOADED) >= _OF_A_RUN:
            del _LOADED[next(iter(_LOADED))]  # the one whose last use is longest ago
        _LOADED[key, device] = loaded or images.load(spec, folder, split_seed, device, cache)
        return _LOADED[key, device]


_ADOPTED: dict[str, ArrayData] = {}
"""Arrays of the program that started the search, by name."""
_LOADED: dict[tuple[Key, torch.device], Images] = {}


def _unpack(data: PackedData, reload: Callable[[], Images]) -> Images:
    test = None if data["test"] is None else _split(data["test"])
    return Images(
        train=_split(data["train"]),
        val=None if data["val"] is None else _split(data["val"]),
        read_test=(lambda: reload().test) if test is None else (lambda: test),
        sha256=data["sha256"],
        contents=data["contents"],
    )


def _split(arrays: Arrays) -> Split:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        fields: Arrays = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in arrays.items()}
    return Split(**fields)
