"""Readers of CelebA, CIFAR-10 and picture folders; all return a `Source`."""
