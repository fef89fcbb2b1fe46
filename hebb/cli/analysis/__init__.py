"""The verbs of ``hebb analysis``, one file for each group."""
