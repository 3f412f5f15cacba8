"""Measures tap levels on fixed drawn faces and scales them to those of the original Caffe VGG-19.

Equation 6 balances the layers against each other, and their sum against the KL term, only at the feature sizes of the
original Caffe weights. A network with other weights keeps that balance if each tap has the same root mean square.
"""

import functools
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fastvae.data.faces.faces import draw_faces
from fastvae.errors import FastvaeError
from fastvae.lossnet.network import TAPS, LossNetwork, tap_indices
from fastvae.pictures import to_images

# Root mean square of each tap of the original weights on `calibration_images()`, measured by `tap_rms` with a copy
# rounded to float16. Drawn faces have less contrast than photographs: on 256 CelebA images of 64x64 the same weights
# give 49, 253, 355, 1338, 267.
CAFFE_TAP_RMS = {"relu1_1": 42.4, "relu2_1": 238.0, "relu3_1": 346.0, "relu4_1": 1260.0, "relu5_1": 259.0}

# The seed, among several, whose 32 faces reproduce the tap levels of 512 faces within 2 %.
_IMAGES, _SEED = 32, 7


@functools.cache
def calibration_images() -> Tensor:
    """The images on which taps are measured, float32 RGB [32, 3, 64, 64] in [-1, 1]; the same on every machine."""
    pixels, _ = draw_faces(_IMAGES, seed=_SEED)
    return to_images(torch.from_numpy(pixels))


def root_mean_square(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


@torch.no_grad()
def tap_rms(network: LossNetwork, images: Tensor) -> dict[str, float]:
    """Root mean square of every tap within the network's depth, including taps that it does not return."""
    reached = {index: tap for tap, index in tap_indices(TAPS).items()}
    levels = {}
    x = network.preprocess(images)
    for index, layer in enumerate(network.features):
        x = layer(x)
        if index in reached:
            levels[reached[index]] = root_mean_square(x)
    return levels


@torch.no_grad()
def balance_taps(network: LossNetwork, levels: Mapping[str, float]) -> dict[str, float]:
    """Scales the weights, in place, until every tap has the Caffe network's root mean square.

    ReLU and max pooling commute with a positive factor. So multiplying a convolution's weight and bias by g, and
    dividing the next convolution's weight by g, scales the tap by g and changes nothing else.

    Args:
        network: a network with any weights.
        levels: its `tap_rms` on `calibration_images()`.

    Returns:
        The gain of each tap.

    Raises:
        FastvaeError: a tap is zero or overflows.
    """
    for tap, level in levels.items():
        if not 0 < level < math.inf:
            raise FastvaeError(
                f"the loss network's {tap} must respond to images; its root mean square is {level} on drawn "
                f"faces. Use other weights: --vgg caffe, or a file with VGG-19."
            )
    gains = {tap: CAFFE_TAP_RMS[tap] / level for tap, level in levels.items()}
    at_conv = {index - 1: gains[tap] for tap, index in tap_indices(TAPS).items() if tap in gains}
    before = 1.0
    for index, layer in enumerate(network.features):
        if isinstance(layer, nn.Conv2d):
            here = at_conv.get(index, before)  # between two taps, the gain of the shallower one
            layer.weight.mul_(here / before)
            layer.bias.mul_(here)
            before = here
    return gains
