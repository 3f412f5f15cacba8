"""Loaders of training batches: from a packed file, or decoded on the fly."""
