"""Images: packed files, their sources, decoders and order."""
