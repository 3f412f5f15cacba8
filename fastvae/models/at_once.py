"""How many images pass through a model at once where nothing else decides it."""

# Pixels of the images that pass through at once; at width 32 each feature map of their size takes 134 MB.
_PIXELS = 64 * 128**2


def at_once(image_size: int) -> int:
    """Images that pass through a model at once: 64, fewer if they are larger than 128x128."""
    return max(1, min(64, _PIXELS // image_size**2))
