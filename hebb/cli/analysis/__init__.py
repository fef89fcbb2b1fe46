"""The verbs of ``analysis.py``, a file for each group."""
