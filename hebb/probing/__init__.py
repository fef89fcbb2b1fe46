"""Readouts of a network: predictions, features, probes, geometry."""
