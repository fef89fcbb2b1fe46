"""Training: phases, epochs, batches, checkpoints, packs of seeds."""
