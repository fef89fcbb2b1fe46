"""The values of the search space as TensorBoard's HParams, written when a run begins, so that a killed one has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hebb.domains import Choice

_SUFFIX = ".hparams"


def write_run(folder: Path, choice: Choice, seed: int) -> None:
    """Write the values of one run into its folder."""
    from tensorboard.plugins.hparams import summary_v2
    from torch.utils.tensorboard import FileWriter

    if not any(path.name.endswith(_SUFFIX) for path in folder.glob("events.*")):
        writer = FileWriter(str(folder), filename_suffix=_SUFFIX)
        writer.add_summary(summary_v2.hparams_pb({**{path: _plain(v) for path, v in choice.items()}, "seed": seed}))
        writer.close()


def _plain(value: Any) -> bool | int | float | str:
    """Return a value that TensorBoard keeps; it drops others without a word."""
    return value if isinstance(value, bool | int | float | str) else str(value)
