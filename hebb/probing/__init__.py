"""What can be read out of a network: predictions, features, probes, geometry."""
