"""Train SoftHebb with three hidden layers on CIFAR-10: the door to ``hebb.cli.demo``."""

from hebb.cli.demo import main
from hebb.cli.entry import run_command

if __name__ == "__main__":
    run_command(main)
