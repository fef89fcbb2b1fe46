"""Decodes one image file: upright, 8 bits a channel, or refused by its name. Never imports torch.

Shapes: C channels, H height, W width.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

GREY = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"})
"""Modes of Pillow without colour."""
VERSION = 2
"""Changes when the same file gives other pixels: part of the key under which what is computed from files is kept."""
_ORIENTATION = 0x0112
_BITS, _PHOTOMETRIC, _PAGE_KIND, _SAMPLE_FORMAT = 258, 262, 254, 339
"""Tags of TIFF."""
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
"""What a whole file ends with, by the format's name in Pillow."""
_LAST = 64  # bytes in which the end is looked for
_ZEROS = 32  # bytes; compressed pixels do not end with so many zeros
_WHITE_IS_ZERO, _SIGNED = 0, 2


@contextmanager
def opened(path: Path) -> Iterator[Image]:
    """Open an image file; whatever Pillow raises inside becomes an error that names the file."""
    from PIL import Image

    try:
        if not path.is_file():  # opening a pipe would wait for its writer
            problem = "is not a file" if path.exists() else "no such file" + " behind this link" * path.is_symlink()
            raise ConfigError(str(path), problem)
        with Image.open(path) as image:
            _check_frames(image, path)
            _check_turned(image, path)
            yield image
    except ConfigError:
        raise
    except MemoryError:
        raise
    except PermissionError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from None
    except Exception as error:  # the decoders of Pillow raise OSError, ValueError, SyntaxError, struct.error, ...
        reason = (str(error).splitlines() or [type(error).__name__])[0].replace(str(path), path.name)
        raise ConfigError(str(path), f"is not an image that can be read: {reason}") from None


def size(image: Image) -> tuple[int, int]:
    """Return (H, W) of an image as it is shown; an image that is stored turned is decoded for it."""
    stored_turned = image.format != "PNG" or "exif" in image.info or "XML:com.adobe.xmp" in image.info
    shown = _upright(image) if stored_turned and _orientation(image) != 1 else image
    return shown.height, shown.width


def is_grey(image: Image) -> bool:
    """Tell whether an image is without colour; Pillow reads a grey PNG of 16 bits with alpha in a mode with colour."""
    return image.mode in GREY or (image.mode == "RGBA" and any("LA;16B" in tile for tile in getattr(image, "tile", ())))


def largest_of_16_bits(path: Path) -> int | None:
    """Return the largest stored value of an image whose white is 65535; None for other images.

    Of 16 bits a channel in colour Pillow gives the upper 8, so the value is that of the byte's end.
    """
    with opened(path) as image:
        bits = _as_tuple(getattr(image, "tag_v2", {}).get(_BITS, 16))[0]
        stored = " ".join(map(str, getattr(image, "tile", ())))
        if bits != 16 or image.format == "PPM" or not (image.mode.startswith("I") or ";16" in stored):
            return None
        image.load()
        values = np.array(image)
        return int(values.max()) if image.mode.startswith("I") else int(values[..., :3].max()) << 8 | 255


def pixels(path: Path, channels: int) -> np.ndarray:
    """Decode a file: uint8 (H, W) for one channel, (H, W, 3) for three.

    Sixteen bits are divided by 257 and rounded, and floats in [0, 1] are multiplied by 255, so that white stays
    white. Of 16 bits a channel in colour Pillow gives the upper 8. Transparency is dropped.

    Raises:
        ConfigError: when the file is broken, in colour where ``channels`` is 1, or has no stated white.
    """
    with opened(path) as image:
        if channels == 1 and not is_grey(image):
            raise ConfigError(str(path), "is in colour, and the images before it are grey", hint="convert it to grey")
        if _SIGNED in _as_tuple(getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT)) and image.mode in ("L", "RGB"):
            raise ConfigError(str(path), "holds signed numbers of 8 bits, whose white is unknown", hint=_INTEGERS)
        _check_end(image, path)
        image.load()
        shown = _upright(image)
        if shown.mode in ("RGBa", "La"):  # colours multiplied by alpha
            shown = shown.convert({"RGBa": "RGBA", "La": "LA"}[shown.mode])
        if shown.mode == "F" or shown.mode.startswith("I"):
            grey = _eight_bits(np.array(shown), image, path)
            return grey if channels == 1 else np.repeat(grey[:, :, None], 3, axis=2)
        mode = "L" if channels == 1 else "RGB"
        return np.array(shown if shown.mode == mode else shown.convert(mode))  # to convert to its own mode copies it


