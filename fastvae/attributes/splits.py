"""The images that the classifiers are fitted, selected and tested on."""

from dataclasses import dataclass

import numpy as np

from fastvae.data.packed import PackedImages
from fastvae.errors import FastvaeError

PAPER_TEST_IMAGES = 20_000


@dataclass(frozen=True)
class Splits:
    """Three sets of images without an image in common.

    Attributes:
        train: int64 [n], ascending; the classifiers are fitted on these.
        choose: the same; their C is chosen on these.
        test: the same; their accuracy is measured on these.
        description: human-readable, where the three come from.
    """

    train: np.ndarray
    choose: np.ndarray
    test: np.ndarray
    description: str

    def images(self) -> np.ndarray:
        """int64 [n], ascending: the images of all three."""
        return np.sort(np.concatenate([self.train, self.choose, self.test]))

    def within(self, images: np.ndarray) -> "Splits":
        """The same splits as indices into `images`, the result of `images()`."""
        return Splits(
            *(np.searchsorted(images, part) for part in (self.train, self.choose, self.test)), self.description
        )


def choose_splits(
    packed: PackedImages,
    *,
    max_train: int | None = None,
    test_images: int = PAPER_TEST_IMAGES,
    seed: int = 0,
) -> Splits:
    """The splits of the data set; where it lacks validation or test images, its held-out ones are halved.

    Args:
        packed: the data set.
        max_train: a random subset of the training images; None for all.
        test_images: a random subset of this many if there are more. CelebA has 19,962.
        seed: of the random subsets.

    Raises:
        FastvaeError: there are no training images, or fewer than two held out.
    """
    train, choose, test = (packed.indices(split) for split in ("train", "validation", "test"))
    if not len(train):
        raise FastvaeError(f"{packed.path} has no training images, which the classifiers are fitted on")
    description = "C chosen on the validation split, tested on the test split"
    if not len(choose) or not len(test):
        held_out, name = packed.held_out(), "validation" if len(choose) else "test"
        if len(held_out) < 2:
            raise FastvaeError(
                f"{packed.path} has one image that is not for training; at least two are needed, to choose C and "
                "to test: prepare it from more images"
            )
        choose, test = held_out[::2], held_out[1::2]
        missing = "test" if name == "validation" else "validation"
        description = f"no {missing} split, so the {name} images are halved: one half chooses C, the other tests"
    random = np.random.Generator(np.random.PCG64(seed))
    if max_train is not None and max_train < len(train):
        description += f"; a quick look, on {max_train:,} of {len(train):,} training images"
        train = np.sort(random.permutation(train)[:max_train])
    if test_images < len(test):
        description += f"; {test_images:,} of {len(test):,} test images"
        test = np.sort(random.permutation(test)[:test_images])
    return Splits(train, choose, test, description)
