"""Decoding picture files with Pillow or DALI, with the same results."""
