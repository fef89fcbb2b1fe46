"""Image datasets: entries and splits, loading, and batches by index."""
