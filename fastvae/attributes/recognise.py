"""One linear support vector machine for each attribute.

    min_w,b  (|w|^2 + b^2) / 2 + C sum_i max(0, 1 - y_i (w x_i + b))^2,   y_i = 1 with the attribute, -1 without

with x the features, each standardised by its mean and deviation over the training images. C is the one of a grid that
is right most often on separate images, the smallest at a tie; the classifier is the one fitted with it on the training
images, without those. Source: Hou et al., section 4.4 (linear SVMs on latent vectors);
Fan et al. 2008 (LIBLINEAR), which scikit-learn's LinearSVC runs.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean

import numpy as np

from fastvae.attributes.splits import Splits
from fastvae.errors import FastvaeError

GRID = (0.0001, 0.001, 0.01, 0.1)
_MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class AttributeResult:
    """How well one attribute is recognised; fractions, 0 to 1.

    Attributes:
        name: of the attribute.
        accuracy: on the test images.
        balanced_accuracy: the mean of the accuracies on test images with and without it.
        majority_accuracy: on the test images, of always predicting the majority of the training images.
        c: the chosen C.
        choosing_accuracy: of that C on the images that it was chosen on.
        train_share: fraction of the training images that have the attribute.
        test_share: the same for the test images.
        converged: whether the solver reached its tolerance.
        seconds: duration of all fits.
    """

    name: str
    accuracy: float
    balanced_accuracy: float
    majority_accuracy: float
    c: float
    choosing_accuracy: float
    train_share: float
    test_share: float
    converged: bool
    seconds: float


@dataclass
class Recognition:
    """The results of all attributes that could be tested, in the data set's order, and why others could not.

    Attributes:
        results: one for each tested attribute.
        excluded: {attribute: reason}; these are not part of any average.
    """

    results: list[AttributeResult] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)

    def average(self, score: str) -> float:
        """The mean over the attributes of one of `AttributeResult`'s scores; NaN if there are none."""
        return fmean(getattr(result, score) for result in self.results) if self.results else float("nan")


def recognise(
    features: np.ndarray,
    attributes: np.ndarray,
    names: Sequence[str],
    splits: Splits,
    *,
    grid: Sequence[float] = GRID,
    jobs: int = -1,
    done: Callable[[AttributeResult], None] | None = None,
) -> Recognition:
    """Fits and tests a classifier for each attribute.

    Args:
        features: float32 [N, F].
        attributes: [N, A], 0 or 1.
        names: A names.
        splits: indices into these arrays.
        grid: values of C to choose from, > 0.
        jobs: attributes fitted at once, in threads, since LIBLINEAR releases the GIL; -1 for one per core.
        done: called with each result as soon as it is available, in any order.

    Raises:
        FastvaeError: scikit-learn is not installed, or a feature is not finite.
    """
    try:
        from joblib import Parallel, delayed
        from sklearn.exceptions import ConvergenceWarning
    except ImportError as error:
        raise FastvaeError("attributes need scikit-learn, which is missing; pip install -e '.[eval]'") from error

    recognition = Recognition()
    truth = {name: np.asarray(attributes[:, column]) == 1 for column, name in enumerate(names)}
    for name, has in truth.items():
        if why := _why_not(has, splits):
            recognition.excluded[name] = why
    wanted = [name for name in names if name not in recognition.excluded]
    if not wanted:
        return recognition
    fit = partial(_fit, x=_standardised(features, splits), splits=splits, grid=sorted(grid))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # reported in the results
        run = Parallel(n_jobs=jobs, backend="threading", return_as="generator_unordered")
        for result in run(delayed(fit)(name, truth[name]) for name in wanted):
            recognition.results.append(result)
            if done is not None:
                done(result)
    recognition.results.sort(key=lambda result: wanted.index(result.name))
    return recognition


def _why_not(has: np.ndarray, splits: Splits) -> str | None:
    for part, where in ((splits.train, "training"), (splits.test, "test")):
        if not has[part].any():
            return f"no {where} image has it"
        if has[part].all():
            return f"every {where} image has it"
    return None


def _standardised(features: np.ndarray, splits: Splits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float64 copies of the three parts, by the mean and deviation of the training images."""
    mean = features[splits.train].mean(0, dtype=np.float64)
    deviation = features[splits.train].std(0, dtype=np.float64)
    if not np.isfinite(mean).all() or not np.isfinite(features).all():
        raise FastvaeError("some features are NaN or infinite: did the training of the run diverge?")
    deviation[deviation == 0] = 1  # a constant feature carries no information; avoids a division by zero
    train, choose, test = ((features[part] - mean) / deviation for part in (splits.train, splits.choose, splits.test))
    return train, choose, test


def _fit(
    name: str, has: np.ndarray, x: tuple[np.ndarray, np.ndarray, np.ndarray], splits: Splits, grid: Sequence[float]
) -> AttributeResult:
    from sklearn.svm import LinearSVC

    start = time.perf_counter()
    x_train, x_choose, x_test = x
    train, choose, test = has[splits.train], has[splits.choose], has[splits.test]
    # The primal problem: as exact as the dual, and without its random order of images.
    fits = [LinearSVC(C=c, dual=False, max_iter=_MAX_ITERATIONS).fit(x_train, train) for c in grid]
    right = [accuracy(fit.predict(x_choose), choose) for fit in fits]
    best = fits[int(np.argmax(right))]
    predicted = best.predict(x_test)
    return AttributeResult(
        name,
        accuracy(predicted, test),
        balanced_accuracy(predicted, test),
        majority_accuracy(train, test),
        float(best.C),
        max(right),
        float(train.mean()),
        float(test.mean()),
        bool(best.n_iter_ < _MAX_ITERATIONS),
        time.perf_counter() - start,
    )


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
    """The accuracy of always predicting the majority of the training images (true at a tie). Both bool [n]."""
    return accuracy(np.full(len(truth), train.mean() >= 0.5), truth)
