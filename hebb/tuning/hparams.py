"""TensorBoard's HParams: the values of the search space, written when a run begins, so that a killed run has them.

No summary of the whole search is written: TensorBoard would use the summary of the first search it meets for all
searches below its folder. Without one it lists the values and scalars of every run, so that searches can be compared.
"""

from __future__ import annotations

from pathlib import Path

from hebb.config.domains import Choice

_START, _END = ".hparams", ".hparams-end"


def write_run(folder: Path, label: str, choice: Choice, seed: int) -> None:
    """Write the search, the label, the seed and the values of one run into its folder, once."""
    from tensorboard.plugins.hparams import summary_v2

    search = folder.parent.parent.name
    values = {"search": search, "seed": seed, **{path: _plain(value) for path, value in choice.items()}}
    _write(folder, _START, summary_v2.hparams_pb(values, trial_id=f"{search} {label}"))


def end_run(folder: Path) -> None:
    """Write that the run is finished, once."""
    from torch.utils.tensorboard.summary import hparams

    _, _, end = hparams({}, {})
    _write(folder, _END, end)


def _write(folder: Path, suffix: str, content: object) -> None:
    from torch.utils.tensorboard import FileWriter

    if not any(path.name.endswith(suffix) for path in folder.glob("events.*")):
        writer = FileWriter(str(folder), filename_suffix=suffix)
        writer.add_summary(content)
        writer.close()


def _plain(value: object) -> bool | int | float | str:
    """Return a value of a type that TensorBoard keeps; it silently drops others."""
    return value if isinstance(value, bool | int | float | str) else str(value)
