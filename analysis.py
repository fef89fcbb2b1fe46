"""Draw figures and tables from stored runs: the door to ``hebb.cli.analysis.command``."""

from hebb.cli.analysis.command import main
from hebb.cli.entry import run_command

if __name__ == "__main__":
    run_command(main)
