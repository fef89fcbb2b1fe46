"""``.npz`` files in the Keras layout (x_train, y_train, x_test, y_test): arrays and headers. Never imports torch."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from hebb.core.errors import ConfigError

_KERAS = "the arrays must be called x_train y_train x_test y_test: np.savez(FILE, x_train=..., y_train=..., ...)"
_COLOURS = 4
"""Length of a colour axis at most."""


def array(path: Path, name: str) -> np.ndarray:
    """Read one array."""
    with _refusals(path, name), open(path, "rb") as opened:
        file = np.load(opened, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise ValueError("it is a single array, as np.save writes it")
        with file:
            _members(file.zip, path)
            values: np.ndarray = file[name]
            return values


def names(path: Path) -> set[str]:
    """List the arrays of a file."""
    with _refusals(path, "arrays"), zipfile.ZipFile(path) as archive:
        return _members(archive, path)


def header(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Read shape and type of an array without its values."""
    with _refusals(path, name), zipfile.ZipFile(path) as archive:
        _members(archive, path)
        with archive.open(f"{name}.npy") as member:
            return _header(member)


def _members(archive: zipfile.ZipFile, path: Path) -> set[str]:
    """Return the names of the arrays; raise for one that is there twice, of which the reader would take the last."""
    counts = Counter(name.removesuffix(".npy") for name in archive.namelist())
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice is not None:
        raise ConfigError(str(path), f"holds {twice} {counts[twice]} times, must hold it once", hint="save it again")
    return set(counts)


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(member)
    if version not in readers:
        raise ValueError(f"unknown array format {version}")
    shape, _, kind = readers[version](member)
    return shape, kind


def image_shape(shape: tuple[int, ...], where: str) -> tuple[int, int, int]:
    """Return (C, H, W) of arrays (N, H, W), (N, H, W, C) or (N, C, H, W); a colour axis is at most 4 long.

    Where both the first and the last axis of an image may be its colours, the layout of square images is taken, else
    the one with 1 or 3 colours.
    """
    if len(shape) == 3:
        return (1, shape[1], shape[2])
    if len(shape) != 4 or min(shape[1], shape[3]) > _COLOURS:
        raise ConfigError(where, f"images must be (N, H, W), (N, H, W, C) or (N, C, H, W), got {shape}")
    last, first = (shape[3], shape[1], shape[2]), shape[1:]
    if max(shape[1], shape[3]) > _COLOURS:
        return last if shape[3] <= _COLOURS else first
    for likely in (lambda layout: layout[1] == layout[2], lambda layout: layout[0] in (1, 3)):
        layouts = [layout for layout in (last, first) if likely(layout)]
        if len(layouts) == 1:
            return layouts[0]
    if shape[1] == shape[3] == 1:
        return last  # both are the same pixels
    raise ConfigError(
        where,
        f"images of shape {shape} may be (N, H, W, C) or (N, C, H, W)",
        hint="enlarge them, so that one axis is longer than 4; grey images may be (N, H, W)",
    )


def _has(path: Path) -> str:
    """Name the arrays of a file, up to ten."""
    stored = sorted(names(path))
    return f", has {' '.join(stored[:10])}{' ...' * (len(stored) > 10)}" if stored else ", and holds no array"


@contextmanager
def _refusals(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except ConfigError:
        raise
    except KeyError:
        raise ConfigError(str(path), f"lacks {name}{_has(path)}", hint=_KERAS) from None
    except FileNotFoundError:
        raise ConfigError(str(path), "no such file") from None
    except PermissionError:
        raise ConfigError(str(path), "cannot be read: permission denied") from None
    except IsADirectoryError:
        raise ConfigError(
            str(path), "is a folder, and must be an .npz file", hint="folder:PATH reads a folder of images"
        ) from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        reason = (str(error).splitlines() or [""])[0]
        if "allow_pickle" in reason:
            raise ConfigError(
                str(path), f"{name} holds Python objects", hint=f"save numbers or text: np.array({name}.tolist())"
            ) from None
        raise ConfigError(str(path), "is truncated or not an .npz file", hint=reason) from None
    except RuntimeError as error:  # a password is needed, or another program has compressed it
        raise ConfigError(str(path), f"cannot be unpacked: {error}", hint="save it again with np.savez") from None
