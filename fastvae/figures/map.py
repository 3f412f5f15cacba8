"""Images laid out so that neighbours are alike in latent space (Fig. 13).

t-SNE of the latent means to the plane, then the one-to-one assignment of the points to the cells of a square grid
whose sum of squared distances is least.

Source: Hou et al., section 4.3.3; van der Maaten and Hinton, 2008.
"""

import numpy as np

from fastvae.data.packed import PackedImages
from fastvae.errors import FastvaeError
from fastvae.figures.originals import sample
from fastvae.figures.sheet import Panel, draw
from fastvae.inference.encode_images import encode_images
from fastvae.runs.open import Run

_PERPLEXITY = 30.0  # scikit-learn's; fewer points than about three times as many cannot have it


def check_installed() -> None:
    """Raises FastvaeError without scikit-learn and SciPy."""
    try:
        import scipy.optimize  # noqa: F401
        import sklearn.manifold  # noqa: F401
    except ImportError as error:
        raise FastvaeError(f"the map needs {error.name}: pip install 'fastvae[eval]'") from error


def embed(means: np.ndarray, seed: int) -> np.ndarray:
    """t-SNE: float32 [n, latent] -> float32 [n, 2]; the same for the same seed (mod 2^32), on however many cores.

    Raises:
        FastvaeError: all means are one point.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if not np.isfinite(means).all():
        raise FastvaeError("the encoder gives means that are not finite: did the training diverge?")
    if not np.ptp(means, axis=0).any():
        raise FastvaeError("the encoder gives every image the same mean, so there is nothing to lay out: train longer")
    start = "pca" if means.shape[1] >= 2 else "random"
    perplexity = min(_PERPLEXITY, (len(means) - 1) / 3)
    # Threads that wait for each other between a thousand short steps: on two busy cores, 625 points took two of them
    # 42.5 s and one 3.8 s. Sums in another order would also give every number of cores its own map.
    with threadpool_limits(1):
        # scikit-learn takes seeds of 32 bits.
        return TSNE(perplexity=perplexity, init=start, random_state=seed % 2**32).fit_transform(means)


def assign(points: np.ndarray, side: int) -> np.ndarray:
    """Which point goes to which cell.

    Args:
        points: float [side^2, 2]: to the right, and upwards; either is stretched to the range of the cells.
        side: cells a side.

    Returns:
        int64 [side^2], a permutation: the point of each cell, row by row from the upper left.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    cost = cdist(cells(side), placed(points), "sqeuclidean")
    return linear_sum_assignment(cost)[1]


def cells(side: int) -> np.ndarray:
    """float [side^2, 2]: the centres of the cells in [0, 1], to the right and upwards, row by row from the top."""
    down, right = np.divmod(np.arange(side * side), side)
    return np.stack([right, side - 1 - down], 1) / (side - 1)


def placed(points: np.ndarray) -> np.ndarray:
    """Points [n, 2] stretched to [0, 1] in either direction."""
    extent = np.ptp(points, axis=0)
    return (points - points.min(0)) / np.where(extent, extent, 1)


def neighbour_ratio(means: np.ndarray, side: int) -> float:
    """Mean latent distance of cells side by side or one above the other, over that of all pairs.

    Args:
        means: float [side^2, latent] in the order of the cells.
        side: cells a side.
    """
    from scipy.spatial.distance import pdist

    laid = means.reshape(side, side, -1)
    steps = [laid[1:] - laid[:-1], laid[:, 1:] - laid[:, :-1]]
    distances = np.concatenate([np.linalg.norm(step, axis=2).ravel() for step in steps])
    return float(distances.mean() / pdist(means).mean())


def choose(images: PackedImages, count: int, seed: int) -> tuple[np.ndarray, str]:
    """A seeded choice of held-out images, or of all where those are too few; and which, in words.

    Raises:
        FastvaeError: all are too few.
    """
    if len(held_out := np.flatnonzero(images.splits != 0)) >= count:
        return sample(held_out, count, seed, "images"), "held-out images"
    return sample(np.arange(len(images)), count, seed, f"images for a map of {count}"), "images of the data set"


def figure(run: Run, images: PackedImages, chosen: np.ndarray, kind: str, side: int, seed: int) -> np.ndarray:
    """The sheet of side^2 chosen images, originals, in their places."""
    means = encode_images(run.model.accelerate(), images.images, chosen, progress="encoding")
    order = assign(embed(means, seed), side)
    pixels = images.images[chosen[order]]
    caption = (
        f"{len(chosen)} {kind} (seed {seed}), laid out by t-SNE of the means of q(z|x) and then assigned to the grid. "
        f"Neighbours on the map are {neighbour_ratio(means[order], side):.2f} times as far apart in latent space as "
        "any two of these images are on average."
    )
    name = run.title
    laid = Panel(pixels.reshape(side, side, *pixels.shape[1:]))
    return draw([laid], f"Map of latent space: {name}", caption, shown=64, gap=2)
