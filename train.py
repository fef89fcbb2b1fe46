"""The module ``hebb.training.train`` under its short name: ``import train`` gives the very same object."""

import sys

from hebb.training.train import *  # noqa: F403 - for type checkers, which do not follow the line below

sys.modules[__name__] = sys.modules["hebb.training.train"]
