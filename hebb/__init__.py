"""Local, biologically plausible learning: rules, layers, data and records.

Nothing here parses arguments, prints, or knows Ray. The modules that configure a run (``errors`` to
``space``) never import torch, so that help, dry runs and every configuration error are instant.
"""

__version__ = "0.1.0"
