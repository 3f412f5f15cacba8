"""Batches for training: from a packed file, or decoded on the way."""
