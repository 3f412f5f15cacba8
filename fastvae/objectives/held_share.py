"""Steers the critic's label scale so that its gradient keeps a given share of the feature loss's (`critic="held"`).

    r = |dL_GAN/dx'| / |d(beta L_rec)/dx'|                          measured at the generated images; proportional to s
    s <- clamp(s clamp(sqrt(share / r), 1/2, 2), s_0 / 1000, 1000 s_0)

s is the weight of L_GAN in the VAE's loss, s_0 its first value. The root goes half of the way in the logarithm: one
batch measures r to some ten percent, and the critic answers a change. An r of zero doubles s; one that is not a number
leaves s as it is.

Source: Hou et al., section 3.4, where labels of 1 are too weak, 10 are right and 100 dominate. The authors tried
labels until the critic's gradient had the right size beside the feature loss's; here that size is given.
"""

import torch
from torch import Tensor

_MOST_PER_STEP = 2.0
_MOST_IN_ALL = 1000.0


@torch.no_grad()
def steer_(scale: Tensor, measured: Tensor, share: float, first: float) -> None:
    """Moves a label scale in place, so that a captured step reads the new one; nothing waits for the device.

    Args:
        scale: s, 0-D.
        measured: r at this scale, 0-D, on the same device.
        share: that r is to have, > 0.
        first: s_0, > 0.
    """
    factor = (share / measured).sqrt().nan_to_num(nan=1.0).clamp(1 / _MOST_PER_STEP, _MOST_PER_STEP)
    scale.mul_(factor).clamp_(first / _MOST_IN_ALL, first * _MOST_IN_ALL)
