"""Measure the post-hoc loss: the door to ``hebb.cli.post_hoc``."""

from hebb.cli.entry import run_command
from hebb.cli.post_hoc import main

if __name__ == "__main__":
    run_command(main)
