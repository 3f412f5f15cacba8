"""What a file of latent vectors holds, so that a file or a part of one made otherwise is never taken for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvae.files.tensor_file import SafetensorError, open_safetensors

_FORMAT = "fastvae latents 1"


@dataclass(frozen=True)
class Request:
    """Everything that the latent vectors depend on.

    Attributes:
        weights: digest of the encoder's weights.
        images: digest of the data set.
        split: "all", "train", "validation" or "test".
        log_variances: whether they are kept, too.
    """

    weights: str
    images: str
    split: str
    log_variances: bool

    def as_metadata(self) -> dict[str, str]:
        """For the metadata of a safetensors file, whose values are strings."""
        return {
            "format": _FORMAT,
            "weights": self.weights,
            "images": self.images,
            "split": self.split,
            "log_variances": "yes" if self.log_variances else "no",
        }

    def difference(self, metadata: Mapping[str, str]) -> str | None:
        """How a file with this metadata was made otherwise, human-readable; None if it was not."""
        own = self.as_metadata()
        if metadata.get("format") != own["format"]:
            return "something other than latents of this version of fastvae"
        if metadata.get("weights") != own["weights"]:
            return "latents by another model, or by other weights of this one"
        if metadata.get("images") != own["images"]:
            return "latents of other images"
        if metadata.get("split") != own["split"]:
            return f"latents of --split {metadata.get('split')}"
        if metadata.get("log_variances") != own["log_variances"]:
            return f"latents with{'' if metadata.get('log_variances') == 'yes' else 'out'} log-variances"
        return None


def metadata_of(path: Path) -> dict[str, str] | None:
    """The metadata of a safetensors file; None if it is not one, or cannot be read."""
    try:
        with open_safetensors(path) as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return None
