"""Data sets: sources, decoders, packed files, loaders and epoch order."""
