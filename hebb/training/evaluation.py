"""Evaluation of an epoch: loss and accuracy of the classifier, or accuracy of the neurons' labels."""

from __future__ import annotations

from hebb.config.phase import Phase
from hebb.data import images
from hebb.nn.model import Network
from hebb.probing import readout
from hebb.storage import folders
from hebb.training import engine
from hebb.training.epoch import Scores


def of_phase(phase: Phase, network: Network, data: images.Images, scores: Scores, *, final: bool) -> folders.Row:
    """Return the losses and accuracies that the phase has, on the open splits.

    With validation images the test set stays closed until the ``final`` epoch.
    """
    open_test = data.val is None or final
    top = network[phase.top]
    # back-prop descends the loss of the whole network, also when only lower blocks learn
    classifies = phase.descends or (phase.top == len(network) - 1 and top.spec.supervised)
    if not classifies and (top.spec.layer.arch == "CNN" or top.spec.local):
        return {}
    if not classifies:
        others = [data.val, data.scored if open_test else None]
        train_acc, val_acc, test_acc = readout.neuron_label_accuracies(
            network, phase.top, data.train, others, phase.first
        )
        return {"train_acc": train_acc, "val_acc": val_acc, "test_acc": test_acc}
    row: folders.Row = {}
    splits = {
        "train": data.train if scores.accuracy is None else None,
        "val": data.val,
        "test": data.scored if open_test else None,
    }
    for name, split in splits.items():
        if split is not None:
            measured = engine.evaluate(network, split, start=phase.first)
            row |= {f"{name}_loss": measured.loss, f"{name}_acc": measured.accuracy}
    return row
