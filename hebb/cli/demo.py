"""Train SoftHebb with three hidden layers on CIFAR-10 and report the accuracy of a linear classifier.

    python demo.py

The same as ``multi_layer.py --preset 4SoftHebbCnnCIFAR --training-mode consecutive --dataset-unsup CIFAR10_1
--dataset-sup CIFAR10_50 --model-name demo``; every flag of ``multi_layer.py`` works here too and wins.
"""

from __future__ import annotations

from hebb.cli import train

_DEMO = (
    ("--preset", "4SoftHebbCnnCIFAR"),
    ("--training-mode", "consecutive"),
    ("--dataset-unsup", "CIFAR10_1"),
    ("--dataset-sup", "CIFAR10_50"),
    ("--model-name", "demo"),
)


def main(argv: list[str]) -> int:
    """Run ``multi_layer.py`` with the demo's flags in front of the given ones."""
    return train.main(with_flags(argv), prog="demo.py")


def with_flags(argv: list[str]) -> list[str]:
    """Put the demo's flags in front, unless a flag says on its own what is run."""
    given = {word.partition("=")[0] for word in argv}
    if given & {"--resume-run", "--run-config", "--list", "--evaluate"}:
        return argv
    left = [pair for pair in _DEMO if not ("--dataset" in given and pair[0].startswith("--dataset"))]
    return [*(word for pair in left for word in pair), *argv]
