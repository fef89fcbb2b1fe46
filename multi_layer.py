"""Train one network: the door to ``hebb.cli.train``.

python multi_layer.py --preset 2SoftHebbCnnCIFAR --dataset-unsup CIFAR10_1 --dataset-sup CIFAR10_50
"""

from hebb.cli.entry import run_command
from hebb.cli.train import main

if __name__ == "__main__":
    run_command(main)
