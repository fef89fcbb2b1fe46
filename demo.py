"""Train SoftHebb with three hidden layers on CIFAR-10 and report the accuracy of a linear classifier.

    python demo.py

The same as ``multi_layer.py --preset 4SoftHebbCnnCIFAR --training-mode consecutive --dataset-unsup CIFAR10_1
--dataset-sup CIFAR10_50 --model-name demo``; every flag of ``multi_layer.py`` works here too and wins.
"""

from __future__ import annotations

import multi_layer
from cli.entry import run_command

_DEMO = (
    ("--preset", "4SoftHebbCnnCIFAR"),
    ("--training-mode", "consecutive"),
    ("--dataset-unsup", "CIFAR10_1"),
    ("--dataset-sup", "CIFAR10_50"),
    ("--model-name", "demo"),
)


def main(argv: list[str]) -> int:
    """Run ``multi_layer.py`` with the demo's flags in front of the given ones."""
    alone = ("--resume-run", "--run-config", "--list")
    if any(word.partition("=")[0] in alone for word in argv):
        return multi_layer.main(argv)
    flags = [word for pair in _DEMO for word in pair]
    return multi_layer.main([*flags, *argv])


if __name__ == "__main__":
    run_command(main)
