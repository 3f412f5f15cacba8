"""Fills the kernels' tile table on a GPU: `python -m tools.tune`."""
