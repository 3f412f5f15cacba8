"""The loss network: VGG-19 from several kinds of weights, or a stand-in."""

from fastvae.lossnet.network import TAPS, LossNetwork
from fastvae.lossnet.weights import load_loss_network

__all__ = ["TAPS", "LossNetwork", "load_loss_network"]
