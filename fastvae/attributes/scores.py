"""Scores of yes-or-no predictions."""

import numpy as np


def accuracy(predicted: np.ndarray, truth: np.ndarray) -> float:
    """The fraction of predictions that are right. Both bool [n]."""
    return float((predicted == truth).mean())


def balanced_accuracy(predicted: np.ndarray, truth: np.ndarray) -> float:
    """The mean of the fractions right among the images with the attribute and among those without; chance is 0.5.

    Args:
        predicted: bool [n].
        truth: bool [n], with both values in it.
    """
    return float((predicted[truth].mean() + (~predicted[~truth]).mean()) / 2)


def majority_accuracy(train: np.ndarray, truth: np.ndarray) -> float:
    """The accuracy of always saying what most training images are (yes at a tie). Both bool [n]."""
    return accuracy(np.full(len(truth), train.mean() >= 0.5), truth)
