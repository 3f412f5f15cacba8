"""How much memory the features and classifiers will need, computed before the work starts."""

from dataclasses import dataclass

from fastvae.errors import FastvaeError

# LIBLINEAR holds each value as a pair (index int32, value float64), padded to 16 bytes, in a copy for every fit.
_LIBLINEAR_BYTES = 16


@dataclass(frozen=True)
class Memory:
    """Bytes.

    Attributes:
        features: float32 [images, features]; CelebA in full with five views of 100: 405 MB.
        standardised: float64 copies of them, which scikit-learn computes on; 810 MB.
        fit: of one classifier while it is fitted; 1.3 GB.
    """

    features: int
    standardised: int
    fit: int

    @classmethod
    def of(cls, images: int, train: int, features: int) -> "Memory":
        """For this number of images, of training images among them, and of features of each."""
        return cls(4 * images * features, 8 * images * features, _LIBLINEAR_BYTES * train * (features + 2))

    def total(self, jobs: int) -> int:
        """With `jobs` fits at once."""
        return self.features + self.standardised + jobs * self.fit

    def jobs(self, cores: int, free: int | None) -> int:
        """The number of simultaneous fits: one per core, or as many as fit into the free memory.

        Raises:
            FastvaeError: not even one fits into memory.
        """
        if free is None:
            return cores
        if self.total(1) > free:
            raise FastvaeError(
                f"not enough memory: {self.total(1) / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free; "
                "fit on fewer images with --max-train, or give fewer runs"
            )
        return min(cores, max(1, (free - self.total(0)) // max(self.fit, 1)))

    def summary(self, jobs: int) -> str:
        """Human-readable."""
        return (
            f"memory: features {_size(self.features)}, standardised {_size(self.standardised)}, "
            f"{jobs} classifiers at once {_size(self.fit)} each; {_size(self.total(jobs))} in all"
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
