"""Checkpoints: files of tensors, written whole or not at all and read without running code."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hebb.core import files
from hebb.core.errors import ConfigError
from hebb.core.interrupts import uninterrupted

NAME = "last.pt"
"""File name of the checkpoint inside a run's ``checkpoint`` folder."""


def save(path: Path, data: Mapping[str, object]) -> None:
    """Write ``data`` to a temporary file and rename it, so that ``path`` is always complete.

    Raises:
        DiskFullError: when there is no space left; the file that was there stays.
    """
    own = _alone(dict(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replaced(path) as (temporary,), open(temporary, "wb") as file, uninterrupted():
        torch.save(own, file)


def _alone(value: object) -> object:
    """Copy views, because saving a view would save the whole storage behind it."""
    if isinstance(value, dict):
        return {key: _alone(item) for key, item in value.items()}
    if isinstance(value, torch.Tensor) and value.untyped_storage().nbytes() > value.nbytes:
        return value.clone()
    return value


def check_stays(path: Path, overwritten: Path, name: str) -> None:
    """Raise where a checkpoint that runs start from lies in a folder that they overwrite; ``name`` is its flag."""
    if path.resolve().is_relative_to(overwritten.resolve()):
        raise ConfigError("--overwrite", "would delete the model that --resume reads", hint=f"choose another {name}")


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; raise for a missing, truncated or foreign file."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch itself does not check the checksums
                raise zipfile.BadZipFile
        data = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(str(path), "no such checkpoint") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile):
        raise ConfigError(str(path), "is truncated or not a checkpoint", hint="nothing was loaded") from None
    weights = data.get("model") if isinstance(data, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
        raise ConfigError(str(path), "is not a checkpoint of this project")
    checkpoint: dict[str, Any] = data
    return checkpoint


def sha256(path: Path) -> str:
    """Return the digest of a file."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        raise ConfigError(str(path), "no such checkpoint") from None
