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
    """Where a run reads and writes.

    Nothing here changes its results, except for the last digits of a large linear classifier: whether its features are
    kept, which also depends on the free memory, decides the order of its sums (``hebb.training.readout_epoch``).

    Attributes:
        datasets: folder of the datasets.
        folder: the run folder; None leaves nothing on disk.
        device_index: number of the GPU, where one is used.
        keep_model: keep the checkpoint of the finished run.
        overwrite: replace what is in the run folder.
        carry_on: continue the interrupted run in the folder; members of a pack that are finished stay as they are.
        resume_from: checkpoint with the initial weights (``config.resume``).
        layers: folder of the stored blocks, read for ``resume=MODEL/bN``.
        cache: folder of cached whitenings and features; None caches nothing.
        shared_blocks: folder of trained blocks that runs share (``hebb.training.shared_blocks``); None shares none.
        load: function that reads a dataset, called like ``images.load``; None uses ``images.load``.
        store_blocks: name under which the finished run stores its blocks in ``layers``; None stores none.
        checkpoint_every: epochs between two checkpoints; the end of a phase always has one.
        keep_features: whether the output of frozen blocks is kept from epoch to epoch.
        cache_limit: bytes of features that may go into files below ``cache`` when memory is full.
        on_end: a command of the user's own for the end of the run, kept for a run that is continued.
        give_back_memory: give back what earlier runs of the process have freed, so that the largest memory of this one
            can be told; it costs the time of fresh pages.
        trials: number of runs that share the memory of this machine.
        trials_on_gpu: number of runs that share a GPU.
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
    on_end: str | None = None
    give_back_memory: bool = False
    trials: int = 1
    trials_on_gpu: int = 1

    def room(self) -> features.Room | None:
        """Return the space for features; None keeps none."""
        if not self.keep_features:
            return None
        folder = None if self.cache is None else self.cache / "features"
        return features.Room(
            file_limit=self.cache_limit, folder=folder, trials=self.trials, trials_on_gpu=self.trials_on_gpu
        )
