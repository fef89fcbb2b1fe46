"""Where a run reads and writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hebb.data import images
from hebb.storage import folders
from hebb.training import features


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run reads and writes. Nothing here changes its numbers.

    Attributes:
        datasets: folder of the datasets.
        folder: the run folder; None leaves nothing on disk.
        device_index: number of the GPU, where one is used.
        keep_model: keep the checkpoint of the finished run.
        overwrite: replace what is in the run folder.
        carry_on: continue the interrupted run in the folder; members of a pack that are finished stay as they are.
        resume_from: checkpoint with the initial weights (``config.resume``).
        layers: folder of the stored blocks, read for ``resume=MODEL/bN``.
        cache: folder of what is computed once and kept (whitenings); None keeps nothing.
        shared_blocks: folder of trained blocks that runs share (``hebb.training.shared_blocks``); None shares none.
        load: reads a dataset, with the arguments of ``images.load``; None stands for that function.
        store_blocks: name under which the blocks of the finished run are stored there; None stores none.
        checkpoint_every: epochs between two checkpoints; the end of a phase always has one.
        keep_features: whether the output of frozen blocks is kept from epoch to epoch.
        cache_limit: bytes of it that may lie in files below ``cache`` when it does not fit into memory.
        trials: runs at the same time on this machine, which share its memory.
    """

    datasets: Path
    folder: Path | None = None
    device_index: int = 0
    keep_model: bool = True
    overwrite: bool = False
    carry_on: bool = False
    resume_from: Path | None = None
    layers: Path | None = None
    cache: Path | None = None
    shared_blocks: Path | None = None
    load: Callable[..., images.Images] | None = None
    store_blocks: str | None = None
    checkpoint_every: int = 1
    keep_features: bool = True
    cache_limit: int = folders.CACHE_LIMIT
    trials: int = 1

    def room(self) -> features.Room | None:
        """Return where features may be kept."""
        if not self.keep_features:
            return None
        folder = None if self.cache is None else self.cache / "features"
        return features.Room(file_limit=self.cache_limit, folder=folder, trials=self.trials)
