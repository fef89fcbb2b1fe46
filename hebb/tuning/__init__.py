"""Searches: trials on Ray Tune, and their results. Only this package knows Ray, and it prints nothing."""
