"""The module ``hebb.training.engine`` under its short name: ``import engine`` gives the very same object."""

import sys

from hebb.training.engine import *  # noqa: F403 - for type checkers, which do not follow the line below

sys.modules[__name__] = sys.modules["hebb.training.engine"]
