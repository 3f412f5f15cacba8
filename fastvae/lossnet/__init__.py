"""The loss network: VGG-19 with weights in several formats, or a random stand-in."""

from fastvae.lossnet.network import TAPS, LossNetwork
from fastvae.lossnet.weights import load_loss_network

__all__ = ["TAPS", "LossNetwork", "load_loss_network"]
