"""The command ``hebb``, also called as ``python -m hebb``."""

from __future__ import annotations

from hebb.cli.entry import run_command
from hebb.cli.verbs import main


def run() -> None:
    """Run the command and exit."""
    run_command(main)


if __name__ == "__main__":
    run()
