"""Local, biologically plausible learning: rules, layers, data and records.

Nothing here parses arguments, prints, or knows Ray. The modules that configure a run (``errors`` to
``space``) never import torch, so that help, dry runs and every configuration error are instant.
"""

import os

__version__ = "0.1.0"

# Read when torch is imported: how long its idle threads spin before they sleep. At the default of some milliseconds
# they hold back what runs in other threads between two operations, as the ranking of Krotov & Hopfield's rule does,
# which takes half the time now; much below this, waking them slows small operations.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
