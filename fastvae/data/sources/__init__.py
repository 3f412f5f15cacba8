"""Readers of CelebA, CIFAR, picture folders and containers of pictures; all return a `Source`."""
