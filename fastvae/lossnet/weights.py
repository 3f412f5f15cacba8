"""Loads a loss network by the name of its weights or from a file."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from fastvae.errors import FastvaeError, UsageError, suggest
from fastvae.files.places import resolved
from fastvae.files.tensor_file import digest_of
from fastvae.lossnet.calibrate import balance_taps, calibration_images, tap_rms
from fastvae.lossnet.convention import BY_NAME, CAFFE, CAFFE_RGB, Convention, recognise
from fastvae.lossnet.download import SOURCES, fetch
from fastvae.lossnet.formats import read_weights
from fastvae.lossnet.network import TAPS, LossNetwork, conv_layers, tap_indices
from fastvae.lossnet.standin import stand_in

logger = logging.getLogger("fastvae")

_CONV1_1 = "features.0.weight"


def load_loss_network(
    weights: str | Path = "caffe", *, taps: Sequence[str] = TAPS, progress: bool = True
) -> LossNetwork:
    """A loss network that takes RGB in [-1, 1] and has the feature sizes of the original Caffe VGG-19.

    Other weights are scaled to the original root mean square at every tap, because equation 6 is balanced for that; the
    gains are logged.

    Args:
        weights: "caffe" (the original weights, downloaded once), "torchvision" (torchvision's, downloaded
            once), "random" (a stand-in, for trials), or a file: `.safetensors`, `.pth`, `.pt`, `.h5`, `.npz`.
        taps: which feature maps to return, from `TAPS`.
        progress: whether a download shows a bar.

    Returns:
        The network on the CPU, frozen, in eval mode, float32.

    Raises:
        UsageError: the name, the file's suffix or a tap is unknown.
        FastvaeError: the weights cannot be downloaded or read, or are not VGG-19's.
    """
    deepest = max(tap_indices(taps).values())
    if str(weights) == "random":
        return stand_in(taps)
    source = SOURCES.get(str(weights))
    path = fetch(str(weights), source, progress=progress) if source else _local_file(weights)
    tensors, metadata = read_weights(path, {index for index in conv_layers() if index < deepest})

    convention, original = _convention(path, tensors[_CONV1_1], metadata)
    if str(weights) == "caffe" and not (original and convention is CAFFE):
        raise FastvaeError(f"{path} does not contain the original Caffe weights. Delete it and try again.")
    network = LossNetwork(taps, mean=convention.mean)
    network.load_state_dict(tensors | {_CONV1_1: convention.fold_into(tensors[_CONV1_1])})
    network.source, network.digest = f"{path.name}, {convention.name}", digest_of(tensors)
    logger.info("loss network: %s from %s", convention.name, path)
    if not (original and convention in (CAFFE, CAFFE_RGB)):
        gains = balance_taps(network, tap_rms(network, calibration_images()))
        network.source += ", scaled to Caffe's tap levels"
        described = ", ".join(f"{tap} {gain:.4g}" for tap, gain in gains.items())
        logger.info("loss network: gains of the taps, to the levels of the Caffe weights: %s", described)
    return network


def _convention(path: Path, conv1_1: Tensor, metadata: dict[str, str]) -> tuple[Convention, bool]:
    """The convention of the weights, and whether they are known to have their original scale."""
    stated = metadata.get("convention")
    recognised, original = recognise(conv1_1)
    if stated is not None:
        if stated not in BY_NAME:
            raise FastvaeError(
                f'the metadata "convention" of {path} must be one of {", ".join(BY_NAME)}; got "{stated}". '
                "Correct it, or remove it."
            )
        return BY_NAME[stated], original and recognised is BY_NAME[stated]
    if recognised is not None:
        return recognised, original
    logger.warning(
        "The weights in %s are neither the original VGG-19 nor torchvision's; assuming that they expect the "
        "original input (BGR, 0..255 minus the mean). If they do not, save them as .safetensors with the metadata "
        'key "convention", one of %s.',
        path,
        ", ".join(BY_NAME),
    )
    return CAFFE, False


def _local_file(weights: str | Path) -> Path:
    path = resolved(weights)
    if not path.suffix and path.name == str(weights) and not os.path.exists(path):  # noqa: PTH110
        hint = suggest(str(weights).lower(), (*SOURCES, "random"))
        raise UsageError(f"--vgg {str(weights)!r} is neither the path of a weights file nor a known name{hint}")
    return path
