"""Train many networks: the door to ``hebb.cli.search``."""

from hebb.cli.entry import run_command
from hebb.cli.search import main

if __name__ == "__main__":
    run_command(main)
