"""What tells whether image files are those of before: their bytes, and when they were last changed. No torch.

Names and sizes (``Store.update``) miss an image that was edited and kept its size. Times of change miss nothing, but
a copy of a folder has new ones; then the bytes decide. Of folders of more than ``WHOLE`` bytes a sample is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hebb.core.errors import ConfigError
from hebb.data.scan import Listing

WHOLE = 1 << 30
"""Bytes of image files up to which all are read for their digest, in about a second."""
SAMPLE = 500
"""Files that are read of a larger folder, at equal distances."""
_THREADS = 8  # they wait for the disk
_PIECE = 100  # files that a thread takes at a time
_SMALL = 1 << 18  # bytes read at once: the buffer of ``file_digest`` costs more than the digest of a small image


@dataclass(frozen=True)
class Contents:
    """Digests of image files.

    Attributes:
        times: of all times of change.
        oldest, newest: the first and the last of them, in nanoseconds.
        content: of the bytes of all files, or of a sample.
        whole: whether of all.
    """

    times: str
    oldest: int
    newest: int
    content: str
    whole: bool

    @property
    def key(self) -> str:
        """Return the digest under which what is computed from the files is kept."""
        return self.content if self.whole else f"{self.content}/{self.times}"

    def to_json(self) -> dict[str, Any]:
        """Return what ``environment.json`` keeps."""
        return asdict(self)


def of(listings: Sequence[Listing]) -> Contents:
    """Return the digests of some folders of images.

    Raises:
        ConfigError: when a file cannot be read; names it.
    """
    paths = [path for listing in listings for path in listing.paths()]
    sizes, changes = np.concatenate([listing.sizes_and_times() for listing in listings]).T.tolist()
    whole = sum(sizes) <= WHOLE
    total = hashlib.sha256()
    with ThreadPoolExecutor(_THREADS) as pool:
        read = paths if whole else paths[:: max(1, len(paths) // SAMPLE)]
        for digests in pool.map(_digests, [read[start : start + _PIECE] for start in range(0, len(read), _PIECE)]):
            total.update(digests)
    return Contents(_of_times(changes), min(changes), max(changes), total.hexdigest(), whole)


def times(listing: Listing) -> str:
    """Return the digest of the times at which the images of a folder were last changed."""
    return _of_times(listing.sizes_and_times()[:, 1].tolist())


def _of_times(changes: Sequence[int]) -> str:
    return hashlib.sha256(" ".join(map(str, changes)).encode()).hexdigest()


def _digests(paths: Sequence[str]) -> bytes:
    return b"".join(map(_digest, paths))


def _digest(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            first = file.read(_SMALL)
            if len(first) < _SMALL and not file.read(1):
                return hashlib.sha256(first).digest()
            file.seek(0)
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise ConfigError(path, f"cannot be read: {error.strerror}") from None


def changed(before: object, now: Contents) -> bool:
    """Tell whether the files are others than ``before``, the stored digests; False where there are none.

    Where only a sample was read, some files newer than all were before mean an edit, and all of them a copy.
    """
    if not isinstance(before, Mapping) or before.get("times") == now.times:
        return False
    if before.get("content") != now.content or before.get("whole") != now.whole:
        return True
    newest = before.get("newest")
    return not now.whole and isinstance(newest, int) and now.oldest <= newest < now.newest
