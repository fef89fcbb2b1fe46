"""Layers, blocks and networks as ordinary PyTorch modules."""
