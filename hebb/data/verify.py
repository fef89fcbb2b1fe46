"""Looks at image files that are decoded only when they are used, so that a broken one is refused before training.

Decoding all of ImageNet takes many minutes. Its headers and the ends of its files are read in a fraction of that, and
once: what was looked at is noted in the cache. A file whose header or end is not as its format has it is decoded.
What this cannot see is damage inside a file of the right length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hebb.core import files as whole_files
from hebb.data import contents, decode, stores
from hebb.data.stores import Files

_THREADS = 4  # they wait for the disk half of the time


def files(store: Files, cache: Path | None = None) -> None:
    """Check the header and the end of every file.

    Args:
        store: the images; each must be as ``store[i]`` returns it.
        cache: folder that notes which files were looked at; None looks at them every time.

    Raises:
        ConfigError: for a file that is broken, or of another kind or size than the others; names it.
    """
    note = None if cache is None else cache / f"looked-at-{_key(store)}"
    if note is not None and note.exists():
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(lambda places: _look(store, places), stores.pieces(len(store))):
            pass
    if note is not None:
        note.parent.mkdir(parents=True, exist_ok=True)
        whole_files.write_text(note, f"{store.listing.root}\n")


def _key(store: Files) -> str:
    """Return a digest of names, sizes, times of change and what is asked of the images."""
    digest = hashlib.sha256(f"{decode.VERSION} {store.listing.root} {store.shape} {store.native}".encode())
    store.update(digest)
    digest.update(contents.times(store.listing).encode())
    return digest.hexdigest()[:24]


def _look(store: Files, places: Sequence[int]) -> None:
    for i in places:
        if not _plain(store, i):
            store[i]  # decoded: raises for what cannot be read or used


def _plain(store: Files, i: int) -> bool:
    """Tell whether header and end of a file are those of a whole image that can be used as it is."""
    path = store.listing.path(i)
    with decode.opened(path) as image:
        grey = decode.is_grey(image)
        plain = image.mode in ("L", "RGB", "P", "RGBA", "CMYK") and (grey or store.shape[0] == 3)
        plain = plain and store.native in (None, decode.size(image))
        return plain and decode.whole(image, path)