def _eight_bits(values: np.ndarray, image: Image, path: Path) -> np.ndarray:
    """Scale grey values (H, W) of more than 8 bits to uint8."""
    tags = getattr(image, "tag_v2", {})
    if image.mode == "F":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ConfigError(str(path), f"holds floats from {values.min():g} to {values.max():g}", hint=_FLOATS)
        scaled = np.rint(values * np.float64(255)).astype(np.uint8)
    elif image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):  # a PGM is scaled to 16 bits by Pillow
        white = (1 << int(tags.get(_BITS, (16,))[0])) - 1
        if int(values.min()) < 0 or int(values.max()) > white:
            raise ConfigError(str(path), f"holds values beyond {white}, the white of its bits")
        scaled = ((values.astype(np.int64) * 510 + white) // (2 * white)).astype(np.uint8)
    else:
        raise ConfigError(str(path), "holds whole numbers of 32 or signed bits, whose white is unknown", hint=_INTEGERS)
    return 255 - scaled if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else scaled


def _as_tuple(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


_FLOATS = "floats must be from 0 (black) to 1 (white): divide them by their white"
_INTEGERS = "save it with 8 or 16 bits a channel, white as 255 or 65535"


def _orientation(image: Image) -> int:
    """Return the orientation tag, 1 (upright) to 8; a broken tag counts as upright, as viewers show it."""
    with contextlib.suppress(Exception):
        tag = image.getexif().get(_ORIENTATION, 1)
        return tag if isinstance(tag, int) and 1 <= tag <= 8 else 1
    return 1


def _upright(image: Image) -> Image:
    """Turn and mirror an image as its orientation tag says."""
    from PIL.Image import Transpose

    image.load()
    if image.format == "TIFF":  # Pillow has turned it
        return image
    turn = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _check_frames(image: Image, path: Path) -> None:
    """Raise for a film or a stack of pages; the preview in a phone's photo and the levels of a pyramid are neither."""
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1 and not _pyramid(image, frames):
        raise ConfigError(str(path), f"holds {frames} images, and an image file must hold one", hint="save each alone")


def whole(image: Image, path: Path) -> bool:
    """Tell whether a file ends as its format has it; a whole file may have junk behind its end, and is then False."""
    end = _ENDS.get(image.format or "")
    descriptor = os.open(path, os.O_RDONLY)  # a third of the time of a file object, which counts where images are small
    try:
        last = os.pread(descriptor, _LAST, max(0, os.fstat(descriptor).st_size - _LAST))
    finally:
        os.close(descriptor)
    return end is not None and end in last


def _check_end(image: Image, path: Path) -> None:
    """Raise for a file whose rest is zeros, as a broken copy leaves it: Pillow decodes them to some colour."""
    if image.format not in (*_ENDS, "WEBP") or whole(image, path):
        return
    data = path.read_bytes()
    if image.format == "WEBP":
        data = data[: 8 + int.from_bytes(data[4:8], "little")]  # what follows belongs to no image
    if not data.endswith(bytes(1 if image.format == "PNG" else _ZEROS)):
        return
    if image.format == "PNG":
        broken = _ENDS["PNG"] not in data
    elif image.format == "WEBP":
        broken = b"EXIF" not in data and b"XMP " not in data  # which stand last, and may hold zeros
    else:  # in a scan, which begins with FFDA, no FFD9 can stand
        broken = data.rfind(_ENDS["JPEG"]) < data.rfind(b"\xff\xda")
    if broken:
        zeros = len(data) - len(data.rstrip(b"\0"))
        raise ConfigError(str(path), f"is not whole: its last {zeros:,} bytes are zeros", hint="copy it again")


def _check_turned(image: Image, path: Path) -> None:
    """Raise for a TIFF stored on its side: Pillow can take its rows for its columns when it decodes it."""
    if image.format == "TIFF" and image.tag_v2.get(_ORIENTATION, 1) in (5, 6, 7, 8):  # type: ignore[attr-defined]
        raise ConfigError(str(path), "is a TIFF on its side (orientation tag)", hint="store it upright, or as PNG")


def _pyramid(image: Image, frames: int) -> bool:
    if image.format != "TIFF":
        return False
    reduced = []
    for frame in range(1, frames):
        image.seek(frame)
        reduced.append(int(image.tag_v2.get(_PAGE_KIND, 0)) & 1)  # type: ignore[attr-defined]
    image.seek(0)
    return all(reduced)
