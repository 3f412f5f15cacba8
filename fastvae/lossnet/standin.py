"""The stand-in for VGG-19: random filters, centred on drawn faces, for trials without a download."""

import logging
import math
from collections.abc import Sequence

import torch
from torch import nn

from fastvae.lossnet.calibrate import balance_taps, calibration_images, root_mean_square
from fastvae.lossnet.network import TAPS, LossNetwork, tap_indices

logger = logging.getLogger("fastvae")

_SEED = 19


def stand_in(taps: Sequence[str] = TAPS) -> LossNetwork:
    """A loss network with VGG-19's architecture and random weights, the same on every machine up to rounding.

    He initialisation (normal, variance 2 / fan-in); each bias is minus the channel's mean on the calibration images.
    Without this centring all images have nearly the same deep features, because the positive mean of a ReLU's output
    grows from layer to layer; with it each channel is active about half of the time. Taps are then scaled to the Caffe
    network's levels, so that L_rec has the usual size, with similar shares of the five layers: against the set's mean
    image it is 770 on CelebA (VGG-19: 441) and 560 on drawn faces (VGG-19: 380).
    """
    logger.warning(
        "The loss network is a RANDOM STAND-IN, not VGG-19: use it for trials and speed measurements; its "
        "pictures are not the paper's. Use --vgg caffe, or --vgg with a file of the real weights."
    )
    return _drawn(tuple(tap_indices(taps)))


@torch.no_grad()
def _drawn(taps: tuple[str, ...]) -> LossNetwork:
    network = LossNetwork(taps)
    generator = torch.Generator().manual_seed(_SEED)
    tap_of = {index: tap for tap, index in tap_indices(TAPS).items()}
    levels = {}
    x = network.preprocess(calibration_images())
    for index, layer in enumerate(network.features):
        if isinstance(layer, nn.Conv2d):
            fan_in = layer.weight[0].numel()
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * math.sqrt(2 / fan_in))
            layer.bias.zero_()
            x = layer(x)
            means = x.mean((0, 2, 3))
            layer.bias.copy_(-means)
            x -= means.view(1, -1, 1, 1)  # rather than the convolution once more
        else:
            x = layer(x)
        if index in tap_of:
            levels[tap_of[index]] = root_mean_square(x)
    balance_taps(network, levels)
    network.source, network.digest = "RANDOM STAND-IN, not VGG-19", "stand-in"
    return network
