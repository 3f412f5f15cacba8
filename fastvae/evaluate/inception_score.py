"""The Inception Score: whether a classifier is sure of each image, and names many classes over all of them.

IS = exp( mean_x KL( p(y|x) || p(y) ) ),   p(y) = mean_x p(y|x)          (Salimans et al. 2016)
"""

import numpy as np

SPLITS = 10


def inception_score(probabilities: np.ndarray, splits: int = SPLITS) -> tuple[float, float]:
    """Mean and standard deviation of the score over parts of the images, as Salimans et al. report it.

    Args:
        probabilities: [N, classes], rows that sum to 1; N >= splits.
        splits: parts of consecutive images, each with a p(y) of its own.

    Returns:
        Mean and (population) standard deviation, 1 <= each score <= classes.
    """
    scores = [_score(part.astype(np.float64)) for part in np.array_split(probabilities, splits)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(conditional: np.ndarray) -> float:
    marginal = conditional.mean(0, keepdims=True)
    ratio = np.divide(conditional, marginal, out=np.ones_like(conditional), where=conditional > 0)
    return float(np.exp((conditional * np.log(ratio)).sum(1).mean()))
