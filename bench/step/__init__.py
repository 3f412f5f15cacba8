"""The time of one training step against plain PyTorch's."""
