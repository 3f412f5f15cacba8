"""Images on a grid, arranged so that neighbours are close in latent space (Fig. 13).

t-SNE maps the latent means to the plane. A one-to-one assignment with the least sum of squared distances then moves the
points to the cells of a square grid.

Source: Hou et al., section 4.3.3; van der Maaten and Hinton, 2008.
"""

import numpy as np

from fastvae.data.packed import PackedImages
from fastvae.errors import FastvaeError
from fastvae.figures.originals import sample
from fastvae.figures.sheet import Panel, draw
from fastvae.inference.encode_images import encode_images
from fastvae.runs.open import Run

_PERPLEXITY = 30.0  # scikit-learn's default; it needs about three times as many points


def check_installed() -> None:
    """Raises FastvaeError unless scikit-learn and SciPy are installed."""
    try:
        import scipy.optimize  # noqa: F401
        import sklearn.manifold  # noqa: F401
    except ImportError as error:
        raise FastvaeError(f"the map needs {error.name}: pip install -e '.[eval]'") from error


def embed(means: np.ndarray, seed: int) -> np.ndarray:
    """t-SNE: float32 [n, latent] -> float32 [n, 2]; the same for the same seed (mod 2^32) on any number of cores.

    Raises:
        FastvaeError: a mean is not finite, or all are equal.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if not np.isfinite(means).all():
        raise FastvaeError("the encoder gives means that are not finite: did the training diverge?")
    if not np.ptp(means, axis=0).any():
        raise FastvaeError("the encoder gives every image the same mean, so there is nothing to arrange: train longer")
    start = "pca" if means.shape[1] >= 2 else "random"
    perplexity = min(_PERPLEXITY, (len(means) - 1) / 3)
    # One thread, since threads wait for each other in each of a thousand short steps: on two busy cores 625 points took
    # 42.5 s with two threads and 3.8 s with one. The map would also depend on the number of threads.
    with threadpool_limits(1):
        # scikit-learn only takes seeds of 32 bits.
        return TSNE(perplexity=perplexity, init=start, random_state=seed % 2**32).fit_transform(means)


def assign(points: np.ndarray, side: int) -> np.ndarray:
    """Assigns each point to a cell.

    Args:
        points: float [side^2, 2], x to the right and y upwards; each axis is scaled to the range of the cells.
        side: cells per side.

    Returns:
        int64 [side^2], a permutation: the point for each cell, row by row from the upper left.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    cost = cdist(cells(side), scaled(points), "sqeuclidean")
    return linear_sum_assignment(cost)[1]


def cells(side: int) -> np.ndarray:
    """float [side^2, 2]: centres of the cells in [0, 1], x to the right and y upwards, row by row from the top."""
    down, right = np.divmod(np.arange(side * side), side)
    return np.stack([right, side - 1 - down], 1) / (side - 1)


def scaled(points: np.ndarray) -> np.ndarray:
    """Points [n, 2], each axis scaled to [0, 1]."""
    extent = np.ptp(points, axis=0)
    return (points - points.min(0)) / np.where(extent, extent, 1)


def neighbour_ratio(means: np.ndarray, side: int) -> float:
    """Mean latent distance of horizontally or vertically adjacent cells, divided by that of all pairs.

    Args:
        means: float [side^2, latent] in the order of the cells.
        side: cells per side.
    """
    from scipy.spatial.distance import pdist

    grid = means.reshape(side, side, -1)
    steps = [grid[1:] - grid[:-1], grid[:, 1:] - grid[:, :-1]]
    distances = np.concatenate([np.linalg.norm(step, axis=2).ravel() for step in steps])
    return float(distances.mean() / pdist(means).mean())


def choose(images: PackedImages, count: int, seed: int) -> tuple[np.ndarray, str]:
    """Indices of `count` random held-out images, or of any images if those are too few, and which of the two.

    Raises:
        FastvaeError: there are too few images.
    """
    if len(held_out := np.flatnonzero(images.splits != 0)) >= count:
        return sample(held_out, count, seed, "images"), "held-out images"
    return sample(np.arange(len(images)), count, seed, f"images for a map of {count}"), "images of the data set"


def figure(run: Run, images: PackedImages, chosen: np.ndarray, kind: str, side: int, seed: int) -> np.ndarray:
    """The sheet of the side^2 chosen originals."""
    means = encode_images(run.model.accelerate(), images.images, chosen, progress="encoding")
    order = assign(embed(means, seed), side)
    pixels = images.images[chosen[order]]
    caption = (
        f"{len(chosen)} {kind} (seed {seed}), arranged by t-SNE of the means of q(z|x) and then assigned to the grid. "
        f"Neighbours on the map are {neighbour_ratio(means[order], side):.2f} times as far apart in latent space as "
        "any two of these images are on average."
    )
    panel = Panel(pixels.reshape(side, side, *pixels.shape[1:]))
    return draw([panel], f"Map of latent space: {run.title}", caption, shown=64, gap=2)
