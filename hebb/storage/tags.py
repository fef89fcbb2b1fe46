"""Names of what TensorBoard shows. It sorts groups by name, so the accuracies come first and the pictures last.

accuracy/test, loss/test       after an epoch, of each split that is measured
accuracy/train inside epochs   of the images since the point of the learning curves before
run/lr                         other numbers of a run
training b0/convergence        numbers of a block
weights/b0 filters             pictures and histograms, of which TensorBoard makes a card for every run
"""

from __future__ import annotations

ACCURACY, LOSS, RUN, BLOCK, WEIGHTS = "accuracy", "loss", "run", "training", "weights"
_GROUPS = {"acc": ACCURACY, "loss": LOSS}
_SPLITS = {"recent": "train inside epochs"}


def of_column(column: str) -> str:
    """Return the tag of a column of ``metrics.jsonl``, or of ``recent_acc`` and ``recent_loss`` of ``blocks.jsonl``."""
    split, _, kind = column.rpartition("_")
    return f"{_GROUPS[kind]}/{_SPLITS.get(split, split)}" if split and kind in _GROUPS else f"{RUN}/{column}"


def of_block(block: str, name: str) -> str:
    """Return the tag of a number of a block, such as ``b0``."""
    return f"{BLOCK} {block}/{name}"


def of_weights(block: str, what: str) -> str:
    """Return the tag of a picture or a histogram of a block."""
    return f"{WEIGHTS}/{block} {what}"
