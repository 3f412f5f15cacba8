"""Measurements against peers, each written as its own users would write it."""
