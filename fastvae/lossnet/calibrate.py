"""Tap levels: measured on fixed drawn faces, and brought to those of the original Caffe VGG-19.

Equation 6 balances the layers against each other, and their sum against the KL term, at the feature sizes of
the original Caffe weights and at no others. A network with other weights keeps that balance if each tap's
root mean square is the same.
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

# Root mean square of each tap of the original weights on `calibration_images()`, measured by `tap_rms` with a
# copy rounded to float16. They are drawn faces, of less contrast than photographs: on 256 of CelebA at 64x64
# the same weights give 49, 253, 355, 1338, 267.
CAFFE_TAP_RMS = {"relu1_1": 42.4, "relu2_1": 238.0, "relu3_1": 346.0, "relu4_1": 1260.0, "relu5_1": 259.0}

# Of several seeds the one whose 32 faces have the taps of 512 faces, within 2 %.
_IMAGES, _SEED = 32, 7


@functools.cache
def calibration_images() -> Tensor:
    """The images on which taps are measured, the same everywhere: [32, 3, 64, 64] float32 RGB in [-1, 1]."""
    pixels, _ = draw_faces(_IMAGES, seed=_SEED)
    return to_images(torch.from_numpy(pixels))


def root_mean_square(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


@torch.no_grad()
def tap_rms(network: LossNetwork, images: Tensor) -> dict[str, float]:
    """Root mean square of every tap that the network's depth reaches, whether it returns that tap or not."""
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

    A ReLU lets a positive factor through, and so does a pooling. So a tap is scaled by g, and nothing else
    changes, if its convolution's weight and bias are multiplied by g and the next convolution's weight is
    divided by g.

    Args:
        network: a network of any weights.
        levels: what `tap_rms` says of it on `calibration_images()`.

    Returns:
        The gain of each tap against the network as it came.

    Raises:
        FastvaeError: a tap is dead, or overflows.
    """
    for tap, level in levels.items():
        if not 0 < level < math.inf:
            raise FastvaeError(
                f"the loss network's {tap} must respond to images; its root mean square is {level} on drawn "
                f"faces. Give other weights: --vgg caffe, or a file of VGG-19."
            )
    gains = {tap: CAFFE_TAP_RMS[tap] / level for tap, level in levels.items()}
    at_conv = {index - 1: gains[tap] for tap, index in tap_indices(TAPS).items() if tap in gains}
    before = 1.0
    for index, layer in enumerate(network.features):
        if isinstance(layer, nn.Conv2d):
            here = at_conv.get(index, before)  # between two taps the gain of the shallower one
            layer.weight.mul_(here / before)
            layer.bias.mul_(here)
            before = here
    return gains
