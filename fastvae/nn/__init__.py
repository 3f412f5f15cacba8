"""The replication-padded convolution for torch models: as a module, and swapped into an existing model."""

from fastvae.nn.replication_conv import ReplicationConv2d
from fastvae.nn.swap import SwapReport, swap_

__all__ = ["ReplicationConv2d", "SwapReport", "swap_"]
