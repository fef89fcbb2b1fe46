"""The module ``hebb.nn.model`` under its short name: ``import model`` gives the very same object."""

import sys

from hebb.nn.model import *  # noqa: F403 - for type checkers, which do not follow the line below

sys.modules[__name__] = sys.modules["hebb.nn.model"]
