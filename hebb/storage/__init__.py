"""The files of a run and of a search."""
